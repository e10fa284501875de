"""What is learned from few and many labelled cases, and what observed points then say about the others."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import SIDE, ShapeModel, geometry, half_turn, limbs, mirror

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.procrustes import Similarity, fit_robustly
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.posterior import condition
from landmarklabel.inference.shape_prior import PosePrior, learn_prior
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

DIMS = pytest.mark.parametrize("dims", [2, 3])


def given(truth, which, noise=0.05):
    """Points (n, d), NaN but for ``which``, and their noise."""
    n, d = truth.shape
    points = np.full((n, d), np.nan)
    points[which] = truth[which]
    return points, np.tile(noise**2 * np.eye(d), (n, 1, 1))


def distances(posterior, truth):
    return np.linalg.norm(posterior.mean - truth, axis=1)


def traces(posterior, dims):
    """(n,) total variance of each landmark."""
    return np.diag(posterior.covariance).reshape(-1, dims).sum(1)


def far_apart(mean, count):
    """The ``count`` landmarks furthest from each other, greedily."""
    chosen = [int(np.argmax((mean**2).sum(1)))]
    while len(chosen) < count:
        chosen.append(int(np.argmax(np.linalg.norm(mean[:, None] - mean[chosen], axis=-1).min(1))))
    return chosen


@DIMS
@pytest.mark.parametrize("count", [1, 3])
def test_one_labelled_case_is_a_template_that_few_points_lay(dims, count):
    model, where, rng = ShapeModel(limbs(dims)), geometry(dims), np.random.default_rng(3)
    shape = model.draw(rng)
    sets = [LandmarkSet.of_positions(model.task, shape + 10.0 * i) for i in range(count)]
    prior = learn_prior([(where, s) for s in sets])
    assert prior.cases == count and prior.known.all() and not prior.symmetric
    for _ in range(5):
        move = Similarity(1.15 * random_rotation(rng, dims, 0.3), np.zeros(dims))
        truth = move.apply(shape - SIDE / 2) + SIDE / 2 + rng.uniform(-40, 40, dims)
        which = far_apart(model.mean, dims)
        before = distances(condition(prior, prior.pose_distribution.in_image(where), *given(truth, [])), truth)
        after = distances(condition(prior, prior.pose_distribution.in_image(where), *given(truth, which)), truth)
        assert after.mean() < 0.05 * model.size and after.mean() < before.mean() / 5


@DIMS
def test_without_a_case_that_has_enough_points_there_is_no_prior(dims):
    model = ShapeModel(limbs(dims))
    few = [(where, cut(s, range(dims + 1))) for where, s in model.cases(4, 0)]
    assert learn_prior([]) is None
    assert learn_prior([(where, LandmarkSet.empty(model.task)) for where, _ in few]) is None
    assert learn_prior(few) is None
    assert learn_prior([*few, *model.cases(1, 1)]) is not None


def cut(landmarks, kept):
    points = np.full_like(landmarks.positions_mm, np.nan)
    points[list(kept)] = landmarks.positions_mm[list(kept)]
    return LandmarkSet.of_positions(landmarks.task, points)


def held_out_error(prior, model, which, seed=100):
    """Mean distance in mm of the landmarks that were not observed, over 20 fresh shapes."""
    dims, rng = model.mean.shape[1], np.random.default_rng(seed)
    expected_pose = prior.pose_distribution.in_image(geometry(dims))
    left = np.setdiff1d(np.arange(len(model.mean)), which)
    truths = [model.draw(rng) for _ in range(20)]
    return np.mean([distances(condition(prior, expected_pose, *given(t, which)), t)[left].mean() for t in truths])


@DIMS
def test_it_grows_better_with_cases(dims):
    model = ShapeModel(limbs(dims))
    which = far_apart(model.mean, 6)
    few, more, many = (held_out_error(learn_prior(model.cases(count, 5)), model, which) for count in (3, 30, 300))
    best = held_out_error(model.prior(), model, which)
    assert more < 0.8 * few and many < 0.9 * more
    assert many < 1.3 * best


@DIMS
def test_missing_landmarks_are_tolerated(dims):
    model, rng = ShapeModel(limbs(dims)), np.random.default_rng(2)
    n, cases = len(model.mean), model.cases(40, 5)
    holed = [(where, cut(s, np.flatnonzero(rng.random(n) > 0.3))) for where, s in cases]
    complete, prior = learn_prior(cases), learn_prior(holed)
    assert prior.cases == 40 and prior.known.all()
    apart = fit_robustly(prior.mean_shape.points, complete.mean_shape.points, np.ones(n))[1]
    assert apart.max() < 0.05 * model.size
    assert np.linalg.eigvalsh(prior.covariance).min() > 0
    size = [np.trace(p.covariance) / p.mean_shape.size**2 for p in (prior, complete)]
    assert size[0] == pytest.approx(size[1], rel=0.12)
    which = far_apart(model.mean, 6)
    assert held_out_error(prior, model, which) < 1.25 * held_out_error(complete, model, which)


@DIMS
def test_a_landmark_nobody_placed_is_not_known(dims):
    model = ShapeModel(limbs(dims))
    n = len(model.mean)
    prior = learn_prior([(where, cut(s, range(1, n))) for where, s in model.cases(5, 0)])
    assert prior.known.tolist() == [False] + [True] * (n - 1)
    truth, expected_pose = model.draw(np.random.default_rng(1)), prior.pose_distribution.in_image(geometry(dims))
    which = far_apart(model.mean[1:], 4)
    with_it, without = ([*(np.array(which) + 1), *extra] for extra in ([0], []))
    a, b = (condition(prior, expected_pose, *given(truth, w)) for w in (with_it, without))
    np.testing.assert_array_equal(a.mean, b.mean)
    assert distances(a, truth)[1:].mean() < 0.1 * model.size


def butterfly(dims):
    rng = np.random.default_rng(4)
    half = rng.uniform(15, 80, (8, dims)) * np.where(np.arange(dims) > 0, rng.choice([-1, 1], (8, dims)), 1)
    points = np.vstack([half, half @ mirror(dims)])
    return points - points.mean(0)


@DIMS
def test_a_butterfly_is_symmetric_and_a_hand_is_not(dims):
    assert learn_prior(ShapeModel(butterfly(dims)).cases(10, 0)).symmetric
    assert not learn_prior(ShapeModel(limbs(dims)).cases(10, 0)).symmetric


@DIMS
def test_what_one_half_of_a_symmetric_shape_does_the_other_may_do(dims):
    task = LandmarkTask("butterfly", tuple("abcdefghijklmnop"), dims)
    rng, cases = np.random.default_rng(0), []
    for _ in range(25):
        points = butterfly(dims) + SIDE / 2 + rng.normal(0, 1, (16, dims))
        points[2] += rng.normal(0, 5, dims)
        cases.append((geometry(dims), LandmarkSet.of_positions(task, points)))
    spread = np.einsum("nii->n", learn_prior(cases).blocks)
    assert spread[2] == pytest.approx(spread[10], rel=0.02)
    assert spread[2] > 2 * spread[[0, 8]].max()


@DIMS
def test_with_tiny_noise_fixed_points_are_where_they_were_fixed(dims):
    for prior in (learn_prior(ShapeModel(limbs(dims)).cases(1, 0)), ShapeModel(limbs(dims)).prior()):
        truth = ShapeModel(limbs(dims)).draw(np.random.default_rng(8)) + np.random.default_rng(9).normal(0, 3, (1, dims))
        which = far_apart(limbs(dims), 7)
        posterior = condition(prior, prior.pose_distribution.in_image(geometry(dims)), *given(truth, which, noise=1e-3))
        assert distances(posterior, truth)[which].max() < 1e-2
        assert np.sqrt(traces(posterior, dims)[which]).max() < 1e-2


@DIMS
def test_one_point_already_moves_all_others(dims):
    prior, expected_pose = (
        ShapeModel(limbs(dims)).prior(),
        ShapeModel(limbs(dims)).prior().pose_distribution.in_image(geometry(dims)),
    )
    start = condition(prior, expected_pose, *given(limbs(dims), [])).mean
    shift = np.arange(1, dims + 1) * 8.0
    moved = condition(prior, expected_pose, *given(start + shift, [0])).mean - start
    assert (moved @ shift / (shift @ shift)).min() > 0.2


@DIMS
def test_an_observed_point_never_makes_anything_less_certain(dims):
    model = ShapeModel(limbs(dims))
    prior, rng = model.prior(), np.random.default_rng(6)
    expected_pose = prior.pose_distribution.in_image(geometry(dims))
    truth, order = model.draw(rng), rng.permutation(len(model.mean))
    before = condition(prior, expected_pose, *given(truth, []), iterations=1)
    for count in range(1, len(order) + 1):
        after = condition(prior, expected_pose, *given(truth, order[:count]), iterations=1)
        lost = np.linalg.eigvalsh(before.covariance - after.covariance)
        assert lost.min() > -1e-6 * lost.max() and lost.max() > 0
        before = after


@DIMS
def test_a_point_where_it_was_expected_makes_all_others_more_certain(dims):
    model = ShapeModel(limbs(dims))
    prior, rng = model.prior(), np.random.default_rng(6)
    expected_pose, order = prior.pose_distribution.in_image(geometry(dims)), rng.permutation(len(model.mean))
    points = given(model.draw(rng), order[:3])[0]
    before = condition(prior, expected_pose, *given(points, order[:3]), iterations=20)
    for i in order[3:]:
        points[i] = before.mean[i]
        after = condition(prior, expected_pose, *given(points, slice(None)), iterations=20)
        assert (traces(after, dims) <= 1.001 * traces(before, dims)).all()
        before = after


@DIMS
@pytest.mark.parametrize("reflected", [False, True])
def test_moving_turning_and_scaling_points_and_pose_moves_turns_and_scales_the_answer(dims, reflected):
    model, rng = ShapeModel(limbs(dims)), np.random.default_rng(2)
    prior = learn_prior(model.cases(5, 0))
    expected_pose, truth, which = prior.pose_distribution.in_image(geometry(dims)), model.draw(rng), far_apart(model.mean, 6)
    turn = random_rotation(rng, dims, None) @ (mirror(dims) if reflected else np.eye(dims))
    move = Similarity(2.5 * turn, rng.normal(0, 300, dims))
    there = PosePrior(move.after(expected_pose.mean), (2.5 * expected_pose.sd[0], *expected_pose.sd[1:]))
    here, moved = (
        condition(prior, expected_pose, *given(truth, which)),
        condition(prior, there, *given(move.apply(truth), which, 0.125)),
    )
    np.testing.assert_allclose(moved.mean, move.apply(here.mean), atol=1e-6)
    np.testing.assert_allclose(traces(moved, dims), 2.5**2 * traces(here, dims), rtol=1e-6)
    assert moved.misfit == pytest.approx(here.misfit) and moved.pose.mirrored == reflected


@DIMS
def test_where_any_pose_is_usual_a_turned_case_gets_the_turned_answer(dims):
    model = ShapeModel(limbs(dims))
    prior, mean = model.prior(), model.prior().pose_distribution.in_image(geometry(dims)).mean
    anywhere = PosePrior(mean, (1e3, 3.0, 30.0))
    truth, which = model.draw(np.random.default_rng(3)), far_apart(model.mean, 8)
    here = condition(prior, anywhere, *given(truth, which), iterations=30)
    for angle in (-1.2, 0.7, 1.5):
        turn = np.eye(dims)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        move = Similarity(1.4 * turn, SIDE / 2 - 1.4 * turn @ np.full(dims, SIDE / 2) + 70)
        there = condition(prior, anywhere, *given(move.apply(truth), which, 0.05 * 1.4), iterations=30)
        assert np.linalg.norm(there.mean - move.apply(here.mean), axis=1).max() < 0.02 * model.size


def test_a_pose_is_usual_by_field_of_view_where_sizes_follow_it():
    model, rng = ShapeModel(limbs(2)), np.random.default_rng(0)
    fields = [ImageGeometry.identity((side, side), 1.0) for side in (200, 300, 420, 600)]
    sizes = [g.size[0] / SIDE for g in fields]
    follow = [(g, LandmarkSet.of_positions(model.task, s * model.draw(rng))) for g, s in zip(fields, sizes, strict=True)]
    in_mm = [(g, LandmarkSet.of_positions(model.task, model.draw(rng) + g.size[0] / 2 - SIDE / 2)) for g in fields]
    large = ImageGeometry.identity((800, 800), 1.0)
    for cases, ratio in ((follow, 800 / SIDE), (in_mm, 1.0)):
        prior = learn_prior(cases)
        pose = prior.pose_distribution.in_image(large).mean
        assert pose.scale * prior.mean_shape.size == pytest.approx(ratio * model.size, rel=0.15)
        assert np.abs(pose.offset - 400).max() < 80


@DIMS
@pytest.mark.parametrize("place", [0, 5])
def test_one_turned_case_of_many_does_not_change_what_is_usual_wherever_it_stands(dims, place):
    model, where = ShapeModel(limbs(dims)), geometry(dims)
    cases = model.cases(12, 0)
    before = learn_prior(cases)
    turned = model.draw(np.random.default_rng(5), half_turn(dims))
    cases[place] = where, LandmarkSet.of_positions(model.task, turned)
    after = learn_prior(cases)
    assert not after.mean_shape.arbitrary_orientation and after.pose_distribution.sd[2] < 1.1
    laid = [prior.pose_distribution.in_image(where).mean.apply(prior.mean_shape.points) for prior in (before, after)]
    assert np.linalg.norm(laid[1] - laid[0], axis=1).max() < 0.3 * model.size


def test_a_case_turned_by_180_degrees_is_found_from_a_start_nearby():
    model = ShapeModel(limbs(2))
    prior = model.prior()
    expected_pose, truth = prior.pose_distribution.in_image(geometry(2)), model.draw(np.random.default_rng(1), half_turn(2))
    start = PosePrior(Similarity(half_turn(2), expected_pose.mean.offset), expected_pose.sd)
    which = far_apart(model.mean, 6)
    assert distances(condition(prior, start, *given(truth, which)), truth).mean() < 0.08 * model.size
