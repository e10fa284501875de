"""Long tables: one row per point, ``id,label,x,y[,z][,annotator]``, as R and data-frame programs write them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from landmarklabel.errors import LandmarkFileError
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.tables import (
    ID_COLUMNS,
    cells_of_point,
    decode,
    image_id_of_cell,
    raise_capped,
    read_limited,
    rows_of,
    shown,
)
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

_LABELS = ("label", "landmark", "name", "point")
_RENAME = "; where your names are others: import the table into a study with --names MAP.json, yours to the task's"
NOBODY = "nobody named"  # the reader of rows that name none beside others that do
_READERS = ("annotator", "reader", "observer", "rater", "author")


def is_long(header: list[str], dims: int) -> bool:
    """Whether a first row is that of a long table."""
    lower = [cell.lower() for cell in header]
    return bool(set(_LABELS) & set(lower)) and set("xyz"[:dims]) <= set(lower)


def labels_of(path: str | Path) -> list[str]:
    """The landmarks that a long table names, in the order of its rows. Raises LandmarkFileError."""
    what = str(path)
    rows = rows_of(decode(read_limited(path, LIMITS.table_bytes), what, LIMITS.table_bytes), what)
    lower = [cell.lower() for cell in next(rows, (0, []))[1]]
    column = _column(lower, _LABELS)
    if column is None:
        raise LandmarkFileError(what, [f"no column that names landmarks; it is called {', '.join(_LABELS)}"])
    return list(dict.fromkeys(row[column] for _, row in rows if len(row) == len(lower)))


def _column(header: list[str], names: Iterable[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def read_long_table(path: str | Path, task: LandmarkTask) -> tuple[dict[str, dict[str, LandmarkSet]], list[str]]:
    """Reader to image id to landmarks (status placed), and remarks on what was left out.

    Columns, in any order: the image's ``id``, the landmark's ``label``, ``x``, ``y`` (and ``z``), and optionally who placed it
    (``annotator``) and its ``status``, where it is not a person's point but ``predicted``; others are ignored. Points whose cells
    are empty, ``nan`` or ``NA`` are unset, ``absent`` makes them absent.
    Labels that are no landmark of the task are left out, unless all are. Without a column of readers the reader is ``import``, in
    an empty cell of one ``nobody named``.

    Raises:
        LandmarkFileError: listing the faults (the first 20), with line numbers.
    """
    what, faults = str(path), []
    rows = rows_of(decode(read_limited(path, LIMITS.table_bytes), what, LIMITS.table_bytes), what)
    _, header = next(rows, (0, []))
    lower = [cell.lower() for cell in header]
    label, axes = next(lower.index(name) for name in _LABELS if name in lower), [lower.index(axis) for axis in "xyz"[: task.dims]]
    image, reader = _column(lower, ID_COLUMNS), _column(lower, _READERS)
    if image is None:
        raise LandmarkFileError(what, [f"no column with the image id; it is called {', '.join(ID_COLUMNS)}"])
    status, depth = _column(lower, ("status",)), _column(lower, ("z",)) if task.dims == 2 else None
    points: dict[str, dict[str, dict[str, tuple]]] = {}
    foreign: Counter[str] = Counter()
    line = 0
    for line, row in rows:
        where = f"row {line}"
        if len(row) != len(header):
            faults.append(f"{where}: {len(row)} cells, expected are {len(header)}")
            continue
        name = unicodedata.normalize("NFC", row[label])
        if name not in task.names:
            foreign[name] += 1
            continue
        image_id = image_id_of_cell(row[image], where, faults)
        if image_id is None:
            continue
        who = "import" if reader is None else row[reader] or NOBODY
        found = points.setdefault(who, {}).setdefault(image_id, {})
        if name in found:
            by = f" by {who!r}" if reader is not None else ""
            faults.append(f"{where}: landmark {name!r} of image {image_id!r} was already given{by}")
            continue
        if depth is not None and row[depth]:
            faults.append(f"{where}: z is {row[depth][:40]!r}, but task {task.name!r} is 2D")
        cells, stated = [row[axis] for axis in axes], row[status] if status is not None else ""
        found[name] = cells_of_point(cells, f"{where}, landmark {name!r}", faults, stated)
    if not line:
        faults.append("it has no rows below its header")
    if not points and not faults:
        known = f"; it has {shown(list(foreign))}" if foreign else ""
        faults.append(
            f"no row with a landmark of task {task.name!r} ({shown(list(task.names))}){known}{_RENAME if known else ''}"
        )
    raise_capped(what, faults)
    remarks = [f"{what}: rows of labels that the task does not have are left out: {shown(sorted(foreign))}"] if foreign else []
    return {who: {i: _set(task, found) for i, found in by_image.items()} for who, by_image in points.items()}, remarks


def _set(task: LandmarkTask, found: Mapping[str, tuple]) -> LandmarkSet:
    nothing = (Status.UNSET, [np.nan] * task.dims)
    rows = [found.get(name, nothing) for name in task.names]
    return LandmarkSet(task, np.array([position for _, position in rows], float), tuple(status for status, _ in rows))


def readers_apart(readings: Iterable[Sequence[LandmarkSet]]) -> dict[str, float]:
    """The mean distance between two readers' points, by landmark, in the sets' unit; what no two have placed is left out.

    Args:
        readings: of each image, a set for each reader.
    """
    distances: dict[str, list[float]] = {}
    for one, other in (pair for sets in readings for pair in combinations(sets, 2)):
        off = np.linalg.norm(one.positions_mm - other.positions_mm, axis=1)
        for name, distance in zip(one.names, off.tolist(), strict=True):
            if np.isfinite(distance):
                distances.setdefault(name, []).append(distance)
    return {name: float(np.mean(of)) for name, of in distances.items()}


def mean_of_readers(sets: list[LandmarkSet]) -> LandmarkSet:
    """The mean position of every landmark over those who placed it; absent where more say so than placed it.

    What a model predicted counts only where no person placed the point, and stays predicted.
    """
    task = sets[0].task
    positions, statuses = np.full((len(task), task.dims), np.nan), []
    for i in range(len(task)):
        placed = [s.positions_mm[i] for s in sets if s.status[i].has_position and s.status[i] is not Status.PREDICTED]
        predicted = [s.positions_mm[i] for s in sets if s.status[i] is Status.PREDICTED]
        absent = sum(s.status[i] is Status.ABSENT for s in sets)
        if predicted and not placed and not absent:
            positions[i] = np.mean(predicted, axis=0)
            statuses.append(Status.PREDICTED)
        elif len(placed) >= max(absent, 1):
            positions[i] = np.mean(placed, axis=0)
            statuses.append(Status.PLACED)
        else:
            statuses.append(Status.ABSENT if absent else Status.UNSET)
    return LandmarkSet(task, positions, tuple(statuses))
