"""How far people differ from each other, and from themselves: the yardstick beside the model's error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from landmarklabel.landmarks import LandmarkSet
from landmarklabel.metrics import distance_between


@dataclass(frozen=True)
class ObserverError:
    """``mm`` (n,): mean distance of two readings by landmark, NaN where nobody placed it twice; ``cases`` read twice."""

    mm: np.ndarray
    cases: int


def observer_errors(readings: Iterable[tuple[str, LandmarkSet, str, LandmarkSet]], n: int) -> tuple[ObserverError, ObserverError]:
    """(intra, inter): two readings of the same person, and of two.

    Args:
        readings: author and landmarks of the first and of the second reading of a case.
        n: landmarks.
    """
    same: list[np.ndarray] = []
    other: list[np.ndarray] = []
    for first, a, second, b in readings:
        (same if first == second else other).append(distance_between(a, b))
    return _mean(same, n), _mean(other, n)


def _mean(rows: list[np.ndarray], n: int) -> ObserverError:
    table = np.stack(rows) if rows else np.full((0, n), np.nan)
    known = np.isfinite(table)
    total = np.where(known, table, 0.0).sum(0)
    return ObserverError(np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan), len(rows))
