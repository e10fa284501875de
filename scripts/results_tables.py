"""Tables of results in README.md and docs/, made from ``scripts/results/*.json``.

``python scripts/results_tables.py`` writes them; ``--check`` changes nothing, names each stale figure and ends with code 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from doc_blocks import ROOT, renew, table
from results_benchmark import benchmark, peers
from results_files import about, result
from results_system import SYSTEM_BLOCKS

HANDS = "hand radiographs, 37 landmarks; mm on the scale of a wrist 50 mm wide"
SPLIT = f"{HANDS}; 91 images to train, 21 to test"
SKULLS = "CT scans of 20 mouse skulls in any orientation, 45 landmarks"
ERRORS = ["MRE (95 % interval)", "median", "SDR 2 mm", "SDR 4 mm", "> 10 mm"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; say what is stale")
    check = parser.parse_args().check
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    stale = renew("results", lambda name: BLOCKS[name](), pages, check)
    print("\n".join(stale) or "all figures are those of scripts/results", file=sys.stderr if check and stale else sys.stdout)
    return 1 if check and stale else 0


def errors(metrics: dict) -> list[str]:
    """The cells of ``ERRORS``."""
    low, high = metrics["confidence_95"]["mre_mm"]
    missed = f" ({metrics['n_missed']} of them called absent)" if metrics["n_missed"] else ""
    sdr = [f"{metrics['sdr'][r]:.1f} %" for r in ("2", "4")]
    beyond = f"{metrics['outliers']['10']} of {metrics['n_points']}{missed}"
    return [f"{metrics['mre_mm']:.3f} mm ({low:.3f}–{high:.3f})", f"{metrics['median_mm']:.3f} mm", *sdr, beyond]


def hand_rows() -> list[list[str]]:
    best, votes, folds = result("hands_best"), result("hands_global_local"), result("hands_cv")
    return [
        ["hands", "`scn`", f"{best['minutes_on_one_core']} min, one core", *errors(best["metrics"])],
        ["hands", "`global_local`", f"{votes['minutes_on_one_core']} min, one core", *errors(votes["metrics"])],
        [
            "hands, 5-fold cross-validation over 112",
            "`scn`",
            f"{folds['minutes_a_fold_on_one_core']} min per fold, one core",
            *errors(folds["models"]["scn:default"]),
        ],
    ]


def skull_rows(*published: str) -> list[list[str]]:
    ours, others = result("mouse"), result("mouse_methods")
    time = f"{ours['minutes_a_fold_on_one_core']} min per fold, one core"
    where = "mouse skulls, 5-fold cross-validation"
    rows = [[where, "`scn`", time, *errors(ours["models"]["scn:default"])]]
    rows.append([where, "`global_local`", time, *errors(others["models"]["global_local:default"])])
    for name in published:
        found = others["models"][name]
        cells = ["training diverged", "", "", "", ""] if "failed" in found else errors(found)
        rows.append([where, f"`{name}`", time, *cells])
    return rows


def accuracy() -> str:
    """The README's one table."""
    rows = [*hand_rows(), *skull_rows()]
    data = f"{SPLIT}; {SKULLS}"
    return table(["Data", "Model", "Training", *ERRORS], rows) + about(
        data, "hands_best", "hands_global_local", "hands_cv", "mouse", "mouse_methods"
    )


def hands() -> str:
    return table(["Data", "Model", "Training", *ERRORS], hand_rows()) + about(
        SPLIT, "hands_best", "hands_global_local", "hands_cv"
    )


def skulls() -> str:
    rows = skull_rows("global_local:noothout2020", "scn:payer2019")
    return table(["Data", "Model", "Training", *ERRORS], rows) + about(SKULLS, "mouse", "mouse_methods")


