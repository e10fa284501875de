"""Poses found from samples: how much agrees with them, which are believed, and how many there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapes import ShapeModel, candidates, geometry, limbs, mirror

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.procrustes import Similarity
from landmarklabel.inference.configuration import ShapeModelConfig
from landmarklabel.inference.evidence import Candidates
from landmarklabel.inference.pose_sampling import _distinct, rough_pose, sample_poses
from landmarklabel.inference.shape_fit import Assignment, fit_shape_to_candidates
from landmarklabel.inference.shape_prior import PosePrior

DIMS = pytest.mark.parametrize("dims", [2, 3])


def stiff(dims, variance=0.0):
    """A prior of limbs whose coordinates vary alone, by little or nothing."""
    prior = ShapeModel(limbs(dims)).prior()
    return replace(prior, covariance=variance * np.eye(prior.mean_shape.points.size))


def found(prior, points, fixed=(), mirrored=False, scale=1.0, weight=None, seed=0, **count):
    weight = np.ones(len(points)) if weight is None else weight
    return sample_poses(prior, points, weight, list(fixed), mirrored, scale, np.random.default_rng(seed), **count)


def move(dims, size=1.0, mirrored=False, seed=0) -> Similarity:
    rng = np.random.default_rng(seed)
    matrix = size * random_rotation(rng, dims, None) @ (mirror(dims) if mirrored else np.eye(dims))
    return Similarity(matrix, rng.uniform(-50, 50, dims))


@DIMS
@pytest.mark.parametrize("mirrored", [False, True])
def test_where_all_points_agree_each_counts_nine_times_its_weight_and_a_persons_four_times_that(dims, mirrored):
    prior = stiff(dims)
    pose = move(dims, 1.3, mirrored)
    points = pose.apply(prior.mean_shape.points)
    n = len(points)
    weight = np.linspace(0.1, 1.0, n)
    for fixed, score in ((), 9 * weight.sum()), ((2, 5, 7, 8), 9 * (weight.sum() + 3 * weight[[2, 5, 7, 8]].sum())):
        best, support = found(prior, points, fixed, mirrored, weight=weight)[0]
        np.testing.assert_allclose(best.matrix, pose.matrix, atol=1e-9)
        np.testing.assert_allclose(best.offset, pose.offset, atol=1e-7)
        assert best.mirrored == mirrored and support == pytest.approx(score)
        assert found(prior, points, fixed, not mirrored, weight=weight)[0][1] < 0.8 * score
    missing = points.copy()
    missing[[0, 2]] = np.nan
    assert found(prior, missing, (2, 5), mirrored)[0][1] == pytest.approx(9 * (n - 2 + 3))


@DIMS
@pytest.mark.parametrize("jitter", [0.0, 0.04])
def test_a_point_counts_less_the_further_off_it_is_and_not_at_all_beyond_three_standard_deviations(dims, jitter):
    """Of the shape's variance together with 3 % of its size, in the size that the pose has, an axis."""
    size = stiff(dims).mean_shape.size
    prior, pose = stiff(dims, (jitter * size) ** 2), move(dims, 1.25)
    one_sd = 1.25 * size * np.hypot(jitter, 0.03) * np.sqrt(dims)
    for deviations, counts in ((0.0, 9.0), (1.0, 8.0), (2.0, 5.0), (2.9, 9 - 2.9**2), (3.1, 0.0)):
        points = pose.apply(prior.mean_shape.points)
        points[4, 0] += deviations * one_sd
        best, support = found(prior, points, mirrored=False)[0]
        others = 9.0 * (len(points) - 1)
        if deviations in (0.0, 3.1):  # otherwise a pose between may do a little better
            assert support == pytest.approx(others + counts)
            np.testing.assert_allclose(best.matrix, pose.matrix, atol=1e-9)
        assert others + counts - 1e-6 <= support < others + counts + 0.7


@DIMS
@pytest.mark.parametrize(("size", "believed"), [(0.45, False), (0.55, True), (1.9, True), (2.2, False)])
def test_poses_up_to_twice_or_half_the_expected_size_are_believed(dims, size, believed):
    prior = stiff(dims)
    poses = found(prior, move(dims, 0.2 * size).apply(prior.mean_shape.points), scale=0.2)
    assert bool(poses) == believed
    assert not poses or poses[0][0].scale == pytest.approx(0.2 * size)


