"""The published JSON Schema describes what the wire functions really make."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import landmarklabel
from landmarklabel.errors import LandmarkFileError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.server.wire import from_wire, given_points, to_wire

SCHEMA = json.loads((Path(landmarklabel.__file__).parent / "server/schemas/landmarks.schema.json").read_text(encoding="utf-8"))


def check(content, definition: str) -> None:
    jsonschema.validate(content, {**SCHEMA, "$ref": f"#/definitions/{definition}"})


@pytest.mark.parametrize("dims", [2, 3])
def test_wire_answers_fit_the_schema_and_come_back_equal(dims):
    task = LandmarkTask("t", ("a", "b", "c", "d", "e"), dims)
    positions = np.arange(5.0 * dims).reshape(5, dims)
    positions[3:] = np.nan
    status = (Status.PREDICTED, Status.PLACED, Status.ACCEPTED, Status.UNSET, Status.ABSENT)
    covariance = np.broadcast_to(np.eye(dims), (5, dims, dims))
    landmarks = LandmarkSet(task, positions, status, np.array([1.5, np.nan, 1, np.nan, np.nan]), covariance, np.full(5, 0.5))
    content = json.loads(json.dumps(to_wire(landmarks), allow_nan=False))
    check(content, "landmarks")
    check({"image": "x", "revision": 3, "landmarks": content}, "revision")
    back = from_wire(content, task)
    assert back.status == status
    np.testing.assert_array_equal(back.positions_mm, positions)


def test_the_schema_refuses_what_the_server_refuses():
    for bad in ({"name": "a", "status": "here", "position": None}, {"name": "a", "status": "placed", "position": "x", "z": 1}):
        with pytest.raises(jsonschema.ValidationError):
            check([bad], "landmarks")
        with pytest.raises(LandmarkFileError):
            from_wire([bad], LandmarkTask("t", ("a",), 2))


@pytest.mark.parametrize("length", [80, 81, 200])
def test_names_of_any_length_a_task_may_have_travel_whole(length):
    """Two that differ in the last letter only: a name that is cut anywhere is another one, or none."""
    names = tuple("n" * (length - 1) + letter for letter in "abcd")
    task = LandmarkTask("t", names, 2)
    landmarks = LandmarkSet(
        task, [[1, 2], [3, 4], [np.nan] * 2, [5, 6]], tuple(map(Status, ("placed", "accepted", "absent", "predicted")))
    )
    content = json.loads(json.dumps(to_wire(landmarks), allow_nan=False))
    check(content, "landmarks")
    assert [row["name"] for row in content] == list(names)
    back = from_wire(content, task)
    assert back.status == landmarks.status
    np.testing.assert_array_equal(back.positions_mm, landmarks.positions_mm)
    given = given_points({"fixed": {names[0]: [1, 2], names[3]: [5, 6]}, "absent": [names[2]]}, task)
    assert list(given.fixed) == [names[0], names[3]] and list(given.absent) == [names[2]]
    for params in (
        {"fixed": {names[0] + "x": [1, 2]}},
        {"absent": [names[0][:-1]]},
        {"fixed": {names[0]: [1, 2]}, "absent": [names[0]]},
    ):
        with pytest.raises(LandmarkFileError):
            given_points(params, task)
