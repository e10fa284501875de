"""A small model that nobody trained, and its folder."""

from __future__ import annotations

import json

import torch

from landmarklabel.data.crops import CropPlan
from landmarklabel.data.grids import GridPlan
from landmarklabel.data.synthetic import phantom_task
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_record import HASH, record_hash
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.networks import build
from landmarklabel.networks.presets import find_preset

TASK = phantom_task(2, 3)
N = len(TASK)


def untrained(refine=True, reference=None, config=None):
    torch.manual_seed(0)
    preset = find_preset("scn:default")
    networks = NetworkRunner(
        preset, GridPlan((64, 96), None, 32), build.build_coarse_net(preset, 2, N).eval(), config=config or InferenceConfig()
    )
    if refine:
        networks.crops = CropPlan(32, 1.5)
        networks.fine_net = build.build_fine_net(preset, 2, N, networks.crops.scales).eval()
    return Localizer(TASK, networks, Calibration(0.3, 0.5, (0.1, -0.2, 0.1), 0.0, 7), reference=reference)


def content_of(folder):
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))


def with_record(folder, content, signed=True):
    """Another record in the folder, with a hash that fits unless it is not to be ``signed``."""
    if signed and HASH in content:
        content = {**content, HASH: record_hash(content)}
    (folder / "model.json").write_text(json.dumps(content), encoding="utf-8")
