"""Experiments on cohorts: nothing lost and nothing doubled under kills, what a case costs beside its networks, and throughput."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image as Picture

from landmarklabel.cohort.run_folder import CohortRun
from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.inference.model_folder import save_model
from landmarklabel.io.files import write_json
from landmarklabel.io.image_array import Image
from landmarklabel.networks.build import build_fine_net
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.configuration import CropConfig, SamplingConfig
from landmarklabel.training.planning import plan_crops, untrained_model

CASES = 100_000
PICTURES = 500  # files; many cases share one
KILL_EVERY_S = 4.0
WORKERS = 2
HANDS_TIMES = 3  # times the hand radiographs are predicted, so that starting weighs little


def _tiny(runs: Path, cases: int) -> Path:
    """The folder of a new cohort of tiny pictures and a model that nobody trained."""
    task, scans = phantom_task(2, 3), runs / "tiny"
    scans.mkdir(exist_ok=True)
    phantoms = [draw_phantom(task, seed, size=(48, 64), absent_fraction=0.0) for seed in range(8)]
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        if not (scans / f"{number}.png").exists():
            Picture.fromarray(rng.integers(0, 255, (64, 48)).astype(np.uint8)).save(scans / f"{number}.png")
    if not (runs / "tiny_model").exists():
        torch.manual_seed(0)
        known = [Case(str(i), Image(p.geometry, p.pixels), p.landmarks) for i, p in enumerate(phantoms)]
        model = untrained_model(task, find_preset("scn:single", 2), known, None, None, SamplingConfig(), InferenceConfig())
        model.networks.coarse_net.eval()
        save_model(runs / "tiny_model", model, {"seed": 0})
    table = runs / "tiny.csv"
    table.write_text("id,path\n" + "".join(f"c{n:06d},tiny/{n % PICTURES}.png\n" for n in range(cases)), encoding="utf-8")
    folder = runs / f"tiny_{cases}"
    shutil.rmtree(folder, ignore_errors=True)
    _ours("cohort", "plan", table, "--model", runs / "tiny_model", "--out", folder)
    return folder


def _ours(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "landmarklabel", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def cohort_kills(_: Path, runs: Path) -> dict:
    """A cohort of 100 000 tiny pictures while a worker is killed every four seconds: lost, doubled, memory; 25 minutes.

    Ended itself, it goes on where it was; the counts are of all calls.
    """
    known = runs / "parts.json"
    parts = json.loads(known.read_text(encoding="utf-8")) if known.exists() else []
    folder = runs / f"tiny_{CASES}" if (runs / f"tiny_{CASES}").exists() else _tiny(runs, CASES)
    while any(row is None for _, row in CohortRun(folder).rows()):
        parts.append(_killing(folder, random.Random(len(parts)), lambda part: write_json(known, [*parts, part])))
    most = max(part["growth_mib"] for part in parts)
    return {**{k: sum(part[k] for part in parts) for k in ("kills", "seconds")}, "growth_mib": most, **_counted(folder)}


def _killing(folder: Path, dice: random.Random, keep: Callable[[dict], None]) -> dict:
    """Run a cohort to its end, killing its workers; what it took is told to ``keep`` from time to time."""
    kills, started = 0, time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "landmarklabel", "cohort", "run", str(folder), "--workers", str(WORKERS)])
    memory = _Memory(process.pid)
    while process.poll() is None:
        try:
            process.wait(KILL_EVERY_S)
        except subprocess.TimeoutExpired:
            if workers := _workers(process.pid):
                os.kill(dice.choice(workers), signal.SIGKILL)
                kills += 1
            keep(_part(kills, started, memory))
    return _part(kills, started, memory)


def _part(kills: int, started: float, memory: _Memory) -> dict:
    return {"kills": kills, "seconds": time.monotonic() - started, "growth_mib": memory.growth_mib()}


def cohort_overhead(_: Path, runs: Path) -> dict:
    """What a case of a cohort costs beside its networks, in milliseconds of a worker; 10 000 tiny pictures."""
    cases = CASES // 10
    folder = _tiny(runs, cases)
    _ours("cohort", "run", folder, "--workers", WORKERS)
    rows = [row for _, row in CohortRun(folder).rows() if row is not None]
    times = [row["time"] for row in rows]
    busy = sum(row["predict_s"] for row in rows)
    overhead = (WORKERS * (max(times) - min(times)) - busy) / len(rows)
    return {**_counted(folder), "predict_ms": 1000 * busy / len(rows), "overhead_ms": 1000 * overhead}


def _counted(folder: Path) -> dict:
    """How many cases have no result, and how many more than one: by the lines on disk, not by what ``merge`` makes of them."""
    lines = Counter[str]()
    for file in (folder / "results").glob("*.jsonl"):
        with file.open(encoding="utf-8") as content:
            lines.update(line.split('"', 4)[3] for line in content if line.endswith("\n"))
    wanted = [case.id for case in CohortRun(folder).cases()]
    failed = sum(place.failed for place in CohortRun(folder).places().values())
    lost, doubled = sum(i not in lines for i in wanted), sum(count > 1 for count in lines.values())
    return {"cases": len(wanted), "lost": lost, "doubled": doubled, "failed": failed}


def _workers(pid: int) -> list[int]:
    found = []
    for child in psutil.Process(pid).children():
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


class _Memory:
    """How much the process that hands out the cases grows, from its tenth second to its end."""

    def __init__(self, pid: int):
        self.process, self.seen = psutil.Process(pid), list[int]()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        time.sleep(10)
        while True:
            try:
                self.seen.append(self.process.memory_info().rss)
            except psutil.Error:
                return
            time.sleep(1)

    def growth_mib(self) -> float:
        return (max(self.seen) - self.seen[0]) / 2**20 if self.seen else 0.0


def cohort_throughput(data: Path, runs: Path) -> dict:
    """Hand radiographs a second: a cohort with two workers, and two ``predict`` at once on half of them each."""
    images = sorted((data / "hand_xray" / "images").glob("*.jpg"))[:100] * HANDS_TIMES
    task, phantoms = phantom_task(2, 37), []
    for seed in range(8):
        p = draw_phantom(task, seed, absent_fraction=0.0)
        phantoms.append(Case(str(seed), Image(p.geometry, p.pixels), p.landmarks))
    preset = find_preset("scn:default", 2)
    torch.manual_seed(0)
    model = untrained_model(task, preset, phantoms, None, None, SamplingConfig(), InferenceConfig())
    model.networks.crops = plan_crops(preset, model.networks.grid, phantoms, CropConfig())
    model.networks.fine_net = build_fine_net(preset, 2, len(task), model.networks.crops.scales).eval()
    save_model(runs / "hand_model", model, {"seed": 0})
    halves = []
    for half in range(2):
        place = runs / f"half{half}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for number, image in enumerate(images[half::2]):
            (place / f"h{half}_{number}.jpg").symlink_to(image.resolve())
        halves.append(place)
    ours, theirs = [], []
    for _ in range(3):
        for out in ("run", "out0", "out1"):
            shutil.rmtree(runs / out, ignore_errors=True)
        _ours("cohort", "plan", *halves, "--model", runs / "hand_model", "--out", runs / "run")
        started = time.monotonic()
        _ours("cohort", "run", runs / "run", "--workers", WORKERS)
        ours.append(time.monotonic() - started)
        started = time.monotonic()
        words = [sys.executable, "-m", "landmarklabel", "predict", str(runs / "hand_model")]
        # Each on a core of its own, as the workers of a cohort: with threads for both cores they disturb one another.
        both = [
            subprocess.Popen(
                ["taskset", "-c", str(n), *words, str(place), "--out", str(runs / f"out{n}")], stdout=subprocess.DEVNULL
            )
            for n, place in enumerate(halves)
        ]
        if any(process.wait() for process in both):
            raise SystemExit("predict failed")
        theirs.append(time.monotonic() - started)
    rates = [len(images) / float(np.median(seconds)) for seconds in (ours, theirs)]
    return {"images": len(images), "cohort_per_s": rates[0], "two_predict_per_s": rates[1], "share": rates[0] / rates[1]}


EXPERIMENTS = (cohort_kills, cohort_overhead, cohort_throughput)
