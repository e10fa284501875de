"""Numbers of the calibration that can be worked out by hand: few landmarks, round maps, residuals of known size."""

from __future__ import annotations

import numpy as np
import pytest

from landmarklabel.inference.calibration import (
    Calibration,
    choose_fine_presence_weight,
    fit_calibration,
    fit_regions,
    presence_threshold,
)
from landmarklabel.inference.configuration import CalibrationConfig
from landmarklabel.inference.evidence import Candidates, Evidence

OVAL = np.diag([9.0, 16.0])  # a map 5 mm wide: half axes of 3 and 4 mm
ONE_MM = Calibration(intercept=0.0, slope=0.0, offsets=(0.0,))  # expects an error of 1 mm, whatever the map


def seen(covariance=OVAL, mass=1.0, presence=0.9, n=1, stages=None) -> Evidence:
    """Landmarks at the origin, all with one map."""
    at, spread = np.zeros((n, len(covariance))), np.tile(covariance, (n, 1, 1))
    places = Candidates(at[:, None], np.ones((n, 1)), spread[:, None])
    return Evidence(at, spread, np.full(n, presence), np.full(n, mass), at, places, presence_by_stage=stages)


def along_x(*errors) -> np.ndarray:
    """Truths so far from the origin."""
    return np.array([[error, 0.0] for error in errors], float)


def states(truths):
    return [np.isfinite(truth).all(1).astype(int) for truth in truths]


@pytest.mark.parametrize(
    ("mass", "slope", "spread_range", "expected"),
    [
        (1.0, 1.0, (-99, 99), 5 * 6),
        (0.5, 1.0, (-99, 99), 10 * 6),  # half of the mass elsewhere counts as twice the width
        (0.5, 0.0, (-99, 99), 6),
        (1 / 5, 0.5, (-99, 99), 5 * 6),  # the root of 25
        (0.0, 1.0, (-99, 99), 100 * 6),  # never as more than twenty times the width
        (1.5, 1.0, (-99, 99), 5 * 6),  # a share that rounding left above one
        (0.5, 1.0, (0, np.log(7)), 7 * 6),  # beyond the validation cases nothing is known
        (1.0, 1.0, (np.log(8), 99), 8 * 6),
    ],
)
def test_the_expected_error_of_a_map_five_millimetres_wide(mass, slope, spread_range, expected):
    calibration = Calibration(np.log(2), slope, (np.log(3),), log_spread_range=spread_range)
    np.testing.assert_allclose(calibration.expected_error_mm(seen(mass=mass)), [expected])


@pytest.mark.parametrize("level", [None, 0.8])
def test_a_region_is_the_map_scaled_to_the_expected_error_times_the_quantile(level):
    calibration = Calibration(quantiles=(1.5, 0.0, 1.5, 2.0), **({} if level is None else {"level": level}))
    covariance, half = calibration.region(seen(n=4), np.array([10.0, 10.0, np.nan, 5.0]))
    np.testing.assert_allclose(half, [1.5 * 8, np.nan, np.nan, 2 * 4])
    at_level = -2 * np.log(1 - (level or 0.95))  # the quantile of chi square with two degrees of freedom
    np.testing.assert_allclose(covariance[0] * at_level, np.diag([9.0**2, 12.0**2]))
    np.testing.assert_allclose(covariance[3] * at_level, np.diag([6.0**2, 8.0**2]))
    np.testing.assert_array_equal(covariance[1:3], [OVAL, OVAL])


@pytest.mark.parametrize("cases", [3, 4, 5])
@pytest.mark.parametrize("stretch", [1.0, 0.01, 100.0])
def test_the_sizes_of_regions_from_a_few_scores(cases, stretch):
    """At a level of one half the quantile is the median. A map 1 mm wide, round, has half axes of 0.71 mm."""
    half_level = Calibration(0.0, 0.0, (0.0,), level=0.5)
    truths = [along_x(score * np.sqrt(0.5)) for score in range(1, cases + 1)]
    found = fit_regions(half_level, [seen(stretch * np.eye(2))] * cases, truths)
    assert found.quantiles == pytest.approx({3: [2.0], 4: [2.5], 5: [3.0]}[cases])
    # each case against the median of the others: 1/2.5 2/2 3/1.5; 1/3 2/3 3/2 4/2; 1/3.5 2/3.5 3/3 4/2.5 5/2.5
    assert found.case_factor == pytest.approx({3: 1.0, 4: (2 / 3 + 3 / 2) / 2, 5: 1.0}[cases])


@pytest.mark.parametrize(
    ("off", "score"), [((3.0, 0.0), 5.0), ((0.0, 4.0), 5.0), ((3.0, -4.0), 50**0.5), ((0.3, 0.0), 0.5), ((0.0, 0.0), 0.0)]
)
def test_a_region_reaches_further_along_the_long_axis_of_the_map(off, score):
    """Half axes of 3 and 4 mm belong to an expected error of 5 mm; 1 mm expected makes them 0.6 and 0.8."""
    found = fit_regions(Calibration(0.0, 0.0, (0.0,), level=0.5), [seen()] * 3, [np.array([off])] * 3)
    assert found.quantiles == pytest.approx([score])


