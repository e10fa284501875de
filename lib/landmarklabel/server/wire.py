"""LandmarkSets as the JSON that travels over HTTP. One schema for answers and submissions."""

from __future__ import annotations

import math

import numpy as np

from landmarklabel.errors import FaultsError, LandmarkFileError
from landmarklabel.geometry import SlicePlane
from landmarklabel.inference.suggestion import Suggestion
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.services.assistant import Given
from landmarklabel.services.request_values import is_finite

_KEYS = {"name", "status", "position", "expected_error_mm", "covariance", "presence", "radius95_mm", "flagged", "detected"}


def to_wire(landmarks: LandmarkSet, plane: SlicePlane | None = None) -> list[dict]:
    """[{"name", "position", "status", "expected_error_mm", "covariance"}], LPS mm, null where unknown.

    ``plane`` is that of a 2D task's image that is one slice of a volume: its points have three numbers, on the slice.
    """
    out = []
    for i, name in enumerate(landmarks.task.names):
        defined = landmarks.status[i].has_position
        covariance = landmarks.covariance_mm2
        row = {
            "name": name,
            "position": _placed(landmarks.positions_mm[i], plane) if defined else None,
            "status": landmarks.status[i].value,
            "expected_error_mm": _number(landmarks.expected_error_mm[i]),
            "covariance": _matrix(covariance[i]) if covariance is not None and defined else None,
        }
        if landmarks.presence is not None:
            row["presence"] = _number(landmarks.presence[i])
        if landmarks.radius95_mm is not None:
            row["radius95_mm"] = _number(landmarks.radius95_mm[i])
        out.append(row)
    return out


def _placed(position_mm: np.ndarray, plane: SlicePlane | None) -> list[float]:
    return (position_mm if plane is None else plane.lift(position_mm)).tolist()


def _matrix(value: np.ndarray) -> list | None:
    return value.tolist() if np.isfinite(value).all() else None


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def from_wire(content: object, task: LandmarkTask, plane: SlicePlane | None = None) -> LandmarkSet:
    """The reverse, strict: every fault in one LandmarkFileError. Landmarks left out are unset."""
    if not isinstance(content, list) or len(content) > 10 * len(task):
        raise LandmarkFileError("landmarks", ['must be a list of {"name", "status", "position"}'])
    faults: list[str] = []
    positions, status = np.full((len(task), task.dims), np.nan), [Status.UNSET] * len(task)
    seen: set[str] = set()
    for row in content:
        fault = _take(row, task, positions, status, seen, plane)
        faults += [fault] if fault else []
    if faults:
        raise LandmarkFileError("landmarks", faults[:20])
    return LandmarkSet(task, positions, tuple(status))


def _take(
    row: object, task: LandmarkTask, positions: np.ndarray, status: list, seen: set, plane: SlicePlane | None
) -> str | None:
    """Take over one row, or return the text of its fault."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        return f"{str(row)[:80]} is not an object with a name"
    name = row["name"]
    if name not in task.names:
        return f"task {task.name!r} has no landmark {name[:80]!r}"
    if name in seen:
        return f"{name!r} appears twice"
    seen.add(name)
    if set(row) - _KEYS:
        return f"{name!r} has unknown keys {sorted(set(row) - _KEYS)[:5]}"
    try:
        state = Status(row.get("status", "placed"))
    except (ValueError, TypeError):
        return f"{name!r} has status {str(row.get('status'))[:40]!r}; allowed are {', '.join(s.value for s in Status)}"
    i = task.index(name)
    status[i] = state
    if not state.has_position:
        return None
    try:
        positions[i] = position_of(row.get("position"), task.dims, plane)
    except FaultsError as error:
        status[i] = Status.UNSET
        return f"{name!r}: {error.faults[0]}"
    return None


def position_of(value: object, dims: int, plane: SlicePlane | None = None) -> np.ndarray:
    """(dims,) mm of the image from a JSON list of ``dims`` (or, in 2D, three) finite numbers.

    Three numbers of an image that is a slice of a volume are where the point is in the world; of any other 2D image the third
    says nothing.

    Raises:
        FaultsError: anything else, or a point that is not on the slice.
    """
    given = value if isinstance(value, list) and len(value) in {dims, 3} else [None]
    numbers = [v for v in given if isinstance(v, (int, float)) and not isinstance(v, bool) and is_finite(v) and abs(v) <= 1e6]
    if len(numbers) < len(given):
        raise FaultsError("position", [f"position {str(value)[:80]} must be {dims} finite numbers (LPS mm), none beyond 1e6"])
    if plane is None or len(numbers) < 3 or (plane.is_axial and numbers[2] == 0):  # as earlier versions sent points
        return np.array(numbers[:dims], np.float64)
    flat, off = plane.drop(np.array(numbers, np.float64))
    if off > plane.half_mm:
        raise FaultsError("position", [f"position {str(value)[:80]} is {float(off):.3g} mm off the slice"])
    return flat


def given_points(params: dict, task: LandmarkTask, plane: SlicePlane | None = None) -> Given:
    """``fixed`` (positions by name) and ``absent`` (names) of a request, checked. Raises LandmarkFileError, FaultsError."""
    fixed, absent = params.get("fixed", {}), params.get("absent", [])
    fixed, absent = {} if fixed is None else fixed, [] if absent is None else absent
    if not isinstance(fixed, dict) or not isinstance(absent, list):
        raise LandmarkFileError("params", ['"fixed" must be {name: [x, y, z]} and "absent" a list of names'])
    known = set(task.names)
    unknown = [str(n)[:80] for n in (*fixed, *absent) if not isinstance(n, str) or n not in known]
    if unknown:
        raise LandmarkFileError("params", [f"task {task.name!r} has no landmark {n!r}" for n in unknown[:10]])
    if both := sorted(set(fixed) & set(absent)):
        raise LandmarkFileError("params", [f"{both[0][:80]!r} is both fixed and absent"])
    return Given({n: position_of(p, task.dims, plane) for n, p in fixed.items()}, list(dict.fromkeys(absent)))


def checked_points(content: dict, landmarks: LandmarkSet) -> dict[str, bool]:
    """``checked`` and ``unchecked`` of a save: points that were looked at again and are right, or that is taken back.

    Raises LandmarkFileError for what nobody stated.
    """
    stated = {name for name, by_person in zip(landmarks.task.names, landmarks.by_person, strict=True) if by_person}
    found: dict[str, bool] = {}
    for key, is_right in (("checked", True), ("unchecked", False)):
        names = content.get(key, [])
        if not isinstance(names, list) or len(names) > 10 * len(landmarks.task):
            raise LandmarkFileError(key, ["must be a list of names"])
        if unknown := [str(n)[:80] for n in names if not isinstance(n, str) or n not in stated]:
            raise LandmarkFileError(key, [f"no person has stated {n!r}, so it cannot be right" for n in unknown[:10]])
        if both := sorted(set(names) & found.keys()):
            raise LandmarkFileError(key, [f"{both[0][:80]!r} is both checked and unchecked"])
        found |= dict.fromkeys(names, is_right)
    return found


def suggestion_to_wire(suggestion: Suggestion, plane: SlicePlane | None = None) -> list[dict]:
    """``to_wire`` with what the assistant adds: ``flagged``, and ``detected``, what the network alone says."""
    rows = to_wire(suggestion.landmarks, plane)
    for row, flagged, detected in zip(rows, suggestion.flagged, suggestion.detected_mm, strict=True):
        row["flagged"] = bool(flagged)
        row["detected"] = _placed(detected, plane) if np.isfinite(detected).all() else None
    return rows
