"""The table of all sets that ``reproduce.py benchmark`` measures."""

from __future__ import annotations

from doc_blocks import table
from results_files import about, result

RADII = ("2", "2.5", "3", "4")


def benchmark() -> str:
    """Every set in a line: what ``reproduce.py benchmark`` measures."""
    best, folds, ten = result("hands_best"), result("hands_cv"), result("few_random_hands")
    heads, few, skulls = result("cephalogram_angles"), result("few_cephalograms"), result("mouse")
    surfaces, others = result("mouse_surfaces"), result("other_anatomies")
    read_twice = f"{heads['points_mm']['readers_mean_distance']:.2f} mm"
    cv = "the other four fifths"
    rows = [
        ["hands", "91", f"{best['minutes_on_one_core']:g} min", _mean(best["metrics"]["mre_mm"]), ""],
        ["hands", cv, f"{folds['minutes_a_fold_on_one_core']:g} min", _mean(folds["models"]["scn:default"]["mre_mm"]), ""],
        ["hands", f"{ten['labels']} at random, three times", f"{ten['minutes_on_one_core']:g} min", _mean(ten["mean"]), ""],
        ["cephalograms", "150", f"{heads['minutes']:g} min", _mean(heads["points_mm"]["model"]["mean"]), read_twice],
        [
            "cephalograms",
            f"{few['labels']} at random, three times",
            f"{few['minutes_on_one_core']:g} min",
            _mean(few["mean"]),
            read_twice,
        ],
        [
            "skulls, CT",
            cv,
            f"{skulls['minutes_a_fold_on_one_core']:g} min",
            _mean(skulls["models"]["scn:default"]["mre_mm"]),
            "",
        ],
        ["skulls, surfaces turned at random", cv, f"{surfaces['minutes_a_fold']:g} min", _mean(surfaces["scn"]["mre_mm"]), ""],
    ]
    for what in ("wings", "shells", "heads"):
        found = others[what]
        named = "fetal heads, ultrasound" if what == "heads" else what
        cells = [str(found["in_training"]), f"{found['minutes_on_one_core']:g} min", f"{found['mean_px']:.2f} px", ""]
        rows.append([named, *cells])
    names = ("hands_best", "hands_cv", "few_random_hands", "cephalogram_angles", "few_cephalograms")
    note = "One recipe for all: nothing is set for a kind of images. With folds, each image is tested by the model that did "
    note += "not learn from it."
    header = ["Set", "Labelled images to learn from", "Training, one core", "Mean error", "Two readers apart"]
    data = "21 hands, 150 cephalograms (ISBI 2015, test1), 18 wings, 60 shells and 156 heads to test where there are no folds; "
    data += "mm of the hands on the scale of a wrist 50 mm wide"
    return table(header, rows) + about(data, *names, "mouse", "mouse_surfaces", "other_anatomies", note=note)


def peers() -> str:
    """landmarker's networks on the same images and minutes."""
    best, points = result("hands_best"), result("cephalogram_angles")
    heads, metrics = points["points_mm"]["model"], best["metrics"]
    ours = {
        "hands": [best["minutes_on_one_core"], metrics["mre_mm"], metrics["sdr"], metrics["outliers"]["10"]],
        "cephalograms": [points["minutes"], heads["mean"], heads["percent_within"], heads["beyond_10"]],
    }
    found = {"hands": result("landmarker_hands"), "cephalograms": result("landmarker_cephalograms")}
    rows = []
    for name, theirs in found.items():
        run = theirs["light"]
        rows.append([name, "LandmarkLabel", *_peer_cells(*ours[name])])
        cells = _peer_cells(run["minutes_on_one_core"], run["mean"], run["percent_within"], run["beyond_10"])
        rows.append([name, "landmarker", *cells])
    hands, cephalograms = found["hands"]["cases"], found["cephalograms"]["cases"]
    data = f"the same {hands} hands and {cephalograms} cephalograms as above, trained on the same"
    note = "landmarker 0.4.1 (`scripts/landmarker_peer.py`) is a library without a program: its SpatialConfiguration-Net, loss "
    note += "and augmentation, with a schedule for these minutes. Its own is for 200 rounds on a GPU; with these its authors "
    note += "report 1.20 mm on test1, against one of the two readers."
    header = ["Images", "Program", "Training, one core", "Mean error", *(f"within {r} mm" for r in RADII), "> 10 mm"]
    names = ("hands_best", "cephalogram_angles", "landmarker_hands", "landmarker_cephalograms")
    return table(header, rows) + about(data, *names, note=note)


def _peer_cells(minutes: float, mean: float, within: dict[str, float], beyond: int) -> list[str]:
    shares = {float(radius): share for radius, share in within.items()}
    return [f"{minutes:g} min", f"{mean:.3f} mm", *(f"{shares[float(r)]:.1f} %" for r in RADII), str(beyond)]


def _mean(mm: float) -> str:
    return f"{mm:.3f} mm"
