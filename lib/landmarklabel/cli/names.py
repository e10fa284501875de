"""``--names``: landmarks that are called otherwise in the files that are imported."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from landmarklabel.errors import LandmarkFileError, UsageError
from landmarklabel.io.tables import decode, read_limited
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status


@dataclass(frozen=True)
class NameMap:
    """Names in the files to those of a task; None for points that are to be left out.

    Args:
        task: whose names they become.
        names: the map; names of the task itself need not be in it.
    """

    task: LandmarkTask
    names: dict[str, str | None] = field(default_factory=dict)

    def files_task(self) -> LandmarkTask:
        """The landmarks as the files call them, those to be left out as well; the task itself where nothing is mapped."""
        if not self.names:
            return self.task
        return self._called((*self.names, *(name for name in self.task.names if name not in self.names)))

    def columns_task(self, header: Sequence[str]) -> LandmarkTask:
        """The landmarks that a table's columns (``nasion_x`` …) have, under their names; the task's own where it has neither."""
        if not self.names:
            return self.task
        theirs = [name for name in self.files_task().names if f"{name}_x" in header]
        found = {self.names.get(name, name) for name in theirs}
        return self._called((*theirs, *(name for name in self.task.names if name not in found)))

    def _called(self, names: tuple[str, ...]) -> LandmarkTask:
        return LandmarkTask(self.task.name, names, self.task.dims)

    def to_task(self, landmarks: LandmarkSet, what: str) -> LandmarkSet:
        """The same points under the task's names. Raises LandmarkFileError where two of them are one landmark."""
        if landmarks.task is self.task:
            return landmarks
        positions = np.full((len(self.task), self.task.dims), np.nan)
        statuses, errors = [Status.UNSET] * len(self.task), np.full(len(self.task), np.nan)
        for i, theirs in enumerate(landmarks.task.names):
            ours = self.names.get(theirs, theirs)
            if ours is None or landmarks.status[i] is Status.UNSET:
                continue
            k = self.task.index(ours)
            if statuses[k] is not Status.UNSET:
                raise LandmarkFileError(what, [f"landmark {ours!r} is there twice, under two of the names that --names gives it"])
            positions[k], statuses[k], errors[k] = landmarks.positions_mm[i], landmarks.status[i], landmarks.expected_error_mm[i]
        return LandmarkSet(self.task, positions, tuple(statuses), errors)


def read_names(path: str | None, task: LandmarkTask) -> NameMap:
    """The map of a JSON file ``{"their name": "our name" or null}``; an empty one without a file.

    Raises:
        UsageError: not such a file, or a landmark that the task does not have. LandmarkFileError: a file that cannot be read.
    """
    if path is None:
        return NameMap(task)
    try:
        content = json.loads(decode(read_limited(Path(path)), path))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(isinstance(v, str | None) and k for k, v in content.items()):
        raise UsageError(f'--names {path}: must be JSON of the form {{"name in the files": "landmark of the task" or null}}')
    content = {_composed(theirs): _composed(ours) for theirs, ours in content.items()}
    if unknown := [v for v in content.values() if v is not None and v not in task.names]:
        raise UsageError(f"--names {path}: task {task.name!r} has no landmark {unknown[0]!r}")
    return NameMap(task, content)


def _composed(name: str | None) -> str | None:
    return None if name is None else unicodedata.normalize("NFC", name)


def as_predicted(landmarks: LandmarkSet) -> LandmarkSet:
    """A model's answer that was stored as points like a person's: predicted, and so nobody's label."""
    statuses = tuple(Status.PREDICTED if s.has_position else s for s in landmarks.status)
    return replace(landmarks, status=statuses)
