"""How alike two people place landmarks, and the same person twice: for studies of shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from landmarklabel.data.generalized_procrustes import generalized_procrustes
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.services.configuration import TABLES

COLUMNS = ["landmark", "reader", "other_reader", "specimens", "mean_distance", "largest_distance", "unit", "repeatability"]
WHOLE_SHAPE = "(whole shape)"
FloatArray = npt.NDArray[np.float64]
Readings = Mapping[str, Mapping[str, LandmarkSet]]


def repeatability_table(
    task: LandmarkTask, by_reader: Readings, kept: Sequence[int], unit: Callable[[str], str]
) -> list[list[object]]:
    """A row for each landmark and each two readers that share a specimen, and one for the whole shape; without, only a header.

    Distances are in ``unit``, in mm where the task has a scale rule; those of the whole shape are of all its points. Specimens in
    another unit than most are left out. Repeatability is of the whole shape, after generalized Procrustes analysis of the
    specimens in which both readers have all landmarks; empty where these are too few.

    Args:
        task: of all sets.
        by_reader: reader to specimen to landmarks.
        kept: numbers of the landmarks that count.
        unit: of an image's distances, by its id.
    """
    table: list[list[object]] = [list(COLUMNS)]
    for one, other in combinations(sorted(by_reader), 2):
        both = sorted(by_reader[one].keys() & by_reader[other].keys())
        units = ["mm" if task.scale else unit(i) for i in both]
        if not both:
            continue
        common = max(sorted(set(units)), key=units.count)
        both = [i for i, u in zip(both, units, strict=True) if u == common]
        readings = np.array([[by_reader[r][i].positions_mm[kept] for r in (one, other)] for i in both])
        scales = np.array([by_reader[one][i].scaled_to_mm() for i in both])
        apart = np.linalg.norm(readings[:, 0] - readings[:, 1], axis=-1) * scales[:, None]  # (specimens, landmarks)
        columns = [(task.names[k], slice(n, n + 1)) for n, k in enumerate(kept)]
        for name, which in [*columns, (WHOLE_SHAPE, slice(None))]:
            known = np.isfinite(apart[:, which])
            if known.any():
                distances = apart[:, which][known]
                cells = [_cell(x) for x in (distances.mean(), distances.max())]
                same = _cell(_of_shapes(readings)) if name == WHOLE_SHAPE else ""
                table.append([name, one, other, int(known.any(1).sum()), *cells, common, same])
    return table


def _of_shapes(readings: FloatArray) -> float:
    """Of readings (specimens, 2, landmarks, d), where both have all landmarks, and a size."""
    whole = readings[np.isfinite(readings).all((1, 2, 3)) & (np.ptp(readings, axis=2).max(-1) > 0).all(1)]
    if len(whole) < TABLES.fewest_read_twice:
        return float("nan")
    return repeatability(generalized_procrustes(whole.reshape(-1, *whole.shape[2:])).points.reshape(len(whole), 2, -1))


def _cell(value: float) -> object:
    return "" if np.isnan(value) else round(float(value), TABLES.digits)


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
