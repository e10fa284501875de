"""Measurements are what other formulae give, hold what their intervals promise, and say in words what cannot be measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarklabel.errors import StudyError, TaskError, UsageError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule, Status
from landmarklabel.measurement_definitions import KINDS, MOST_IN_MEAN, MOST_MEASUREMENTS, Measurement, Norm
from landmarklabel.measurements import Measured, measure, sampled_interval, values
from landmarklabel.store.study_task import StudyRecord, renamed, without
from landmarklabel.tasks import resolve_task

NAMES = ("a", "b", "c", "d", "e", "f")
RANDOM = 1000  # configurations that every kind is compared on


def content(*measurements, dims=2, names=NAMES):
    landmarks = [{"name": name} for name in names]
    base = {"format": "landmarklabel-task", "version": 1, "name": "t", "dims": dims, "landmarks": landmarks}
    return {**base, "measurements": [{"name": f"m{i}", **m} for i, m in enumerate(measurements)]}


def task_of(*measurements, dims=2, names=NAMES):
    return LandmarkTask.from_json(content(*measurements, dims=dims, names=names))


DISTANCE = {"kind": "distance", "points": ["a", "b"]}
ANGLE = {"kind": "angle", "points": ["a", "b", "c"]}
LINES = {"kind": "line_angle", "lines": [["a", "b"], ["c", "d"]]}
LINES_SIGNED = {**LINES, "positive_towards": "e"}
TO_LINE = {"kind": "distance_to_line", "point": "a", "line": ["b", "c"]}
TO_LINE_SIGNED = {**TO_LINE, "positive_towards": "d"}
TO_LINE_AWAY = {**TO_LINE, "negative_towards": "d"}
TO_PLANE = {"kind": "distance_to_plane", "point": "a", "plane": ["b", "c", "d"]}
TO_PLANE_SIGNED = {**TO_PLANE, "positive_towards": "e"}
PLANE_ANGLE = {"kind": "plane_angle", "line": ["a", "b"], "plane": ["c", "d", "e"]}
PROJECTION = {"kind": "projection", "points": ["a", "b"], "line": ["c", "d"]}
MEANS = {"kind": "angle", "points": [["a", "b"], "c", ["d", "e", "f"]]}


# ------------------------------------------------------------------ other formulae, of single points


def apart(p, q):
    return math.dist(p, q)


def at_vertex(a, v, b):
    """Law of cosines in the form of half angles, which keeps its digits for flat triangles."""
    x, y, z = apart(v, a), apart(v, b), apart(a, b)
    s = (x + y + z) / 2
    return math.degrees(2 * math.atan2(math.sqrt(max((s - x) * (s - y), 0)), math.sqrt(max(s * (s - z), 0))))


def between(a, b, c, d):
    return at_vertex(b - a, np.zeros_like(a), d - c)


def heading(a, b):
    return math.atan2(b[1] - a[1], b[0] - a[0])


def left_of(a, b, p):
    """Twice the triangle's area by the shoelace formula: positive where p is on the left."""
    return a[0] * b[1] - b[0] * a[1] + b[0] * p[1] - p[0] * b[1] + p[0] * a[1] - a[0] * p[1]


def turned(a, b, c, d, p):
    turn = math.degrees(heading(c, d) - heading(a, b))
    turn = turn - 360 * round(turn / 360)
    return math.copysign(1, left_of(a, b, p)) * turn


def foot_distance(p, a, b):
    """Distance from the foot of the perpendicular."""
    t = (p - a) @ (b - a) / apart(a, b) ** 2
    return apart(p, a + t * (b - a))


def height(p, a, b, c):
    """A tetrahedron's signed volume over its base; the base's area after Heron."""
    volume = np.linalg.det(np.array([b - a, c - a, p - a])) / 6
    x, y, z = sorted((apart(a, b), apart(b, c), apart(c, a)))
    area = math.sqrt((x + y + z) * (x + y - z) * (x - y + z) * (-x + y + z)) / 4
    return 3 * volume / area


def inclination(a, b, p, q, r):
    """90° less the angle to the normal, which comes from a null space."""
    normal = np.linalg.svd(np.array([q - p, r - p]))[2][2]
    to_normal = at_vertex(b - a, np.zeros(3), normal)
    return abs(90 - to_normal)


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


def configurations(dims, n=RANDOM, seed=0):
    return np.random.default_rng(seed).uniform(0, 200, (n, len(NAMES), dims))


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


