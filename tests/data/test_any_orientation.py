"""A study counts as one whose cases come in any orientation as soon as a fifth of them lie otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from landmarklabel.data.mean_shape import learn_mean_shape
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

TASK = LandmarkTask("t", tuple("abcdefghijkl"), 2)


def cases(turned: int, of: int) -> list[LandmarkSet]:
    """Upright cases, and some turned by a right angle to either side."""
    rng = np.random.default_rng(3)
    shape, out = rng.normal(size=(12, 2)) * 20, []
    for k in range(of):
        angle = (-1) ** k * np.pi / 2 if k < turned else rng.uniform(-0.1, 0.1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        out.append(LandmarkSet.of_positions(TASK, (shape + rng.normal(size=shape.shape) * 0.2) @ turn.T))
    return out


@pytest.mark.parametrize(
    ("turned", "of", "any_orientation"), [(0, 10, False), (1, 10, False), (2, 10, True), (5, 20, True), (3, 20, False)]
)
def test_from_a_fifth_of_turned_cases_on_no_orientation_is_expected(turned, of, any_orientation):
    assert learn_mean_shape(cases(turned, of)).arbitrary_orientation is any_orientation
