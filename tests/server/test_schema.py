"""The published JSON Schema describes what the wire functions really make."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import landmarklabel
from landmarklabel.errors import LandmarkFileError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.server.wire import from_wire, to_wire

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
