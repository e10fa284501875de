"""The JSON body of a revision: landmarks by name, so that labels outlive a change of the task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from landmarklabel.errors import FaultsError, StudyError, UsageError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status


def body_of(landmarks: LandmarkSet) -> dict:
    """``{"task": hash, "dims", "landmarks": [{"name", "status", "position": LPS mm or None}]}``, in task order."""
    task = landmarks.task
    rows = zip(task.names, landmarks.status, landmarks.positions_mm.tolist(), strict=True)
    return {
        "task": task.hash,
        "dims": task.dims,
        "landmarks": [
            {"name": name, "status": status.value, "position": position if status.has_position else None}
            for name, status, position in rows
        ],
    }


def landmarks_of(body: dict, task: LandmarkTask, renames: Sequence[tuple[str, str]] = ()) -> LandmarkSet:
    """The landmarks of a body under today's task: names the task dropped are ignored, names it gained are unset.

    Args:
        body: as ``body_of`` made it.
        task: today's.
        renames: (old, new) names, oldest first: a body from before a rename holds the old one.

    Raises:
        StudyError: the body is of another number of dimensions, or is no landmark body.
    """
    try:
        if body["dims"] != task.dims:
            raise StudyError(
                f"the label is {body['dims']}D, the task {task.name!r} is {task.dims}D; use the task it was made with"
            )
        known = {entry["name"]: entry for entry in body["landmarks"]}
        for old, new in renames:
            if old in known and new not in known:
                known[new] = known.pop(old)
        entries = [known.get(name, {"status": Status.UNSET}) for name in task.names]
        unset = [np.nan] * task.dims
        positions = [entry.get("position") or unset for entry in entries]
        return LandmarkSet(task, np.array(positions, np.float64), tuple(Status(entry["status"]) for entry in entries))
    except (AttributeError, KeyError, TypeError, ValueError, FaultsError) as error:
        raise StudyError(f"a stored label cannot be read as landmarks ({type(error).__name__}: {error})") from None


def task_of(body: dict, task: LandmarkTask) -> LandmarkTask:
    """The names in the order in which the body was saved, as a task: reads files written before ``task`` changed."""
    return LandmarkTask(task.name, tuple(entry["name"] for entry in body["landmarks"]), dims=body["dims"])


def checks_of(checked: Mapping[str, bool]) -> dict:
    """The part of a body that says which points somebody looked at again: those that are right, and where that is taken back."""
    parts = {"checked": True, "unchecked": False}
    names = {key: sorted(name for name, is_right in checked.items() if is_right is wanted) for key, wanted in parts.items()}
    return {key: found for key, found in names.items() if found}


def is_check(body: dict) -> bool:
    """Whether a revision was made to call points right, or to take that back."""
    return "checked" in body or "unchecked" in body


def checked_of(body: dict, renames: Sequence[tuple[str, str]] = ()) -> dict[str, bool]:
    """Of the points that somebody looked at again, under today's names, whether they are right or that is taken back."""
    today, found = dict(renames), {}
    for key, is_right in (("checked", True), ("unchecked", False)):
        for name in body.get(key, ()):
            while name in today:
                name = today[name]
            found[name] = is_right
    return found


def same_body(a: dict, b: dict) -> bool:
    """Whether two bodies state the same of the same image."""
    return all(a.get(key) == b.get(key) for key in ("task", "landmarks", "pixels"))


def same_landmarks(a: LandmarkSet, b: LandmarkSet, tolerance_mm: float = 1e-6) -> bool:
    """Whether two sets of one task state the same: equal statuses, positions within ``tolerance_mm`` on every axis."""
    return a.status == b.status and all(same_points(a, b, tolerance_mm).values())


def same_points(a: LandmarkSet, b: LandmarkSet, tolerance_mm: float = 1e-6) -> dict[str, bool]:
    """Of each landmark, whether two sets of one task have it at the same place, both absent, or both nowhere."""
    close = np.isclose(a.positions_mm, b.positions_mm, rtol=0, atol=tolerance_mm, equal_nan=True).all(axis=1)
    absent = np.array([[status is Status.ABSENT for status in one.status] for one in (a, b)])
    return dict(zip(a.task.names, (close & (absent[0] == absent[1])).tolist(), strict=True))


def placed_where_moved(edited: LandmarkSet, before: LandmarkSet) -> LandmarkSet:
    """``edited`` with the points that a person moved marked as placed.

    A program like Slicer moves a point but keeps the note that says "predicted". A point that brings an expected error
    comes from a model and stays as it is.
    """
    moved = np.linalg.norm(edited.positions_mm - before.positions_mm, axis=1) > 1e-6  # False where either is NaN
    by_hand = moved & np.isnan(edited.expected_error_mm)
    rows = zip(edited.status, before.status, by_hand, strict=True)
    return replace(edited, status=tuple(Status.PLACED if hand and new is old else new for new, old, hand in rows))


def canonical(body: dict) -> str:
    """The one text of a body, by which it is hashed. Raises UsageError for what is no JSON object."""
    if not isinstance(body, dict):
        raise UsageError(f"a revision's body is a JSON object, not {type(body).__name__}")
    try:
        return json.dumps(body, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the body is not strict JSON ({error}); NaN and infinity are not allowed") from None
