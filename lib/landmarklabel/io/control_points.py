"""Control points as a landmark file states them, put in a task's order and onto its image's slice."""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from landmarklabel.errors import LandmarkFileError, TaskError
from landmarklabel.geometry import SlicePlane
from landmarklabel.io.files import FCSV_SUFFIX, MARKUPS_SUFFIX
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.tables import shown
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status


@dataclass(frozen=True)
class ControlPoint:
    """One control point as read; ``position`` is (x, y, z) in LPS mm, None where the status has none."""

    where: str
    label: object
    position: tuple[float, ...] | None
    status: Status
    expected_error_mm: float = math.nan
    radius95_mm: float = math.nan
    covariance_mm2: np.ndarray | None = None


def landmark_set(
    points: list[ControlPoint], task: LandmarkTask | None, what: str, faults: list[str], plane: SlicePlane | None = None
) -> LandmarkSet:
    """Points in file order to a set in the task's order; raises with everything found so far."""
    points = [replace(p, label=unicodedata.normalize("NFC", p.label)) if isinstance(p.label, str) else p for p in points]
    labels = [p.label for p in points if isinstance(p.label, str) and p.label]
    faults += [f"{p.where}: a control point needs a label" for p in points if p.label in (None, "")]
    faults += [f"{p.where}: a label must be text" for p in points if not isinstance(p.label, (str, type(None)))]
    faults += [f"label {shown(x)} appears {n} times" for x, n in Counter(labels).items() if n > 1]
    if task is None:
        try:
            task = LandmarkTask(_task_name(what), tuple(dict.fromkeys(labels)))
        except TaskError as error:
            raise LandmarkFileError(what, [*faults, *error.faults]) from None
    faults += _unknown_labels(list(dict.fromkeys(labels)), task)
    if task.dims == 2:
        points = _on_slice(points, plane, faults)
    if faults:
        raise LandmarkFileError(what, faults)
    found = {p.label: p for p in points}
    in_order = [found.get(name, ControlPoint("", name, None, Status.UNSET)) for name in task.names]
    positions = [(p.position or (math.nan,) * 3)[: task.dims] for p in in_order]
    errors = np.array([p.expected_error_mm for p in in_order])
    radii = np.array([p.radius95_mm for p in in_order])
    unknown = np.full((task.dims, task.dims), np.nan)
    spread = [c if (c := p.covariance_mm2) is not None and c.shape == unknown.shape else unknown for p in in_order]
    return LandmarkSet(
        task,
        np.array(positions),
        tuple(p.status for p in in_order),
        errors,
        covariance_mm2=np.array(spread) if np.isfinite(spread).any() else None,
        radius95_mm=radii if np.isfinite(radii).any() else None,
    )


def _on_slice(points: list[ControlPoint], plane: SlicePlane | None, faults: list[str]) -> list[ControlPoint]:
    """Points of a 2D task with their place on its slice; files of earlier versions have all of them at z = 0."""
    placed = [p for p in points if p.position]
    heights = {p.position[2] for p in points if p.position}
    if plane is None or (plane.is_axial and heights == {0.0}):
        if heights and max(heights) - min(heights) > LIMITS.flat_mm:
            faults.append(f"z is {min(heights):.6g} to {max(heights):.6g}, but the points of a 2D task lie on one slice")
        return points
    moved = {}
    for p in placed:
        flat, off_mm = plane.drop(np.array(p.position))
        if off_mm > plane.half_mm:
            faults.append(f"{p.where}: it is {off_mm:.4g} mm off the slice that the image is")
        moved[id(p)] = replace(p, position=(*flat.tolist(), 0.0))
    return [moved.get(id(p), p) for p in points]


def _unknown_labels(labels: list[str], task: LandmarkTask) -> list[str]:
    known = set(task.names)
    unknown = [x for x in labels if x not in known]
    faults = []
    if labels and len(unknown) == len(labels):
        faults.append(f"no label matches task {task.name!r} ({shown(list(task.names))}): is it a file of another task?")
    for i, label in enumerate(unknown):
        close = difflib.get_close_matches(label[:100], task.names, n=1) if i < LIMITS.hints else []
        hint = f"; did you mean {close[0]!r}?" if close else ""
        faults.append(f"label {shown(label)} is no landmark of task {task.name!r}{hint}")
    return faults


def _task_name(what: str) -> str:
    stem = re.sub(rf"({re.escape(MARKUPS_SUFFIX)}|{FCSV_SUFFIX}|\.json)$", "", Path(what).name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_.\-]+", "_", stem).lstrip("_.-")[:100] or "task"
