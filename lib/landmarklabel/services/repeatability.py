"""How alike two people place landmarks, and the same person twice: for studies of shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from landmarklabel.data.generalized_procrustes import generalized_procrustes
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.metrics import distance_between
from landmarklabel.services.configuration import TABLES
from landmarklabel.services.measuring import cell

COLUMNS = ["landmark", "reader", "other_reader", "specimens", "mean_distance", "largest_distance", "unit", "repeatability"]
WHOLE_SHAPE = "(whole shape)"
FloatArray = npt.NDArray[np.float64]
Readings = Mapping[str, Mapping[str, LandmarkSet]]


def repeatability_table(
    task: LandmarkTask, by_reader: Readings, kept: Sequence[int], unit: Callable[[str], str]
) -> list[list[object]]:
    """A row for each landmark, each two readers that share a specimen and each unit, and one for the whole shape.

    Distances are in ``unit``, in mm where the task has a scale rule. The row of the whole shape is of the specimens in which both
    readers have all landmarks: their points' distances, and the repeatability of their shapes after generalized Procrustes
    analysis, which is empty where these are too few.

    Args:
        task: of all sets.
        by_reader: reader to specimen to landmarks.
        kept: numbers of the landmarks that count.
        unit: of an image's distances, by its id.

    Returns:
        the rows below ``COLUMNS``.
    """
    table: list[list[object]] = [list(COLUMNS)]
    for one, other in combinations(sorted(by_reader), 2):
        both = sorted(by_reader[one].keys() & by_reader[other].keys())
        units = {i: "mm" if task.scale else unit(i) for i in both}
        for shown in sorted(set(units.values())):
            pairs = [(by_reader[one][i], by_reader[other][i]) for i in both if units[i] == shown]
            apart = np.stack([distance_between(a, b)[kept] for a, b in pairs])  # (specimens, landmarks)
            whole = np.isfinite(apart).all(1)
            for k, distances in zip(kept, apart.T, strict=True):
                if (known := distances[np.isfinite(distances)]).size:
                    table.append([task.names[k], one, other, len(known), cell(known.mean()), cell(known.max()), shown, ""])
            if whole.any():
                readings = np.array([[x.positions_mm[kept] for x in pair] for pair, w in zip(pairs, whole, strict=True) if w])
                cells = [cell(apart[whole].mean()), cell(apart[whole].max()), shown, cell(_of_shapes(readings))]
                table.append([WHOLE_SHAPE, one, other, int(whole.sum()), *cells])
    return table


def _of_shapes(readings: FloatArray) -> float:
    """Of readings (specimens, 2, landmarks, d); NaN of too few, or where all points of one lie at one place."""
    if len(readings) < TABLES.fewest_read_twice or (np.ptp(readings, axis=2).max(-1) == 0).any():
        return float("nan")
    return repeatability(generalized_procrustes(readings.reshape(-1, *readings.shape[2:])).points.reshape(len(readings), 2, -1))


def repeatability(readings: npt.ArrayLike) -> float:
    """Share of the variance of coordinates (specimens, readings, coordinates) that lies between specimens; 1: read alike.

    The intraclass correlation of a one-way Procrustes analysis of variance. NaN where nothing varies.

    Source: Fruciano 2016, Development Genes and Evolution 226, p. 139-158: (MSb - MSw) / (MSb + (k - 1) MSw) of k readings.
    """
    x = np.asarray(readings, np.float64)
    n, k, _ = x.shape
    of_specimen = x.mean(1, keepdims=True)
    between = k * float(((of_specimen - x.mean((0, 1))) ** 2).sum()) / (n - 1)
    within = float(((x - of_specimen) ** 2).sum()) / (n * (k - 1))
    whole = between + (k - 1) * within
    return (between - within) / whole if whole > 0 else float("nan")
