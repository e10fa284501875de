"""Generalized Procrustes analysis: against SciPy's for two shapes, and whatever the specimens' order and place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from landmarklabel.data.generalized_procrustes import generalized_procrustes


def specimens(rng, m=12, n=9, d=3):
    return rng.normal(size=(n, d)) * [5, 3, 1][:d] + rng.normal(scale=0.2, size=(m, n, d))


def turns(rng, m, d):
    if d == 3:
        return Rotation.random(m, random_state=int(rng.integers(1e9))).as_matrix()
    angle = rng.uniform(0, 2 * np.pi, m)
    return np.stack([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)


@pytest.mark.parametrize("d", [2, 3])
def test_specimens_that_differ_in_place_size_and_pose_only_become_equal(d):
    rng = np.random.default_rng(0)
    (first,) = specimens(rng, 1, d=d)
    sizes = rng.uniform(0.5, 30, 8)
    moved = sizes[:, None, None] * (first @ turns(rng, 8, d).transpose(0, 2, 1)) + rng.normal(size=(8, 1, d)) * 100
    made = generalized_procrustes(moved)
    assert np.allclose(made.points, made.mean, atol=1e-9)
    own = np.linalg.norm(first - first.mean(0))
    assert np.allclose(made.sizes, own * sizes) and np.linalg.norm(made.mean) == pytest.approx(1)


@pytest.mark.parametrize("d", [2, 3])
def test_shapes_do_not_depend_on_order_place_or_pose(d):
    rng = np.random.default_rng(1)
    x = specimens(rng, d=d)
    made = generalized_procrustes(x)
    order = rng.permutation(len(x))
    again = generalized_procrustes(3 * (x @ turns(rng, 12, d).transpose(0, 2, 1))[order] + 7)
    assert np.allclose(again.points, made.points[order], atol=1e-6) and np.allclose(again.sizes, 3 * made.sizes[order])


def test_two_shapes_are_as_far_apart_as_scipy_says_up_to_its_scaling():
    rng = np.random.default_rng(2)
    x = specimens(rng, 2)
    made = generalized_procrustes(x)
    apart = ((made.points[0] - made.points[1]) ** 2).sum()
    full = procrustes(x[0], x[1])[2]  # scaled to the nearest size: 1 - cos² where the partial one is 2 - 2 cos
    assert 1 - (1 - apart / 2) ** 2 == pytest.approx(full, abs=1e-9)


def test_nothing_is_mirrored():
    rng = np.random.default_rng(3)
    (first,) = specimens(rng, 1)
    made = generalized_procrustes(np.stack([first, first * [-1, 1, 1]]))
    assert not np.allclose(made.points[0], made.points[1], atol=0.01)
