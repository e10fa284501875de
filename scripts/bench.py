"""Speed and memory figures, as JSON: ``python scripts/dev.py bench [--data DIR] [--only NAME …]``.

Timings are medians of several interleaved runs in this process; compare ratios, not seconds, between machines.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from experiment import hardware

from landmarklabel.cli.client import free_port, wait_until_up
from landmarklabel.data.batches import whole_image_batch
from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import big_phantom, draw_phantom, phantom_task
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_folder import save_model
from landmarklabel.io.files import write_json
from landmarklabel.io.images import Image, read_image, write_image
from landmarklabel.io.tables import read_table
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.networks.build import build_fine_net
from landmarklabel.networks.devices import use_all_cores
from landmarklabel.networks.heatmaps import encode_gaussians
from landmarklabel.networks.precision import autocast
from landmarklabel.networks.presets import find_preset
from landmarklabel.tasks import resolve_task
from landmarklabel.training.configuration import CropConfig, SamplingConfig
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget
from landmarklabel.training.planning import plan_crops, untrained_model
from landmarklabel.training.stages import CoarseStage, FineStage

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("LANDMARKLABEL_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    arguments = parser.parse_args()
    use_all_cores()
    hands = _hands(Path(arguments.data))
    out: dict = {"hardware": hardware(), "images": "hand radiographs" if len(hands) > 4 else "synthetic stand-ins"}
    for name in arguments.only:
        print(f"{name} …", file=sys.stderr)
        out[name] = BENCHES[name](hands)
    print(json.dumps(out, indent=1))


def _hands(data: Path) -> list[Case]:
    """Real radiographs where they are at hand, else phantoms of the same size and number of landmarks."""
    task, folder = resolve_task("hand_xray"), data / "hand_xray"
    if folder.is_dir():
        sets = read_table(folder / "landmarks.csv", task)
        return [Case(i, read_image(folder / "images" / f"{i}.jpg", 2), s) for i, s in sorted(sets.items())[:16]]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (1000, 700), dtype=np.uint8)
    points = rng.uniform(100, 600, (len(task), 2))
    return [Case("a", Image(ImageGeometry.identity((700, 1000)), pixels), LandmarkSet.of_positions(task, points))]


def medians(runs: int, **functions: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each function, called in turn so that drifts hit all alike; each is warmed up before each timing."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            function()
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def _model(key: str, hands: list[Case]) -> Localizer:
    task = hands[0].landmarks.task
    preset = find_preset(key, task.dims)
    model = untrained_model(task, preset, hands, None, None, SamplingConfig(), InferenceConfig())
    networks = model.networks
    if preset.refine:
        networks.crops = plan_crops(preset, networks.grid, hands, CropConfig())
        networks.fine_net = build_fine_net(preset, task.dims, len(task), networks.crops.scales).eval()
    networks.coarse_net.eval()
    if preset.match_histogram:
        model.reference = np.asarray(hands[-1].image.pixels, np.float32)
    return model


def inference(hands: list[Case]) -> dict:
    """The presets on the same image in memory: from pixels to landmarks, and the networks with their decoding alone."""
    keys = ("scn:default", "scn:single", "scn:hand2024")
    models = {key: _model(key, hands) for key in keys}
    cases = {key: m.case("x", hands[0].image) for key, m in models.items()}
    functions = {f"{key} prediction": (lambda m=models[key]: m.predict(hands[0].image)) for key in keys}
    functions |= {f"{key} networks": (lambda key=key: models[key].assess(cases[key])) for key in keys}
    seconds = medians(9, **functions)
    ratio = {what: seconds[f"scn:hand2024 {what}"] / seconds[f"scn:default {what}"] for what in ("prediction", "networks")}
    return {"seconds": seconds, "default_times_faster_than_hand2024": ratio}


def training(hands: list[Case]) -> dict:
    """Forward and backward of one training image (whole-image stage), and of the refiner's share of it."""
    seconds = {}
    functions = {}
    for key in ("scn:default", "scn:hand2024"):
        model = _model(key, hands)
        stage = CoarseStage(model.networks.coarse_net.train(), model.preset, model.networks.grid, hands, 0)
        functions[key] = _step(stage)
        seconds[f"{key} images a step"] = stage.batch_size
    default = _model("scn:default", hands).networks
    fine = FineStage(default.fine_net.train(), default.preset, default.preset.refine, default.grid, default.crops, hands, 0)
    functions["refiner, 64 crops"] = _step(fine)
    found = medians(5, **functions)
    per_image = {k: found[k] / seconds[f"{k} images a step"] for k in ("scn:default", "scn:hand2024")}
    return {
        "seconds_per_image": per_image,
        "seconds_refiner_step": found["refiner, 64 crops"],
        "default_times_faster_than_hand2024": per_image["scn:hand2024"] / per_image["scn:default"],
    }


