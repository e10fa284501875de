"""Measurements are what other formulae give, in the unit of their positions or in millimetres by the scale rule."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.measurements.formulae import apart, at_vertex, between, foot_distance, height, inclination, left_of, turned
from tests.measurements.measuring_tasks import (
    ANGLE,
    DISTANCE,
    LINES,
    LINES_SIGNED,
    MEANS,
    NAMES,
    PLANE_ANGLE,
    PROJECTION,
    TO_LINE,
    TO_LINE_AWAY,
    TO_LINE_SIGNED,
    TO_PLANE,
    TO_PLANE_SIGNED,
    configurations,
    predicted,
    set_of,
    spread,
    task_of,
)

from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule, Status
from landmarklabel.measurement_definitions import Norm
from landmarklabel.measurements import measure, sampled_interval, values
from landmarklabel.scale_rules import PixelSize

OTHER_FORMULAE = [
    (DISTANCE, (2, 3), lambda a, b, c, d, e, f: apart(a, b)),
    (ANGLE, (2, 3), lambda a, b, c, d, e, f: at_vertex(a, b, c)),
    (LINES, (2, 3), lambda a, b, c, d, e, f: between(a, b, c, d)),
    (LINES_SIGNED, (2,), lambda a, b, c, d, e, f: turned(a, b, c, d, e)),
    (TO_LINE, (2, 3), lambda a, b, c, d, e, f: foot_distance(a, b, c)),
    (TO_LINE_SIGNED, (2,), lambda a, b, c, d, e, f: math.copysign(foot_distance(a, b, c), left_of(b, c, a) * left_of(b, c, d))),
    (TO_LINE_AWAY, (2,), lambda a, b, c, d, e, f: math.copysign(foot_distance(a, b, c), -left_of(b, c, a) * left_of(b, c, d))),
    (TO_PLANE, (3,), lambda a, b, c, d, e, f: abs(height(a, b, c, d))),
    (TO_PLANE_SIGNED, (3,), lambda a, b, c, d, e, f: height(a, b, c, d) * math.copysign(1, height(e, b, c, d))),
    (PLANE_ANGLE, (3,), lambda a, b, c, d, e, f: inclination(a, b, c, d, e)),
    (PROJECTION, (2, 3), lambda a, b, c, d, e, f: apart(a, b) * math.cos(math.radians(between(a, b, c, d)))),
    (MEANS, (2, 3), lambda a, b, c, d, e, f: at_vertex((a + b) / 2, c, (d + e + f) / 3)),
]
CASES = [(m, dims, other) for m, all_dims, other in OTHER_FORMULAE for dims in all_dims]


@pytest.mark.parametrize(("measurement", "dims", "other"), CASES)
def test_every_kind_is_what_another_formula_gives(measurement, dims, other):
    task, positions = task_of(measurement, dims=dims), configurations(dims)
    expected = np.array([other(*p) for p in positions])
    assert values(task, positions)[:, 0] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    one = measure(LandmarkSet.of_positions(task, positions[0]))[0]
    assert one.value == pytest.approx(expected[0], rel=1e-9, abs=1e-9) and one.available
    assert one.unit == ("°" if "angle" in measurement["kind"] else "mm")


def test_ratios_and_sums():
    task = task_of(
        {"kind": "sum", "of": {"m1": 2, "m2": -1.5}},  # before those it is made of
        ANGLE,
        LINES_SIGNED,
        DISTANCE,
        {"kind": "distance", "points": ["c", "d"]},
        {"kind": "ratio", "of": ["m3", "m4"]},
        {"kind": "ratio", "of": ["m3", "m4"], "percent": True},
        {"kind": "ratio", "of": ["m0", "m1"]},
    )
    for p in configurations(2, 100):
        found = measure(LandmarkSet.of_positions(task, p))
        v = [m.value for m in found]
        assert v[0] == pytest.approx(2 * at_vertex(*p[:3]) - 1.5 * turned(*p[:5]))
        assert v[5] == pytest.approx(apart(p[0], p[1]) / apart(p[2], p[3]))
        assert v[6] == pytest.approx(100 * v[5]) and v[7] == pytest.approx(v[0] / v[1])
    assert [m.unit for m in found] == ["°", "°", "°", "mm", "mm", "", "%", ""]


@pytest.mark.parametrize(("measurement", "dims", "other"), CASES)
def test_moving_turning_and_mirroring_change_nothing(measurement, dims, other):
    task, positions = task_of(measurement, dims=dims), configurations(dims, 100)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((dims, dims)))[0]
    before = values(task, positions)
    for matrix in (rotation, rotation @ np.diag([-1] + [1] * (dims - 1))):
        assert values(task, positions @ matrix + 37.0) == pytest.approx(before, rel=1e-8, abs=1e-8)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=2), min_size=6, max_size=6))
def test_whatever_the_positions_a_value_is_in_range_or_a_reason_is_given(positions):
    task = task_of(DISTANCE, ANGLE, LINES, LINES_SIGNED, TO_LINE, PROJECTION, {"kind": "ratio", "of": ["m1", "m2"]})
    landmarks = LandmarkSet(task, positions, (Status.PREDICTED,) * 6, covariance_mm2=np.tile(np.eye(2), (6, 1, 1)))
    for m in measure(landmarks):
        assert (m.reason == "") == math.isfinite(m.value) == m.available
        if not m.available:
            assert math.isnan(m.low) and math.isnan(m.high) and m.interval_reason == ""
        elif not m.interval_reason:
            assert m.low <= m.value <= m.high and m.sd >= 0
    limits = {"m0": (0, math.inf), "m1": (0, 180), "m2": (0, 180), "m3": (-180, 180), "m4": (0, math.inf)}
    for m in measure(landmarks)[:5]:
        low, high = limits[m.name]
        assert not m.available or low <= m.value <= high


def test_no_measurements():
    landmarks = LandmarkSet.empty(LandmarkTask("t", NAMES, 2))
    assert measure(landmarks) == [] and values(landmarks.task, np.zeros((7, 6, 2))).shape == (7, 0)


# ------------------------------------------------------------------ units


def test_lengths_are_in_the_sets_unit_and_norms_are_in_mm():
    norm = {"mean": 50, "source": "someone"}
    task = task_of({**DISTANCE, "norm": norm}, {**ANGLE, "norm": norm})
    landmarks = set_of(task)
    assert [(m.unit, m.norm) for m in measure(landmarks)] == [("mm", Norm(50, "someone")), ("°", Norm(50, "someone"))]
    pixels = measure(replace(landmarks, unit="px"))
    assert [(m.unit, m.norm) for m in pixels] == [("px", None), ("°", Norm(50, "someone"))]


def test_the_scale_rule_makes_millimetres_and_counts_in_intervals():
    plain = task_of(DISTANCE, ANGLE, {"kind": "distance", "points": ["c", "d"]}, {"kind": "ratio", "of": ["m0", "m2"]})
    task = replace(plain, scale=ScaleRule("c", "d", 50.0))
    positions, covariance = configurations(2, 1)[0], spread(plain)
    before = measure(replace(predicted(plain, positions, covariance), unit="px"))
    after = measure(replace(predicted(task, positions, covariance), unit="px"))
    factor = 50 / apart(positions[2], positions[3])
    assert [m.unit for m in after] == ["mm", "°", "mm", ""]
    assert [m.value for m in after] == pytest.approx([before[0].value * factor, before[1].value, 50, before[3].value])
    assert after[2].sd == pytest.approx(0, abs=1e-6) and after[3].sd == before[3].sd
    assert after[0].sd == pytest.approx(50 * before[3].sd)  # m0 in units of c-d, times 50
    landmarks = predicted(task, positions, covariance)
    assert sampled_interval(landmarks, "m0", 40_000) == pytest.approx((after[0].low, after[0].high), rel=0.002)
    assert measure(landmarks.with_landmark("c", None, Status.ABSENT))[0].reason == "c is absent"
    assert "scale rule has no length" in measure(landmarks.with_landmark("c", positions[3]))[0].reason


def test_a_pixel_size_makes_millimetres_of_lengths_and_their_intervals_only():
    parts = [{"kind": "distance", "points": ["c", "d"]}, {"kind": "ratio", "of": ["m0", "m2"]}]
    plain = task_of(DISTANCE, ANGLE, *parts)
    task = replace(plain, scale=PixelSize(0.2))
    positions, covariance = configurations(2, 1)[0], spread(plain)
    before = measure(replace(predicted(plain, positions, covariance), unit="px"))
    after = measure(replace(predicted(task, positions, covariance), unit="px"))
    assert [m.unit for m in after] == ["mm", "°", "mm", ""]
    factors = [0.2, 1, 0.2, 1]
    for what in ("value", "low", "high", "sd"):
        wanted = [getattr(m, what) * f for m, f in zip(before, factors, strict=True)]
        assert [getattr(m, what) for m in after] == pytest.approx(wanted)
    np.testing.assert_allclose(values(task, positions), values(plain, positions) * factors)
    assert measure(predicted(task, positions, covariance).with_landmark("d", None, Status.ABSENT))[0].available