# ------------------------------------------------------------------ what cannot be measured


P2 = {"a": (0, 0), "b": (30, 0), "c": (60, 0), "d": (60, 40), "e": (10, 20), "f": (5, 5)}
P3 = {name: (*p, z) for (name, p), z in zip(P2.items(), (0, 0, 0, 0, 25, 8), strict=True)}


def set_of(task, **moved):
    at = {**(P2 if task.dims == 2 else P3), **moved}
    return LandmarkSet.of_positions(task, [at[name] for name in task.names])


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


# ------------------------------------------------------------------ intervals


def spread(task, seed=0, size=0.3):
    """Covariances (n, d, d) of that size, every one another."""
    factor = np.random.default_rng(seed).standard_normal((len(task), task.dims, task.dims)) * size
    return factor @ factor.transpose(0, 2, 1) + 0.1 * size**2 * np.eye(task.dims)


def predicted(task, positions, covariance):
    return LandmarkSet(task, positions, (Status.PREDICTED,) * len(task), covariance_mm2=covariance)


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


ALL_2D = (DISTANCE, ANGLE, LINES, LINES_SIGNED, TO_LINE, TO_LINE_AWAY, PROJECTION, MEANS)
ALL_3D = (DISTANCE, ANGLE, LINES, TO_LINE, TO_PLANE, TO_PLANE_SIGNED, PLANE_ANGLE, PROJECTION, MEANS)
COMPOSITES = ({"kind": "sum", "of": {"m1": 1, "m2": -1}}, {"kind": "ratio", "of": ["m0", "m4"], "percent": True})


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


# ------------------------------------------------------------------ definitions


def nested(depth=100_000):
    value = []
    for _ in range(depth):
        value = [value]
    return value


