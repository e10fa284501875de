"""Intervals of measurements hold what they promise, and say where there can be none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.measurements.formulae import apart
from tests.measurements.measuring_tasks import (
    ALL_2D,
    ALL_3D,
    ANGLE,
    COMPOSITES,
    DISTANCE,
    LINES_SIGNED,
    PLANE_ANGLE,
    TO_LINE,
    TO_LINE_SIGNED,
    TO_PLANE,
    configurations,
    predicted,
    set_of,
    spread,
    task_of,
)

from landmarklabel.errors import UsageError
from landmarklabel.landmarks import Status
from landmarklabel.measurements import measure, sampled_interval, values


def test_a_distances_interval_is_exact():
    task = task_of(DISTANCE, dims=3)
    positions, covariance = configurations(3, 1)[0], spread(task)
    (found,) = measure(predicted(task, positions, covariance))
    direction = (positions[1] - positions[0]) / apart(positions[0], positions[1])
    sd = math.sqrt(direction @ (covariance[0] + covariance[1]) @ direction)
    assert found.sd == pytest.approx(sd, rel=1e-8)
    assert found.high - found.value == found.value - found.low == pytest.approx(1.959964 * sd, rel=1e-6)


def test_an_angles_derivative_is_the_analytic_one():
    task = task_of(ANGLE)
    for positions in configurations(2, 50):
        a, v, b = positions[:3]
        covariance = spread(task)
        across = [np.array([-u[1], u[0]]) / (u @ u) for u in (a - v, b - v)]
        gradient = [-across[0], across[0] - across[1], across[1]]
        sd = math.degrees(math.sqrt(sum(g @ c @ g for g, c in zip(gradient, covariance, strict=False))))
        assert measure(predicted(task, positions, covariance))[0].sd == pytest.approx(sd, rel=1e-7)


def test_a_plane_distances_derivative_is_the_analytic_one():
    """The corners' weights are the foot's barycentric coordinates."""
    task = task_of(TO_PLANE, dims=3)
    for positions in configurations(3, 50):
        p, corners, covariance = positions[0], positions[1:4], spread(task)
        edges = (corners[1:] - corners[0]).T
        along = np.linalg.lstsq(edges, p - corners[0], rcond=None)[0]
        offset = p - corners[0] - edges @ along
        normal = offset / np.linalg.norm(offset)
        shares = [1, -(1 - along.sum()), *-along]
        variance = sum(w**2 * normal @ c @ normal for w, c in zip(shares, covariance, strict=False))
        assert measure(predicted(task, positions, covariance))[0].sd == pytest.approx(math.sqrt(variance), rel=1e-6)


@pytest.mark.parametrize(("measurements", "dims"), [(ALL_2D, 2), (ALL_3D, 3)])
def test_small_errors_give_the_interval_that_sampling_gives(measurements, dims):
    task = task_of(*measurements, *COMPOSITES, dims=dims)
    landmarks = predicted(task, configurations(dims, 1, seed=5)[0], spread(task, 1, size=0.1))
    for m in measure(landmarks):
        low, high = sampled_interval(landmarks, m.name, 40_000, np.random.default_rng(2))
        assert (low, high) == pytest.approx((m.low, m.high), abs=0.03 * (m.high - m.low)), m.name


def test_what_a_sums_parts_have_in_common_counts_once():
    less = {"kind": "sum", "of": {"m0": 1, "m1": -1}}
    task = task_of(ANGLE, {**ANGLE, "points": ["c", "b", "a"]}, less, {"kind": "sum", "of": {"m0": 1, "m1": 1}})
    found = measure(predicted(task, configurations(2, 1)[0], spread(task)))
    assert (found[2].value, found[2].interval_reason) == (0, "") and found[2].sd < 1e-6
    assert found[3].sd == pytest.approx(2 * found[0].sd)


@pytest.mark.parametrize(("measurements", "dims"), [(ALL_2D, 2), (ALL_3D, 3)])
def test_intervals_hold_the_truth_in_95_of_100_cases(measurements, dims):
    task, rng, n = task_of(*measurements, *COMPOSITES, dims=dims), np.random.default_rng(3), 500
    truth, covariance = configurations(dims, 1, seed=5)[0], spread(task, 4, size=1.0)
    true = values(task, truth)
    held = np.zeros(len(true))
    noise = np.einsum("uij,nuj->nui", np.linalg.cholesky(covariance), rng.standard_normal((n, *truth.shape)))
    for seen in truth + noise:
        found = measure(predicted(task, seen, covariance))
        held += [m.low <= t <= m.high for m, t in zip(found, true, strict=True)]
    assert (np.abs(held / n - 0.95) < 0.035).all(), held / n  # 3.6 standard deviations of the share


def test_a_persons_points_add_nothing_whatever_covariance_stands_beside_them():
    task, positions = task_of(DISTANCE), configurations(2, 1)[0]
    covariance = spread(task)
    whole = measure(predicted(task, positions, covariance))[0]
    placed = predicted(task, positions, covariance).with_landmark("a", positions[0])  # which forgets the covariance
    half = measure(placed)[0]
    assert 0 < half.sd < whole.sd and half.interval_reason == "without the error of whoever placed a"
    none = measure(placed.with_landmark("b", positions[1]))[0]
    assert none.available and math.isnan(none.low) and "placed by a person" in none.interval_reason
    statuses = (Status.ACCEPTED,) * len(task)
    assert "placed by a person" in measure(replace(predicted(task, positions, covariance), status=statuses))[0].interval_reason
    zero = replace(predicted(task, positions, covariance * 0), status=statuses)  # as a suggestion has what a person fixed
    assert "placed by a person" in measure(zero)[0].interval_reason


def test_a_point_that_only_says_to_which_side_makes_no_interval():
    """Between placed points the distance is as exact as who placed them; an interval from x to x would be a lie."""
    task = task_of(TO_LINE_SIGNED)
    placed = predicted(task, configurations(2, 1)[0], spread(task))
    status = tuple(Status.PREDICTED if name == "d" else Status.PLACED for name in task.names)
    (found,) = measure(replace(placed, status=status))
    assert math.isfinite(found.value) and math.isnan(found.low) and math.isnan(found.high)
    assert found.interval_reason == "its points were placed by a person, whose error is not known"


def test_a_predicted_point_without_covariance_takes_the_interval():
    task, positions = task_of(DISTANCE, ANGLE, {"kind": "distance", "points": ["a", "d"]}), configurations(2, 1)[0]
    covariance = spread(task)
    covariance[1] = np.nan
    found = measure(predicted(task, positions, covariance))
    text = "it is not known how far off b may be"
    assert [m.interval_reason for m in found] == [text, text, ""] and found[2].low < found[2].value
    assert np.isnan(sampled_interval(predicted(task, positions, covariance), "m0")).all()
    without_any = measure(replace(predicted(task, positions, covariance), covariance_mm2=None))
    assert without_any[0].interval_reason == "it is not known how far off a, b may be"


def test_intervals_are_left_out_when_not_asked_for():
    task = task_of(DISTANCE)
    (found,) = measure(predicted(task, configurations(2, 1)[0], spread(task)), with_intervals=False)
    assert found.available and math.isnan(found.sd) and found.interval_reason == ""


def test_intervals_stay_in_range_and_go_through_zero_in_2d():
    task = task_of(DISTANCE, ANGLE, TO_LINE, LINES_SIGNED)
    at = set_of(task, a=(60, 0.1), b=(30, 0), c=(90, 0), d=(120, 0.1))
    found = measure(predicted(task, at.positions_mm, np.tile(9 * np.eye(2), (6, 1, 1))))
    assert found[1].low == 0 and found[1].high > 5 and found[2].low == 0 and found[2].high > 2
    flat = set_of(task, a=(0, 0.1), b=(30, 0), c=(90, 0))
    assert measure(predicted(task, flat.positions_mm, np.tile(np.eye(2), (6, 1, 1))))[1].high == 180


def test_no_interval_where_there_is_no_derivative():
    task = task_of(DISTANCE, ANGLE, TO_LINE, PLANE_ANGLE, dims=3)
    at = set_of(task, a=(30, 0, 0), b=(30, 0, 0), d=(60, 40, 0), e=(70, 0, 0)).positions_mm
    found = measure(predicted(task, at, spread(task)))
    assert found[0].value == 0 and "end of its range" in found[0].interval_reason
    straight = set_of(task, a=(0, 0, 0), b=(30, 0, 0), c=(60, 0, 0), d=(60, 0, 9), e=(60, 9, 0)).positions_mm
    found = measure(predicted(task, straight, spread(task)))
    assert [round(m.value, 9) for m in found[1:]] == [180, 0, 90]
    assert all("end of its range" in m.interval_reason for m in found[1:])


def test_sampling_follows_a_signed_angle_through_180():
    task = task_of(LINES_SIGNED)
    at = set_of(task, d=(20, 1), e=(10, 20)).positions_mm
    landmarks = predicted(task, at, np.tile(0.25 * np.eye(2), (6, 1, 1)))
    low, high = sampled_interval(landmarks, "m0", rng=np.random.default_rng(0))
    value = measure(landmarks)[0].value
    assert 170 < low < value < 180 < high < 190


def test_sampling_knows_the_tasks_measurements_only():
    task = task_of(DISTANCE)
    landmarks = predicted(task, configurations(2, 1)[0], spread(task))
    assert sampled_interval(landmarks, task.measurements[0]) == sampled_interval(landmarks, "m0")
    with pytest.raises(UsageError, match="no measurement called 'm7'"):
        sampled_interval(landmarks, "m7")