def few_labels() -> str:
    one, few, five = result("one_label"), result("few_labels"), result("five_labels")
    rows = [
        ["1", f"{one['minutes']:g} min", _mre(one["once"]), _sdr(one["once"]), one["once"]["outliers"]["10"]],
        [
            "1, trained a second time",
            f"2 × {one['minutes']:g} min",
            _mre(one["again"]),
            _sdr(one["again"]),
            one["again"]["outliers"]["10"],
        ],
    ]
    for labels in ("3", "10"):
        found = few["by_labels"][labels]
        rows.append([labels, f"{few['minutes']:g} min per training", _mre(found), _sdr(found), found["outliers"]["10"]])
    found = five["by_labels"]["5"]
    rows.append(
        [
            f"5 (both cores, {five['all_s']} s in all)",
            f"{five['minutes']:g} min",
            _mre(found),
            _sdr(found),
            found["outliers"]["10"],
        ]
    )
    drawn = result("few_random_hands")
    for number, draw in enumerate(drawn["draws"], start=1):
        cells = [f"{draw['mean']:.2f} mm", f"{draw['percent_within']['2.0']:.1f} %", draw["beyond_10"]]
        rows.append([f"{drawn['labels']}, draw {number}", f"{drawn['minutes_on_one_core']:g} min", *cells])
    note = (
        "One core per training unless stated, with other work on the machine. The 1, 3 and 10 labels are one campaign: each "
        f"training goes on from the model before it. The draws are at random: {drawn['mean']:.3f} mm in the mean."
    )
    data = f"{HANDS}; labels chosen by `adaptive` from 91 images, or at random where a draw is named, the others used without "
    data += "labels; 21 to test, 777 points"
    return table(["Labels", "Training", "MRE", "SDR 2 mm", "> 10 mm"], rows) + about(
        data, "one_label", "few_labels", "five_labels", "few_random_hands", note=note
    )


def _mre(found: dict) -> str:
    return f"{found['mre_mm']:.2f} mm"


def _sdr(found: dict) -> str:
    return f"{found['sdr']['2']:.1f} %"


def learning_curves() -> str:
    found = result("labels")
    counts = [str(n) for n, _ in found["curves"]["random"]]
    rows = []
    for strategy in ("adaptive", "random"):
        cells = [f"{sum(e) / len(e):.2f} ({min(e):.2f}–{max(e):.2f})" for _, e in found["curves"][strategy]]
        rows.append(
            [f"`{strategy}`", *cells, f"{found['labels_to_target'][strategy]:.1f}", f"{found['worst_seed'][strategy]:.1f}"]
        )
    seeds = len(found["curves"]["random"][0][1])
    target = f"{found['target_mm']:.2f} mm"
    note = (
        f"MRE in mm, mean of {seeds} seeds (best–worst seed); a smaller network than the default one, "
        f"{found['steps']} steps per training. "
        f"The target, {target}, is the MRE of a model trained on all labels plus 10 %."
    )
    header = ["Strategy", *(f"{n} labels" for n in counts), f"labels to {target}", "the same, worst seed"]
    return table(header, rows) + about(SPLIT, "labels", note=note)


def _clicks(n: int | str) -> str:
    return f"{n} click" if str(n) == "1" else f"{n} clicks"


def clicks() -> str:
    found = result("clicks")
    rows = []
    for images, where in (("hard", "turned by 45–180°, every other one mirrored"), ("ordinary", "as they are")):
        for model, seen in (("ten images", "10 labelled images"), ("ten labels, 91 images", "the same and 81 unlabelled images")):
            curve = found[model][images]
            for how, key in (("with the shape prior", "mre_mm"), ("network alone", "alone_mre_mm")):
                rows.append([where, seen, how, *(f"{curve[key][n]:.2f}" for n in (0, 1, 3, 5))])
    note = (
        f"{found['minutes_on_one_core']} min of training on one core. MRE in mm over all points of a case; a simulated "
        "annotator corrects "
        'the worst point first, and a corrected point counts as exact. "Network alone" corrects its answer point by point.'
    )
    header = ["Test images", "Training images", "Answer", *(_clicks(n) for n in (0, 1, 3, 5))]
    return table(header, rows) + about(f"{HANDS}; 21 to test", "clicks", note=note)


def clicks_needed() -> str:
    found = result("clicks")
    rows = []
    for model, seen in (("ten images", "10 labelled images"), ("ten labels, 91 images", "the same and 81 unlabelled images")):
        for radius in ("2", "4"):
            noc = found[model]["ordinary"]["noc"][radius]
            rows.append([seen, f"{radius} mm", f"{noc['assisted']:.2f}", f"{noc['alone']:.2f}"])
    header = ["Training images", "Until every point is within", "with the shape prior", "network alone"]
    return table(header, rows) + about(f"{HANDS}; 21 to test, as they are", "clicks", note="Mean number of clicks per case.")


