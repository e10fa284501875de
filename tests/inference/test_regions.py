"""95 % regions hold 95 % of new cases, whatever the residuals look like; where too few cases were seen there are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from landmarklabel.errors import UsageError
from landmarklabel.inference.calibration import (
    Calibration,
    cases_needed,
    conformal_quantile,
    fit_calibration,
    fit_regions,
)
from landmarklabel.inference.configuration import CalibrationConfig
from landmarklabel.inference.evidence import Candidates, Evidence

N = 8
LEVEL = CalibrationConfig().level


def simulate(cases, d, seed=0):
    """Evidence and truth with heavy-tailed residuals, each landmark's of its own size, and long and narrow maps."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(-1, 1, N))
    seen, truth = [], []
    for _ in range(cases):
        root = rng.normal(0, 0.4, (N, d, d)) + np.eye(d)
        root *= np.exp(rng.uniform(-0.7, 0.7, N))[:, None, None]
        positions = rng.uniform(0, 100, (N, d))
        residual = np.einsum("nij,nj->ni", root, rng.standard_t(3, (N, d))) * sizes[:, None]
        covariance = root @ root.transpose(0, 2, 1)
        candidates = Candidates(positions[:, None], np.ones((N, 1)), covariance[:, None])
        seen.append(Evidence(positions, covariance, np.full(N, 0.9), np.ones(N), positions, candidates))
        truth.append(positions + residual)
    return seen, truth


def calibrate(seen, truth):
    states = [np.isfinite(t).all(1).astype(int) for t in truth]
    return fit_regions(fit_calibration(seen, truth, states), seen, truth)


def inside(calibration, seen, truth, factor=1.0):
    """(cases, n) bool: the truth lies in the ellipse that is shown, scaled by ``factor``."""
    out = []
    for e, t in zip(seen, truth, strict=True):
        covariance, _ = calibration.region(e, calibration.expected_error_mm(e))
        off = t - e.positions_mm
        squared = np.einsum("ni,nij,nj->n", off, np.linalg.inv(covariance), off)
        out.append(squared <= factor**2 * chi2.ppf(0.95, off.shape[1]))
    return np.stack(out)


@pytest.mark.parametrize("count", [30, 80])
@pytest.mark.parametrize("d", [2, 3])
def test_regions_hold_what_they_promise_a_landmark_and_a_case(d, count):
    seen, truth = simulate(160, d)
    rng, landmark, case = np.random.default_rng(1), [], []
    for _ in range(30):
        parts = np.split(rng.permutation(160), [count])
        known, fresh = ([[x[i] for i in part] for x in (seen, truth)] for part in parts)
        calibration = calibrate(*known)
        assert calibration.case_factor > 1
        landmark.append(inside(calibration, *fresh).mean(0))
        case.append(inside(calibration, *fresh, calibration.case_factor).all(1).mean())
    assert 0.94 <= np.mean(landmark) <= 0.96
    assert np.abs(np.mean(landmark, axis=0) - 0.95).max() < 0.025
    assert 0.935 <= np.mean(case) <= 0.965


@pytest.mark.parametrize("count", [19, 25, 39, 60])
def test_a_new_score_stays_below_the_quantile_as_often_as_it_says(count):
    rng = np.random.default_rng(count)
    below = np.array([conformal_quantile(rng.random(count), LEVEL) for _ in range(3000)])
    assert below.mean() == pytest.approx(LEVEL, abs=4 * below.std() / np.sqrt(len(below)))


def test_too_few_cases_are_refused_with_what_is_missing():
    with pytest.raises(UsageError) as error:
        conformal_quantile(np.arange(18.0), 0.95)
    assert {"95", "19", "18"} <= set(str(error.value).replace("%", " ").split())
    with pytest.raises(UsageError, match="90 %.*9.*8"):
        conformal_quantile(np.r_[np.arange(8.0), [np.nan] * 5], 0.9)
    assert conformal_quantile(np.arange(19.0), 0.95) == 18.0
    assert conformal_quantile(np.arange(9.0), 0.9) == 8.0