FAULTS = [
    ({"kind": "distance", "points": ["a", "z"]}, "measurement 'm0': names 'z', which is no landmark"),
    ({"kind": "distance", "points": ["a", ["b", "z"]]}, "names 'z', which is no landmark"),
    ({**TO_LINE, "positive_towards": "z"}, "names 'z', which is no landmark"),
    ({"kind": "volume"}, "kind 'volume' must be one of distance, angle"),
    ({"kind": None}, "kind None must be one of"),
    ({"kind": ["angle"]}, "kind (list) must be one of"),
    ({}, "kind None must be one of"),
    ({**DISTANCE, "colour": 1}, "unknown key 'colour'; known: "),
    ({**DISTANCE, "line": ["a", "b"]}, "unknown key 'line'"),
    ({**PROJECTION, "positive_towards": "e"}, "unknown key 'positive_towards'"),
    ({"kind": "distance"}, "'points' must be a list of 2 points"),
    ({"kind": "distance", "points": "ab"}, "'points' must be a list of 2 points"),
    ({"kind": "distance", "points": ["a", "b", "c"]}, "'points' must be a list of 2 points"),
    ({"kind": "distance", "points": ["a", 5]}, "each a landmark's name or a list of 1 to 20"),
    ({"kind": "distance", "points": ["a", []]}, "'points' must be a list"),
    ({"kind": "distance", "points": ["a", ["b", "b"]]}, "'points' must be a list"),
    ({"kind": "distance", "points": ["a", [str(i) for i in range(MOST_IN_MEAN + 1)]]}, "'points' must be a list"),
    ({"kind": "distance", "points": ["a", nested()]}, "'points' must be a list"),
    ({"kind": "distance", "points": ["a", "a"]}, "two points that must differ are the same"),
    ({"kind": "distance", "points": [["a", "b"], ["b", "a"]]}, "two points that must differ are the same"),
    ({"kind": "line_angle", "lines": [["a", "b"]]}, "'lines' must be a list of 2 lists of 2 points"),
    ({"kind": "line_angle", "lines": [["a", "b"], ["c"]]}, "'lines' must be a list of 2 points"),
    ({**TO_LINE, "point": ["b", 3]}, "'point' must be one point"),
    ({**TO_LINE, "positive_towards": "b"}, "the point that gives the sign lies on"),
    ({**TO_LINE, "positive_towards": None}, "'positive_towards' must be one point"),
    ({**TO_LINE_SIGNED, "negative_towards": "d"}, "exclude each other"),
    (PLANE_ANGLE, "a plane_angle is defined in 3D, the task is 2D"),
    (TO_PLANE, "a distance_to_plane is defined in 3D, the task is 2D"),
    ({"kind": "ratio"}, "'of' must be a list of two measurements"),
    ({"kind": "ratio", "of": ["m1"]}, "'of' names 1 measurements; a ratio is of 2 to 2 different ones"),
    ({"kind": "ratio", "of": ["m1", "m1"]}, "'of' names 2 measurements"),
    ({"kind": "ratio", "of": ["m1", 5]}, "'of' must be names of measurements"),
    ({"kind": "ratio", "of": ["m1", "m2"]}, "it is made of a angle and a length, which have not the same unit"),
    ({"kind": "ratio", "of": ["m1", "m9"]}, "names 'm9', which is no measurement"),
    ({"kind": "ratio", "of": ["m0", "m1"]}, "measurement 'm0' refers to itself"),
    ({"kind": "ratio", "of": ["m2", "m3"], "percent": 1}, "'percent' 1 must be true or false"),
    ({"kind": "sum", "of": ["m1"]}, "'of' must be {measurement: weight, …}"),
    ({"kind": "sum", "of": {}}, "'of' names 0 measurements"),
    ({"kind": "sum", "of": {"m1": True}}, "weight True must be a number"),
    ({"kind": "sum", "of": {"m1": "1"}}, "weight '1' must be a number"),
    ({"kind": "sum", "of": {"m1": math.nan}}, "weight nan must be a number"),
    ({"kind": "sum", "of": {"m1": 10**5000}}, "weight a large number must be a number"),
    ({"kind": "sum", "of": {"m1": 1, "m2": 1}}, "which have not the same unit"),
    ({**DISTANCE, "name": ""}, "measurement '': name '' must be printable text of 1 to 200 characters"),
    ({**DISTANCE, "name": " "}, "name ' ' must be printable"),
    ({**DISTANCE, "name": "x" * 201}, "must be printable text of 1 to 200"),
    ({**DISTANCE, "name": "x\n"}, "name 'x\\n' must be printable"),
    ({**DISTANCE, "name": 5}, "measurement 1: name 5 must be printable"),
    ({**DISTANCE, "name": None}, "name None must be printable"),
    ({**DISTANCE, "name": "m1"}, "measurement 'm1': the name appears twice"),
    ({**DISTANCE, "definition": 5}, "definition 5 must be printable text"),
    ({**DISTANCE, "definition": "x" * 2001}, "must be printable text of 0 to 2000"),
    ({**DISTANCE, "norm": 5}, '"norm" must be {"mean"'),
    ({**DISTANCE, "norm": {"mean": 5}}, '"norm" must be {"mean"'),
    ({**DISTANCE, "norm": {"mean": 5, "source": "x", "n": 5}}, '"norm" must be {"mean"'),
    ({**DISTANCE, "norm": {"mean": True, "source": "x"}}, "mean True of the norm must be a number"),
    ({**DISTANCE, "norm": {"mean": math.inf, "source": "x"}}, "mean inf of the norm"),
    ({**DISTANCE, "norm": {"mean": 5, "sd": 0, "source": "x"}}, "sd 0 of the norm must be a positive number"),
    ({**DISTANCE, "norm": {"mean": 5, "source": ""}}, "source of the norm '' must be printable"),
]


@pytest.mark.parametrize(("measurement", "text"), FAULTS)
def test_a_faulty_measurement_is_refused_by_a_text_that_names_it(measurement, text):
    with pytest.raises(TaskError) as caught:
        task_of(measurement, ANGLE, DISTANCE, {"kind": "distance", "points": ["c", "d"]})
    assert text in str(caught.value)
    assert len(caught.value.faults) == 1 or "names 'z'" in text


def test_a_sign_needs_its_dimensions():
    for measurement, dims in ((LINES_SIGNED, 3), (TO_LINE_SIGNED, 3)):
        with pytest.raises(TaskError, match="the sign of a .* is defined in 2D, the task is 3D"):
            task_of(measurement, dims=dims)
    task_of(TO_PLANE_SIGNED, {**TO_PLANE, "negative_towards": "f"}, dims=3)


def test_all_faults_are_listed_with_the_tasks_own():
    faulty = content({"kind": "volume"}, {"kind": "ratio", "of": ["m0", "m2"]}, {"kind": "distance", "points": ["a", "y"]})
    with pytest.raises(TaskError) as caught:
        LandmarkTask.from_json({**faulty, "name": "a b", "measurements": [*faulty["measurements"], 5, {"kind": "sum"}]}, "x.json")
    said = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 6 and str(caught.value).startswith("x.json: ")
    own = ("name 'a b'", "'m0': kind", "'m2': names 'y'")
    for text in (*own, "measurement 4: must be", "measurement 5: name None", "'of' must"):
        assert text in said