def clicks_3d() -> str:
    found = result("clicks_3d")
    minutes = found["minutes_on_one_core"]
    rows = []
    sets = (
        (f"mouse skulls, 5 folds, {minutes['skulls']:g} min per fold", found["skulls"], 45),
        (f"synthetic bent spines, {minutes['spines']:g} min", [found["spines"]], 14),
    )
    for what, parts, landmarks in sets:
        points = sum(part["n_images"] for part in parts) * landmarks
        for radius in ("2", "4"):
            for how, key in (("with the shape prior", "assisted"), ("network alone", "alone")):
                counts = [sum(part["beyond"][radius][key][n] for part in parts) for n in (0, 1, 2, 3)]
                rows.append([what, f"> {radius} mm, of {points}", how, *counts])
    header = ["Data", "Points off by", "Answer", *(_clicks(n) for n in (0, 1, 2, 3))]
    data = f"{SKULLS}; 20 synthetic spines with 14 landmarks; models trained so briefly that their errors are gross"
    return table(header, rows) + about(data, "clicks_3d", note="One core per training.")


def cold_start() -> str:
    found = result("cold_start")
    by_labels = found["mean_error_mm_of_points_not_clicked_after_guided_clicks"]
    counts = ("0", "1", "3", "5", "10")
    rows = [[labels, *(f"{curves['mean_of_draws'][n]:.1f} mm" for n in counts)] for labels, curves in by_labels.items()]
    note = f"Mean over {found['draws']} draws of the labelled images; no network, only the shape prior; "
    note += "the program says which point to click next."
    header = ["Labelled images", *(_clicks(n) for n in counts)]
    return table(header, rows) + about(f"{HANDS}; error of the points that were not clicked", "cold_start", note=note)


def confusions() -> str:
    found = result("confusions")
    names = {
        "neighbouring finger": "one finger found on its neighbour",
        "half of the points anywhere": "half of the points moved anywhere",
        "upside down": "image upside down",
        "mirrored": "image mirrored",
    }
    rows = []
    for name, words in names.items():
        case = found["confusions"][name]
        beyond, mre = case["beyond_10_mm"], case["mre_mm"]
        rows.append(
            [words, case["points"], beyond["network"], beyond["shown"], f"{mre['network']:.1f} mm", f"{mre['shown']:.2f} mm"]
        )
    header = ["Fault", "Points", "> 10 mm, network", "> 10 mm, shown", "MRE, network", "MRE, shown"]
    data = f"{HANDS}; faults made on purpose in what a model trained on {found['labels']} images finds"
    return table(header, rows) + about(data, "confusions")


def flagged() -> str:
    found = result("confusions")["confusions"]
    rows = []
    for name, words in (
        ("neighbouring finger", "one finger found on its neighbour"),
        ("half of the points anywhere", "half of the points moved anywhere"),
    ):
        case = found[name]
        keys = (
            "flagged_of_those_spoiled_by_more_than_4_mm",
            "flagged_of_the_right_ones",
            "flagged_of_the_networks_own_errors_beyond_4_mm",
        )
        rows.append([words, *(f"{100 * case[key]:.1f} %" for key in keys)])
    header = ["Fault", "Flagged: spoiled by > 4 mm", "Flagged: correct points", "Flagged: the network's own errors > 4 mm"]
    return table(header, rows) + about(HANDS, "confusions")


def coverage() -> str:
    found = result("coverage")
    rows = []
    for key, words in (
        ("ours", "conformal, scaled to the expected error"),
        ("plain_ellipses", "one conformal ellipse per landmark"),
    ):
        part = found[key]
        areas = [f"{part[f'{which}_area_mm2']:.1f} mm²" for which in ("mean", "median")]
        rows.append([words, f"{100 * part['per_landmark']:.1f} %", f"{100 * part['whole_case']:.1f} %", *areas])
    header = ["95 % prediction region", "covers a landmark", "covers all landmarks of a case", "mean area", "median area"]
    note = f"{found['splits']} random halves of 112 out-of-fold cases, {found['calibration_cases']} to calibrate."
    return table(header, rows) + about(HANDS, "coverage", note=note)


def presence() -> str:
    found = result("presence")
    rows = []
    for dims in ("2d", "3d"):
        part = found[dims]
        for model, metrics in part["models"].items():
            said = metrics["presence"]
            wrong = [said["false_present"], said["false_absent"]]
            where = f"{dims.upper()}, {part['cases']} cases to train, {part['tests']} to test"
            rows.append([where, f"`{model}`", f"{part['minutes']} min", f"{said['f1']:.3f}", *wrong])
    note = "This run is older than the present way to combine both networks' evidence for absence. "
    note += "The 3D models were trained for a shorter time than the experiment now takes."
    header = ["Data", "Model", "Training, one core", 'F1 of "present"', "absent, called present", "present, called absent"]
    return table(header, rows) + about("synthetic images in which 30 % of the landmarks are missing", "presence", note=note)