@DIMS
def test_of_points_anywhere_there_are_six_poses_or_as_many_as_asked_for_the_best_first_and_all_different(dims):
    prior = stiff(dims)
    points = np.random.default_rng(1).uniform(-80, 80, prior.mean_shape.points.shape)
    poses = found(prior, points)
    assert len(poses) == 6 and len(found(prior, points, count=2)) == 2
    assert len(found(replace(prior, config=ShapeModelConfig(starts=3)), points)) == 3
    support = [s for _, s in poses]
    assert support == sorted(support, reverse=True)
    placed = [pose.apply(prior.mean_shape.points) for pose, _ in poses]
    apart = [np.median(np.linalg.norm(a - b, axis=1)) for i, a in enumerate(placed) for b in placed[:i]]
    assert min(apart) > 0.1 * prior.mean_shape.size * min(pose.scale for pose, _ in poses)
    assert len(found(prior, move(dims).apply(prior.mean_shape.points))) == 1  # where all agree there is one


@DIMS
def test_as_many_points_as_axes_are_too_few_for_a_pose(dims):
    prior = stiff(dims)
    points = move(dims).apply(prior.mean_shape.points)
    points[dims + 1 :] = np.nan
    assert len(found(prior, points)) == 1
    points[dims] = np.nan
    assert found(prior, points) == []


@DIMS
def test_what_the_networks_say_first_makes_a_rough_pose_and_counts_by_its_weight(dims):
    prior = stiff(dims)
    points = move(dims).apply(prior.mean_shape.points)
    n = len(points)
    seen = candidates(np.random.default_rng(0), points, np.zeros_like(points), noise=1e-9)
    expected = PosePrior(Similarity(np.eye(dims), np.zeros(dims)), (1.0, 1.0, 1.0))
    pose, support = rough_pose(prior, expected, seen, mirrored=False)
    np.testing.assert_allclose(pose.apply(prior.mean_shape.points), points, atol=1e-6)
    assert support == pytest.approx(9 * 0.8 * n)
    weightless = Candidates(seen.positions_mm, np.zeros((n, 2)), seen.covariance_mm2)
    assert rough_pose(prior, expected, weightless, mirrored=False)[1] == pytest.approx(9 * 0.001 * n)


@DIMS
def test_a_person_may_place_what_nobody_has_labelled_before(dims):
    """The shape says nothing of it, and no pose is made from it."""
    model = ShapeModel(limbs(dims))
    prior, rng = model.prior(), np.random.default_rng(0)
    truth = model.draw(rng, mirror(dims))
    mean = model.mean.copy()
    mean[3] = np.nan
    unknown = replace(prior, mean_shape=replace(prior.mean_shape, points=mean))
    fixed = {3: truth[3] + 500.0, 6: truth[6]}
    fit = fit_shape_to_candidates(unknown, prior.pose_distribution.in_image(geometry(dims)), candidates(rng, truth), fixed)
    assert fit.posterior.pose.mirrored
    np.testing.assert_array_equal(fit.positions_mm[3], fixed[3])
    assert (np.delete(fit.assignment, [3, 6]) == Assignment.FIRST_CANDIDATE).all()


@DIMS
@pytest.mark.parametrize("shift", [0.1, 0.2, 0.3])
def test_places_that_do_not_exist_change_nothing(dims, shift):
    """A landmark with fewer candidates than others is judged as where all have as many."""
    model = ShapeModel(limbs(dims))
    prior, rng = replace(model.prior(), cases=2), np.random.default_rng(4)
    at = model.draw(rng)
    at[4, 0] += shift * model.size
    few = candidates(rng, at)
    n, none = len(at), 5
    padding = Candidates(np.full((n, none, dims), np.nan), np.full((n, none), 0.05), np.tile(np.eye(dims), (n, none, 1, 1)))
    expected = prior.pose_distribution.in_image(geometry(dims))
    one, more = (fit_shape_to_candidates(prior, expected, seen, {}) for seen in (few, few.followed_by(padding)))
    np.testing.assert_array_equal(one.assignment, more.assignment)
    np.testing.assert_allclose(one.positions_mm, more.positions_mm)
    assert one.cost == pytest.approx(more.cost)


@pytest.mark.parametrize("count", [1, 4, 500])
@pytest.mark.parametrize("seed", range(4))
def test_distinct_poses_are_those_of_a_plain_loop(seed, count):
    """Best first, each farther than its own distance from all that were chosen before it; some scores are equal."""
    rng = np.random.default_rng(seed)
    placed, score = rng.normal(size=(300, 9, 2)), rng.integers(0, 40, 300).astype(float)
    least = rng.uniform(0.5, 1.5, 300)
    wanted: list[int] = []
    for k in np.argsort(-score)[:200]:
        if all(np.median(np.linalg.norm(placed[k] - placed[j], axis=1)) > least[k] for j in wanted):
            wanted.append(int(k))
        if len(wanted) == count:
            break
    assert _distinct(placed, score, least, count) == wanted
    assert len(wanted) == count or count == 500
