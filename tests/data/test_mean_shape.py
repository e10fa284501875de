"""Mean shapes and robust similarity fits."""

from __future__ import annotations

import numpy as np
import pytest

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.mean_shape import fit_robustly, learn_mean_shape
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.landmarks import LandmarkSet, LandmarkTask


def shape(rng, n, d):
    return rng.normal(size=(n, d)) * 20


@pytest.mark.parametrize("dims", [2, 3])
def test_a_third_of_wild_detections_does_not_move_the_pose(dims):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mean = shape(rng, 30, dims)
        matrix, offset = random_rotation(rng, dims, None) * rng.uniform(0.7, 1.4), rng.normal(size=dims) * 100
        truth = mean @ matrix.T + offset
        detected = truth + rng.normal(size=truth.shape) * 0.5
        wild = rng.permutation(30)[:10]
        detected[wild] = offset + shape(rng, 10, dims) * 2
        detected[wild[0]] = np.nan
        fit, residual = fit_robustly(mean, detected, np.ones(30))
        assert np.linalg.norm(fit.apply(mean) - truth, axis=1).mean() < 1.0
        assert np.isnan(residual[wild[0]])
        assert np.linalg.det(fit.matrix) > 0


@pytest.mark.parametrize(("angle", "arbitrary"), [(0.3, False), (None, True)])
@pytest.mark.parametrize("dims", [2, 3])
def test_learned_mean_shape_and_orientation(dims, angle, arbitrary):
    rng = np.random.default_rng(1)
    task = LandmarkTask("t", tuple("abcdefghijkl"), dims)
    true_mean = shape(rng, 12, dims)
    cases = []
    for _ in range(12):
        points = true_mean + rng.normal(size=true_mean.shape) * 0.2
        points = points @ random_rotation(rng, dims, angle).T * rng.uniform(0.9, 1.1)
        points = points + rng.normal(size=dims) * 50
        points[rng.integers(12)] = np.nan
        cases.append(LandmarkSet.of_positions(task, points))
    found = learn_mean_shape(cases)
    assert found.arbitrary_orientation is arbitrary and found.usable
    _, residual = fit_robustly(found.points, true_mean, np.ones(12))
    assert np.nanmax(residual) < 1.0


def test_shapes_that_do_not_align_are_not_taken_for_cases_in_any_orientation():
    task = phantom_task(3)
    for absent in (0.0, 0.3):
        sets = [draw_phantom(task, seed, absent_fraction=absent).landmarks for seed in range(20)]
        assert not learn_mean_shape(sets).arbitrary_orientation


def test_cases_with_few_points_do_not_make_an_upright_study_one_of_any_orientation():
    rng = np.random.default_rng(0)
    task, mean, sets = LandmarkTask("t", tuple("abcdefghijkl"), 3), shape(rng, 12, 3), []
    for i in range(20):
        points = mean @ random_rotation(rng, 3, 0.2).T + rng.normal(size=mean.shape) * 0.5
        if i % 2:
            points[:-4] = np.nan
            points[-4:] = points[-4:] @ random_rotation(rng, 3, None).T
        sets.append(LandmarkSet.of_positions(task, points))
    assert not learn_mean_shape(sets).arbitrary_orientation
