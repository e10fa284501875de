"""Large volumes in windows, and cases in any orientation looked at from several directions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.inference.saved_models import untrained
from torch import nn

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.grids import GridPlan
from landmarklabel.data.mean_shape import MeanShape
from landmarklabel.data.procrustes import RobustFitConfig
from landmarklabel.errors import ImageRejected
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import EXTENT, OrientationSearchConfig
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.shape_prior import learn_prior
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.networks.default import MapsOutput
from landmarklabel.networks.presets import find_preset
from landmarklabel.scale_rules import PixelSize

TASK = LandmarkTask("balls", tuple("abcdefg"), 3)
LEVELS = np.linspace(0.3, 0.9, len(TASK))  # the grey value of each landmark's ball
SHAPE = np.array([[9, 0, 0], [-8, 3, 0], [0, 10, 2], [2, -9, 4], [0, 1, 11], [-3, 2, -10], [6, 7, -6.0]])


class BallOracle(nn.Module):
    """Knows each ball by its grey value; the first ``blind`` times it only sees noise."""

    def __init__(self, blind: int = 0):
        super().__init__()
        self.calls, self.blind, self.largest = 0, blind, 0

    def forward(self, image: torch.Tensor) -> MapsOutput:
        self.calls += 1
        self.largest = max(self.largest, image[0].numel())
        levels = torch.tensor(LEVELS, dtype=torch.float32)[None, :, None, None, None]
        like = torch.exp(-(((image - levels) / 0.02) ** 2))
        if self.calls <= self.blind:
            like = torch.rand(like.shape, generator=torch.Generator().manual_seed(self.calls)) ** 20
        logits = torch.log(nn.functional.avg_pool3d(like, 3, 1, 1) ** 4 + 1e-8)
        return MapsOutput(logits, logits, torch.full((1, len(TASK)), -9.0))


def balls(size: int, at: np.ndarray) -> Image:
    """A volume of 1 mm samples with a ball of radius 3.5 mm at each position."""
    geometry = ImageGeometry.identity((size,) * 3, 1.0)
    pixels = np.zeros((size,) * 3, np.float32)
    z, y, x = np.indices(pixels.shape)
    for (px, py, pz), level in zip(at, LEVELS, strict=True):
        pixels[(x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2 <= 3.5**2] = 100 * level
    return Image(geometry, pixels)


def localizer(oracle: BallOracle, **changes) -> Localizer:
    preset = find_preset("scn:single", 3)
    preset = replace(preset, stride=1, optimization=replace(preset.optimization, precision="fp32"))
    return Localizer(TASK, NetworkRunner(preset, GridPlan((40, 40, 40), 1.0, 1), oracle), **changes)


def found(model: Localizer, image: Image) -> np.ndarray:
    case = model.case("x", image)
    case.window = (0.0, 100.0)
    return model.assess(case)[0].positions_mm


@pytest.mark.parametrize("size", [40, 96])
def test_a_volume_much_larger_than_in_training_is_looked_at_in_windows_of_that_size(size):
    at = SHAPE + (np.array([70.0, 30.0, 62.0]) if size == 96 else 20.0)
    model = localizer(BallOracle())
    np.testing.assert_allclose(found(model, balls(size, at)), at, atol=0.7)
    assert model.networks.coarse_net.largest == 40**3
    assert (model.networks.coarse_net.calls > 1) == (size == 96)


@pytest.mark.parametrize("off", [0.0, 14.0])
def test_landmarks_beyond_the_field_of_training_are_found_too(off):
    at = SHAPE + (24.0, 24.0, 24.0 + off / 2) + np.array([off, 0.0, 0.0]) * (np.arange(len(SHAPE)) == 0)[:, None]
    model = localizer(BallOracle())
    model.networks.grid = GridPlan((52, 52, 52), 1.0, 1, (40, 40, 40))
    np.testing.assert_allclose(found(model, balls(52, at)), at, atol=0.7)
    assert model.networks.coarse_net.calls == 2 and model.networks.coarse_net.largest == 52**3


def test_windows_cover_the_volume_and_overlap_by_half():
    plan = GridPlan((32, 48, 32), 2.0, 8)
    geometry = ImageGeometry.identity((150, 201, 64), 1.0, (5.0, -3.0, 2.0))
    windows = plan.windows(geometry)
    low = np.min([w.bounds_mm[0] for w in windows], axis=0)
    high = np.max([w.bounds_mm[1] for w in windows], axis=0)
    assert (low <= geometry.bounds_mm[0]).all() and (high >= geometry.bounds_mm[1]).all()
    assert {w.size for w in windows} == {(32, 48, 32)}
    for axis in range(3):
        starts = sorted({float(w.origin[axis]) for w in windows})
        assert all(b - a <= plan.size[axis] / 2 * 2.0 + 1e-6 for a, b in zip(starts, starts[1:], strict=False))
    (whole,) = plan.windows(geometry, most=1e9)
    assert whole.size == plan.grid(geometry).size


@pytest.mark.parametrize("blind", [0, 3])
def test_a_case_that_does_not_look_like_the_mean_shape_is_looked_at_in_other_orientations(blind):
    turn = random_rotation(np.random.default_rng(4), 3, None)
    at = SHAPE @ turn.T + 20.0
    model = localizer(BallOracle(blind), alignment_shape=MeanShape(SHAPE - SHAPE.mean(0), arbitrary_orientation=True))
    np.testing.assert_allclose(found(model, balls(40, at)), at, atol=0.7)
    assert model.networks.coarse_net.calls == blind + 1


def test_the_models_own_numbers_say_how_its_mean_shape_is_aligned():
    """One ball lies far off: the robust alignment is satisfied at once, plain least squares looks from everywhere."""
    at = SHAPE + 20.0
    at[0] = (36.0, 36.0, 36.0)
    calls = {}
    for reweightings, samples in ((15, 300), (0, 1)):
        shape = MeanShape(SHAPE - SHAPE.mean(0), arbitrary_orientation=True)
        model = localizer(BallOracle(), alignment_shape=shape)
        alignment = RobustFitConfig(samples=samples, reweightings=reweightings)
        model.networks.config = replace(model.networks.config, alignment=alignment)
        found(model, balls(40, at))
        calls[reweightings] = model.networks.coarse_net.calls
    assert calls == {15: 1, 0: OrientationSearchConfig().orientations}


def test_it_stops_looking_after_all_orientations():
    model = localizer(BallOracle(blind=100), alignment_shape=MeanShape(SHAPE - SHAPE.mean(0), arbitrary_orientation=True))
    assert np.isfinite(found(model, balls(40, SHAPE + 20.0))).all()
    assert model.networks.coarse_net.calls == OrientationSearchConfig().orientations


@pytest.mark.parametrize("spacing_mm", [30.0, 1e6])
def test_an_image_far_larger_than_the_trained_field_is_refused_before_it_is_sampled(spacing_mm):
    """As with a unit that was said wrongly: its windows would have no end, or no memory would hold them."""
    model = untrained()
    model.networks.grid = replace(model.networks.grid, spacing_mm=1.0)
    image = Image(ImageGeometry.identity((200, 300), spacing_mm), np.zeros((300, 200), np.float32))
    with pytest.raises(
        ImageRejected, match=r"scan: it measures .* mm, and this model was trained on fields of 64x96 mm: is its unit"
    ):
        model.predict(model.case("scan", image))
    model.predict(model.case("scan", Image(ImageGeometry.identity((200, 300), 1.0), image.pixels)))


def test_a_picture_without_pixel_size_is_refused_where_it_would_be_looked_at_in_many_windows():
    """A model that was trained in mm takes a pixel for a millimetre."""
    model = untrained()
    model.networks.grid = replace(model.networks.grid, spacing_mm=0.2)
    picture = Image(ImageGeometry.identity((100, 120)), np.zeros((120, 100), np.float32), unit="px")
    with pytest.raises(ImageRejected) as caught:
        model.predict(model.case("scan", picture))
    assert str(caught.value) == (
        "scan: it states no pixel size, and this model was trained on fields of 12.8x19.2 mm: "
        "write its pixel size into the image, or train on images without"
    )
    model.networks.grid = replace(model.networks.grid, spacing_mm=1.0)
    model.predict(model.case("scan", picture))  # which may be one of a study with both


def test_an_image_with_a_spacing_is_refused_where_the_task_states_the_size_of_a_pixel():
    model = untrained()
    model.task = replace(model.task, scale=PixelSize(0.2))
    pixels, geometry = np.zeros((120, 100), np.float32), ImageGeometry.identity((100, 120))
    with pytest.raises(ImageRejected, match="scan: it states its own pixel spacing, and the task's scale rule is for pictures"):
        model.predict(model.case("scan", Image(geometry, pixels)))
    model.predict(model.case("scan", Image(geometry, pixels, unit="px")))


def test_a_volume_without_spacing_may_be_one_of_a_study_of_such():
    """Then the model learned with samples for millimetres, and a larger one is looked at in windows like any other."""
    model = localizer(BallOracle())
    size = int(model.networks.grid.size[0])
    large = Image(ImageGeometry.identity((3 * size,) * 3, 1.0), np.zeros((3 * size,) * 3, np.float32), unit="px")
    case = model.case("scan", large)
    assert model.count_windows(case) > EXTENT.many_windows
    model.check_extent(case)


def test_an_image_far_smaller_than_what_the_landmarks_span_is_refused():
    """A millimetre taken for ten, or a metre for a millimetre: the networks would find all points somewhere in the blur."""
    whole = balls(40, SHAPE + 20.0)
    prior = learn_prior([(whole.geometry, LandmarkSet.of_positions(TASK, SHAPE + 20.0))])
    model = localizer(BallOracle(), prior=prior)
    with pytest.raises(ImageRejected, match="scan: it measures 2x2x2 mm, and the landmarks of this model's cases span 33 mm"):
        model.predict(model.case("scan", Image(ImageGeometry.identity((40,) * 3, 0.05), whole.pixels)))
    model.predict(model.case("scan", Image(ImageGeometry.identity((40,) * 3, 0.2), whole.pixels)))  # a part of it is no fault
