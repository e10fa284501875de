"""Definitions of measurements are read, kept and renamed, and faulty ones are refused in words."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.measurements.measuring_tasks import (
    ALL_2D,
    ALL_3D,
    ANGLE,
    COMPOSITES,
    DISTANCE,
    LINES_SIGNED,
    MEANS,
    NAMES,
    PLANE_ANGLE,
    PROJECTION,
    TO_LINE,
    TO_LINE_SIGNED,
    TO_PLANE,
    TO_PLANE_SIGNED,
    content,
    set_of,
    task_of,
)

from landmarklabel.errors import StudyError, TaskError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.measurement_definitions import KINDS, Measurement, Norm
from landmarklabel.measurements import measure
from landmarklabel.store.study_task import StudyRecord, renamed, without
from landmarklabel.task_limits import LIMITS


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
    ({"kind": "distance", "points": ["a", [str(i) for i in range(LIMITS.landmarks_in_mean + 1)]]}, "'points' must be a list"),
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
    ({"kind": "ratio", "of": ["m1", "m2"]}, "its parts are of different units (angle, length)"),
    ({"kind": "ratio", "of": ["m1", "m9"]}, "names 'm9', which is no measurement"),
    ({"kind": "ratio", "of": ["m0", "m1"]}, "measurement 'm0' refers to itself"),
    ({"kind": "ratio", "of": ["m2", "m3"], "percent": 1}, "'percent' 1 must be true or false"),
    ({"kind": "sum", "of": ["m1"]}, "'of' must be {measurement: weight, …}"),
    ({"kind": "sum", "of": {}}, "'of' names 0 measurements"),
    ({"kind": "sum", "of": {"m1": True}}, "weight True must be a number"),
    ({"kind": "sum", "of": {"m1": "1"}}, "weight '1' must be a number"),
    ({"kind": "sum", "of": {"m1": math.nan}}, "weight nan must be a number"),
    ({"kind": "sum", "of": {"m1": 10**5000}}, "weight a large number must be a number"),
    ({"kind": "sum", "of": {"m1": 1, "m2": 1}}, "its parts are of different units ("),
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


@pytest.mark.parametrize("value", [5, None, {}, "x", [DISTANCE] * (LIMITS.measurements + 1), nested(), [nested()], [[]] * 100])
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
        some = tuple(Measurement(f"m{i}", "distance", (("a",), ("b",))) for i in range(LIMITS.measurements + 1))
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


def test_a_landmark_is_renamed_in_measurements_and_not_dropped_from_under_them():
    record = StudyRecord(task_of(TO_LINE_SIGNED, MEANS))
    changed = renamed(record, "d", "delta").task
    assert changed.measurements[0].towards == ("delta",) and changed.measurements[1].points[2] == ("delta", "e", "f")
    with pytest.raises(StudyError, match="'d' is needed by the task's measurements 'm0', 'm1'"):
        without(record, "d")
