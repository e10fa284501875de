"""However an image is stored, the answer in the world is the same: axis orders, oblique and anisotropic grids, formats.

The networks are oracles (the map is the image itself), so only the geometry between pixels and millimetres is tested; the last
test trains a small one.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.io.image_corpus import write_series
from torch import nn

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.cases import Case
from landmarklabel.data.crops import CropPlan
from landmarklabel.data.grids import GridPlan
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.io.images import Image, read_image, write_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.networks.default import MapsOutput
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget

SIGMA_MM = 3.0
TRUTH = np.array([4.3, -7.1, 2.6])
TASK = LandmarkTask("blob", ("centre",), 3)


class WholeOracle(nn.Module):
    """Log of the image as logits: a Gaussian blob decodes to its centre."""

    def forward(self, image: torch.Tensor) -> MapsOutput:
        logits = torch.log(image.clamp_min(1e-6))
        return MapsOutput(logits, logits, torch.full((len(image), 1), -30.0))


class CropOracle(WholeOracle):
    stride = 1

    def forward(self, crops: torch.Tensor, landmark: torch.Tensor) -> MapsOutput:
        return super().forward(crops[:, :1])


def oracle() -> Localizer:
    preset = find_preset("scn:single", 3)
    preset = replace(preset, stride=1, window=(0.0, 100.0), optimization=replace(preset.optimization, precision="fp32"))
    grid, crops = GridPlan((32, 32, 32), 1.5, 1), CropPlan(24, 1.5, scales=2)
    return Localizer(TASK, NetworkRunner(preset, grid, WholeOracle(), crops, CropOracle()))


def blob(geometry: ImageGeometry) -> Image:
    """The same blob in the world, sampled on any grid."""
    grid = np.stack(np.meshgrid(*(np.arange(s) for s in geometry.size), indexing="ij"), -1).astype(float)
    distance = np.linalg.norm(geometry.index_to_world(grid) - TRUTH, axis=-1)
    return Image(geometry, np.exp(-0.5 * (distance / SIGMA_MM) ** 2).astype(np.float32).transpose(2, 1, 0).copy())


def stored(geometry: ImageGeometry, order: tuple[int, ...], flips: tuple[bool, ...]) -> ImageGeometry:
    """The same samples with index axes in another order and direction."""
    direction, origin = geometry.direction.copy(), geometry.origin.copy()
    for axis, flip in enumerate(flips):
        if flip:
            origin = origin + direction[:, axis] * geometry.spacing[axis] * (geometry.size[axis] - 1)
            direction[:, axis] *= -1
    picked = list(order)
    size = tuple(geometry.size[a] for a in picked)
    return ImageGeometry(size, geometry.spacing[picked], origin, direction[:, picked])


BASE = ImageGeometry((41, 38, 45), np.array([1.1, 1.3, 0.9]), np.array([-20.0, -32.0, -17.0]), np.eye(3))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
def test_all_48_axis_orders_give_the_same_world_answer(order, flips):
    model = oracle()
    reference = model.assess(model.case("a", blob(BASE)))[0]
    found = model.assess(model.case("b", blob(stored(BASE, order, flips))))[0]
    np.testing.assert_allclose(found.coarse_mm, reference.coarse_mm, atol=0.05 * 0.9)
    np.testing.assert_allclose(found.positions_mm, reference.positions_mm, atol=0.05 * 0.9)
    np.testing.assert_allclose(found.positions_mm[0], TRUTH, atol=0.05 * 0.9)


@pytest.mark.parametrize("seed", range(30))
def test_oblique_and_anisotropic_grids_give_the_same_world_answer(seed):
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(0.5, 2.5, 3)
    size = tuple(int(s) for s in np.ceil(rng.uniform(40, 55, 3) / spacing))
    direction = random_rotation(rng, 3, None) * (1 if seed % 2 else np.array([1, 1, -1]))
    middle = direction @ (spacing * (np.array(size) - 1) / 2)
    geometry = ImageGeometry(size, spacing, TRUTH + rng.uniform(-6, 6, 3) - middle, direction)
    model = oracle()
    found = model.assess(model.case("a", blob(geometry)))[0]
    np.testing.assert_allclose(found.positions_mm[0], TRUTH, atol=0.05 * spacing.max())


def test_a_dicom_series_gives_the_same_world_answer(tmp_path):
    rng = np.random.default_rng(3)
    geometry = ImageGeometry((41, 38, 45), [1.1, 1.3, 0.9], [-20.0, -32.0, -17.0], random_rotation(rng, 3, 0.4))
    pixels = np.round(blob(geometry).pixels * 1000).astype(np.int16)
    z, axes, spacing = np.arange(45) * 0.9, geometry.direction[:, :2].T, (1.3, 1.1)
    shapes = [(38, 41)] * 45
    write_series(tmp_path / "scan", z, axes=axes, origin=geometry.origin, spacing=spacing, shapes=shapes, pixels=pixels)
    model = oracle()
    found = model.assess(model.case("a", read_image(tmp_path / "scan", 3)))[0]
    np.testing.assert_allclose(found.positions_mm[0], TRUTH, atol=0.05 * 0.9)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_formats_give_the_same_world_answer(tmp_path, suffix):
    rng = np.random.default_rng(3)
    geometry = ImageGeometry((41, 38, 45), [1.1, 1.3, 0.9], [-20.0, -32.0, -17.0], random_rotation(rng, 3, 0.4))
    write_image(tmp_path / f"a{suffix}", blob(geometry))
    model = oracle()
    found = model.assess(model.case("a", read_image(tmp_path / f"a{suffix}", 3)))[0]
    np.testing.assert_allclose(found.positions_mm[0], TRUTH, atol=0.05 * 0.9)


def test_a_trained_network_gives_the_same_world_answer_too(tmp_path):
    """A small model learns the blob; then the blob is stored in other orders, obliquely and with thick slices."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    cases = []
    for i in range(6):
        geometry = replace(BASE, origin=BASE.origin + rng.uniform(-8, 8, 3))
        cases.append(Case(f"c{i}", blob(geometry), LandmarkSet.of_positions(TASK, TRUTH[None])))
    preset = replace(find_preset("scn:default", 3), grid_size={3: 32**3}, batch={3: 1})
    preset = replace(preset, refine=replace(preset.refine, crops={3: 6}, size={3: 16}))
    model, _ = fit(TASK, cases, [], FitConfig(preset, Budget(steps=160)), tmp_path / "model")
    torch.set_num_threads(threads)
    model.networks.precision = "fp32"
    reference = model.predict(blob(BASE)).positions_mm[0]
    assert np.linalg.norm(reference - TRUTH) < 1.5  # it has learned something
    ways = [stored(BASE, order, flips) for order, flips in [((2, 0, 1), (True, False, True)), ((1, 0, 2), (False, True, True))]]
    turned = random_rotation(rng, 3, 0.4)
    for spacing in ((0.9, 0.9, 0.9), (0.8, 0.8, 2.4)):
        size = tuple(int(s) for s in np.ceil(46 / np.array(spacing)))
        middle = turned @ (np.array(spacing) * (np.array(size) - 1) / 2)
        ways.append(ImageGeometry(size, np.array(spacing), np.mean(BASE.bounds_mm, axis=0) - middle, turned))
    for geometry in ways:
        found = model.predict(blob(geometry)).positions_mm[0]
        assert np.linalg.norm(found - reference) <= 0.3 * geometry.spacing.max()
