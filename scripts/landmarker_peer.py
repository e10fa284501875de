"""The networks of landmarker (predict-idlab, MIT) on the hands and cephalograms, for comparison.

    python -m venv peer && peer/bin/pip install landmarker==0.4.1
    peer/bin/python scripts/landmarker_peer.py hands light --data DATA --minutes 60 --out OUT.json

landmarker is a library without a program, and needs other packages than LandmarkLabel. Its dataset, augmentation, targets, loss,
networks and decoding are used here, in two recipes:

``published``: its notebook for ISBI 2015: the original SpatialConfiguration-Net of 128 channels at 512 x 512, learned widths of
the targets, SGD at 1e-6. The notebook lowers that rate when the loss no longer falls, which takes many of its 200 rounds on a
GPU; here it stays. How many rounds there were is in the result.
``light``: what a user with so many minutes would choose: its own SpatialConfiguration-Net of 64 channels at 256 x 256, AdamW
with a falling rate, bfloat16. The side was chosen in its favour, by four minutes on the hands (``experiments.md``).

The training ends after the given minutes of one thread's own time, whatever else the machine does meanwhile; reading the images
and testing are not counted.
Results: ``results/landmarker_hands.json`` and ``results/landmarker_cephalograms.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cephalograms import FOLDER, MM_PER_PX, readings
from experiment import hardware

# torchvision of PyPI asks its compiled part for these operators; beside a PyTorch for processors only that part does not load.
_declared = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

# ruff: noqa: E402
from landmarker.data.landmark_dataset import LandmarkDataset
from landmarker.heatmap.decoder import heatmap_to_coord
from landmarker.heatmap.generator import GaussianHeatmapGenerator
from landmarker.losses import GaussianHeatmapL2Loss
from landmarker.metrics import point_error
from landmarker.models.spatial_configuration_net import OriginalSpatialConfigurationNet, SpatialConfigurationNet
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandHistogramShiftd,
    RandScaleIntensityd,
    ScaleIntensityd,
)
from PIL import Image
from torch.utils.data import DataLoader

LIGHT_CHANNELS, LIGHT_SIDE, LIGHT_RATE = 64, 256, 1e-3
PUBLISHED_SIDE = 512
RADII_MM = (2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class Recipe:
    side: int
    network: torch.nn.Module
    targets: GaussianHeatmapGenerator
    optimizer: torch.optim.Optimizer
    falls: bool  # the learning rate, to nothing at the end
    autocast: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", choices=["hands", "cephalograms"])
    parser.add_argument("recipe", choices=["light", "published"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases = (hands if arguments.images == "hands" else cephalograms)(arguments.data)
    landmarks = len(cases["train"][0][1])
    recipe = (light if arguments.recipe == "light" else published)(landmarks)
    steps = train(recipe, dataset(cases["train"], recipe.side, augment()), arguments.minutes)
    off = errors_mm(recipe, dataset(cases["test"], recipe.side, ScaleIntensityd(("image",))))
    found = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    found |= {"command": f"python scripts/landmarker_peer.py {arguments.images} RECIPE", "hardware": hardware()}
    found |= {"version": "0.4.1", "in_training": len(cases["train"]), "cases": len(cases["test"])}
    found[arguments.recipe] = {
        "minutes_on_one_core": arguments.minutes,
        "rounds": steps / len(cases["train"]),
        "mean": float(off.mean()),
        "median": float(np.median(off)),
        "percent_within": {str(r): float(100 * (off <= r).mean()) for r in RADII_MM},
        "beyond_10": int((off > 10).sum()),
        "points": int(off.size),
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found[arguments.recipe]))


def hands(data: Path) -> dict[str, list]:
    """Part to its images, as (file, points (37, 2) in pixels, mm per pixel)."""
    folder, parts = data / "hand_xray", {"train": [], "test": []}
    with (folder / "landmarks.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            points = np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(37)])
            part = parts["train" if row["split"] == "train" else "test"]
            part.append((folder / "images" / f"{row['id']}.jpg", points, float(row["wrist_mm_per_px"])))
    return parts


def cephalograms(data: Path) -> dict[str, list]:
    """The same of the challenge's images, points as the mean of both readers."""
    files = {p.stem: p for p in (data / FOLDER / "images").iterdir()}
    return {
        part: [(files[i], np.mean(list(read.values()), axis=0), MM_PER_PX) for i, read in readings(data, of, 19).items()]
        for part, of in (("train", "train"), ("test", "test1"))
    }


