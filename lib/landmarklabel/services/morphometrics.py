"""Tables for geometric morphometrics: what geomorph, MorphoJ and SlicerMorph read."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from landmarklabel.data.generalized_procrustes import generalized_procrustes
from landmarklabel.errors import StudyError, UsageError
from landmarklabel.io.files import atomic_write, check_empty
from landmarklabel.io.tables import table_text
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.services.configuration import TABLES
from landmarklabel.services.repeatability import Readings, repeatability_table

COORDINATES, ALIGNED, SIZES, TPS, LEFT_OUT, READ_TWICE = (
    "coordinates.csv",
    "aligned.csv",
    "centroid_sizes.csv",
    "specimens.tps",
    "left_out.csv",
    "repeatability.csv",
)
Table = list[list[object]]


def write_shapes(
    folder: Path,
    task: LandmarkTask,
    sets: Mapping[str, LandmarkSet],
    unit: Callable[[str], str],
    leave_out: Collection[str] = (),
    by_reader: Readings | None = None,
) -> tuple[int, int]:
    """Write the tables into a folder.

    ``coordinates.csv`` has every landmark of every specimen with what is known of it (predicted, placed, accepted, absent);
    ``aligned.csv`` and ``centroid_sizes.csv`` the specimens that have all landmarks, after generalized Procrustes analysis;
    ``specimens.tps`` these as they were, for geomorph's ``readland.tps``; ``left_out.csv`` the others and what they lack;
    ``repeatability.csv`` how alike people read the same specimens, where two did.

    Args:
        folder: not there yet, or empty.
        task: of all sets.
        sets: specimen to landmarks.
        unit: of an image's distances, by its id; centroid sizes are in mm where the task has a scale rule.
        leave_out: names of landmarks that no table gets.
        by_reader: name of a reader to specimen to landmarks.

    Returns:
        how many specimens are complete, and how many are not.

    Raises:
        UsageError: a landmark that the task has not, none left, or a folder with something in it. StudyError: too few specimens.
    """
    if unknown := sorted(set(leave_out) - set(task.names)):
        raise UsageError(f"task {task.name!r} has no landmark {unknown[0][:80]!r} to leave out")
    kept = [k for k, name in enumerate(task.names) if name not in leave_out]
    if len(kept) <= task.dims:
        raise UsageError(f"{len(kept)} landmarks are left, which make no shape")
    check_empty(folder, "--out")
    names = [task.names[k] for k in kept]
    lacking = {i: [n for n, k in zip(names, kept, strict=True) if not x.defined[k]] for i, x in sorted(sets.items())}
    lacking |= {i: ["size: all its landmarks lie at one place"] for i, x in sets.items() if not lacking[i] and _is_point(x, kept)}
    lacking = {i: missing for i, missing in lacking.items() if missing}
    whole = {i: x.positions_mm[kept] for i, x in sorted(sets.items()) if i not in lacking}
    if len(whole) < TABLES.fewest_specimens:
        raise StudyError(
            f"{len(whole)} specimens have all {len(names)} landmarks, and a size: it takes two; "
            "--leave-out NAME does without a landmark"
        )
    left_out: Table = [["id", "lacks"]]
    left_out += [[i, "; ".join(missing)] for i, missing in lacking.items()]
    tables: dict[str, Table] = {
        COORDINATES: _coordinates(task, sets, kept),
        **_aligned(task, {i: sets[i] for i in whole}, kept, unit),
        LEFT_OUT: left_out,
    }
    if len(read_twice := repeatability_table(task, by_reader or {}, kept, unit)) > 1:
        tables[READ_TWICE] = read_twice
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        atomic_write(folder / name, table_text(table))
    scales = {i: sets[i].scaled_to_mm() if task.scale is not None else math.nan for i in whole}
    atomic_write(folder / TPS, "".join(_tps(image_id, points, scales[image_id]) for image_id, points in whole.items()))
    return len(whole), len(lacking)


def _is_point(landmarks: LandmarkSet, kept: Sequence[int]) -> bool:
    """Whether all landmarks lie at one place, within rounding: such a specimen has no shape."""
    places = landmarks.positions_mm[kept]
    return bool(np.ptp(places, axis=0).max() <= TABLES.rounding * max(np.abs(places).max(), 1.0))


def _coordinates(task: LandmarkTask, sets: Mapping[str, LandmarkSet], kept: Sequence[int]) -> Table:
    rows: Table = [["id", "landmark", *"xyz"[: task.dims], "status"]]
    for image_id, landmarks in sorted(sets.items()):
        for k in kept:
            place = landmarks.positions_mm[k].tolist() if landmarks.defined[k] else [""] * task.dims
            rows.append([image_id, task.names[k], *place, landmarks.status[k].value])
    return rows


def _aligned(
    task: LandmarkTask, sets: Mapping[str, LandmarkSet], kept: Sequence[int], unit: Callable[[str], str]
) -> dict[str, Table]:
    """The complete specimens after generalized Procrustes analysis, and their sizes before."""
    shapes = generalized_procrustes(np.stack([x.positions_mm[kept] for x in sets.values()]))
    aligned: Table = [["id", *(f"{task.names[k]}_{axis}" for k in kept for axis in "xyz"[: task.dims])]]
    sizes: Table = [["id", "centroid_size", "unit", "predicted", "placed", "accepted"]]
    for (image_id, landmarks), points, size in zip(sets.items(), shapes.points, shapes.sizes, strict=True):
        status = [landmarks.status[k].value for k in kept]
        counts = [status.count(s) for s in ("predicted", "placed", "accepted")]
        aligned.append([image_id, *points.ravel().tolist()])
        sizes.append([image_id, float(size * landmarks.scaled_to_mm()), "mm" if task.scale else unit(image_id), *counts])
    return {ALIGNED: aligned, SIZES: sizes}


def _tps(image_id: str, points: np.ndarray, mm_per_unit: float) -> str:
    head = "LM" if points.shape[1] == 2 else "LM3"
    lines = "\n".join(" ".join(f"{v:.6f}" for v in point) for point in points)
    scale = f"SCALE={mm_per_unit!r}\n" if math.isfinite(mm_per_unit) else ""  # what readers multiply the coordinates by
    return f"{head}={len(points)}\n{lines}\nID={image_id}\n{scale}"