def _step(stage) -> Callable[[], None]:
    batch = stage.batch(0)

    def step() -> None:
        with autocast(torch.device("cpu"), stage.optimization.precision):
            loss = stage.loss(batch, stage.counts(batch))
        loss.backward()

    return step


def augmentation(hands: list[Case]) -> dict:
    """Sampling, warping and changing one cached image; and reading it from disk the first time."""
    model = _model("scn:default", hands)
    case = model.case("x", hands[0].image, hands[0].landmarks)
    step = iter(range(10**6))
    ranges = model.preset.augment
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        write_image(path, Image(case.image.geometry, case.image.pixels))
        torch.set_num_threads(1)  # as one thread of many that prepare batches
        found = medians(
            15,
            augment=lambda: whole_image_batch([case], model.networks.grid, ranges, [0, next(step)]),
            read=lambda: read_image(path, 2),
        )
    use_all_cores()
    return {"ms_augment": 1e3 * found["augment"], "ms_read_from_disk": 1e3 * found["read"]}


def heatmaps(hands: list[Case]) -> dict:
    """Encoding 37 landmarks at 96^3 against MONAI's GenerateHeatmap."""
    from monai.transforms import GenerateHeatmap

    points = np.random.default_rng(0).uniform(10, 86, (37, 3)).astype(np.float32)
    theirs = GenerateHeatmap(sigma=3.0, spatial_shape=(96, 96, 96))
    index = torch.from_numpy(points)
    ours = medians(7, ours=lambda: encode_gaussians(index, (96, 96, 96), 3.0))["ours"]
    started = time.perf_counter()
    theirs(points)
    monai = time.perf_counter() - started
    return {"seconds_ours": ours, "seconds_monai": monai, "times_faster": monai / ours}


def server(hands: list[Case]) -> dict:
    """Start to the first /info, and memory when idle, by both entrances; medians of three interleaved starts."""
    ours = [sys.executable, "-m", "landmarklabel", "serve", "--models", "scn"]
    theirs = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(ROOT / "apps" / "landmarks")]
    theirs += ["--conf", "models", "scn"]
    with tempfile.TemporaryDirectory() as folder:
        study, task = Path(folder) / "study", phantom_task(2)
        study.mkdir()
        phantom = draw_phantom(task, 0)
        write_image(study / "a.png", Image(phantom.geometry, phantom.pixels))
        write_json(Path(folder) / "task.json", task.to_json())
        named = {"serve": [*ours, "--task", str(Path(folder) / "task.json")]}
        named["monailabel"] = [*theirs, "--conf", "task", str(Path(folder) / "task.json")]
        found = [(name, *_started([*command, "--studies", str(study)])) for _ in range(3) for name, command in named.items()]
    return {
        name: {
            "seconds_to_first_info": statistics.median(seconds for n, seconds, _ in found if n == name),
            "idle_gib": statistics.median(gib for n, _, gib in found if n == name),
        }
        for name in named
    }


