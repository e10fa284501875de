"""When landmarks count as confused together, and what a pose costs: thresholds that can be worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from landmarklabel.inference.configuration import ShapeModelConfig
from landmarklabel.inference.shape_fit import _confused_group, _cost

CONFIG = ShapeModelConfig(confusion_rate=0.1, group_confusion_rate=0.2, anywhere_extent=3.0)
UNIT_MM, DOF, PRECISION = 50.0, 7.0, 40.0


def prior_with(group, n=6):
    return SimpleNamespace(config=CONFIG, dims=2, dof=DOF, groups=[np.array(group)], known=np.ones(n, bool))


def posterior_with(distance2, group, n=6):
    """Coordinates that vary alone; the group's are off by ``distance2`` in all, in standard deviations squared."""
    residual = np.zeros(2 * n)
    residual[2 * group[0]] = np.sqrt(distance2 * PRECISION)
    return SimpleNamespace(precision=PRECISION * np.eye(2 * n), weighted_residual=residual)


def confused_together(distance2, group, first=(True,) * 6):
    n = len(first)
    found = _confused_group(prior_with(group, n), posterior_with(distance2, group, n), np.ones(n, bool), np.array(first), UNIT_MM)
    return found.tolist()


@pytest.mark.parametrize("group", [[0, 1], [2, 4, 5]])
def test_a_group_is_confused_beyond_the_distance_at_which_being_anywhere_is_as_likely(group):
    """Student's density of so many coordinates against: one is confused, the others with it, all of them anywhere."""
    k, d = len(group), 2
    anywhere = np.log(0.1) + (k - 1) * np.log(0.2) - k * d * np.log(3.0 * UNIT_MM)
    normal = 0.5 * k * d * np.log(PRECISION / (2 * np.pi))
    threshold = DOF * np.expm1((normal - anywhere) / (0.5 * (DOF + k * d)))
    assert confused_together(1.02 * threshold, group) == group and confused_together(0.98 * threshold, group) == []


def test_one_landmark_is_no_group_and_most_landmarks_are_none_either():
    assert confused_together(1e9, [0, 1]) == [0, 1]
    assert confused_together(1e9, [0, 1], first=(True, False, True, True, True, True)) == []
    assert confused_together(1e9, [0, 1], first=(True,) * 4) == [0, 1]
    assert confused_together(1e9, [0, 1], first=(True,) * 3) == []


@pytest.mark.parametrize(("scale", "expected", "cost"), [(2.0, 2.0, 0.0), (4.0, 2.0, np.log(2)), (0.5, 1.0, np.log(2))])
def test_a_pose_costs_what_its_scale_is_off_the_expected_one(scale, expected, cost):
    pose = SimpleNamespace(mean=SimpleNamespace(scale=expected), sd=(0.1, 0.25, 0.1))
    posterior = SimpleNamespace(energy=0.0, pose=SimpleNamespace(scale=scale, mirrored=False))
    assert _cost(prior_with([0, 1]), pose, posterior, 0, 0, UNIT_MM) == pytest.approx(0.5 * (cost / 0.25) ** 2)
