"""Expected errors are those that were simulated; without enough residuals there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from landmarklabel.inference.calibration import Calibration, choose_fine_presence_weight, fit_calibration
from landmarklabel.inference.configuration import CalibrationConfig
from landmarklabel.inference.evidence import Candidates, Evidence, blend_presence

MIN_POINTS = CalibrationConfig().min_points


def evidence_of(positions, covariance, presence, mass) -> Evidence:
    """Evidence with one candidate per landmark."""
    candidates = Candidates(positions[:, None], np.ones((len(positions), 1)), covariance[:, None])
    return Evidence(positions, covariance, presence, mass, positions, candidates)


def simulate(cases, n=8, d=2, seed=0, factor=None, absent=0.0):
    """Evidence whose true errors are ``factor[landmark]`` times what the map's spread says.

    Returns evidence, truth (NaN where absent), states, and the mean error of each point's own distribution.
    """
    rng = np.random.default_rng(seed)
    factor = np.ones(n) if factor is None else factor
    evidence, truth, states, wanted = [], [], [], []
    for _ in range(cases):
        sd = np.exp(rng.uniform(-1, 1, n))
        state = (rng.random(n) >= absent).astype(int)
        positions = rng.uniform(0, 100, (n, d))
        errors = rng.normal(size=(n, d)) * (sd * factor)[:, None]
        presence = np.clip(np.where(state == 1, rng.normal(0.75, 0.1, n), rng.normal(0.35, 0.1, n)), 0, 1)
        covariance = np.eye(d) * sd[:, None, None] ** 2
        evidence.append(evidence_of(positions, covariance, presence, np.ones(n)))
        truth.append(np.where(state[:, None] == 1, positions + errors, np.nan))
        states.append(state)
        wanted.append(sd * factor * np.sqrt(np.pi / 2))  # the mean of a Rayleigh distribution
    return evidence, truth, states, np.stack(wanted)


@pytest.mark.parametrize("count", [0, 1, MIN_POINTS - 1])
def test_with_few_residuals_it_says_nothing_rather_than_something(count):
    evidence, truth, states, _ = simulate(1, n=max(count, 1))
    if not count:
        truth = [np.full_like(truth[0], np.nan)]
    calibration = fit_calibration(evidence, truth, states)
    assert np.isnan(calibration.expected_error_mm(evidence[0])).all() and calibration.cases == 1
    assert np.isnan(Calibration().expected_error_mm(evidence[0])).all()


def test_with_enough_residuals_it_speaks():
    evidence, truth, states, _ = simulate(1, n=MIN_POINTS)
    expected = fit_calibration(evidence, truth, states).expected_error_mm(evidence[0])
    assert expected.shape == (MIN_POINTS,) and (expected > 0).all()


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_expected_errors_are_the_simulated_ones(scale):
    factor = scale * np.array([0.5, 1, 1, 1, 1, 1, 1, 2.0])
    evidence, truth, states, _ = simulate(60, factor=factor, absent=0.1)
    calibration = fit_calibration(evidence, truth, states)
    fresh, fresh_truth, _, wanted = simulate(400, factor=factor, seed=1)
    expected = np.stack([calibration.expected_error_mm(e) for e in fresh])
    errors = np.stack([np.linalg.norm(e.positions_mm - t, axis=1) for e, t in zip(fresh, fresh_truth, strict=True)])
    assert np.abs(np.log(expected.mean(0) / errors.mean(0))).max() < 0.4  # each landmark on average
    order = np.argsort(expected.ravel())
    lowest, highest = np.array_split(order, 4)[0], np.array_split(order, 4)[-1]
    for part in (lowest, highest):  # and where it says little or much
        assert errors.ravel()[part].mean() == pytest.approx(expected.ravel()[part].mean(), rel=0.35)
    assert np.corrcoef(np.log(expected.ravel()), np.log(wanted.ravel()))[0, 1] > 0.9


def test_a_landmark_seen_once_borrows_from_the_others():
    evidence, truth, states, _ = simulate(40)
    for t in truth[1:]:
        t[0] = np.nan
    truth[0][0] = evidence[0].positions_mm[0] + 60.0  # a single wild residual, over 50 times the usual
    calibration = fit_calibration(evidence, truth, states)
    typical, seldom = np.mean(calibration.offsets[1:]), calibration.offsets[0]
    assert typical < seldom < typical + np.log(60 / 1.25) - 1


def test_more_mass_elsewhere_means_a_larger_expected_error():
    evidence, truth, states, _ = simulate(40)
    calibration = fit_calibration(evidence, truth, states)
    e = evidence[0]
    torn = evidence_of(e.positions_mm, e.covariance_mm2, e.presence, np.full(8, 0.3))
    nowhere = evidence_of(e.positions_mm, e.covariance_mm2, e.presence, np.zeros(8))
    assert (calibration.expected_error_mm(torn) > calibration.expected_error_mm(e)).all()
    assert np.isfinite(calibration.expected_error_mm(nowhere)).all()


def test_perfect_predictions_do_not_divide_by_zero():
    evidence, _, states, _ = simulate(10)
    expected = fit_calibration(evidence, [e.positions_mm for e in evidence], states).expected_error_mm(evidence[0])
    assert (expected > 0).all() and (expected < 0.01).all()


def test_the_presence_threshold_separates_what_can_be_separated():
    evidence, truth, states, _ = simulate(50, absent=0.4)
    threshold = fit_calibration(evidence, truth, states).presence_threshold
    assert 0.45 < threshold < 0.65
    presence, state = np.concatenate([e.presence for e in evidence]), np.concatenate(states)
    assert ((presence >= threshold) == (state == 1)).mean() > 0.95
    assert type(threshold) is float


@pytest.mark.parametrize(("absent", "threshold"), [(0.0, 0.2), (1.0, 0.5)])
def test_where_nobody_ever_called_a_landmark_absent_it_takes_more_to_say_so(absent, threshold):
    evidence, truth, states, _ = simulate(20, absent=absent)
    assert fit_calibration(evidence, truth, states).presence_threshold == threshold


def test_unknown_landmarks_do_not_move_the_threshold():
    evidence, truth, states, _ = simulate(50, absent=0.4)
    threshold = fit_calibration(evidence, truth, states).presence_threshold
    for e, t, s in zip(*simulate(50, absent=0.4, seed=9)[:3], strict=True):
        e.presence[:] = 1 - e.presence
        s[:] = -1
        t[:] = np.nan
        evidence.append(e)
        truth.append(t)
        states.append(s)
    assert fit_calibration(evidence, truth, states).presence_threshold == threshold


def test_the_stage_that_tells_presence_better_on_validation_cases_is_believed():
    rng = np.random.default_rng(0)
    states = [rng.integers(0, 2, 12) for _ in range(20)]

    def opposed(good: int) -> list[Evidence]:
        out = []
        for state in states:
            presence_by_stage = np.stack([rng.uniform(0.3, 0.9, 12), rng.uniform(0.3, 0.9, 12)])
            presence_by_stage[good] = np.clip(0.1 + 0.8 * state + rng.normal(0, 0.03, 12), 0.01, 0.99)
            out.append(replace(nothing(12), presence_by_stage=presence_by_stage))
        return out

    assert choose_fine_presence_weight(opposed(0), states) == 0.0 and choose_fine_presence_weight(opposed(1), states) == 1.0
    assert choose_fine_presence_weight([nothing(12) for _ in states], states) == 0.5  # one stage only
    assert choose_fine_presence_weight(opposed(1)[:1], [np.ones(12, int)]) == 0.5  # nobody has called one absent


def test_blending_presence_is_fair_at_both_ends():
    presence_by_stage = np.array([[0.9, 0.5], [0.1, 0.99]])
    assert np.allclose(blend_presence(presence_by_stage, 0.0), presence_by_stage[0])
    assert np.allclose(blend_presence(presence_by_stage, 1.0), presence_by_stage[1])
    assert np.isclose(blend_presence(presence_by_stage, 0.5)[0], 0.5)


def nothing(n: int) -> Evidence:
    where, spread = np.zeros((n, 2)), np.tile(np.eye(2), (n, 1, 1))
    places = Candidates(where[:, None], np.ones((n, 1)), spread[:, None])
    return Evidence(where, spread, np.full(n, 0.5), np.ones(n), where, places)
