"""The memory of training on large volumes: of the device by counting, so that no GPU is needed, and of the computer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from bench import TELLING_PEAK, peak_gib
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

SIDES, LANDMARKS, VOLUMES = (256, 512), 100, 8
STEPS = 4  # two of each network: the second finds the optimizer's moments in place
METHODS = ("scn", "global_local")


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make while this is entered, and the most that there were at once.

    It stands for a device's memory: weights, moments, gradients, and what the backward pass needs. Scratch space inside of
    an operation is not seen.
    """

    def __init__(self, there: Sequence[torch.Tensor] = ()):
        super().__init__()
        self.now, self.peak = 0, 0
        self._seen: set[int] = set()
        for tensor in there:
            self._add(tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._add, made)
        return made

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


class _AsOnDevice:
    """A stage whose batches are made elsewhere, in another thread, which is not counted, and copied as to a device."""

    def __init__(self, stage):
        self.name, self.module = stage.name, stage.module
        self.optimization = replace(stage.optimization, precision="fp32")
        self.counts, self.loss, self._stage = stage.counts, stage.loss, stage

    def batch(self, *words):
        with ThreadPoolExecutor(1) as elsewhere:
            made = elsewhere.submit(self._stage.batch, *words).result()
        return type(made)(*(x.clone() if torch.is_tensor(x) else x for x in made))


def count_device_bytes(side: int, landmarks: int, method: str) -> dict[str, int]:
    """The most bytes of tensors, by network, in two steps of each on two volumes; in fp32: bf16 takes less."""
    from landmarklabel.data.cases import Case
    from landmarklabel.data.synthetic import big_phantom
    from landmarklabel.io.image_array import Image
    from landmarklabel.networks.presets import find_preset
    from landmarklabel.training import fit as fitting
    from landmarklabel.training.loop import Budget

    phantoms = [big_phantom(side, landmarks, seed) for seed in range(2)]
    cases = [Case(f"c{n}", Image(p.geometry, p.pixels), p.landmarks) for n, p in enumerate(phantoms)]
    peaks, run_stage = {}, fitting.run_stage

    def counted(stage, budget, **words):
        with LiveTensors([*stage.module.state_dict().values()]) as live:
            done = run_stage(_AsOnDevice(stage), budget, **words)
        peaks[stage.name] = live.peak
        return done

    fitting.run_stage = counted
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = fitting.FitConfig(find_preset(f"{method}:default", 3), Budget(steps=STEPS))
            fitting.fit(cases[0].labels.task, cases, [], config, Path(folder) / "model")
    finally:
        fitting.run_stage = run_stage
    return peaks


def training_memory(_: Path, runs: Path) -> dict:
    """What training with 100 landmarks on volumes of 512 cubed takes: of the device by counting, and of the computer."""
    device = {
        method: {str(side): _in_a_process(f"count_device_bytes({side}, {LANDMARKS}, {method!r})") for side in SIDES}
        for method in METHODS
    }
    study, task = _study(runs)
    words = ("train", study, "--task", task, "--model", "scn", "--steps", STEPS, "--no-publish", "--out", runs / "model")
    done = subprocess.run([sys.executable, "-c", TELLING_PEAK, *map(str, words)], stdout=subprocess.PIPE, text=True, check=True)
    peak = int(2**30 * peak_gib(done.stdout))
    sizes = {"sides": SIDES, "landmarks": LANDMARKS, "volumes": VOLUMES, "pixel_bytes": VOLUMES * SIDES[-1] ** 3}
    return {**sizes, "device_bytes": device, "process_bytes": peak}


def _in_a_process(call: str) -> dict:
    """The result of a call of this file, in a process of its own."""
    code = f"import json, training_memory; print(json.dumps(training_memory.{call}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _study(runs: Path) -> tuple[Path, Path]:
    """A study of such volumes, all labelled; made once."""
    from landmarklabel.data.synthetic import big_phantom, phantom_task
    from landmarklabel.io.images import Image, write_image
    from landmarklabel.store.study import Study

    task, file, folder = phantom_task(3, LANDMARKS), runs / "task.json", runs / "study"
    file.write_text(json.dumps(task.to_json()), encoding="utf-8")
    folder.mkdir(exist_ok=True)
    for seed in range(VOLUMES):
        if not (image := folder / f"c{seed}.nii").exists():
            phantom = big_phantom(SIDES[-1], LANDMARKS, seed)
            write_image(image, Image(phantom.geometry, phantom.pixels))
            study = Study(folder, task)
            study.save(f"c{seed}", phantom.landmarks, author="truth")
            study.close()
    return folder, file


EXPERIMENTS = (training_memory,)
