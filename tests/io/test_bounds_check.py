"""Points outside of their image: all are named, and where one cause explains them, that is what a person reads."""

from __future__ import annotations

import numpy as np
import pytest

from landmarklabel.errors import LandmarkFileError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.bounds_check import check_inside
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

IMAGE = ImageGeometry((100, 100), np.ones(2), np.zeros(2), np.eye(2))


def said_of(points: np.ndarray) -> str:
    task = LandmarkTask("many", tuple(f"p{n}" for n in range(len(points))), 2)
    with pytest.raises(LandmarkFileError) as caught:
        check_inside(LandmarkSet.of_positions(task, points, Status.PLACED), IMAGE, "case")
    return str(caught.value)


def test_one_cause_for_many_points_is_not_buried_under_them():
    said = said_of(np.column_stack([np.linspace(120, 190, 18), np.full(18, 50.0)]))
    assert said.count("is outside") + said.count("outside of the image") == 2 and "so are 16 more" in said
    assert "halved they would be inside: were they placed on an image of twice the size?" in said


def test_without_a_cause_every_point_is_named():
    said = said_of(np.array([[120.0, 50], [-500, 50], [50, 700], [10, 10]]))
    assert said.count("outside of the image") == 3 and "more" not in said and "would be inside" not in said
