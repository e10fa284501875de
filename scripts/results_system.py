"""Tables about the program as a system: speed, memory, and what was not lost."""

from __future__ import annotations

from doc_blocks import table
from results_files import about, result


def update_latency() -> str:
    found = result("update_latency")
    rows = []
    for key, words in (("2d_37_landmarks", "2D, 37 landmarks"), ("3d_100_landmarks", "3D, 100 landmarks")):
        part = found[key]
        rows.append([words, part["updates"], *(f"{part[q]:.0f} ms" for q in ("p50_ms", "p95_ms", "max_ms"))])
    header = ["Request `update`", "Requests", "median", "95th percentile", "longest"]
    return table(header, rows) + about("radiographs and synthetic spines; server and client on one core", "update_latency")


def _servers(found: dict) -> list[list[str]]:
    """Both entrances side by side, on a study without a model."""
    entrances = {"serve": "`landmarklabel serve`", "monailabel": "`monailabel start_server`"}
    seconds = [
        [f"{shown}: start to the first answer", f"{found[k]['seconds_to_first_info']:.1f} s"] for k, shown in entrances.items()
    ]
    return seconds + [[f"{shown}: memory when idle", f"{found[k]['idle_gib']:.2f} GiB"] for k, shown in entrances.items()]


def speed() -> str:
    found = result("bench")
    one, volumes, disk = found["inference"]["seconds"], found["volumes"], found["volumes"]["from_disk_512_with_100_landmarks"]
    rows = [
        [f"networks, one radiograph: `{name}`", f"{1000 * one[f'{name}:{preset} networks']:.0f} ms"]
        for name, preset in (("scn", "default"), ("scn", "single"), ("scn", "hand2024"))
    ]
    for row, preset in zip(rows, ("scn", "scn:single", "scn:hand2024"), strict=True):
        row[0] = f"networks and decoding, one radiograph: `{preset}`"
    rows += [
        ["training step, per image: `scn`", f"{1000 * found['training']['seconds_per_image']['scn:default']:.0f} ms"],
        ["training step, per image: `scn:hand2024`", f"{1000 * found['training']['seconds_per_image']['scn:hand2024']:.0f} ms"],
        ["augmenting a loaded image", f"{found['augmentation']['ms_augment']:.1f} ms"],
        *_servers(found["server"]),
        ["peak memory: training the hand model", f"{found['memory']['training_gib']:.2f} GiB"],
        ["peak memory: predicting one radiograph", f"{found['memory']['predicting_gib']:.2f} GiB"],
    ]
    for name in ("scn:default", "global_local:default", "global_local:noothout2020"):
        cost = f"{volumes['seconds_256'][name]:.2f} s, {volumes['peak_gib_256'][name]:.2f} GiB"
        rows.append([f"volume of 256³ voxels: `{name.removesuffix(':default')}`", cost])
    rows.append(
        ["volume of 512³ voxels from disk, 100 landmarks, new process", f"{disk['seconds']:.1f} s, {disk['peak_gib']:.1f} GiB"]
    )
    note = "Measured by `python scripts/dev.py bench`."
    return table(["What", "Figure"], rows) + about(f"{found['images']} and synthetic volumes", "bench", note=note)


def training_memory() -> str:
    found = result("training_memory")
    sides = found["sides"]
    rows = []
    for method, by_side in found["device_bytes"].items():
        for stage, shown in (("locate", "coarse"), ("refine", "fine")):
            sizes = [f"{by_side[str(side)][stage] / 2**30:.2f} GiB" for side in sides]
            rows.append([f"device: the {shown} network of `{method}`", *sizes])
    rows.append([f"computer: `train` on {found['volumes']} volumes", "", f"{found['process_bytes'] / 2**30:.1f} GiB"])
    data = f"synthetic volumes, 8 bits a voxel, with {found['landmarks']} landmarks"
    note = "The memory of the device is counted on the processor, in fp32: all tensors of a step, without scratch space."
    return table(["Memory", *(f"{side}³ voxels" for side in sides)], rows) + about(data, "training_memory", note=note)


def annotators() -> str:
    found = result("annotators")
    rows = [
        ["submissions, all to one image", f"{found['people']} clients × {found['each']}"],
        ["revisions kept", f"{found['revisions']}"],
        ["lost", found["lost"]],
        ["stale submissions answered with both versions", f"{found['stale_answered_with_both_versions']} of {found['people']}"],
        ["time to submit, median / 95th percentile", f"{found['submit']['p50_ms']:.0f} / {found['submit']['p95_ms']:.0f} ms"],
    ]
    return table(["What", "Figure"], rows) + about("one synthetic image, real server over HTTP", "annotators")


