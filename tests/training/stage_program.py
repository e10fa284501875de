"""Trains one stage in double precision, alone or as one of several processes: ``python stage_program.py FOLDER KIND STEPS …``.

The leading process writes the averaged weights and the losses. ``kill=STEP`` ends process 1 by a signal; ``--resume`` goes on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from landmarklabel.data.cases import Case
from landmarklabel.data.crops import CropPlan
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.io.checkpoints import save_tensors
from landmarklabel.io.image_array import Image
from landmarklabel.networks.build import build_fine_net
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.configuration import SamplingConfig
from landmarklabel.training.group import ProcessLost, TrainingGroup, join
from landmarklabel.training.loop import Budget, run_stage
from landmarklabel.training.planning import untrained_model
from landmarklabel.training.processes import LOST
from landmarklabel.training.stages import CoarseStage, FineStage


class _Kind:
    """A stage on images of the type that is asked for, and with its weights."""

    def __init__(self, stage: CoarseStage | FineStage, dtype: torch.dtype, kill: int):
        self.stage, self.dtype, self.kill = stage, dtype, kill
        self.name, self.optimization = stage.name, replace(stage.optimization, precision="fp32")
        self.module = stage.module.to(dtype)
        self.counts, self.loss = stage.counts, stage.loss

    def batch(self, step: int, *part):
        if step == self.kill and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        batch = self.stage.batch(step, *part)
        return batch._replace(images=batch.images.to(self.dtype), index=batch.index.to(self.dtype))


def made(key: str, fine: bool, dims: int, devices: int) -> CoarseStage | FineStage:
    task = phantom_task(dims, 5)
    drawn = [draw_phantom(task, seed, size=(48, 64, 40)[:dims], absent_fraction=0.2) for seed in range(7)]
    cases = [Case(str(i), Image(p.geometry, p.pixels), p.landmarks) for i, p in enumerate(drawn)]
    torch.manual_seed(0)
    preset = find_preset(key, dims)
    if dims == 3:
        preset = replace(preset, grid_size={3: 16**3}, batch={3: 3})
    model = untrained_model(task, preset, cases, None, None, SamplingConfig(), InferenceConfig())
    grid = model.networks.grid
    if not fine:
        return CoarseStage(model.networks.coarse_net, preset, grid, cases, 3, devices=devices)
    crops = CropPlan(16, 2.0, scales=2, presence=False)
    network = build_fine_net(preset, dims, len(task), crops.scales, False)
    return FineStage(network, preset, replace(preset.refine, crops={2: 10, 3: 4}), grid, crops, cases, 3, devices=devices)


def main(folder: Path, kind: str, steps: int, *options: str) -> int:
    said = dict(option.split("=") for option in options)
    key, which, dims = kind.split("/")
    group: TrainingGroup
    group, device = join("cpu")
    torch.set_num_threads(1)
    accumulate, dtype = int(said.get("accumulate", 1)), getattr(torch, said.get("dtype", "float64"))
    stage = _Kind(made(key, which == "fine", int(dims), group.size), dtype, int(said.get("kill", -1)))
    losses: list[float] = []
    try:
        done = run_stage(
            stage,
            Budget(steps=steps),
            seed=3,
            device=device,
            state_file=folder / "state.safetensors",
            resume="resume" in said,
            on_progress=lambda p: losses.append(p.loss),
            group=group,
            accumulate=accumulate,
        )
    except ProcessLost:
        return LOST
    save_tensors(folder / ("averaged.safetensors" if group.leads else f"averaged{group.rank}.safetensors"), done.weights, {})
    if group.leads:
        (folder / "losses.json").write_text(json.dumps(losses), encoding="utf-8")
    group.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:]))
