"""Covariances of predicted points in Slicer's files: kept, turned with the frame, refused where they are none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from landmarklabel.errors import LandmarkFileError
from landmarklabel.io.markups import dump_markups, parse_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status


def predicted(dims: int) -> LandmarkSet:
    rng = np.random.default_rng(0)
    task = LandmarkTask("three", ("a", "b", "c"), dims)
    half = rng.normal(size=(3, dims, dims))
    covariance = half @ half.transpose(0, 2, 1)
    covariance[1] = np.nan
    points = rng.normal(size=(3, dims)) * 50
    return LandmarkSet(task, points, (Status.PREDICTED,) * 3, np.ones(3), covariance_mm2=covariance)


@pytest.mark.parametrize("dims", [2, 3])
def test_they_are_read_as_they_were_written(dims):
    made = predicted(dims)
    read = parse_markups(dump_markups(made, "a model"), made.task, "x")
    assert np.allclose(read.covariance_mm2, made.covariance_mm2, equal_nan=True)


def test_they_stay_as_they_are_where_another_program_saves_the_positions_in_ras():
    made = predicted(3)
    file = json.loads(dump_markups(made))
    (markup,) = file["markups"]
    markup["coordinateSystem"] = "RAS"
    for k, point in enumerate(markup["controlPoints"]):
        point["position"] = (made.positions_mm[k] * [-1, -1, 1]).tolist()
    read = parse_markups(json.dumps(file), made.task, "x")
    assert np.allclose(read.positions_mm, made.positions_mm)
    assert np.allclose(read.covariance_mm2, made.covariance_mm2, equal_nan=True)


def test_without_any_the_file_has_none():
    made = predicted(2)
    bare = LandmarkSet(made.task, made.positions_mm, made.status, made.expected_error_mm)
    assert "covariance" not in dump_markups(bare) and parse_markups(dump_markups(bare), made.task, "x").covariance_mm2 is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop(1), "must be those of two axes or of three"),
        (lambda m: m.append(dict(m[1])), "several measurements are called 'covariance_xx_mm2'"),
        (lambda m: m[1]["controlPointValues"].pop(), "must be a list of 3 numbers"),
        (lambda m: m[1]["controlPointValues"].__setitem__(0, True), "must be a list of 3 numbers"),
        (lambda m: m[2]["controlPointValues"].__setitem__(2, 1e9), "covariance of point 3 is none: it has a negative variance"),
    ],
)
def test_what_is_no_covariance_is_refused_in_words(change, said):
    made = predicted(2)
    file = json.loads(dump_markups(made))
    change(file["markups"][0]["measurements"])
    with pytest.raises(LandmarkFileError, match=said):
        parse_markups(json.dumps(file), made.task, "x")
