"""``labels/final``: the newest revision of every image as a plain file, which people may edit, add or damage.

A file is told apart by its content. The newest revision's: nothing to do. An earlier revision's, a piece of one, or no
file at all: the program stopped between commit and write, so it is written again. Anything else is a person's work: it
becomes a revision, or, where it cannot be read, stays as it is and is reported.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from enum import Enum, auto
from pathlib import Path

from landmarklabel.errors import LandmarkFileError, LandmarkLabelError, StudyError
from landmarklabel.io.files import MARKUPS_SUFFIX, atomic_write, check_id, safe_join, write_json
from landmarklabel.io.markups import dump_markups, parse_markups, read_limited
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store.bodies import body_of, landmarks_of, placed_where_moved, same_landmarks, task_of
from landmarklabel.store.revisions import Revision, RevisionStore

SETTLED_NS = 2_000_000_000  # a file changed more recently may change again without a new time stamp


class State(Enum):
    """How a label file relates to the image's revisions."""

    MISSING = auto()
    NEWEST = auto()
    OLD_NAMES = auto()  # the newest revision's, written before the task changed
    OLDER = auto()  # an earlier revision's
    FRAGMENT = auto()  # a half-written revision
    EDITED = auto()  # what no revision says
    UNREADABLE = auto()


@dataclass(frozen=True)
class _Look:
    state: State
    landmarks: LandmarkSet | None = None
    fault: str = ""


@dataclass(frozen=True)
class _Seen:
    """What the last sync left: the file's stamp (None: look again), the newest number, and what was wrong."""

    stamp: list[int] | None
    number: int
    problem: str | None = None