def soak() -> str:
    found = result("soak")
    rows = [
        ["time", f"{found['minutes']} min"],
        ["clients", found["clients"]],
        ["server killed (`kill -9`) at random", f"{found['kills']} times"],
        ["acknowledged submissions", found["acknowledged"]],
        ["of them lost", found["lost"]],
        ["sent more than once by a client", found["sent_twice"]],
        [
            "label files missing, faults in the audit trail",
            f"{found['label_files_missing']}, {found['faults_in_the_audit_trail']}",
        ],
        ["memory growth between kills, largest", f"{max(found['memory_growth_percent']):.1f} %"],
    ]
    names = {
        "next_sample": "next case",
        "infer": "infer",
        "update": "update",
        "submit": "submit",
        "head": "newest revision",
        "info": "`/info`",
    }
    for key, words in names.items():
        rows.append(
            [
                f"{words}, median / 95th percentile",
                f"{found['calls'][key]['p50_ms']:.0f} / {found['calls'][key]['p95_ms']:.0f} ms",
            ]
        )
    note = "Server, clients and trainings shared one core; no training finished a model, so proposals came from the shape prior."
    return table(["What", "Figure"], rows) + about("synthetic images", "soak", note=note)


def fuzzing() -> str:
    found = result("fuzz_http")
    rows = [
        ["requests with hostile values, from the server's own description", found["requests"]],
        ["operations", found["operations"]],
        ["answers of 500 and above, or none", len(found["without_a_proper_answer"])],
        ["files left behind / files outside the study", f"{found['files_left']} / {found['files_outside_the_study']}"],
        ["faults in the audit trail", found["faults_in_the_audit_trail"]],
    ]
    return table(["What", "Figure"], rows) + about("a served synthetic study", "fuzz_http")


def panel() -> str:
    found = result("panel_latency")
    rows = [
        ["refresh of 150 rows", *(f"{found['refresh_150_rows_ms'][q]:.1f} ms" for q in ("p50", "p95", "max"))],
        ["a correction until the other points follow", *(f"{found['correction_ms'][q]:.1f} ms" for q in ("p50", "p95", "max"))],
        ["pause of the drawing thread", *(f"{found['pause_ms'][q]:.1f} ms" for q in ("p50", "p95", "max"))],
    ]
    return table(["Panel in Slicer", "median", "95th percentile", "longest"], rows) + about(
        "hand radiographs with ten labelled cases and no model; the panel on PySide6, not in desktop Slicer", "panel_latency"
    )


def browser() -> str:
    found = result("browser_latency")
    flat, deep = found["2d_37_points"], found["3d_100_points"]
    large = deep["first_image_ms_512x512x300"]
    rows = [
        ["2D, 37 points: a move of a point until the others are drawn elsewhere", *_quantiles(flat["drag_ms"])],
        ["3D, 100 points: the same", *_quantiles(deep["drag_ms"])],
        ["2D: a case chosen until its image is shown", *_quantiles(flat["first_image_ms"])],
        ["512 × 512 × 300 samples, compressed: the same, for the first time", f"{large['first_time']} ms", "", ""],
        ["again", f"{large['again']} ms", "", ""],
    ]
    data = "hand radiographs and phantoms, ten labelled cases each and no model; Chromium without a GPU beside the server"
    return table(["Page for annotating", "median", "95th percentile", "longest"], rows) + about(data, "browser_latency")


def cohorts() -> str:
    overhead, rate, killed = result("cohort_overhead"), result("cohort_throughput"), result("cohort_kills")
    rows = [
        ["a case beside its networks, in one worker", f"{overhead['overhead_ms']:.1f} ms"],
        [f"of {overhead['cases']} cases lost, doubled", _both(overhead)],
        [f"of {killed['cases']} cases lost, doubled, while a worker is killed {killed['kills']} times", _both(killed)],
        ["memory growth of the program meanwhile, largest", f"{killed['growth_mib']:.0f} MiB"],
        ["radiographs a second: two workers", f"{rate['cohort_per_s']:.1f}"],
        ["radiographs a second: two `predict` at once, each on a core of its own", f"{rate['two_predict_per_s']:.1f}"],
    ]
    one_s = result("bench")["volumes"]["from_disk_512_with_100_landmarks"]["seconds"]
    rows.append(["a scan of 512 samples cubed from disk, 100 landmarks, both cores", f"{one_s:.1f} s"])
    for count in (1, 8, 64):
        hours = 100_000 * one_s / count / 3600
        rows.append([f"100 000 of these at that rate on {count} such computer{'' if count == 1 else 's'}", f"{hours:.1f} hours"])
    data = f"tiny pictures, {rate['images']} hand radiographs, a synthetic scan; untrained models"
    note = "The last three rows are arithmetic. The rate of a GPU has not been measured."
    names = ("cohort_overhead", "cohort_kills", "cohort_throughput")
    return table(["What", "Figure"], rows) + about(data, *names, note=f"The scan: `python scripts/dev.py bench`. {note}")


def _both(found: dict) -> str:
    return f"{found['lost']}, {found['doubled']}"


def many_annotators() -> str:
    found = result("many_annotators")
    rows = [[what, times["n"], *_quantiles(times)] for what, times in found["calls_ms"].items()]
    data = f"{found['people']} people at once over HTTP on hand radiographs, a call each about every {found['pause_s']} s"
    return table(["Call", "times", "median", "95th percentile", "longest"], rows) + about(data, "many_annotators")


