"""How a study is opened in a script: by its folder alone, for a ``with`` block, and with a word on what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from landmarklabel.errors import StudyError
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.store.revisions import open_revisions
from landmarklabel.store.study_task import read_record, settled

if TYPE_CHECKING:
    from landmarklabel.store.label_files import LabelFiles
    from landmarklabel.store.revisions import RevisionStore


def recorded_task(folder: str | Path, url: str | None = None) -> LandmarkTask | None:
    """The task that a study says it belongs to; None where the folder is no study. Raises StudyError."""
    record = read_record(folder)
    if record is not None and record.pending is not None:  # a change of names was interrupted: the revisions say what happened
        revisions = open_revisions(folder, url)
        record = settled(folder, revisions.newest_body)
        revisions.close()
    return None if record is None else record.task


class Opened:
    """What ``Study`` offers beside its labels."""

    if TYPE_CHECKING:
        folder: Path
        task: LandmarkTask

        def __init__(self, folder: str | Path, task: LandmarkTask, url: str | None = None) -> None: ...

        revisions: RevisionStore
        _files: LabelFiles

    @classmethod
    def open(cls, folder: str | Path, task: LandmarkTask | None = None, url: str | None = None) -> Self:
        """Open a study; with a task, also one that is not there yet.

        Args:
            folder: of the study.
            task: of a new study; an existing one knows its own, and must have this one where it is given.
            url: of the revision store, where it is not in the folder (SQLAlchemy, for example ``postgresql://…``).

        Raises:
            StudyError: no such study, or a folder that cannot be one. TaskMismatch: it belongs to another task.

        Example:
            ``with ll.Study.open("STUDY") as study: print(study.labelled())``
        """
        task = task or recorded_task(folder, url)
        if task is None:
            place = "no study lies there" if Path(folder).is_dir() else "no such folder"
            raise StudyError(f"{folder}: {place}; give the task (task=…) of the study that is to be made")
        return cls(folder, task, url)

    def _or_close(self, check: Callable[[], None]) -> None:
        try:
            check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the revision store."""
        self.revisions.close()

    def only_files(self) -> list[Path]:
        """Label files whose content no revision could hold, as ``sync`` told: nothing else has it."""
        return self._files.only_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Study({str(self.folder)!r}, task {self.task.name!r}, {len(self.task)} landmarks, {self.task.dims}D)"
