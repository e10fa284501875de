"""However far a range lets a draw go, a warp bends no more than an image can bear."""

from __future__ import annotations

import numpy as np
import pytest

from landmarklabel.data.augment import AugmentRange, draw_warp
from landmarklabel.geometry import ImageGeometry

STILL = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}
FIELD = {2: ImageGeometry.identity((90, 130), 0.8, (-31, 77)), 3: ImageGeometry.identity((40, 50, 60), 1.3, (5, -200, 40))}


@pytest.mark.parametrize("dims", [2, 3])
def test_no_point_is_bent_by_more_than_a_twelfth_of_the_shortest_side(dims):
    low, high = FIELD[dims].bounds_mm
    limit = float((high - low).min()) / 12
    points = np.random.default_rng(0).uniform(low, high, (400, dims))
    bent = []
    for seed in range(20):
        warp = draw_warp(np.random.default_rng(seed), FIELD[dims], AugmentRange(elastic=5.0, **STILL))
        bent.append(np.abs(warp.apply(points) - points).max())
    assert 0.6 * limit < max(bent) <= limit


@pytest.mark.parametrize("dims", [2, 3])
def test_a_usual_draw_stays_as_it_is_drawn(dims):
    """The limit is for the rare large one: the spread of the control points is what the range says."""
    low, high = FIELD[dims].bounds_mm
    side = float((high - low).min())
    nodes = [draw_warp(np.random.default_rng(seed), FIELD[dims], AugmentRange()).nodes for seed in range(60)]
    assert np.std(nodes) == pytest.approx(AugmentRange().elastic * side, rel=0.05)