def test_in_space_all_three_axes_count():
    truths = [np.array([[1.0, 2.0, 3.0]])] * 3  # a round map 1 mm wide: 3 (1 + 4 + 9)
    found = fit_regions(Calibration(0.0, 0.0, (0.0,), level=0.5), [seen(np.eye(3))] * 3, truths)
    assert found.quantiles == pytest.approx([42**0.5])


def test_a_case_in_which_no_landmark_is_known_is_held_by_any_region():
    truths = [along_x(1), along_x(2), *[along_x(np.nan)] * 3]
    found = fit_regions(Calibration(0.0, 0.0, (0.0,), level=0.5), [seen(np.eye(2))] * 5, truths)
    assert found.quantiles == pytest.approx([1.5 * 2**0.5]) and found.case_factor == 0.0


@pytest.mark.parametrize(("without", "cases"), [("expected errors", 30), ("enough cases", 18), ("a known landmark", 30)])
def test_regions_are_only_added_where_there_is_something_to_add(without, cases):
    calibration = Calibration() if without == "expected errors" else ONE_MM
    truth = along_x(np.nan if without == "a known landmark" else 1.0)
    assert fit_regions(calibration, [seen()] * cases, [truth] * cases) == calibration
    assert fit_regions(ONE_MM, [seen()] * 19, [along_x(1.0)] * 19).quantiles and fit_regions(ONE_MM, [], []) == ONE_MM


def test_the_largest_of_nineteen_scores_counts_and_of_more_the_place_between_the_last_two():
    truths = [along_x(score * np.sqrt(0.5)) for score in range(1, 21)]
    found = [fit_regions(ONE_MM, [seen(np.eye(2))] * n, truths[:n]).quantiles[0] for n in (19, 20)]
    assert found == pytest.approx([19.0, 19.95])


@pytest.mark.parametrize(("residuals", "says"), [(29, False), (30, True)])
def test_thirty_residuals_are_enough_for_an_expected_error(residuals, says):
    truths = [along_x(2.0)] * residuals + [along_x(np.nan)] * 10
    calibration = fit_calibration([seen()] * len(truths), truths, states(truths))
    expected = calibration.expected_error_mm(seen())
    assert expected == pytest.approx(2.0) if says else np.isnan(expected).all()
    assert calibration.cases == residuals + 10


def test_a_landmark_counts_five_residuals_of_all_beside_its_own():
    """Where all maps are alike: 20 residuals of 1 mm and 20 of 3 mm, of 2 mm together."""
    truths = [along_x(1.0, 3.0)] * 20
    expected = fit_calibration([seen(n=2)] * 20, truths, states(truths)).expected_error_mm(seen(n=2))
    np.testing.assert_allclose(expected, [(20 * 1 + 5 * 2) / 25, (20 * 3 + 5 * 2) / 25])
    truths = [along_x(1.0, 3.0)] * 5 + [along_x(1.0, np.nan)] * 25  # 1.3 times 1 mm on average: 9 / 7
    expected = fit_calibration([seen(n=2)] * 30, truths, states(truths)).expected_error_mm(seen(n=2))
    np.testing.assert_allclose(expected, [(30 + 5 * 9 / 7) / 35, (15 + 5 * 9 / 7) / 10])


def test_a_perfect_study_expects_a_micrometre():
    truths = [along_x(0.0)] * 30
    assert fit_calibration([seen()] * 30, truths, states(truths)).expected_error_mm(seen()) == pytest.approx(0.001)
    truths = [along_x(0.0)] * 15 + [along_x(1.0)] * 15
    assert fit_calibration([seen()] * 30, truths, states(truths)).expected_error_mm(seen()) == pytest.approx(0.5005)


@pytest.mark.parametrize(("power", "found"), [(-1, 0), (0, 0), (0.5, 0.5), (1, 1), (1.4, 1.4), (3, 1.5)])
def test_the_error_grows_with_the_width_of_the_map_as_it_did_but_never_faster_than_by_three_halves(power, found):
    widths = np.exp(np.linspace(-1, 1, 400))
    evidence = [seen(w**2 / 2 * np.eye(2)) for w in widths]
    truths = [along_x(3 * w**power) for w in widths]
    calibration = fit_calibration(evidence, truths, states(truths))
    narrow, wide = (calibration.expected_error_mm(seen(w**2 / 2 * np.eye(2)))[0] for w in (0.5, 2.0))
    assert np.log(wide / narrow) / np.log(4) == pytest.approx(found, abs=0.01)
    if power == found:
        assert [narrow, wide] == pytest.approx([3 * 0.5**power, 3 * 2**power], rel=0.02)