def dataset(cases: list, side: int, transform) -> LandmarkDataset:
    images = [np.asarray(Image.open(file).convert("L"), dtype=np.float32)[None] for file, _, _ in cases]
    points = np.array([points[:, ::-1] for _, points, _ in cases])
    mm = np.array([mm for _, _, mm in cases])
    return LandmarkDataset(images, points, pixel_spacing=mm, transform=Compose([transform]), dim_img=(side, side))


def augment() -> Compose:
    """As in landmarker's notebook."""
    keys = ("image",)
    return Compose(
        [
            ScaleIntensityd(keys),
            RandGaussianNoised(keys, prob=0.2, mean=0, std=0.1),
            RandScaleIntensityd(keys, factors=0.25, prob=0.2),
            RandAdjustContrastd(keys, prob=0.2, gamma=(0.5, 4.5)),
            RandHistogramShiftd(keys, prob=0.2),
            ScaleIntensityd(keys),
            RandAffined(
                keys,
                prob=1,
                rotate_range=(-np.pi / 12, np.pi / 12),
                translate_range=(-10, 10),
                scale_range=(-0.1, 0.1),
                shear_range=(-0.1, 0.1),
            ),
        ]
    )


def published(landmarks: int) -> Recipe:
    side = PUBLISHED_SIDE
    network = OriginalSpatialConfigurationNet(in_channels=1, out_channels=landmarks)
    targets = GaussianHeatmapGenerator(landmarks, sigmas=3, gamma=100, heatmap_size=(side, side), learnable=True)
    groups = [{"params": network.parameters(), "weight_decay": 1e-3}, {"params": targets.sigmas}, {"params": targets.rotation}]
    return Recipe(side, network, targets, torch.optim.SGD(groups, lr=1e-6, momentum=0.99, nesterov=True), False, False)


def light(landmarks: int) -> Recipe:
    side, channels = LIGHT_SIDE, LIGHT_CHANNELS
    network = SpatialConfigurationNet(out_channels=landmarks, la_channels=(channels,) * 4, sp_channels=channels)
    targets = GaussianHeatmapGenerator(landmarks, sigmas=3, gamma=100, heatmap_size=(side, side), learnable=False)
    return Recipe(side, network, targets, torch.optim.AdamW(network.parameters(), lr=LIGHT_RATE), True, True)


def train(recipe: Recipe, images: LandmarkDataset, minutes: float) -> int:
    """For so many minutes; the number of images seen."""
    loss_of, steps, ends = GaussianHeatmapL2Loss(alpha=5), 0, time.process_time() + 60 * minutes
    rate = recipe.optimizer.param_groups[0]["lr"]
    recipe.network.train()
    while True:
        for batch in DataLoader(images, batch_size=1, shuffle=True):
            left = (ends - time.process_time()) / (60 * minutes)
            if left <= 0:
                return steps
            if recipe.falls:
                recipe.optimizer.param_groups[0]["lr"] = rate * (0.5 - 0.5 * math.cos(math.pi * left))
            target = recipe.targets(batch["landmark"])
            recipe.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.autocast):
                answer = recipe.network(batch["image"].as_tensor())
            loss = loss_of(answer.float(), recipe.targets.sigmas, target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(recipe.network.parameters(), 10_000.0)
            recipe.optimizer.step()
            steps += 1
            if steps % 100 == 0:
                print(f"{steps} steps, loss {loss.item():.0f}, {60 * minutes * left:.0f} s left", flush=True)


@torch.no_grad()
def errors_mm(recipe: Recipe, images: LandmarkDataset) -> np.ndarray:
    """(cases, landmarks)."""
    recipe.network.eval()
    off = []
    for batch in DataLoader(images, batch_size=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.autocast):
            answer = recipe.network(batch["image"].as_tensor()).float()
        found = heatmap_to_coord(answer, method="local_soft_argmax")
        place = (recipe.side, recipe.side), batch["dim_original"], batch["spacing"], batch["padding"]
        off.append(point_error(batch["landmark"], found, *place, reduction="none")[0])
    return torch.stack(off).numpy()


if __name__ == "__main__":
    main()
