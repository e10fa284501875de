"""Candidates that contradict the shape are found out, and a person's points move the rest."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import SIDE, ShapeModel, candidates, geometry, half_turn, limbs, mirror

from landmarklabel.inference.evidence import Candidates
from landmarklabel.inference.pose_sampling import rough_pose
from landmarklabel.inference.posterior import condition
from landmarklabel.inference.shape_fit import Assignment, fit_shape_to_candidates, next_landmark

DIMS = pytest.mark.parametrize("dims", [2, 3])
TURNS = {"upright": lambda dims: None, "turned": half_turn, "mirrored": mirror}
DRAWS = 5


def swapped(truth, rng):
    i = rng.integers(len(truth) - 1)
    return [i, i + 1], truth[[i + 1, i]]


def one_along(truth, rng):
    wrong = rng.integers(len(truth) - 4) + np.arange(4)
    return wrong, truth[wrong + 1]


def one_limb_along(truth, rng):
    step = len(truth) // 5
    wrong = step * rng.integers(5) + np.arange(step)
    return wrong, truth[(wrong + step) % len(truth)]


def half_anywhere(truth, rng):
    wrong = rng.permutation(len(truth))[: len(truth) // 2]
    return wrong, rng.uniform(0, SIDE, (len(wrong), truth.shape[1]))


def setting(dims, symmetric=False):
    model = ShapeModel(limbs(dims))
    prior = model.prior(symmetric)
    return model, prior, prior.pose_distribution.in_image(geometry(dims))


def off(positions, truth):
    return np.linalg.norm(positions - truth, axis=1)


@DIMS
@pytest.mark.parametrize("turn", TURNS)
def test_where_all_candidates_are_right_all_are_taken_as_they_are(dims, turn):
    model, prior, expected_pose = setting(dims)
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        seen = candidates(rng, model.draw(rng, TURNS[turn](dims)))
        shape_fit = fit_shape_to_candidates(prior, expected_pose, seen, {})
        assert (shape_fit.assignment == Assignment.FIRST_CANDIDATE).all() and not shape_fit.needs_pose_search
        np.testing.assert_array_equal(shape_fit.positions_mm, seen.positions_mm[:, 0])
        assert shape_fit.posterior.pose.mirrored == (turn == "mirrored")
        turned = shape_fit.posterior.pose.rotation[1, 1] < 0
        assert turned == (turn == "turned")


@DIMS
@pytest.mark.parametrize(
    ("confuse", "turn", "gain"),
    [
        (swapped, "upright", 10),
        (one_along, "upright", 10),
        (one_limb_along, "upright", 10),
        (half_anywhere, "upright", 30),
        (swapped, "turned", 10),
        (half_anywhere, "mirrored", 30),
    ],
)
def test_wrong_candidates_are_found_out_and_replaced_by_where_the_others_point(dims, confuse, turn, gain):
    model, prior, expected_pose = setting(dims)
    freed, stayed, before, after = [], [], [], []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        truth = model.draw(rng, TURNS[turn](dims))
        wrong, places = confuse(truth, rng)
        first = truth.copy()
        first[wrong] = places
        shape_fit = fit_shape_to_candidates(prior, expected_pose, candidates(rng, first), {})
        right = np.setdiff1d(np.arange(len(truth)), wrong)
        freed += (shape_fit.assignment[wrong] == Assignment.UNASSIGNED).tolist()
        stayed += (shape_fit.assignment[right] == Assignment.FIRST_CANDIDATE).tolist()
        before += off(first, truth)[wrong].tolist()
        after += off(shape_fit.positions_mm, truth)[wrong].tolist()
    assert np.mean(freed) >= 0.95 and np.mean(stayed) >= 0.97
    assert np.mean(after) < np.mean(before) / gain
    assert np.mean(after) < 0.06 * model.size


@DIMS
@pytest.mark.parametrize("turn", TURNS)
def test_where_the_second_candidate_is_the_true_one_it_is_chosen(dims, turn):
    model, prior, expected_pose = setting(dims)
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        truth = model.draw(rng, TURNS[turn](dims))
        wrong, places = swapped(truth, rng)
        first, second = truth.copy(), rng.uniform(0, SIDE, truth.shape)
        first[wrong], second[wrong] = places, truth[wrong]
        shape_fit = fit_shape_to_candidates(prior, expected_pose, candidates(rng, first, second), {})
        assert (
            shape_fit.assignment[wrong].tolist() == [1, 1]
            and (shape_fit.assignment == Assignment.FIRST_CANDIDATE).sum() == len(truth) - 2
        )
        assert off(shape_fit.positions_mm, truth).max() < 3


@DIMS
def test_the_further_off_a_detection_the_less_it_is_believed_and_positions_follow_the_choice(dims):
    model, prior, expected_pose = setting(dims)
    rng = np.random.default_rng(5)
    truth = model.draw(rng)
    seen, believed = candidates(rng, truth), []
    for shift in np.arange(0, 20, 0.75):
        places = seen.positions_mm.copy()
        places[4, 0, 0] += shift
        shape_fit = fit_shape_to_candidates(prior, expected_pose, Candidates(places, seen.weight, seen.covariance_mm2), {})
        believed.append(shape_fit.assignment[4] == Assignment.FIRST_CANDIDATE)
        assert (shape_fit.positions_mm[4] == places[4, 0]).all() == believed[-1]
        assert (np.delete(shape_fit.assignment, 4) == Assignment.FIRST_CANDIDATE).sum() >= len(
            truth
        ) - 2  # a neighbour may be doubted with it
    assert believed == sorted(believed, reverse=True) and believed[0] and not believed[-1]


@DIMS
def test_many_contradictions_call_for_a_pose_search_and_few_do_not(dims):
    model, prior, expected_pose = setting(dims)
    rng = np.random.default_rng(0)
    truth = model.draw(rng)
    for confuse, searched in ((swapped, False), (half_anywhere, True)):
        first = truth.copy()
        wrong, places = confuse(truth, rng)
        first[wrong] = places
        assert fit_shape_to_candidates(prior, expected_pose, candidates(rng, first), {}).needs_pose_search == searched


@DIMS
def test_fixed_points_come_back_bit_for_bit_and_absent_ones_as_nan(dims):
    model, prior, expected_pose = setting(dims)
    rng = np.random.default_rng(5)
    truth = model.draw(rng)
    fixed = {i: truth[i] + rng.normal(0, 1, dims) for i in (1, 6, 12)}
    for seen in (candidates(rng, truth), None):
        shape_fit = fit_shape_to_candidates(prior, expected_pose, seen, fixed, absent=[2, 9])
        for i, p in fixed.items():
            assert shape_fit.positions_mm[i].tobytes() == p.tobytes()
        assert (shape_fit.assignment[[1, 6, 12]] == Assignment.FIXED).all() and (
            shape_fit.assignment[[2, 9]] == Assignment.ABSENT
        ).all()
        known = np.isfinite(shape_fit.positions_mm).all(1)
        assert np.flatnonzero(~known).tolist() == [2, 9]
        assert off(shape_fit.positions_mm, truth)[known].mean() < 0.15 * model.size


@DIMS
def test_without_candidates_fixed_points_alone_move_the_others(dims):
    model, prior, expected_pose = setting(dims)
    errors = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        truth, order = model.draw(rng), rng.permutation(len(model.mean))
        left = order[8:]
        told = [
            fit_shape_to_candidates(prior, expected_pose, None, {i: truth[i] for i in order[:count]}) for count in (0, 1, 2, 4, 8)
        ]
        errors.append([off(t.positions_mm, truth)[left].mean() for t in told])
        assert all((t.assignment[left] == Assignment.UNASSIGNED).all() and np.isfinite(t.positions_mm).all() for t in told)
    errors = np.mean(errors, axis=0)
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < errors[0] / 4


@DIMS
@pytest.mark.parametrize("turn", ["turned", "mirrored"])
def test_enough_fixed_points_turn_and_mirror_the_others(dims, turn):
    model, prior, expected_pose = setting(dims)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truth = model.draw(rng, TURNS[turn](dims))
        fixed = {i: truth[i] for i in rng.permutation(len(truth))[:6]}
        shape_fit = fit_shape_to_candidates(prior, expected_pose, None, fixed)
        assert shape_fit.posterior.pose.mirrored == (turn == "mirrored")
        assert off(shape_fit.positions_mm, truth).mean() < 0.1 * model.size


@DIMS
def test_a_fixed_point_decides_what_the_candidates_leave_open(dims):
    model, prior, expected_pose = setting(dims)
    rng = np.random.default_rng(3)
    truth = model.draw(rng)
    elsewhere = truth + np.eye(dims)[0] * 60
    seen = candidates(rng, elsewhere, truth)
    assert off(fit_shape_to_candidates(prior, expected_pose, seen, {}).positions_mm, elsewhere).mean() < 3
    shape_fit = fit_shape_to_candidates(prior, expected_pose, seen, {0: truth[0], 4: truth[4]})
    assert (shape_fit.assignment == 1).sum() == len(truth) - 2
    assert off(shape_fit.positions_mm, truth).mean() < 3


@DIMS
@pytest.mark.parametrize("seen", [False, True])
def test_the_next_landmark_is_the_one_whose_placing_leaves_the_least_variance(dims, seen):
    model, prior, expected_pose = setting(dims)
    asked = set()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth, order = model.draw(rng), rng.permutation(len(model.mean))
        fixed = {i: truth[i] for i in order[:seed]}
        first = np.where(np.isin(np.arange(len(truth)), order[:8])[:, None], truth, np.nan)
        shape_fit = fit_shape_to_candidates(prior, expected_pose, candidates(rng, first) if seen else None, fixed)
        free = np.setdiff1d(np.arange(len(truth)), list(fixed))
        chosen = next_landmark(shape_fit, free)
        covariance = shape_fit.posterior.covariance
        left = [np.trace(placed(covariance, i, dims)) for i in free]
        assert chosen == free[int(np.argmin(left))]
        assert next_landmark(shape_fit, [i for i in free if i != chosen]) == free[np.argsort(left)[1]]
        asked.add(int(chosen))
    assert next_landmark(shape_fit, []) is None
    assert len(asked) > 1


def placed(covariance, i, dims, noise=0.05):
    """What is left of a covariance once a landmark was observed."""
    rows = slice(i * dims, i * dims + dims)
    gain = covariance[:, rows] @ np.linalg.inv(covariance[rows, rows] + noise**2 * np.eye(dims))
    return covariance - gain @ covariance[rows]


@DIMS
def test_conditioning_once_more_leaves_what_the_next_landmark_promises(dims):
    model, prior, expected_pose = setting(dims)
    truth = model.draw(np.random.default_rng(1))
    shape_fit = fit_shape_to_candidates(prior, expected_pose, None, {0: truth[0]})
    chosen = next_landmark(shape_fit, range(1, len(truth)))
    points = np.full_like(truth, np.nan)
    points[0] = truth[0]
    left = []
    for i in range(1, len(truth)):
        asked = points.copy()
        asked[i] = shape_fit.posterior.mean[i]
        noise = np.tile((0.004 * model.size) ** 2 * np.eye(dims), (len(truth), 1, 1))
        left.append(np.trace(condition(prior, expected_pose, asked, noise).covariance))
    assert left[chosen - 1] <= 1.02 * min(left) < 0.7 * np.trace(shape_fit.posterior.covariance)


@DIMS
def test_a_symmetric_shape_is_never_mirrored(dims):
    model, prior, expected_pose = setting(dims, symmetric=True)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = model.draw(rng, mirror(dims))
        assert not fit_shape_to_candidates(prior, expected_pose, candidates(rng, truth), {}).posterior.pose.mirrored
        assert not fit_shape_to_candidates(prior, expected_pose, None, {i: truth[i] for i in range(8)}).posterior.pose.mirrored


@DIMS
def test_the_start_of_an_earlier_mirrored_fit_is_kept(dims):
    model, prior, expected_pose = setting(dims)
    rng = np.random.default_rng(2)
    truth = model.draw(rng, mirror(dims))
    seen = candidates(rng, truth)
    before = fit_shape_to_candidates(prior, expected_pose, seen, {})
    after = fit_shape_to_candidates(prior, expected_pose, seen, {3: truth[3]}, start=before.posterior.pose)
    assert after.posterior.pose.mirrored and (np.delete(after.assignment, 3) == Assignment.FIRST_CANDIDATE).all()


@DIMS
def test_a_rough_pose_has_the_handedness_asked_for_and_is_trusted_more_where_it_is_right(dims):
    model, prior, expected_pose = setting(dims)
    rng = np.random.default_rng(4)
    for turn in TURNS.values():
        truth = model.draw(rng, turn(dims))
        found = {m: rough_pose(prior, expected_pose, candidates(rng, truth), m) for m in (False, True)}
        assert [found[m][0].mirrored for m in found] == [False, True]
        right = turn is mirror
        assert found[right][1] > 1.2 * found[not right][1]
        assert off(found[right][0].apply(model.mean), truth).mean() < 0.2 * model.size


def test_too_few_candidates_have_no_rough_pose():
    _, prior, expected_pose = setting(2)
    nothing = Candidates(np.full((20, 1, 2), np.nan), np.ones((20, 1)), np.tile(np.eye(2), (20, 1, 1, 1)))
    assert rough_pose(prior, expected_pose, nothing, False)[0] is None
    shape_fit = fit_shape_to_candidates(prior, expected_pose, nothing, {})
    assert (shape_fit.assignment == Assignment.UNASSIGNED).all() and np.isfinite(shape_fit.positions_mm).all()
