"""A unit or frame of a surface that was said wrongly is named where landmarks tell it."""

from __future__ import annotations

import numpy as np
import pytest

from landmarklabel.errors import LandmarkFileError
from landmarklabel.io.surface_check import check_on_surface
from landmarklabel.io.surfaces import Surface
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

TASK = LandmarkTask("corners", ("a", "b", "c", "d"), 3)
# Of a tetrahedron away from the origin, in mm
CORNERS = np.array([[10.0, 20.0, 5.0], [90.0, 25.0, 0.0], [40.0, 95.0, 10.0], [35.0, 40.0, 80.0]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
TO_RAS = np.array([-1.0, -1.0, 1.0])


def read_as(factor: float, frame: float | np.ndarray = 1.0) -> Surface:
    return Surface(CORNERS * factor * frame, FACES)


def points(at: np.ndarray) -> LandmarkSet:
    return LandmarkSet.of_positions(TASK, at)


@pytest.mark.parametrize(
    ("unit", "factor", "wanted"), [("m", 1000, "mm"), ("cm", 10, "mm"), ("um", 0.001, "mm"), ("mm", 0.1, "cm")]
)
def test_the_unit_that_fits_is_named(unit, factor, wanted):
    with pytest.raises(
        LandmarkFileError, match=f"landmarks of x: .* were its file in {wanted} instead of {unit}: say --mesh-unit {wanted}"
    ):
        check_on_surface(points(CORNERS), read_as(factor), "landmarks of x", unit)


def test_the_frame_that_fits_is_named():
    with pytest.raises(LandmarkFileError, match=r"in the other frame \(LPS or RAS\): see --mesh-frame"):
        check_on_surface(points(CORNERS), read_as(1, TO_RAS), "landmarks of x", "mm")
    with pytest.raises(LandmarkFileError, match="--mesh-unit mm, and in the other frame"):
        check_on_surface(points(CORNERS), read_as(10, TO_RAS), "landmarks of x", "cm")


@pytest.mark.parametrize("at", [CORNERS, CORNERS + 4, CORNERS.mean(0) + 0.1 * (CORNERS - CORNERS.mean(0)), CORNERS + 500])
def test_landmarks_that_no_unit_brings_onto_it_are_left_alone(at):
    """On it, beside it, inside of it, and far away whatever the unit."""
    check_on_surface(points(at), read_as(1), "landmarks of x", "mm")


def test_two_landmarks_tell_nothing():
    at = np.full((4, 3), np.nan)
    at[:2] = CORNERS[:2]
    check_on_surface(points(at), read_as(1000), "landmarks of x", "m")