def _started(command: list[str]) -> tuple[float, float]:
    """Seconds to the first answer, and GiB of the idle process."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log, started = Path(folder) / "log", time.perf_counter()
        with log.open("wb") as file:
            process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdout=file, stderr=file)
        try:
            wait_until_up(f"http://127.0.0.1:{port}", process, log)
            seconds = time.perf_counter() - started
            time.sleep(2)  # let start-up garbage settle before the memory is read
            return seconds, psutil.Process(process.pid).memory_info().rss / 2**30
        finally:
            process.terminate()
            process.wait(20)


def memory(hands: list[Case]) -> dict:
    """Peak memory of training the hand model (all hands loaded) and of predicting one hand, each in a fresh process."""
    return {"training_gib": _peak(_train_some, hands), "predicting_gib": _peak(_predict_one, hands)}


def _train_some(hands: list[Case]) -> None:
    preset = find_preset("scn:default")
    repeated = [replace(hands[i % len(hands)], image_id=str(i)) for i in range(91)]
    with tempfile.TemporaryDirectory() as folder:
        fit(hands[0].landmarks.task, repeated, [], FitConfig(preset, Budget(steps=24)), folder)


def _predict_one(hands: list[Case]) -> None:
    model = _model("scn:default", hands)
    model.predict(hands[0].image)


def _peak(work: Callable, hands: list[Case]) -> float:
    """Peak resident GiB of a fresh process that does ``work``."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measured, args=(work, hands, queue))
    process.start()
    peak = queue.get(timeout=600)
    process.join()
    return peak


def _measured(work: Callable, hands: list[Case], queue) -> None:
    use_all_cores()
    work(hands)
    queue.put(peak_gib(Path("/proc/self/status").read_text(encoding="utf-8")))


def volumes(hands: list[Case]) -> dict:
    """Both global-to-local presets on 256 cubed voxels in memory, and 512 cubed with 100 landmarks from disk.

    The published network works on all voxels, as its authors use it; the default on its own coarse grid.
    """
    keys = ("global_local:default", "scn:default", "global_local:noothout2020")
    case = _phantom(256, 45)
    models = {key: _volume_model(key, case) for key in keys}
    seconds = medians(3, **{key: (lambda m=m: m.predict(case.image)) for key, m in models.items()})
    peaks = {key: _peak(_predict_volume, [key]) for key in keys}
    ours, published = keys[0], keys[2]
    return {
        "seconds_256": seconds,
        "peak_gib_256": peaks,
        "default_times_faster_than_noothout2020": seconds[published] / seconds[ours],
        "default_share_of_noothout2020_memory": peaks[ours] / peaks[published],
        "from_disk_512_with_100_landmarks": _largest(),
    }


def _phantom(size: int, landmarks: int) -> Case:
    phantom = big_phantom(size, landmarks, 0)
    return Case("x", Image(phantom.geometry, phantom.pixels), phantom.landmarks)


def _volume_model(key: str, case: Case) -> Localizer:
    model = _model(key, [case])
    if key.endswith("noothout2020"):
        model.networks.grid = replace(model.networks.grid, spacing_mm=float(case.image.geometry.spacing.min()))
    return model


def _predict_volume(keys: list[str]) -> None:
    case = _phantom(256, 45)
    _volume_model(keys[0], case).predict(case.image)


# A verb of the program in a process that says its own peak: the ru_maxrss of a child is at least what its parent had in
# memory when it started it.
TELLING_PEAK = """
from pathlib import Path
from landmarklabel.__main__ import main
if (code := main()):
    raise SystemExit(code)
print(Path("/proc/self/status").read_text())
"""


def peak_gib(status: str) -> float:
    """The largest resident memory that ``/proc/PID/status`` tells of."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**20


def _largest() -> dict:
    """The command line's ``predict`` on a 512 cubed file: seconds, and peak memory of its process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = _phantom(512, 100)
        write_image(folder / "big.nii.gz", case.image)
        save_model(folder / "model", _model("scn:default", [case]), {"seed": 0})
        del case
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", TELLING_PEAK, "predict", "model", "big.nii.gz", "--out", "out"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return {"seconds": time.perf_counter() - started, "peak_gib": peak_gib(done.stdout)}


BENCHES = {
    "inference": inference,
    "training": training,
    "augmentation": augmentation,
    "heatmaps": heatmaps,
    "server": server,
    "memory": memory,
    "volumes": volumes,
}

if __name__ == "__main__":
    main()
