"""Numbers of a shape fit that can be worked out by hand: two or three landmarks whose pose is known, single thresholds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from landmarklabel.data.mean_shape import MeanShape
from landmarklabel.data.procrustes import Similarity
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import ShapeModelConfig
from landmarklabel.inference.evidence import Candidates
from landmarklabel.inference.posterior import Posterior
from landmarklabel.inference.shape_fit import Assignment, ShapeFit, fit_shape_to_candidates, most_contradicted, next_landmark
from landmarklabel.inference.shape_prior import PoseDistribution, PosePrior, ShapePrior, learn_prior
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

PAIR = np.array([[-250.0, 0.0], [250.0, 0.0]])  # of size 250 mm: a click is 1 mm wide
TRIANGLE = 100 * np.array([[0.0, 1.0], [-(0.75**0.5), -0.5], [0.75**0.5, -0.5]])  # of size 100 mm
SURE = (1e-6, 1e-6, 1e-6)


def prior_of(shape, variance, cases=0, **changes) -> ShapePrior:
    """Every coordinate varies alone."""
    d = shape.shape[1]
    expected = PoseDistribution(np.full(d, 0.5), 0.0, False, SURE)
    return ShapePrior(MeanShape(shape, False), variance * np.eye(shape.size), expected, cases, config=ShapeModelConfig(**changes))


def unmoved(sd=SURE) -> PosePrior:
    return PosePrior(Similarity(np.eye(2), np.zeros(2)), sd)


def places(*candidates, variance=3.0, weight=1.0) -> Candidates:
    at = np.stack(candidates, axis=1)
    n, k, d = at.shape
    return Candidates(at, np.full((n, k), weight), np.tile(variance * np.eye(d), (n, k, 1, 1)))


def test_two_landmarks_whose_pose_is_known():
    """12 mm2 of the shape; 3 of the map and 1 of the hand make 4: 12 times 4 by 16 is left."""
    far = np.full((2, 2), 900.0)
    seen = places(PAIR + [[3, 6], [0, 0]], far)
    fit = fit_shape_to_candidates(prior_of(PAIR, 12.0), unmoved(), seen, {})
    assert fit.assignment.tolist() == [Assignment.FIRST_CANDIDATE] * 2 and not fit.posterior.pose.mirrored
    np.testing.assert_array_equal(fit.positions_mm, seen.positions_mm[:, 0])
    np.testing.assert_allclose(fit.posterior.mean, PAIR + [[3 * 12 / 16, 6 * 12 / 16], [0, 0]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fit.covariance_mm2, np.tile(3 * np.eye(2), (2, 1, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fit.loo_mean_mm, PAIR, atol=1e-5)  # the other one says nothing
    np.testing.assert_allclose(fit.loo_covariance_mm2, np.tile(12 * np.eye(2), (2, 1, 1)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fit.first_distance2, [(9 + 36) / 15, 0], rtol=1e-5, atol=1e-9)
    assert fit.unassigned_fraction == 0 and not fit.needs_pose_search and fit.needs_no_other_orientation
    energy = 0.5 * 45 / 16 + 0.5 * 4 * np.log(16)  # and the constant of four Gaussian coordinates
    assert fit.cost == pytest.approx(energy + 2 * np.log(2 * np.pi), rel=1e-5)


def test_a_clicked_landmark_and_one_that_follows():
    """They vary as one: 12 mm2, of which 12 / 13 of a click that is 1 mm wide are believed."""
    prior = replace(prior_of(PAIR, 0.0), covariance=np.kron(np.full((2, 2), 12.0), np.eye(2)))
    fit = fit_shape_to_candidates(prior, unmoved(), None, {0: PAIR[0] + [13.0, 0.0]})
    np.testing.assert_allclose(fit.positions_mm, PAIR + [[13, 0], [12, 0]], rtol=1e-5, atol=1e-5)
    assert fit.assignment.tolist() == [Assignment.FIXED, Assignment.UNASSIGNED]
    np.testing.assert_allclose(fit.covariance_mm2, np.tile(12 / 13 * np.eye(2), (2, 1, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fit.loo_mean_mm[1], PAIR[1] + [12, 0], rtol=1e-5, atol=1e-5)
    assert fit.posterior.misfit == pytest.approx(169 / 13 / 2, rel=1e-5)  # of two coordinates, one of which fits


def test_what_is_absent_says_nothing_and_the_order_of_candidates_is_their_number():
    moved = PAIR + 100
    seen = places(moved, PAIR)
    fit = fit_shape_to_candidates(prior_of(PAIR, 12.0), unmoved(), seen, {}, absent=[0])
    assert fit.assignment.tolist() == [Assignment.ABSENT, 1] and np.isnan(fit.positions_mm[0]).all()
    np.testing.assert_array_equal(fit.positions_mm[1], PAIR[1])


@pytest.mark.parametrize(("beyond", "taken"), [(0.999, True), (1.001, False)])
def test_the_first_look_believes_a_detection_until_its_density_is_that_of_anywhere(beyond, taken):
    """With too few others: four degrees of freedom, tails nine times as wide; one in fifty lies anywhere in 750 mm squared.

    12 mm2 of the shape, (0.03 * 250 mm)2 = 56.25 of the first look, and the map's make ``total``; it is chosen so that the
    density at the centre is 40 cubed times that of anywhere, which a distance of 36 * 39 takes away.
    """
    total = 750**2 / 0.02 / 40**3 / (2 * np.pi)
    off = beyond * np.sqrt(36 * 39 * total)
    seen = places(PAIR + [[off, 0], [0, 0]], variance=total - 12 - 56.25)
    fit = fit_shape_to_candidates(prior_of(PAIR, 12.0), unmoved(), seen, {})
    assert (fit.assignment[0] == Assignment.FIRST_CANDIDATE) == taken
    less_weight = replace(seen, weight=np.array([[0.99], [1.0]]))  # the weight is part of the density
    assert fit_shape_to_candidates(prior_of(PAIR, 12.0), unmoved(), less_weight, {}).assignment[0] == Assignment.UNASSIGNED


def posterior_of(shape, misfit=0.0) -> Posterior:
    n = shape.size
    return Posterior(shape, np.eye(n), Similarity(np.eye(2), np.zeros(2)), 0.0, misfit, np.empty((0, 0)), np.empty(0))


def fit_of(shape, assignment, variance=1.0, misfit=0.0, distance2=1.0) -> ShapeFit:
    """As if these had come out."""
    n, d = shape.shape
    blocks = np.tile(variance * np.eye(d), (n, 1, 1))
    distances = np.broadcast_to(distance2, n).astype(float)
    return ShapeFit(
        shape, blocks, np.array(assignment), distances, shape, blocks, posterior_of(shape, misfit), 0.0, ShapeModelConfig()
    )


@pytest.mark.parametrize("cases", [0, 6])
def test_a_click_is_a_slip_where_its_density_is_that_of_anywhere(cases):
    """One in fifty lies anywhere in 300 mm squared: 4.5e6 mm2. 1e6 times the density with 4.5 mm2 of 2 pi variance.

    The tail of ``4 + cases`` degrees of freedom is (1 + q)^-3 or (1 + q)^-6, for q squared distances by those: 99 or 9.
    """
    variance, power = 4.5 / (2 * np.pi), {0: 3, 6: 6}[cases]
    off = np.sqrt((1e6 ** (1 / power) - 1) * (4 + cases) * variance)
    fit, prior = fit_of(TRIANGLE, [Assignment.FIXED] * 3, variance), prior_of(TRIANGLE, 1.0, cases)
    for beyond, slip in ((0.999, None), (1.001, 1)):
        clicked = {0: TRIANGLE[0], 1: TRIANGLE[1] + [0.6 * beyond * off, 0.8 * beyond * off], 2: TRIANGLE[2]}
        assert most_contradicted(prior, unmoved(), fit, clicked) == slip
    clicked = {0: TRIANGLE[0] - [1.1 * off, 0], 1: TRIANGLE[1], 2: TRIANGLE[2] + [1.2 * off, 0]}
    assert most_contradicted(prior, unmoved(), fit, clicked) == 2  # of two the worse one
    del clicked[2]
    assert most_contradicted(prior, unmoved(), fit, clicked) == 0
    assert most_contradicted(prior, unmoved(), fit, {}) is None
    half = PosePrior(Similarity(0.5 * np.eye(2), np.zeros(2)), SURE)  # where the shape is small, anywhere is a smaller region
    clicked = {1: TRIANGLE[1] + [0.9 * off, 0]}
    assert most_contradicted(prior, half, fit, clicked) == 1


def test_a_landmark_nobody_has_labelled_is_never_a_slip():
    shape = np.vstack([TRIANGLE, [[np.nan, np.nan]]])
    prior = prior_of(shape, 1.0)
    fit = replace(fit_of(shape, [Assignment.FIXED] * 4), loo_mean_mm=np.nan_to_num(shape))
    assert most_contradicted(prior, unmoved(), fit, {3: np.array([500.0, 0.0])}) is None
    assert most_contradicted(prior, unmoved(), fit, {3: np.array([500.0, 0.0]), 2: TRIANGLE[2] + 90}) == 2


@pytest.mark.parametrize(
    ("unassigned", "searched", "plausible"),
    [(0, False, True), (3, False, True), (4, False, False), (5, False, False), (6, True, False)],
)
def test_of_twenty_five_detections_three_may_be_odd_in_a_plausible_fit_and_five_before_poses_are_searched(
    unassigned, searched, plausible
):
    odd = [Assignment.UNASSIGNED] * unassigned + [0] * 20 + [1] * (5 - unassigned if unassigned < 6 else 0)
    odd = odd[:25]
    beside = [Assignment.FIXED, Assignment.ABSENT, Assignment.UNASSIGNED]  # the last was not detected
    distances = np.r_[np.ones(27), np.inf]
    shape = np.zeros((28, 2))
    fit = fit_of(shape, [*odd, *beside], distance2=distances)
    assert fit.unassigned_fraction == unassigned / 25
    assert fit.needs_pose_search == searched and fit.needs_no_other_orientation == plausible
    assert fit_of(shape, [*odd, *beside], misfit=9.0, distance2=distances).needs_pose_search == searched
    misfits = [fit_of(shape, [*odd, *beside], misfit=m, distance2=distances).needs_no_other_orientation for m in (2.0, 2.01)]
    assert misfits == [plausible, False]


@pytest.mark.parametrize(("misfit", "searched"), [(4.0, False), (4.01, True), (7.9, True)])
def test_without_detections_it_is_the_misfit_of_the_clicks_that_has_poses_searched(misfit, searched):
    fit = fit_of(TRIANGLE, [Assignment.FIXED, Assignment.UNASSIGNED, Assignment.UNASSIGNED], misfit=misfit, distance2=np.nan)
    assert fit.needs_pose_search == searched and fit.unassigned_fraction == 0


@pytest.mark.parametrize(
    ("matrix", "sd", "more"),
    [
        (np.eye(2), 0.1, 0.0),
        (np.diag([-1.0, 1.0]), 0.1, 6.0),  # a mirrored image is e^6 = 400 times as unlikely
        (np.exp(0.2) * np.eye(2), 0.1, 2.0),  # two standard deviations of the scale
        (np.exp(-0.2) * np.eye(2), 0.2, 0.5),
        (np.exp(0.2) * np.eye(2), 0.01, 2.0),  # which is never believed to be surer than a tenth
        (np.exp(0.3) * np.diag([1.0, -1.0]), 0.15, 8.0),
    ],
)
def test_the_cost_of_a_pose_in_which_nothing_was_seen(matrix, sd, more):
    """Three landmarks anywhere in 300 mm squared, each three cheaper since confusions come in groups."""
    start = Similarity(matrix, np.zeros(2))
    fit = fit_shape_to_candidates(prior_of(TRIANGLE, 1.0), unmoved((9.0, sd, 7.0)), None, {}, start=start)
    np.testing.assert_allclose(fit.posterior.pose.matrix, matrix)
    assert fit.cost == pytest.approx(3 * (2 * np.log(300) - 3) + more)
    absent = fit_shape_to_candidates(prior_of(TRIANGLE, 1.0), unmoved((9.0, sd, 7.0)), None, {}, absent=[0, 2], start=start)
    assert absent.cost == pytest.approx(2 * np.log(300) - 3 + more)


def test_the_next_landmark_is_the_one_that_says_most_about_all():
    """Of three on a line the middle one goes half with either: knowing it takes 4 + 1 + 1, the ends 4 + 1 each."""
    covariance = np.kron(np.array([[4.0, 2.0, 0.0], [2.0, 4.0, 2.0], [0.0, 2.0, 4.0]]), np.eye(2))
    fit = replace(fit_of(TRIANGLE, [-1] * 3), posterior=replace(posterior_of(TRIANGLE), covariance=covariance))
    assert next_landmark(fit, [0, 1, 2]) == 1 and next_landmark(fit, [2, 0]) == 2 and next_landmark(fit, []) is None
    tiny = replace(fit, posterior=replace(fit.posterior, covariance=1e-4 * covariance))
    assert next_landmark(tiny, [0, 1, 2]) == 1  # however little is left


HAND = np.array([[-30.0, -40.0], [30.0, -40.0], [50.0, 40.0], [-30.0, 40.0], [-20.0, 20.0], [0.0, -20.0]])  # around 0
FIELD = ImageGeometry.identity((200, 200), 1.5)


def learned(count) -> ShapePrior:
    """From one case, and the same again and again."""
    case = LandmarkSet.of_positions(LandmarkTask("hand", tuple("abcdef"), 2), HAND + 150)
    return learn_prior([(FIELD, case)] * count)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_where_a_case_lies_is_known_the_better_the_more_lie_there(count):
    """Of the field's side, of the size and in radians: at first 0.15, 0.25, 0.3 and with many cases 0.06, 0.08, 0.08."""
    wanted = [np.hypot(least, first / count) for least, first in ((0.06, 0.15), (0.08, 0.25), (0.08, 0.3))]
    np.testing.assert_allclose(learned(count).pose_distribution.sd, wanted, atol=1e-7)


def test_with_one_case_a_landmark_varies_by_six_percent_of_the_size_with_its_neighbours_and_by_two_alone():
    prior = learned(1)
    size2 = (3 * 2500 + 4100 + 800 + 400) / 6
    np.testing.assert_allclose(prior.blocks, np.tile((0.06**2 + 0.02**2) * size2 * np.eye(2), (6, 1, 1)), atol=1e-9)
    away2 = np.array([((HAND[0] - p) ** 2).sum() for p in HAND[1:]]) / (0.7**2 * size2)
    np.testing.assert_allclose(prior.covariance[0, 2::2], 0.06**2 * size2 * np.exp(-away2 / 2), atol=1e-9)
    assert not prior.covariance[0, 1::2].any()  # one axis tells nothing of the other


def test_cases_that_are_all_the_same_leave_a_twentieth_of_that():
    """16 generic cases beside 19 degrees of freedom, and never less than 0.05 of the generic size."""
    share = 0.05 * 16 / (19 + 16)
    np.testing.assert_allclose(learned(20).covariance, share * learned(1).covariance, atol=1e-6)
