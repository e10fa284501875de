"""Where the shape may lie anywhere, the coarse network works on a small grid; elsewhere on the usual one."""

from __future__ import annotations

import numpy as np
import pytest

from landmarklabel.data.cases import Case
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.io.image_array import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.networks.presets import Preset, find_preset
from landmarklabel.training.configuration import SamplingConfig
from landmarklabel.training.planning import place_varies, untrained_model

TASK = LandmarkTask("box", ("a", "b", "c", "d", "e"), 2)
SPREAD = Preset.PLACE_SPREAD
SHAPE = np.array([[-60.0, -40], [60, -40], [60, 40], [-60, 40], [0, 25]])


def cases_of(count: int, shift: float, scale: float = 0.0, lacking: bool = False) -> list[Case]:
    """Boxes in images of 800 by 540, shifted by up to so many pixels and scaled by up to so much (log)."""
    rng, made = np.random.default_rng(0), []
    for number in range(count):
        points = SHAPE * np.exp(rng.uniform(-scale, scale)) + (400, 270) + rng.uniform(-shift, shift, 2)
        points[number % 5 if lacking else []] = np.nan
        image = Image(ImageGeometry.identity((800, 540)), np.zeros((540, 800), np.uint8), unit="px")
        made.append(Case(str(number), image, LandmarkSet.of_positions(TASK, points), window=(0, 1)))
    return made


@pytest.mark.parametrize("lacking", [False, True])
def test_a_shape_that_lies_anywhere_is_told_from_one_that_has_its_place(lacking):
    assert place_varies(cases_of(30, shift=90, scale=0.3, lacking=lacking), SPREAD, 5)
    assert not place_varies(cases_of(30, shift=20, scale=0.1, lacking=lacking), SPREAD, 5)


def test_a_few_cases_do_not_tell():
    assert not place_varies(cases_of(4, shift=90, scale=0.3), SPREAD, 5)


@pytest.mark.parametrize(
    ("key", "anywhere"), [("scn:default", 192 * 136), ("global_local:default", 192 * 136), ("scn:single", 384 * 272)]
)
def test_the_grid_is_small_where_a_fine_network_follows(key, anywhere):
    grids = {}
    for shift in (90, 20):
        cases = cases_of(30, shift)
        model = untrained_model(TASK, find_preset(key, 2), cases, None, None, SamplingConfig(), InferenceConfig())
        grids[shift] = np.prod(model.networks.grid.size)
    assert grids[90] == pytest.approx(anywhere, rel=0.25) and grids[20] == pytest.approx(384 * 272, rel=0.25)
