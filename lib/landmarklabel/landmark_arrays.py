"""The arrays of a ``landmarks.LandmarkSet``: when they are equal, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from landmarklabel.errors import FaultsError

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


def row_of(position_mm: Sequence[float] | None, task: LandmarkTask, name: str) -> FloatArray:
    """(d,) of a landmark's position, NaN for None. Raises FaultsError."""
    given = np.full(task.dims, np.nan) if position_mm is None else np.asarray(position_mm, np.float64)
    if task.dims == 2 and given.shape == (3,) and given[2] == 0:  # as 3D Slicer has the points of a plain image
        given = given[:2]
    if given.shape != (task.dims,):
        raise FaultsError("landmark set", [f"{name!r} needs {task.dims} numbers, given are {given.tolist()}"])
    return given