@pytest.mark.parametrize(("level", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_cases_needed_is_the_fewest_that_are_not_refused(level, needed):
    assert cases_needed(level) == needed
    assert conformal_quantile(np.arange(1.0, needed + 1), level) == needed
    with pytest.raises(UsageError):
        conformal_quantile(np.arange(1.0, needed), level)


def test_quantiles_lie_between_order_statistics_and_unknown_scores_take_no_part():
    rng = np.random.default_rng(0)
    for count, wanted in ((19, 19), (29, 28.5), (39, 38), (44, 42.75)):
        scores = rng.permutation(np.r_[np.arange(1.0, count + 1), [np.nan] * 7])
        assert conformal_quantile(scores, 0.95) == pytest.approx(wanted)
    assert conformal_quantile(np.array([4.0, 1.0, 3.0, 2.0]), 0.5) == pytest.approx(2.5)


@pytest.mark.parametrize("d", [2, 3])
def test_with_too_few_cases_there_are_no_regions(d):
    seen, truth = simulate(19, d)
    few, enough = calibrate(seen[:18], truth[:18]), calibrate(seen, truth)
    assert few.intercept is not None and few.quantiles == () and few.case_factor is None
    covariance, radius = few.region(seen[0], few.expected_error_mm(seen[0]))
    assert np.isnan(radius).all()
    np.testing.assert_array_equal(covariance, seen[0].covariance_mm2)
    assert len(enough.quantiles) == N and min(enough.quantiles) > 0 and enough.case_factor >= 1
    assert np.isfinite(enough.region(seen[0], enough.expected_error_mm(seen[0]))[1]).all()


def test_without_expected_errors_there_are_no_regions():
    seen, truth = simulate(30, 2)
    assert fit_regions(Calibration(), seen, truth) == Calibration()


def test_a_landmark_seen_in_too_few_cases_has_no_region_and_does_not_spoil_the_others():
    seen, truth = simulate(60, 2)
    for t in truth[18:]:
        t[3] = np.nan
    calibration = calibrate(seen, truth)
    assert np.flatnonzero(np.array(calibration.quantiles) == 0).tolist() == [3]
    covariance, radius = calibration.region(seen[0], calibration.expected_error_mm(seen[0]))
    assert np.flatnonzero(np.isnan(radius)).tolist() == [3]
    np.testing.assert_array_equal(covariance[3], seen[0].covariance_mm2[3])
    without = np.delete(np.arange(N), 3)
    covered = inside(calibration, seen, truth, calibration.case_factor)[:, without].all(1).mean()
    assert 0.9 <= covered < 1


@pytest.mark.parametrize("d", [2, 3])
def test_the_radius_is_the_longest_half_axis_of_the_region(d):
    seen, truth = simulate(60, d)
    calibration = calibrate(seen, truth)
    covariance, radius = calibration.region(seen[5], calibration.expected_error_mm(seen[5]))
    np.testing.assert_allclose(radius, np.sqrt(chi2.ppf(0.95, d) * np.linalg.eigvalsh(covariance)[:, -1]))
    aspect = np.linalg.eigvalsh(covariance) / np.linalg.eigvalsh(seen[5].covariance_mm2)
    np.testing.assert_allclose(aspect, aspect[:, :1] * np.ones(d))


def test_ten_times_larger_residuals_give_ten_times_larger_regions():
    seen, truth = simulate(80, 2)
    small = calibrate(seen, truth)
    large = calibrate(seen, [e.positions_mm + 10 * (t - e.positions_mm) for e, t in zip(seen, truth, strict=True)])
    radii = [c.region(seen[0], c.expected_error_mm(seen[0]))[1] for c in (small, large)]
    np.testing.assert_allclose(radii[1], 10 * radii[0], rtol=1e-6)
