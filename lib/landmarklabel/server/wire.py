"""LandmarkSets as the JSON that travels over HTTP. One schema for answers and submissions."""

from __future__ import annotations

import math

import numpy as np

from landmarklabel.errors import FaultsError, LandmarkFileError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

_KEYS = {"name", "status", "position", "expected_error_mm", "covariance", "presence"}


def to_wire(landmarks: LandmarkSet) -> list[dict]:
    """[{"name", "position", "status", "expected_error_mm", "covariance"}], LPS mm, null where unknown."""
    out = []
    for i, name in enumerate(landmarks.task.names):
        defined = landmarks.status[i].has_position
        covariance = landmarks.covariance_mm2
        row = {
            "name": name,
            "position": landmarks.positions_mm[i].tolist() if defined else None,
            "status": landmarks.status[i].value,
            "expected_error_mm": _number(landmarks.expected_error_mm[i]),
            "covariance": covariance[i].tolist() if covariance is not None and defined else None,
        }
        if landmarks.presence is not None:
            row["presence"] = _number(landmarks.presence[i])
        out.append(row)
    return out


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def from_wire(content: object, task: LandmarkTask) -> LandmarkSet:
    """The reverse, strict: every fault in one LandmarkFileError. Landmarks left out are unset."""
    if not isinstance(content, list) or len(content) > 10 * len(task):
        raise LandmarkFileError("landmarks", ['must be a list of {"name", "status", "position"}'])
    faults: list[str] = []
    positions, status = np.full((len(task), task.dims), np.nan), [Status.UNSET] * len(task)
    seen: set[str] = set()
    for row in content:
        fault = _take(row, task, positions, status, seen)
        faults += [fault] if fault else []
    if faults:
        raise LandmarkFileError("landmarks", faults[:20])
    return LandmarkSet(task, positions, tuple(status))


def _take(row: object, task: LandmarkTask, positions: np.ndarray, status: list, seen: set) -> str | None:
    """Put one row in place; the text of its fault otherwise."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        return f"{str(row)[:80]} is not an object with a name"
    name = row["name"][:80]
    if row["name"] not in task.names:
        return f"task {task.name!r} has no landmark {name!r}"
    if name in seen:
        return f"{name!r} appears twice"
    seen.add(name)
    if set(row) - _KEYS:
        return f"{name!r} has unknown keys {sorted(set(row) - _KEYS)[:5]}"
    try:
        state = Status(row.get("status", "placed"))
    except ValueError:
        return f"{name!r} has status {str(row.get('status'))[:40]!r}; allowed are {', '.join(s.value for s in Status)}"
    i = task.index(name)
    status[i] = state
    if not state.has_position:
        return None
    try:
        positions[i] = position_of(row.get("position"), task.dims)
    except FaultsError as error:
        status[i] = Status.UNSET
        return f"{name!r}: {error.faults[0]}"
    return None


def position_of(value: object, dims: int) -> np.ndarray:
    """(dims,) LPS mm from a JSON list of ``dims`` (or, in 2D, three) finite numbers. Raises FaultsError."""
    good = isinstance(value, list) and len(value) in {dims, 3}
    good = good and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    if not good or not all(math.isfinite(v) and abs(v) <= 1e6 for v in value):
        raise FaultsError("position", [f"position {str(value)[:80]} must be {dims} finite numbers (LPS mm)"])
    return np.array(value[:dims], np.float64)


def with_fixed(landmarks: LandmarkSet, params: dict) -> LandmarkSet:
    """``fixed`` points and ``absent`` names of a request put into an answer: what a person said never moves."""
    fixed, absent = params.get("fixed") or {}, params.get("absent") or []
    task = landmarks.task
    if not isinstance(fixed, dict) or not isinstance(absent, list):
        raise LandmarkFileError("params", ['"fixed" must be {name: [x, y, z]} and "absent" a list of names'])
    unknown = [str(n)[:80] for n in (*fixed, *absent) if n not in task.names]
    if unknown:
        raise LandmarkFileError("params", [f"task {task.name!r} has no landmark {n!r}" for n in unknown[:10]])
    for name, position in fixed.items():
        landmarks = landmarks.with_landmark(name, position_of(position, task.dims), Status.PLACED)
    for name in absent:
        landmarks = landmarks.with_landmark(name, None, Status.ABSENT)
    return landmarks
