"""What is proposed from labelled cases alone, and how far off it is said to be."""

from __future__ import annotations

import numpy as np

from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.template import template_landmarks
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

TASK = LandmarkTask("two", ("tip", "base"), 2)
GEOMETRY = ImageGeometry((200, 100), np.ones(2), np.zeros(2), np.eye(2))


def case(*points) -> tuple[ImageGeometry, LandmarkSet]:
    return GEOMETRY, LandmarkSet.of_positions(TASK, np.array(points, float))


def test_two_cases_that_agree_are_no_certainty():
    same = template_landmarks(TASK, GEOMETRY, [case((50, 50), (20, 30)), case((50, 50), (20, 30))])
    assert np.allclose(same.positions_mm, [(50, 50), (20, 30)])
    assert (same.expected_error_mm > 0.05 * 150).all()  # of the field's mean side
    many = template_landmarks(TASK, GEOMETRY, [case((50, 50), (20, 30))] * 30)
    assert (many.expected_error_mm < same.expected_error_mm).all() and (many.expected_error_mm > 0).all()


def test_cases_that_differ_are_less_certain_than_those_that_agree():
    differ = template_landmarks(TASK, GEOMETRY, [case((50, 50), (20, 30)), case((90, 50), (20, 30))])
    assert differ.expected_error_mm[0] > 40 > differ.expected_error_mm[1]
    assert np.isnan(template_landmarks(TASK, GEOMETRY, [case((50, 50), (20, 30))]).expected_error_mm).all()
