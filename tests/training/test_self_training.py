"""Unlabelled images become training cases only where what is found in them makes sense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from landmarklabel.data.cases import Case
from landmarklabel.data.grids import GridPlan
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.shape_prior import learn_prior
from landmarklabel.io.images import Image, write_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.networks.default import MapsOutput
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.configuration import SelfTrainingConfig
from landmarklabel.training.self_training import find_pseudo_labels, together

CONFIG = SelfTrainingConfig()
TASK = LandmarkTask("balls", tuple("abcdefgh"), 2)
GREYS = np.linspace(0.3, 1.0, len(TASK))
SHAPE = np.array([[12, 14], [30, 10], [50, 16], [15, 34], [33, 38], [52, 33], [20, 54], [46, 55.0]])
GEOMETRY = ImageGeometry.identity((64, 64), (1.0, 1.0))


class GreyOracle(nn.Module):
    """Knows each ball by its grey value."""

    def forward(self, image: torch.Tensor) -> MapsOutput:
        greys = torch.tensor(GREYS, dtype=torch.float32)[None, :, None, None]
        like = nn.functional.avg_pool2d(torch.exp(-(((image - greys) / 0.02) ** 2)), 3, 1, 1)
        logits = torch.log(like**4 + 1e-8)
        return MapsOutput(logits, logits, torch.full((1, len(TASK)), -9.0))


def shapes(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [SHAPE + rng.normal(0, 0.7, SHAPE.shape) + rng.uniform(-3, 3, 2) for _ in range(count)]


def image(at: np.ndarray) -> Image:
    pixels = np.zeros((64, 64), np.float32)
    y, x = np.indices(pixels.shape)
    for (px, py), grey in zip(at, GREYS, strict=True):
        pixels[(x - px) ** 2 + (y - py) ** 2 <= 9] = 250 * grey
    pixels[0, :13] = 250  # so that the grey window is the whole range
    return Image(GEOMETRY, pixels.astype(np.uint8))


@pytest.fixture()
def model() -> Localizer:
    preset = find_preset("scn:single", 2)
    preset = replace(preset, stride=1, window=(0.0, 100.0), optimization=replace(preset.optimization, precision="fp32"))
    labelled = [(GEOMETRY, LandmarkSet.of_positions(TASK, s)) for s in shapes(6)]
    networks = NetworkRunner(preset, GridPlan((64, 64), 1.0, 1), GreyOracle())
    return Localizer(TASK, networks, prior=learn_prior(labelled))


def test_images_are_labelled_by_what_is_found_and_damaged_ones_passed_over(model, tmp_path):
    truth = shapes(9)[6:]
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, at in zip(paths, truth, strict=False):
        write_image(path, image(at))
    paths[3].write_bytes(b"no image")
    found = list(find_pseudo_labels(model, 6, [paths[3], *paths[:3]], CONFIG).values())
    assert [c.image_id for c in found] == ["0.png", "1.png", "2.png"]
    for case, at in zip(found, truth, strict=True):
        assert set(case.landmarks.status) == {Status.PLACED}
        np.testing.assert_allclose(case.landmarks.positions_mm, at, atol=1.0)


def test_a_landmark_that_contradicts_the_others_teaches_nothing(model, tmp_path):
    at = shapes(7)[6]
    at[2] = [8.0, 58.0]
    write_image(tmp_path / "a.png", image(at))
    (case,) = find_pseudo_labels(model, 6, [tmp_path / "a.png"], CONFIG).values()
    assert case.landmarks.status[2] is Status.UNSET and case.landmarks.defined.sum() == len(TASK) - 1


def test_an_image_without_the_shape_is_not_used(model, tmp_path):
    scattered = np.random.default_rng(3).permutation(SHAPE)
    write_image(tmp_path / "a.png", image(scattered))
    assert find_pseudo_labels(model, 6, [tmp_path / "a.png"], CONFIG) == {}


def test_nothing_is_found_without_a_prior_or_with_labels_enough(model, tmp_path):
    write_image(tmp_path / "a.png", image(SHAPE))
    assert find_pseudo_labels(model, CONFIG.max_cases, [tmp_path / "a.png"], CONFIG) == {}
    model.prior = None
    assert find_pseudo_labels(model, 6, [tmp_path / "a.png"], CONFIG) == {}


def test_labelled_cases_are_not_outnumbered():
    labelled, found = [case("l", i) for i in range(3)], [case("f", i) for i in range(70)]
    cases = together(labelled, found, CONFIG.min_labelled_share)
    share = sum(c.image_id.startswith("l") for c in cases) / len(cases)
    assert CONFIG.min_labelled_share <= share < CONFIG.min_labelled_share + 0.05
    assert {c.image_id for c in cases} == {c.image_id for c in labelled + found}
    assert together(labelled, [], CONFIG.min_labelled_share) == labelled


def case(kind: str, number: int) -> Case:
    return Case(f"{kind}{number}", image(SHAPE))
