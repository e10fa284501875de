"""What experiments share: the program's verbs as functions, studies of the real data, cross-validation."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import platform
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path


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


def each_on_a_core(work: Callable, jobs: Sequence[tuple]) -> list:
    """``work(*job)`` of every job, in processes of one core each; their results in order."""
    context, cores = multiprocessing.get_context("spawn"), sorted(os.sched_getaffinity(0))
    free = context.Queue()
    for core in cores:
        free.put(core)
    with ProcessPoolExecutor(len(cores), context, _keep_to_one, (free,)) as pool:
        return [running.result() for running in [pool.submit(work, *job) for job in jobs]]


def _keep_to_one(free) -> None:
    os.sched_setaffinity(0, {free.get()})


def each_given_a_core(work: Callable, jobs: Sequence[tuple]) -> list:
    """``work(*job, core)`` of every job, in threads, as many at a time as there are cores and each with one that is free."""
    cores = queue.SimpleQueue[int]()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def one(job: tuple):
        core = cores.get()
        try:
            return work(*job, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(cores.qsize()) as pool:
        return list(pool.map(one, jobs))


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
    ids, one_writer = sorted(images), threading.Lock()  # of the folder of predictions

    def one(model: str, fold: int, core: int) -> None:
        if model in failed:
            return
        held = ids[fold::5]
        folder = runs / model.replace(":", "_")
        folder.mkdir(parents=True, exist_ok=True)
        if all((folder / "predictions" / f"{i}.mrk.json").exists() for i in held):
            return
        listed = folder / f"fold{fold}.txt"
        listed.write_text("\n".join(held) + "\n", encoding="utf-8")
        try:
            trained, own = folder / f"model{fold}", folder / f"study{fold}"
            if not (trained / "model.json").exists():
                if not own.exists():
                    shutil.copytree(study, own)  # in one study, one training of a model runs at a time
                landmarklabel(
                    "train", own, "--task", task, "--model", model, "--minutes", minutes, "--seed", fold,
                    "--valid", listed, "--out", trained, "--resume", core=core,
                )  # fmt: skip
            with one_writer:
                landmarklabel("predict", trained, *[images[i] for i in held], "--out", folder / "predictions", core=core)
        except subprocess.CalledProcessError as error:
            failed[model] = f"fold {fold}: {error.stderr.strip().splitlines()[-1]}"

    each_given_a_core(one, [(m, f) for m in models for f in range(5)])
    results: dict[str, dict] = {m: {"failed": why} for m, why in failed.items()}
    for m in [m for m in models if m not in failed]:
        folder = runs / m.replace(":", "_")
        results[m] = evaluate(folder / "predictions", study, task, folder / "report.html")
    return results


def hardware() -> str:
    """Processor, cores and torch, for beside the figures."""
    import torch

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor() or "CPU")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores{gpu}, torch {torch.__version__}"


def hand_split(data: Path, split: str) -> list[str]:
    """Ids of the radiographs of a split, in the table's order."""
    with (data / "hand_xray" / "landmarks.csv").open(encoding="utf-8") as file:
        return [row["id"] for row in csv.DictReader(file) if row["split"] == split]


def train_once(study: Path, task: str, model: str, minutes: float, out: Path, *more: object, core: int | None = None) -> Path:
    """``train`` unless it is done already; goes on where it was interrupted."""
    if not (out / "model.json").exists():
        landmarklabel(
            "train", study, "--task", task, "--model", model, "--minutes", minutes, "--out", out, "--resume", *more, core=core
        )
    return out


def import_hands(data: Path, runs: Path) -> Path:
    """A study of all labelled radiographs."""
    source, study = data / "hand_xray", runs / "study"
    landmarklabel("import", study, "--task", "hand_xray", "--images", source / "images", "--table", source / "landmarks.csv")
    return study


def few_hands(data: Path, folder: Path, count: int = 15, labelled: int = 10) -> tuple[Path, list[str]]:
    """A study of so many radiographs, the first of them labelled, and no model, so that the shape moves the others; their ids."""
    source, ids = data / "hand_xray", hand_split(data, "train")[:count]
    (folder / "images").mkdir(parents=True)
    for image_id in ids:
        shutil.copy(next((source / "images").glob(f"{image_id}.*")), folder / "images")
    listed = folder / "labelled.txt"
    listed.write_text("\n".join(ids[:labelled]) + "\n", encoding="utf-8")
    words = ("--task", "hand_xray", "--images", folder / "images", "--table", source / "landmarks.csv")
    landmarklabel("import", folder / "study", *words, "--only", listed)
    for path in (folder / "images").iterdir():
        shutil.copy(path, folder / "study")
    return folder / "study", ids


def import_mouse(data: Path, runs: Path) -> tuple[Path, dict[str, Path]]:
    """A study of all skulls, and its images by id."""
    source, study = data / "mouse_ct", runs / "study"
    landmarklabel("import", study, "--task", "mouse_skull", "--images", source / "images", "--markups", source / "landmarks")
    return study, {p.name.removesuffix(".nii.gz"): p for p in (source / "images").glob("*.nii.gz")}


def simulate_clicks(model: Path, study: Path, task: str, report: Path, only: Path | None = None, core: int | None = None) -> dict:
    """The figures of ``simulate clicks --json``."""
    which = () if only is None else ("--only", only)
    words = ("simulate", "clicks", model, study, "--task", task, "--json", "--report", report, *which)
    return json.loads(landmarklabel(*words, output=True, core=core))