def other_pictures() -> str:
    found, rows = result("other_anatomies"), []
    for key, what in (("wings", "fly wings, 12 landmarks"), ("shells", "shells, 15"), ("heads", "ultrasound of fetal heads, 4")):
        f = found[key]
        rows.append(
            [
                what,
                f"{f['in_training']} / {f['tested']}",
                f"{f['minutes_on_one_core']} min",
                f"{f['mean_px']:.2f} px",
                f"{f['median_px']:.2f} px",
                f"{f['percentile_99_px']:.1f} px",
            ]
        )
    header = ["Pictures", "training / test", "on one core", "mean error", "median", "99th percentile"]
    return table(header, rows) + about("micrographs, photographs, ultrasound", "other_anatomies")


def head_diameters() -> str:
    rows = [
        [name, *(f"{of[key]:.1%}" for key in ("mean_share", "median_share", "beyond_a_fifth"))]
        for name, of in result("other_anatomies")["heads"]["diameters"].items()
    ]
    header = ["Diameter of the head", "mean error, of its length", "median", "off by more than a fifth"]
    return table(header, rows) + about("ultrasound of fetal heads, whichever end is called which", "other_anatomies")


def cephalograms() -> str:
    found = result("cephalogram_angles")
    points, few = found["points_mm"]["model"], result("few_cephalograms")
    rows = [
        ["all", f"{found['minutes']:g} min", f"{points['mean']:.3f} mm ({points['mean_95'][0]:.3f}–{points['mean_95'][1]:.3f})"]
        + _challenge(points)
    ]
    for number, draw in enumerate(few["draws"], start=1):
        low, high = draw["mean_95"]
        labels = f"{few['labels']}, draw {number}"
        cells = [f"{draw['mean']:.3f} mm ({low:.3f}–{high:.3f})", *_challenge(draw)]
        rows.append([labels, f"{few['minutes_on_one_core']:g} min", *cells])
    radii = ("2", "2.5", "3", "4")
    header = ["Labels of 150", "Training, one core", "MRE (95 % interval)", *(f"SDR {r} mm" for r in radii), "> 10 mm"]
    apart = found["points_mm"]["readers_mean_distance"]
    note = f"The two readers' points are {apart:.2f} mm apart on the average. Where 25 were drawn, the others had no labels."
    data = f"ISBI 2015, 19 landmarks; {points['cases']} images of test1, truth: mean of both readers"
    return table(header, rows) + about(data, "cephalogram_angles", "few_cephalograms", note=note)


def template_confidence() -> str:
    found = result("template_confidence")
    ratios = found["true_over_stated_by_labelled_cases_and_points_placed"]
    header = ["Labelled cases", *(f"{what}, {placed} placed" for what in ratios for placed in ("3", "10"))]
    counts = list(ratios["skulls"])
    rows = [[n, *(f"{ratios[what][n][placed]:.2f}" for what in ratios for placed in ("3", "10"))] for n in counts]
    data = "landmarks of mouse skulls in any orientation, of cephalograms and of hand radiographs"
    note = f"{found['draws']} draws of the labelled cases, {found['tested']} others each; the program says what to place next."
    return table(header, rows) + about(data, "template_confidence", note=note)


def _challenge(points: dict) -> list[str]:
    """Shares within the challenge's distances, and points beyond 10 mm."""
    return [*(f"{points['percent_within'][r]:.1f} %" for r in ("2.0", "2.5", "3.0", "4.0")), str(points["beyond_10"])]


_BLOCKS = (
    *(
        accuracy,
        benchmark,
        peers,
        hands,
        skulls,
        few_labels,
        learning_curves,
        clicks,
        clicks_needed,
        clicks_3d,
        cold_start,
        confusions,
        flagged,
    ),
    *(coverage, presence, cephalograms, template_confidence, other_pictures, head_diameters, *SYSTEM_BLOCKS),
)
BLOCKS: dict[str, Callable[[], str]] = {block.__name__: block for block in _BLOCKS}

if __name__ == "__main__":
    sys.exit(main())