class LabelFiles:
    """The label files of a study. Whoever calls ``take_in_edit`` or ``write`` holds the study's lock.

    Args:
        folder: ``labels/final``.
        task: what the files hold.
        revisions: the truth.
        memory: JSON file that remembers which files were looked at.
    """

    def __init__(self, folder: Path, task: LandmarkTask, revisions: RevisionStore, memory: Path):
        self.folder, self._task, self._revisions, self._memory = folder, task, revisions, memory

    def path(self, image_id: str) -> Path:
        """Where the image's label file is or would be. Raises UsageError for a bad id."""
        return safe_join(self.folder, image_id, MARKUPS_SUFFIX)

    def write(self, image_id: str) -> None:
        """Write the newest revision's file; the image must have one. Raises StudyError, OSError."""
        atomic_write(self.path(image_id), self._text(self._revisions.head(image_id)))

    def take_in_edit(self, image_id: str) -> State:
        """Make a revision of what a person changed in the file, and say what the file was."""
        head = self._revisions.head(image_id)
        look = self._look(image_id, head)
        if look.state is State.EDITED:
            self._save(image_id, look.landmarks, head)
        return look.state

    def sync(self, images: Collection[str], lock: Callable[[], AbstractContextManager]) -> list[str]:
        """Bring files and revisions together; returns what a person has to look at, one text a file."""
        with lock():
            for leftover in self.folder.glob(f".*{MARKUPS_SUFFIX}.*"):  # of a writer that was killed
                with suppress(OSError):
                    leftover.unlink()
        before, numbers = self._remembered(), self._revisions.numbers()
        ids = {p.name.removesuffix(MARKUPS_SUFFIX) for p in self.folder.glob(f"[!.]*{MARKUPS_SUFFIX}")}
        seen = {}
        for image_id in sorted(ids | (numbers.keys() & images)):
            last = before.get(image_id)
            if last and last.stamp and last == _Seen(self._stamp(image_id), numbers.get(image_id, 0), last.problem):
                seen[image_id] = last
                continue
            with lock():
                seen[image_id] = self._settle(image_id, image_id in images, last)
        if seen != before:
            with suppress(OSError):  # only a memory
                write_json(self._memory, {"task": self._task.hash, "files": {k: asdict(v) for k, v in seen.items()}})
        return [entry.problem for entry in seen.values() if entry.problem]

    def _settle(self, image_id: str, has_image: bool, last: _Seen | None) -> _Seen:
        try:
            stamp, head = self._stamp(image_id), self._revisions.head(image_id)
            look = self._look(image_id, head)
            # Once file and newest revision agreed, the program itself never writes an earlier one: a person did.
            set_back = look.state is State.OLDER and last is not None and last.number == head.number
            problem = look.fault or None
            if look.state is State.EDITED or set_back:
                if not has_image:
                    return _Seen(None, 0, f"{self._name(image_id)}: the study has no such image; add it or remove the file")
                head = self._save(image_id, look.landmarks, head)
            if has_image and look.state not in (State.NEWEST, State.UNREADABLE) and stamp == self._stamp(image_id):
                self.write(image_id)
                stamp = self._stamp(image_id)
        except LandmarkLabelError as error:
            return _Seen(None, 0, f"{self._name(image_id)}: {error}")
        except OSError as error:
            return _Seen(None, 0, f"{self._name(image_id)} cannot be written or read ({error.strerror or error})")
        settled = stamp and max(stamp[:2]) < time.time_ns() - SETTLED_NS
        return _Seen(stamp if settled else None, head.number if head else 0, problem)

    def _look(self, image_id: str, head: Revision | None) -> _Look:
        path = self.path(image_id)
        if not os.path.lexists(path):
            return _Look(State.MISSING)
        data = None
        try:
            data = read_limited(path)
            if head and data == self._text(head).encode():
                return _Look(State.NEWEST)
            landmarks = self._parse(data, image_id, head)
        except LandmarkFileError as error:
            fragment = head and data is not None and self._is_fragment(data, head)
            return _Look(State.FRAGMENT) if fragment else _Look(State.UNREADABLE, fault=str(error))
        for revision in self._back_from(head):
            if self._says(revision, landmarks):
                return _Look(self._age(revision, head), landmarks)
        return _Look(State.EDITED, landmarks)

    def _age(self, revision: Revision, head: Revision) -> State:
        if revision.number < head.number:
            return State.OLDER
        return State.NEWEST if head.body["task"] == self._task.hash else State.OLD_NAMES

    def _parse(self, data: bytes, image_id: str, head: Revision | None) -> LandmarkSet:
        try:
            return parse_markups(data, self._task, self._name(image_id))
        except LandmarkFileError:
            old = task_of(head.body, self._task) if head else self._task
            if old.hash == self._task.hash:
                raise
        return landmarks_of(body_of(parse_markups(data, old, self._name(image_id))), self._task)

    def _is_fragment(self, data: bytes, head: Revision) -> bool:
        start = data.rstrip(b"\0 \t\r\n")  # a power loss can leave zeros
        return any(self._text(revision).encode().startswith(start) for revision in self._back_from(head))

    def _back_from(self, head: Revision | None) -> Iterator[Revision]:
        """All revisions, newest first, each read only when it is asked for."""
        if head:
            yield head
            yield from (self._revisions.get(head.image_id, n) for n in range(head.number - 1, 0, -1))

    def _says(self, revision: Revision, landmarks: LandmarkSet) -> bool:
        try:
            return same_landmarks(landmarks_of(revision.body, self._task), landmarks)
        except StudyError:  # saved under a task of other dimensions
            return False

    def _save(self, image_id: str, landmarks: LandmarkSet, head: Revision | None) -> Revision:
        if head:
            landmarks = placed_where_moved(landmarks, landmarks_of(head.body, self._task))
        return self._revisions.save(image_id, body_of(landmarks), author="file", source="edited file")

    def _text(self, revision: Revision) -> str:
        return dump_markups(landmarks_of(revision.body, self._task))

    def _name(self, image_id: str) -> str:
        return f"labels/final/{image_id}{MARKUPS_SUFFIX}"

    def _stamp(self, image_id: str) -> list[int] | None:
        try:
            stat = os.stat(os.path.join(self.folder, check_id(image_id) + MARKUPS_SUFFIX))  # asked for every file at a restart
        except (OSError, LandmarkLabelError):
            return None
        return [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino]

    def _remembered(self) -> dict[str, _Seen]:
        try:
            content = json.loads(self._memory.read_text(encoding="utf-8"))
            same_task = content["task"] == self._task.hash
            return {k: _Seen(**v) for k, v in content["files"].items()} if same_task else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # only a memory: everything is looked at again
