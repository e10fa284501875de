"""What the tests of backups share: labels of a small task, and commands in this process."""

from __future__ import annotations

import numpy as np

from landmarklabel.cli import main
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

TASK = LandmarkTask("corner", ("a", "b"), 2)


def points(value: float) -> LandmarkSet:
    return LandmarkSet.of_positions(TASK, np.array([[value, 1], [2, 3.5]]))


def run(*words: object) -> int:
    return main([str(word) for word in words])
