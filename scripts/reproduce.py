"""Every accuracy figure in the README, from one command: ``python scripts/reproduce.py NAME``.

Experiments are made of the program's own verbs, are resumable (call again after an interruption) and leave a small JSON
file in ``scripts/results/``. They need the real data: ``--data DIR`` or the variable LANDMARKLABEL_DATA. Work files go to
``runs/``, which is not tracked.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "scripts" / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--data", default=os.environ.get("LANDMARKLABEL_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--runs", default=str(ROOT / "runs"))
    arguments = parser.parse_args()
    data, runs = Path(arguments.data), Path(arguments.runs) / arguments.name
    if not data.is_dir():
        sys.exit(f"{data}: no such folder; give the data with --data or LANDMARKLABEL_DATA")
    runs.mkdir(parents=True, exist_ok=True)
    try:
        result = EXPERIMENTS[arguments.name](data, runs)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{arguments.name}.json"
    content = {"command": f"python scripts/reproduce.py {arguments.name}", "hardware": hardware(), **result}
    target.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{target.relative_to(ROOT)} written")
    return 0


def landmarklabel(*words: object, output: bool = False, core: int | None = None) -> str:
    """Run a verb of the program, on one core if it is given; CalledProcessError with its message when it fails."""
    command = [sys.executable, "-m", "landmarklabel", *map(str, words)]
    print("+ landmarklabel", *words, flush=True)
    pin = None if core is None else lambda: os.sched_setaffinity(0, {core})
    pipes = {"stdout": subprocess.PIPE if output else None, "stderr": subprocess.PIPE}
    done = subprocess.run(command, **pipes, text=True, preexec_fn=pin)
    sys.stderr.write(done.stderr)
    done.check_returncode()
    return done.stdout or ""


def evaluate(predictions: Path, study: Path, task: str, report: Path) -> dict:
    """The metrics of ``evaluate --json``."""
    return json.loads(landmarklabel("evaluate", predictions, study, "--task", task, "--json", "--report", report, output=True))


def cross_validate(study: Path, task: str, images: dict[str, Path], models: tuple[str, ...], minutes: float, runs: Path) -> dict:
    """Out-of-fold metrics of each model in 5 folds: every image is predicted by the model that has not seen it.

    Each fold trains on one core, as many folds at a time as there are cores. Folds that are finished are not repeated;
    a model that fails in one is not tried in the others.

    Returns:
        Metrics by model; {"failed": why} of one that could not be trained.
    """
    failed: dict[str, str] = {}
    ids, cores = sorted(images), queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def one(model: str, fold: int) -> None:
        if model in failed:
            return
        held = ids[fold::5]
        folder = runs / model.replace(":", "_")
        folder.mkdir(parents=True, exist_ok=True)
        if all((folder / "predictions" / f"{i}.mrk.json").exists() for i in held):
            return
        listed = folder / f"fold{fold}.txt"
        listed.write_text("\n".join(held) + "\n")
        core = cores.get()
        try:
            trained = folder / f"model{fold}"
            if not (trained / "model.json").exists():
                landmarklabel(
                    "train", study, "--task", task, "--model", model, "--minutes", minutes, "--seed", fold,
                    "--valid", listed, "--out", trained, "--resume", core=core,
                )  # fmt: skip
            landmarklabel("predict", trained, *[images[i] for i in held], "--out", folder / "predictions", core=core)
        except subprocess.CalledProcessError as error:
            failed[model] = f"fold {fold}: {error.stderr.strip().splitlines()[-1]}"
        finally:
            cores.put(core)

    with ThreadPoolExecutor(cores.qsize()) as pool:
        list(pool.map(lambda job: one(*job), [(m, f) for m in models for f in range(5)]))
    results: dict[str, dict] = {m: {"failed": why} for m, why in failed.items()}
    for m in [m for m in models if m not in failed]:
        folder = runs / m.replace(":", "_")
        results[m] = evaluate(folder / "predictions", study, task, folder / "report.html")
    return results


def hardware() -> str:
    """Processor, cores and torch, for beside the figures."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor() or "CPU")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores{gpu}, torch {torch.__version__}"


def hands(data: Path, runs: Path, minutes: float = 30, model: str = "scn", core: int | None = None) -> dict:
    """Train on the 91 ``train`` radiographs, test on the 21 ``valid`` ones."""
    source, study = data / "hand_xray", import_hands(data, runs)
    with (source / "landmarks.csv").open() as file:
        valid = [row["id"] for row in csv.DictReader(file) if row["split"] == "valid"]
    (runs / "valid.txt").write_text("\n".join(valid) + "\n")
    trained, predictions = runs / "model", runs / "predictions"
    if not (trained / "model.json").exists():
        landmarklabel(
            "train", study, "--task", "hand_xray", "--model", model, "--minutes", minutes, "--seed", 0,
            "--valid", runs / "valid.txt", "--out", trained, "--resume", core=core,
        )  # fmt: skip
    landmarklabel("predict", trained, *[source / "images" / f"{i}.jpg" for i in valid], "--out", predictions)
    metrics = evaluate(predictions, study, "hand_xray", runs / "report.html")
    return {"model": model, f"minutes_on_{'all_cores' if core is None else 'one_core'}": minutes, "metrics": metrics}


def hands_best(data: Path, runs: Path) -> dict:
    """``hands`` with an hour of training on one core."""
    return hands(data, runs, minutes=60, core=min(os.sched_getaffinity(0)))


