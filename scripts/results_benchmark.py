"""The table of all sets that ``reproduce.py benchmark`` measures."""

from __future__ import annotations

from doc_blocks import table
from results_files import about, result


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


def _mean(mm: float) -> str:
    return f"{mm:.3f} mm"