def next_case() -> str:
    found = result("next_case_latency")
    rows = [[number, times["n"], *_quantiles(times)] for number, times in enumerate(found["rounds"], 1)]
    data = "four annotators without a pause on 40 phantoms, while a training begins and the server is killed twice"
    return table(["Round", "next cases", "median", "95th percentile", "longest"], rows) + about(data, "next_case_latency")


def _quantiles(times: dict) -> list[str]:
    return [f"{times[q]:.0f} ms" for q in ("p50", "p95", "max")]


def wheel() -> str:
    rows = []
    for python, found in sorted(result("wheel")["environments"].items(), key=lambda one: [int(n) for n in one[0].split(".")]):
        versions, took = found.get("versions", {}), found["seconds"]
        packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "numpy", "pydicom") if name in versions)
        entrances = [took.get(f"{name}: first answer", "") for name in ("landmarklabel serve", "monailabel start_server")]
        outcome = "all passed" if found["passed"] else f"failed: {found['failed'].splitlines()[0]}"
        rows.append([python, packages, took.get("install the wheel", ""), took.get("demo", ""), *entrances, outcome])
    answers = [f"first answer of `{name}`, s" for name in ("serve", "start_server")]
    header = ["Python", "Packages", "install, s", "demo, s", *answers, "Outcome"]
    note = "The seconds depend on the network and on what else the computer does."
    return table(header, rows) + about("synthetic cases; fresh environments outside of the checkout", "wheel", note=note)


def planted_slips() -> str:
    found = result("planted_slips")
    words = {"2x": "slip of 2 × the readers' spread", "4x": "of 4 ×", "8x": "of 8 ×", "swap": "two names swapped"}
    shares = ("among_first_share", "told_by_doctor_share")
    rows = [
        [text, *(f"{found[data][kind][share]:.1%}" for share in shares for data in ("cephalograms", "hands"))]
        for kind, text in words.items()
    ]
    first = f"{found['first']:.0%}"
    note = "Nobody has read the hands twice: a spread of 0.5 % of the hand's length is assumed there."
    where = ("cephalograms", "hands")
    heads = [f"{data}: {what}" for what in (f"among the first {first} of the points", "told by `doctor`") for data in where]
    header = [f"Planted in 10 of {found['cases']} cases", *heads]
    each = found["cephalograms"]["8x"]["planted"]
    data = f"published labels of cephalograms (19 landmarks) and hand radiographs (37), {each} of each kind"
    return table(header, rows) + about(data, "planted_slips", note=note)


def angles() -> str:
    found = result("cephalogram_angles")
    shown = ("SNA", "SNB", "ANB", "FMA", "SN-GoGn", "facial angle", "Y axis", "ODI", "APDI")
    rows = []
    for name in shown:
        m = found["measurements"][name]
        numbers = ("mean_absolute_error", "readers_mean_absolute_difference", "readers_icc")
        held = (m["coverage_95"], m["coverage_after_halves"])
        rows.append([name, *(f"{m[key]:.2f}" for key in numbers), *(f"{share:.1f}%" for share in held)])
    header = ["Angle", "model: mean absolute error, °", "two readers: mean absolute difference, °", "readers' ICC"]
    header += ["truth inside of the 95 % interval", "the same, factor from the other half of the cases"]
    cores = {1: "one core", 2: "both cores"}[found["cores"]]
    data = (
        f"ISBI 2015, trained {found['minutes']:.0f} minutes on {cores} on 150 images, {found['cases']} of test1; "
        "truth: mean of both readers"
    )
    return table(header, rows) + about(data, "cephalogram_angles")


def surfaces() -> str:
    found, peer = result("mouse_surfaces"), result("mouse_surfaces_alpaca")
    m, on_surface = found["scn"], found["scn_against_points_on_surface"]
    rows = [
        [who, f"{of['mre_mm']:.3f}", f"{of['median_mm']:.3f}", f"{beyond} of {points}"]
        for who, of, beyond, points in (
            ("LandmarkLabel", m, m["outliers"]["2"], m["n_points"]),
            ("the same, truth put onto the surface", on_surface, on_surface["outliers"]["2"], on_surface["n_points"]),
            (f"ALPACA's steps, template {peer['template']}", peer, peer["beyond_2_mm"], peer["points"]),
        )
    ]
    header = ["", "Mean error, mm", "median, mm", "beyond 2 mm"]
    folds = f"5 folds of {found['minutes_a_fold']:.0f} minutes"
    data = f"surfaces of {m['n_images']} mouse skulls made from their CTs, turned at random; {folds}"
    off = found["truth_off_surface_mm"]
    note = f"Truth: the points placed in the CTs, which lie {off:.2f} mm off the surface; what is predicted lies on it. "
    note += "Each fold trained on one core of the two. ALPACA (`scripts/alpaca.py`) learns from one skull only, "
    note += f"and has the other {peer['meshes']} to find."
    return table(header, rows) + about(data, "mouse_surfaces", "mouse_surfaces_alpaca", note=note)


SYSTEM_BLOCKS = (
    cohorts,
    *(
        update_latency,
        speed,
        training_memory,
        annotators,
        soak,
        fuzzing,
        panel,
        browser,
        many_annotators,
        next_case,
        planted_slips,
        angles,
        surfaces,
        wheel,
    ),
)
