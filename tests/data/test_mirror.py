"""Left and right fall out of a symmetric mean shape; a hand has none."""

from __future__ import annotations

import numpy as np
import pytest

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.mirror import find_mirror
from landmarklabel.landmarks import LandmarkTask

DIMS = pytest.mark.parametrize("dims", [2, 3])


def skull(rng, dims, noise=0.05):
    """Eight pairs, four landmarks on the plane, in shuffled order and any orientation; and what mirrors into what."""
    half = rng.normal(size=(8, dims)) * 10
    half[:, 0] = np.abs(half[:, 0]) + 3
    middle = rng.normal(size=(4, dims)) * 10 * (np.arange(dims) > 0)
    flip = np.array([-1.0] + [1.0] * (dims - 1))
    points = np.vstack([half, half * flip, middle]) + rng.normal(size=(20, dims)) * noise
    partner = np.r_[np.arange(8, 16), np.arange(8), np.arange(16, 20)]
    shuffle = rng.permutation(20)
    place = np.argsort(shuffle)
    turn = random_rotation(rng, dims, None)
    return points[shuffle] @ turn.T + rng.normal(size=dims) * 40, place[partner[shuffle]], turn[:, 0]


@DIMS
def test_pairs_and_plane_of_a_symmetric_shape_in_any_orientation(dims):
    for seed in range(8):
        points, partner, normal = skull(np.random.default_rng(seed), dims)
        found = find_mirror(points)
        assert np.array_equal(found.order, partner)
        assert abs(found.normal @ normal) > 0.99
        assert np.allclose(found.reflection @ found.reflection, np.eye(dims)) and np.linalg.det(found.reflection) < 0


def test_a_landmark_on_one_side_only_has_no_partner_and_unknown_ones_take_no_part():
    points, partner, normal = skull(np.random.default_rng(3), 3)
    lonely = np.flatnonzero(partner == np.arange(20))[0]
    points[lonely] += 2.0 * normal  # off the plane: mirrored it lands where no landmark is
    unknown = np.flatnonzero(partner == np.arange(20))[1]
    points[unknown] = np.nan
    found = find_mirror(points)
    expected = partner.copy()
    expected[[lonely, unknown]] = -1
    assert np.array_equal(found.order, expected)


@DIMS
def test_a_shape_without_symmetry_has_no_mirror(dims):
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert find_mirror(rng.normal(size=(14, dims)) * 10) is None
    assert find_mirror(rng.normal(size=(4, dims))) is None  # too few to tell


def test_pairs_the_task_names_are_taken_as_they_are():
    points, partner, _ = skull(np.random.default_rng(5), 3)
    names = tuple(f"p{i}" for i in range(20))
    pairs = tuple((names[i], names[j]) for i, j in enumerate(partner) if i < j)[:3]
    order = find_mirror(points, LandmarkTask("t", names, 3, mirror_pairs=pairs)).order
    assert (order != np.arange(20)).sum() == 6