def test_circles_are_named_without_what_only_stands_before_or_behind_them():
    circle = [{"kind": "sum", "of": {"m1": 1}}, {"kind": "sum", "of": {"m2": 1, "m3": 1}}, {"kind": "sum", "of": {"m0": 1}}]
    with pytest.raises(TaskError) as caught:
        task_of(*circle, ANGLE, {"kind": "sum", "of": {"m0": 1}})
    assert caught.value.faults == ("measurements 'm0', 'm1', 'm2' refer to each other in a circle",)


@pytest.mark.parametrize("value", [5, None, {}, "x", [DISTANCE] * (MOST_MEASUREMENTS + 1), nested(), [nested()], [[]] * 100])
def test_what_is_no_list_of_measurements(value):
    with pytest.raises(TaskError, match="measurement"):
        LandmarkTask.from_json({**content(), "measurements": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from([*NAMES, "m0", "m1", *KINDS]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*NAMES, "m0", "of", "mean", "source"]), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["name", "kind", "points", "lines", "line", "plane", "point", "positive_towards", "of", "percent", "definition", "norm"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(KEYS, JSON) | JSON, max_size=3), st.sampled_from([DISTANCE, LINES_SIGNED, TO_PLANE]), KEYS, JSON)
def test_hostile_content_is_refused_or_kept(entries, base, key, value):
    entries = [{"name": "own", **base, key: value}, *entries]
    try:
        task = LandmarkTask.from_json({**content(), "measurements": entries})
    except TaskError as error:
        assert error.faults
    else:
        assert LandmarkTask.from_json(task.to_json()) == task
        assert len(measure(set_of(task))) == len(entries)


def test_measurements_made_in_python_are_checked_too():
    with pytest.raises(TaskError, match="measurement 'x': a distance has 2 points"):
        Measurement("x", "distance", (("a",),))
    points = [{"points": 5}, {"points": ("a", "b")}, {"towards": ("c",)}, {"away": True}]
    for bad in (*points, {"of": 5}, {"of": ("m",)}, {"norm": 5}, {"weights": (1,)}):
        with pytest.raises(TaskError):
            Measurement("x", **{"kind": "distance", "points": (("a",), ("b",)), **bad})
    with pytest.raises(TaskError, match="must be a Measurement"):
        LandmarkTask("t", NAMES, 2, measurements=("x",))
    with pytest.raises(TaskError, match="allowed are at most 200"):
        some = tuple(Measurement(f"m{i}", "distance", (("a",), ("b",))) for i in range(MOST_MEASUREMENTS + 1))
        LandmarkTask("t", NAMES, 2, measurements=some)


def test_names_are_composed():
    length = {"kind": "distance", "name": "Lu\u0308ge", "points": ["a\u0308", "b"]}
    task = task_of(length, {"kind": "sum", "of": {"L\u00fcge": 1}}, names=("\u00e4", "b"))
    assert task.measurements[0].name == "L\u00fcge" and task.measurements[0].landmarks == ("\u00e4", "b")
    assert measure(LandmarkSet.of_positions(task, [[0, 0], [3, 4]]))[1].value == 5


def test_a_task_survives_its_file_and_keeps_its_hash(tmp_path):
    norm = {"norm": {"mean": 5, "sd": 0.5, "source": "someone"}, "definition": "A sentence."}
    task = task_of({**DISTANCE, **norm}, *ALL_3D[1:], *COMPOSITES, dims=3)
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task.to_json()), encoding="utf-8")
    assert LandmarkTask.load(path) == task and task.measurements[0].norm == Norm(5, "someone", 0.5)
    plain = replace(task, measurements=())
    assert plain.hash == task.hash and "measurements" not in plain.to_json()
    flat = task_of(*ALL_2D, *COMPOSITES)
    assert LandmarkTask.from_json(flat.to_json()) == flat and flat.to_json()["measurements"][7]["points"] == MEANS["points"]


def test_no_measurements():
    landmarks = LandmarkSet.empty(LandmarkTask("t", NAMES, 2))
    assert measure(landmarks) == [] and values(landmarks.task, np.zeros((7, 6, 2))).shape == (7, 0)


