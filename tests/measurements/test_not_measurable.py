"""What cannot be measured is said in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.measurements.measuring_tasks import (
    ANGLE,
    DISTANCE,
    LINES,
    LINES_SIGNED,
    MEANS,
    PLANE_ANGLE,
    PROJECTION,
    TO_LINE,
    TO_LINE_SIGNED,
    TO_PLANE,
    TO_PLANE_SIGNED,
    set_of,
    task_of,
)

from landmarklabel.landmarks import Status
from landmarklabel.measurements import measure, values

NO_LINE = "has no direction: both are at one place"


@pytest.mark.parametrize(
    ("measurement", "dims", "moved", "reason"),
    [
        (ANGLE, 2, {"b": (0, 0)}, f"the line through b and a {NO_LINE}"),
        (ANGLE, 3, {"c": (30, 0, 0)}, f"the line through b and c {NO_LINE}"),
        (LINES, 2, {"d": (60, 1e-9)}, f"the line through c and d {NO_LINE}"),
        (LINES_SIGNED, 2, {"e": (90, 0)}, "e lies on the line through a, b, so it has no side"),
        (TO_LINE, 3, {"c": (30, 0, 0)}, f"the line through b and c {NO_LINE}"),
        (TO_LINE_SIGNED, 2, {"d": (0, 1e-9)}, "d lies on the line through b, c, so it has no side"),
        (PROJECTION, 2, {"d": (60, 0)}, f"the line through c and d {NO_LINE}"),
        (TO_PLANE, 3, {"d": (90, 0, 0)}, "b, c and d lie on one line, so there is no plane through them"),
        (TO_PLANE, 3, {"c": (30, 0, 0), "d": (30, 0, 0)}, "b, c and d lie on one line, so there is no plane through them"),
        (TO_PLANE_SIGNED, 3, {"e": (7, 7, 0)}, "e lies on the plane through b, c, d, so it has no side"),
        (PLANE_ANGLE, 3, {"d": (60, 0, 0)}, "c, d and e lie on one line, so there is no plane through them"),
        (PLANE_ANGLE, 3, {"b": (0, 0, 0)}, f"the line through a and b {NO_LINE}"),
        (MEANS, 2, {"c": (15, 0)}, f"the line through c and the mean of a, b {NO_LINE}"),
        (DISTANCE, 2, {"a": (1e300, 0)}, "the positions are too large to calculate with"),
    ],
)
def test_what_is_degenerate_is_refused_in_words(measurement, dims, moved, reason):
    (found,) = measure(set_of(task_of(measurement, dims=dims), **moved))
    assert found.reason == reason and not found.available and math.isnan(found.value)


def test_the_tolerance_is_relative():
    task = task_of(ANGLE)
    small = np.array([[0, 0], [3, 0], [5, 4], [1, 1], [2, 2], [3, 3.0]])
    for size in (1e-10, 1.0, 1e6):
        assert values(task, small * size)[0] == pytest.approx(values(task, small)[0])
    assert np.isnan(values(task, small * 1e-7 + 1e3)[0])


def test_what_is_at_its_least_value_is_measured():
    task = task_of(DISTANCE, TO_LINE, LINES)
    found = measure(set_of(task, b=(0, 0), c=(7, 0), d=(9, 0)))
    assert [(m.value, m.reason) for m in found[:2]] == [(0, ""), (0, "")] and not found[2].available


def test_missing_landmarks_are_named():
    task = task_of(ANGLE, DISTANCE, {"kind": "sum", "of": {"m0": 1}}, {"kind": "distance", "points": ["d", "e"]})
    landmarks = set_of(task).with_landmark("a", None, Status.ABSENT).with_landmark("c", None, Status.UNSET)
    found = measure(landmarks)
    both = "a is absent; c is not placed"
    assert [m.reason for m in found] == [both, "a is absent", both, ""]
    assert np.isnan(values(task, landmarks.positions_mm)[:3]).all()


def test_parts_that_are_not_available_are_named():
    of_lengths = {"kind": "ratio", "of": ["m0", "m1"]}
    task = task_of(TO_LINE, DISTANCE, of_lengths, {"kind": "sum", "of": {"m2": 1}}, {"kind": "sum", "of": {"m5": 1}}, ANGLE)
    found = measure(set_of(task, b=(0, 0)))
    zero, no_angle = "m1 is 0", f"the line through b and a {NO_LINE}"
    assert [m.reason for m in found] == ["", "", zero, f"m2: {zero}", f"m5: {no_angle}", no_angle]