@pytest.mark.parametrize("strange", [1e-9, 1e9])
def test_one_map_of_a_strange_width_does_not_change_what_widths_mean(strange):
    widths = np.append(np.exp(np.linspace(-1, 1, 400)), strange)
    truths = [along_x(3 * w) for w in widths[:-1]] + [along_x(3.0)]
    calibration = fit_calibration([seen(w**2 / 2 * np.eye(2)) for w in widths], truths, states(truths))
    for width in (0.5, 1.0, 2.0):
        assert calibration.expected_error_mm(seen(width**2 / 2 * np.eye(2)))[0] == pytest.approx(3 * width, rel=0.03)
    for cut, edge in ((1e-6, np.exp(-1)), (1e6, np.exp(1))):
        assert calibration.expected_error_mm(seen(cut**2 * np.eye(2)))[0] == pytest.approx(3 * edge, rel=0.05)


def said(presences, truth, config=None):
    """The threshold of landmarks with these presences, one a case."""
    evidence = [seen(presence=p) for p in presences]
    return presence_threshold(evidence, [np.array([t]) for t in truth], config)


def test_the_threshold_of_presence_lies_in_the_middle_of_a_gap():
    found = said([0.81] * 5 + [0.21] * 5, [1] * 5 + [0] * 5)
    assert found == pytest.approx((0.81 + 0.21) / 2, abs=0.025)
    assert said([0.81] * 5 + [0.61] * 5, [1] * 5 + [0] * 5) == pytest.approx(0.71, abs=0.025)


def test_a_presence_of_exactly_the_threshold_is_present():
    assert said([0.95] * 5 + [0.94] * 5, [1] * 5 + [0] * 5) == 0.95
    evidence = seen(n=3)
    evidence.presence[:] = [0.4999, 0.5, 0.5001]
    assert Calibration().predicted_absent(evidence).tolist() == [True, False, False]


@pytest.mark.parametrize(("absent", "threshold"), [(4, 0.5), (5, 0.71)])
def test_five_of_either_kind_are_enough_for_a_threshold_and_those_nobody_judged_do_not_count(absent, threshold):
    for present, missing in ((40, absent), (absent, 40)):
        presences = [0.81] * present + [0.61] * missing + [0.3] * 50
        truth = [1] * present + [0] * missing + [-1] * 50
        assert said(presences, truth) == pytest.approx(threshold, abs=0.025)


def test_missing_ten_of_thirty_is_worse_than_twelve_false_ones_and_better_than_eighteen():
    """By F1: a low threshold finds all, and all false ones; a high one misses ten."""
    for false, low_is_best in ((8, True), (12, True), (18, False)):  # 60 / (60 + false) against 40 / (40 + 10)
        presences = [0.9] * 20 + [0.3] * 10 + [0.32] * false + [0.31] * 100
        found = said(presences, [1] * 30 + [0] * false + [-1] * 100)  # nobody judged the last hundred
        assert (found < 0.3) == low_is_best and (low_is_best or 0.32 < found < 0.9)


def test_nobody_judged_anything():
    assert presence_threshold([], []) == 0.5 and said([0.9, 0.1], [-1, -1]) == 0.5
    assert said([0.9] * 3, [1] * 3) == 0.2  # absent is said late where nobody ever said it
    assert said([0.9] * 3, [1] * 3, CalibrationConfig(never_absent_threshold=0.07)) == 0.07
    assert choose_fine_presence_weight([], []) == 0.5


@pytest.mark.parametrize("best", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_the_weight_of_the_fine_network_is_the_one_whose_blend_says_three_in_four(best):
    """Fifteen of twenty are present; only blended with this weight are the log odds of the stages those of 3 to 1."""
    log_odds = np.log(3) + 4 * np.array([best, best - 1])
    stages = np.tile(1 / (1 + np.exp(-log_odds))[:, None], (1, 20))
    state = np.array([1] * 15 + [0] * 5)
    assert choose_fine_presence_weight([seen(n=20, stages=stages)], [state]) == best
    unknown = np.concatenate([state, [-1] * 30])  # of which the networks say something else
    more = np.concatenate([stages, np.full((2, 30), 0.01)], axis=1)
    assert choose_fine_presence_weight([seen(n=50, stages=more)], [unknown]) == best


def test_four_absent_ones_are_too_few_for_a_weight():
    stages = np.tile([[0.99], [0.75]], (1, 20))
    for absent, weight in ((4, 0.5), (5, 1.0)):
        state = np.array([1] * (20 - absent) + [0] * absent)
        assert choose_fine_presence_weight([seen(n=20, stages=stages)], [state]) == weight
        assert choose_fine_presence_weight([seen(n=20, stages=1 - stages)], [1 - state]) == weight
    assert choose_fine_presence_weight([seen(n=20, stages=stages), seen(n=20)], [state, state]) == 0.5
