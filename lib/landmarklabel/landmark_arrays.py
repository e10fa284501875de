"""The arrays of a ``landmarks.LandmarkSet``: when they are equal, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from landmarklabel.landmarks import FloatArray, LandmarkTask, Status

OPTIONAL = {"covariance_mm2": 3, "presence": 1, "radius95_mm": 1}  # of a set, and how many axes each has


def equal(one: object, other: object) -> bool:
    """Whether two fields agree; NaN, which says that something is not known, equals NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return type(one) is type(other) and (one == other or (one != one and other != other))


def forgotten(values: FloatArray | None, i: int) -> FloatArray | None:
    """A copy in which nothing is known of landmark ``i``."""
    if values is None:
        return None
    copy = values.copy()
    copy[i] = np.nan
    return copy


def position_faults(task: LandmarkTask, positions: FloatArray, status: Iterable[Status]) -> list[str]:
    """Where a position (n, d) and its status contradict each other, one text each."""
    faults = []
    for name, p, s in zip(task.names, positions, status, strict=True):
        if s.has_position and not np.isfinite(p).all():
            faults.append(f"{name!r} is {s.value} but its position is {p.tolist()}")
        if not s.has_position and not np.isnan(p).all():
            faults.append(f"{name!r} is {s.value} and must have no position, got {p.tolist()}")
    return faults