def hands_global_local(data: Path, runs: Path) -> dict:
    """``hands`` with the other method, on one core."""
    return hands(data, runs, minutes=12, model="global_local", core=max(os.sched_getaffinity(0)))


def hands_cv(data: Path, runs: Path, minutes: float = 12) -> dict:
    """5-fold cross-validation over all 112 radiographs."""
    study = import_hands(data, runs)
    images = {p.stem: p for p in (data / "hand_xray" / "images").glob("*.jpg")}
    labelled = [row["id"] for row in csv.DictReader((data / "hand_xray" / "landmarks.csv").open())]
    images = {i: images[i] for i in labelled}
    models = cross_validate(study, "hand_xray", images, ("scn:default",), minutes, runs)
    return {"minutes_a_fold_on_one_core": minutes, "models": models}


def import_hands(data: Path, runs: Path) -> Path:
    """A study of all labelled radiographs."""
    source, study = data / "hand_xray", runs / "study"
    landmarklabel("import", study, "--task", "hand_xray", "--images", source / "images", "--table", source / "landmarks.csv")
    return study


def mouse(data: Path, runs: Path, minutes: float = 8) -> dict:
    """5-fold cross-validation over the 20 skulls."""
    study, images = import_mouse(data, runs)
    models = cross_validate(study, "mouse_skull", images, ("scn:default",), minutes, runs)
    return {"minutes_a_fold_on_one_core": minutes, "models": models}


def mouse_methods(data: Path, runs: Path, minutes: float = 8) -> dict:
    """``mouse`` with every other method, the published ones too, the same time for each."""
    study, images = import_mouse(data, runs)
    models = ("scn:payer2019", "global_local:noothout2020", "global_local:default")
    return {"minutes_a_fold_on_one_core": minutes, "models": cross_validate(study, "mouse_skull", images, models, minutes, runs)}


def import_mouse(data: Path, runs: Path) -> tuple[Path, dict[str, Path]]:
    """A study of all skulls, and its images by id."""
    source, study = data / "mouse_ct", runs / "study"
    landmarklabel("import", study, "--task", "mouse_skull", "--images", source / "images", "--markups", source / "landmarks")
    return study, {p.name.removesuffix(".nii.gz"): p for p in (source / "images").glob("*.nii.gz")}


def presence(data: Path, runs: Path) -> dict:
    """Phantoms of which 30 % of the landmarks are missing: are they said to be absent?"""
    plans = {2: {"cases": 160, "tests": 60, "minutes": 4}, 3: {"cases": 120, "tests": 30, "minutes": 6}}  # on one core
    return {f"{dims}d": {**plan, "models": _presence(dims, plan, runs / f"{dims}d")} for dims, plan in plans.items()}


def _presence(dims: int, plan: dict, runs: Path) -> dict:
    from landmarklabel.data.synthetic import draw_phantom, phantom_task
    from landmarklabel.io.files import write_json
    from landmarklabel.io.images import Image, write_image
    from landmarklabel.io.markups import write_markups

    task, suffix = phantom_task(dims), {2: ".png", 3: ".nii.gz"}[dims]
    images, markups = runs / "images", runs / "markups"
    if not (runs / "task.json").exists():
        for folder in (images, markups):
            folder.mkdir(parents=True, exist_ok=True)
        for seed in range(plan["cases"] + plan["tests"]):
            phantom = draw_phantom(task, seed, absent_fraction=0.3)
            write_image(images / f"case{seed:03d}{suffix}", Image(phantom.geometry, phantom.pixels))
            write_markups(markups / f"case{seed:03d}.mrk.json", phantom.landmarks)
        write_json(runs / "task.json", task.to_json())
    ids = [f"case{seed:03d}" for seed in range(plan["cases"] + plan["tests"])]
    tests = ids[plan["cases"] :]  # never in the study: the threshold is chosen on its own validation cases
    (runs / "train.txt").write_text("\n".join(ids[: plan["cases"]]) + "\n")
    study, name = runs / "study", runs / "task.json"
    landmarklabel("import", study, "--task", name, "--images", images, "--markups", markups, "--only", runs / "train.txt")

    def one(model: str, core: int) -> dict:
        trained, predictions = runs / model, runs / f"{model}_predictions"
        if not (trained / "model.json").exists():
            landmarklabel(
                "train", study, "--task", name, "--model", model, "--minutes", plan["minutes"], "--out", trained, "--resume",
                core=core,
            )  # fmt: skip
        landmarklabel("predict", trained, *[images / f"{i}{suffix}" for i in tests], "--out", predictions, core=core)
        metrics = evaluate(predictions, markups, str(name), runs / f"{model}.html")
        return {key: metrics[key] for key in ("presence", "mre_mm", "median_mm", "sdr", "outliers")}

    models, cores = ("scn", "global_local"), sorted(os.sched_getaffinity(0))
    with ThreadPoolExecutor(len(cores)) as pool:
        return dict(zip(models, pool.map(one, models, (cores[0], cores[-1])), strict=True))


EXPERIMENTS = {
    "hands": hands,
    "hands_best": hands_best,
    "hands_global_local": hands_global_local,
    "hands_cv": hands_cv,
    "mouse": mouse,
    "mouse_methods": mouse_methods,
    "presence": presence,
}

if __name__ == "__main__":
    sys.exit(main())
