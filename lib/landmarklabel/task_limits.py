"""How much a task file may hold: it may be somebody else's."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class TaskLimits(Configuration):
    """How much a task file may hold."""

    landmarks: int = number(5000, 1)  # far more than any study has; a table of them is still shown
    measurements: int = number(200, 1)  # all are shown while a point is dragged
    landmarks_in_mean: int = number(20, 1)  # of one point of a measurement
    name_characters: int = number(200, 1)  # of a landmark or measurement
    text_characters: int = number(2000, 1)  # of a definition or a source
    weight: float = number(1e6, 0)  # or norm: far beyond any in use, and products with it stay finite
    picture_bytes: int = number(128 * 1024, 1)  # a task of 100 landmarks is still read over a slow network
    pictures_bytes: int = number(8 * 2**20, 1)  # of all together, which every client reads at its start
    picture_pixels: int = number(2048, 1)  # wide or high: whoever shows it holds 16 MiB at most


LIMITS = TaskLimits()