def test_a_landmark_is_renamed_in_measurements_and_not_dropped_from_under_them():
    record = StudyRecord(task_of(TO_LINE_SIGNED, MEANS))
    changed = renamed(record, "d", "delta").task
    assert changed.measurements[0].towards == ("delta",) and changed.measurements[1].points[2] == ("delta", "e", "f")
    with pytest.raises(StudyError, match="'d' is needed by the task's measurements 'm0', 'm1'"):
        without(record, "d")


# ------------------------------------------------------------------ shipped tasks


FACE = {  # mm from porion, to the right and down; a face that looks to the right, with a straight profile
    "sella": (18, -22), "nasion": (88, -30), "orbitale": (74, 0), "porion": (0, 0), "A point": (88, 28), "B point": (83, 68),
    "pogonion": (84, 82), "menton": (77, 90), "gnathion": (82, 88), "gonion": (10, 60), "lower incisor": (88, 48),
    "upper incisor": (91, 50), "upper lip": (105, 42), "lower lip": (102, 56), "subnasale": (101, 28),
    "soft tissue pogonion": (96, 83), "posterior nasal spine": (40, 24), "anterior nasal spine": (92, 25), "articulare": (6, 10),
}  # fmt: skip


@pytest.mark.parametrize("facing", [1, -1])
def test_a_cephalogram_is_measured_the_same_from_either_side(facing):
    task = resolve_task("cephalogram")
    landmarks = LandmarkSet.of_positions(task, [(facing * FACE[n][0] + 100, FACE[n][1] + 60) for n in task.names])
    found = {m.name: m for m in measure(landmarks)}
    assert all(m.available for m in found.values())
    v = {name: m.value for name, m in found.items()}
    for name, mean, most_off in [
        ("SNA", 82, 6), ("SNB", 80, 6), ("ANB", 2, 3), ("FMA", 25, 6), ("SN-GoGn", 32, 8), ("facial angle", 87.8, 4),
        ("Y axis", 59.4, 6), ("gonial angle", 125, 12), ("palatal plane angle", 1, 3), ("A-B plane angle", -4.6, 3),
        ("ODI", 74.5, 8), ("APDI", 81.4, 6), ("facial height index", 65, 6), ("lower face height share", 55, 4),
        ("overjet along Frankfort", 3, 1e-9), ("A-B along Frankfort", 5, 1e-9), ("upper lip to Sn-Pog'", 5, 4),
        ("lower lip to Sn-Pog'", 4, 4),
    ]:  # fmt: skip
        assert v[name] == pytest.approx(mean, abs=most_off), name
    assert v["ANB"] == pytest.approx(v["SNA"] - v["SNB"])
    palatal_and_ab = ("anterior nasal spine", "posterior nasal spine", "A point", "B point")
    assert v["APDI"] == pytest.approx(between(*(np.array(FACE[n]) for n in palatal_and_ab)))
    assert found["ODI"].norm == Norm(74.5, "Kim 1974", 6.07) and found["SNA"].norm.sd is None


def test_signs_of_a_cephalogram():
    """Class III: the lower jaw ahead; an open bite; lips behind the line."""
    task = resolve_task("cephalogram")
    moved = {**FACE, "B point": (98, 68), "pogonion": (100, 82), "lower incisor": (96, 48), "anterior nasal spine": (92, 20),
             "lower lip": (95, 56)}  # fmt: skip
    v = {m.name: m.value for m in measure(LandmarkSet.of_positions(task, [moved[n] for n in task.names]))}
    assert v["ANB"] < 0 and v["facial angle"] > 90 and v["A-B plane angle"] > -3 and v["palatal plane angle"] < 0
    assert v["overjet along Frankfort"] == pytest.approx(-5) and v["A-B along Frankfort"] == pytest.approx(-10)
    assert v["lower lip to Sn-Pog'"] < 0 < v["upper lip to Sn-Pog'"] and v["APDI"] > 85 and v["ODI"] < 66


HASHES = {"cephalogram": "a8c10337d153fda2", "hand_xray": "bd369c88b4a826f5", "mouse_skull": "27477f8cfd648202"}


@pytest.mark.parametrize("name", HASHES)
def test_shipped_measurements_can_be_made_and_their_landmarks_keep_the_hash(name):
    task = resolve_task(name)
    rng = np.random.default_rng(0)
    landmarks = predicted(task, rng.uniform(0, 100, (len(task), task.dims)), spread(task))
    found = measure(landmarks)
    assert found and all(isinstance(m, Measured) and m.available and not m.interval_reason for m in found)
    assert task.hash == HASHES[name]
