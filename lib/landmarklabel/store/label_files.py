"""``labels/final``: the newest revision of every image as a plain file, which people may edit, add or damage.

A file is told apart by its content. The newest revision's: nothing to do. An earlier revision's, a piece of one, or no
file at all: the program stopped between commit and write, so it is written again. Anything else is a person's work: it
becomes a revision, or, where it cannot be read, stays as it is and is reported.

Decision: a file is never overwritten. The new one and the old one change places in one step (``io.atomic_exchange``), and what
lay there at that very moment is looked at: a person's edit that fell between looking and writing becomes a revision too, one
that says which other revision its author had not seen. What was replaced is kept for some seconds and looked at once more,
because an editor may still have been writing it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from landmarklabel.errors import Conflict, LandmarkFileError, LandmarkLabelError, StudyError
from landmarklabel.geometry import SlicePlane
from landmarklabel.io.atomic_exchange import swap_in
from landmarklabel.io.files import MARKUPS_SUFFIX, check_id, is_id, safe_join, write_json, write_to_disk
from landmarklabel.io.markups import dump_markups, parse_markups
from landmarklabel.io.tables import read_limited
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.portability import sync_to_disk
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.image_files import Trash
from landmarklabel.store.label_file_states import FileStamp, FileState, State
from landmarklabel.store.revision_json import body_of, landmarks_of, placed_where_moved, same_landmarks, task_of
from landmarklabel.store.revisions import Revision, RevisionStore

_REPLACED = re.compile(r"a?[0-9a-f]{8}-(.+)" + re.escape(MARKUPS_SUFFIX))  # as ``_swapped_for`` calls them


@dataclass(frozen=True)
class Naming:
    """How a study's labels are read and written.

    Args:
        task: its task.
        renames: (old, new) names; revisions made before hold the old one.
        made_on: image id, and time (ns) when the label was made or None for now, to what a revision records of its image.
        plane_of: image id to where its slice lies, in a 2D study.
    """

    task: LandmarkTask
    renames: tuple[tuple[str, str], ...] = ()
    made_on: Callable[[str, int | None], dict] = lambda *_: {}
    plane_of: Callable[[str], SlicePlane | None] = lambda _: None

    def read(self, body: dict) -> LandmarkSet:
        """A revision's landmarks under today's names. Raises StudyError."""
        return landmarks_of(body, self.task, self.renames)


class LabelFiles:
    """The label files of a study. Whoever calls ``take_in_edit`` or ``show`` holds the study's lock.

    Args:
        folder: ``labels/final``.
        naming: what the files hold.
        revisions: the truth.
        memory: JSON file that remembers which files were looked at.
        replaced: folder of the same disk for files that were replaced some seconds ago.
        trash: keeps files that cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        naming: Naming,
        revisions: RevisionStore,
        memory: Path,
        replaced: Path,
        trash: Trash,
    ):
        self.folder, self._naming, self._revisions, self._memory = folder, naming, revisions, memory
        self._replaced, self._trash = replaced, trash
        self._shown: dict[str, int] = {}  # number this process has shown in the file

    def path(self, image_id: str) -> Path:
        """Where the image's label file is or would be. Raises UsageError for a bad id."""
        return safe_join(self.folder, image_id, MARKUPS_SUFFIX)

    def take_in_edit(self, image_id: str) -> tuple[FileState, Revision | None]:
        """Make a revision of what a person changed in the file; returns what the file held, and that revision if there is one."""
        for _ in range(CONFIG.write_tries):
            head = self._revisions.head(image_id)
            found = self._examine(image_id, head)
            if not found.state.by_person:
                return found, None
            with suppress(Conflict):
                return found, self._save(image_id, found.edit, head, made_ns=found.changed_ns)
        raise StudyError(f"{self._name(image_id)} and its revisions change all the time; try again")

    def show(self, image_id: str, known: FileState) -> Revision | None:
        """Write the newest revision's file where ``known`` lay when it was read.

        Returns:
            The revision that was made of what a person put there meanwhile; it is the newest then. None otherwise.

        Raises:
            StudyError, OSError: not written.
        """
        late, expected = None, known.data
        for _ in range(CONFIG.write_tries):
            head = self._newest(image_id)
            aside, found = self._swapped_for(image_id, self._text(head).encode())
            self._shown[image_id] = head.number
            if found is None or (found == expected and known.state is not State.UNREADABLE):
                return late
            expected, edit = self._text(head).encode(), self._readable(found, image_id, head)
            if edit is None and not self._is_fragment(found, head):
                self._trash.keep(aside, self.path(image_id).name)  # and looked at again: it may have been half written
                return late
            if edit is None or same_landmarks(edit, self._naming.read(head.body)):
                return late
            with suppress(Conflict):
                late = self._save(image_id, edit, head, unseen=head.number)
        return late

    def _newest(self, image_id: str) -> Revision:
        if (head := self._revisions.head(image_id)) is None:
            raise StudyError(f"{self._name(image_id)} has no revision; look at the study's store")
        return head

    def _swapped_for(self, image_id: str, data: bytes) -> tuple[Path, bytes | None]:
        """Put a file in place; where what lay there is now, and its bytes: None for nothing, ``b""`` for what cannot be read."""
        aside, path = self._replaced / f"{secrets.token_hex(4)}-{image_id}{MARKUPS_SUFFIX}", self.path(image_id)
        try:
            write_to_disk(aside, data)
            there = swap_in(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        sync_to_disk(path.parent)
        if not there:
            return aside, None
        with suppress(LandmarkFileError, IsADirectoryError):
            return aside, read_limited(aside)
        return aside, b""

    def recheck_replaced(self, lock: Callable[[], AbstractContextManager]) -> list[str]:
        """Look once more at files that were replaced: what an editor wrote late becomes a revision; the rest goes.

        Returns:
            what a person has to look at, one text per file.
        """
        problems = []
        with suppress(FileNotFoundError):
            for path in sorted(p for p in self._replaced.iterdir() if _REPLACED.fullmatch(p.name)):  # others' files are theirs
                if path.is_symlink() or not path.is_file() or not is_id(_REPLACED.sub(r"\1", path.name)):
                    problems.append(f"{path.parent.name}/{path.name} is no label file and cannot be looked at: move it away")
                    continue
                age_ns = time.time_ns() - _changed_ns(path)
                if age_ns >= CONFIG.editor_idle_ns:
                    with lock(), suppress(FileNotFoundError):  # another process looks as well
                        problems += self._look_at_replaced(path, age_ns > CONFIG.replaced_kept_ns)
        return problems

    def _look_at_replaced(self, path: Path, for_good: bool) -> list[str]:
        image_id = _REPLACED.sub(r"\1", path.name)
        head, data = self._revisions.head(image_id), None
        with suppress(LandmarkFileError):
            data = read_limited(path)
        landmarks = None if data is None or head is None else self._readable(data, image_id, head)
        if landmarks is not None and not any(self._says(r, landmarks) for r in self._back_from(head)):
            found, _ = self.take_in_edit(image_id)
            head = self._newest(image_id)
            self._save(image_id, landmarks, head, unseen=head.number)
            self.show(image_id, found)
        elif not for_good:
            return []
        elif landmarks is None and path.lstat().st_nlink == 1 and not (head and self._is_fragment(data or b"", head)):
            self._trash.keep(path, self.path(image_id).name)
        path.unlink(missing_ok=True)
        return []

    def sync(self, images: Collection[str], lock: Callable[[], AbstractContextManager], at_leisure: bool = False) -> list[str]:
        """Bring files and revisions together; returns what a person has to look at, one text per file.

        ``at_leisure``: a half-written file is left alone as long as somebody may be writing it; it is looked at again.
        """
        problems = self.recheck_replaced(lock) + [
            f"labels/final: {name} could not be read, and is kept in .landmarklabel/trash until somebody takes it from there"
            for name in self._trash.names(MARKUPS_SUFFIX)
        ]
        before, numbers = self._remembered(), self._revisions.numbers()
        ids = {p.name.removesuffix(MARKUPS_SUFFIX) for p in self.folder.glob(f"[!.]*{MARKUPS_SUFFIX}")}
        stamps = {}
        for image_id in sorted(ids | (numbers.keys() & images)):
            last = before.get(image_id)
            if last and last.stamp and last == FileStamp(self._stamp(image_id), numbers.get(image_id, 0), last.problem):
                stamps[image_id] = last
                continue
            with lock():
                stamps[image_id] = self._reconcile(image_id, image_id in images, last, at_leisure)
        if stamps != before:
            with suppress(OSError):  # only a memory
                content = {"task": self._naming.task.hash, "files": {k: asdict(v) for k, v in stamps.items()}}
                write_json(self._memory, content)
        return problems + [entry.problem for entry in stamps.values() if entry.problem]

    def only_files(self) -> list[Path]:
        """Label files whose content no revision could hold: they cannot be read, or there is no such image."""
        found = []
        for path in sorted(self.folder.glob(f"[!.]*{MARKUPS_SUFFIX}")):
            image_id = path.name.removesuffix(MARKUPS_SUFFIX)
            try:
                state = self._examine(image_id, self._revisions.head(image_id)).state
            except (LandmarkLabelError, OSError):
                state = State.UNREADABLE
            if state.by_person or state is State.UNREADABLE:
                found.append(path)
        return found

    def _reconcile(self, image_id: str, has_image: bool, last: FileStamp | None, at_leisure: bool) -> FileStamp:
        try:
            stamp, head = self._stamp(image_id), self._revisions.head(image_id)
            found = self._examine(image_id, head, last)
            problem = found.fault or None
            if found.state.by_person:
                if not has_image:
                    return FileStamp(None, 0, f"{self._name(image_id)}: the study has no such image; add it or remove the file")
                head = self._save(image_id, found.edit, head, made_ns=found.changed_ns)
            at_rest = found.state in (State.NEWEST, State.UNREADABLE) or head is None
            if at_leisure and found.state is State.FRAGMENT:
                at_rest = time.time_ns() - _changed_ns(self.path(image_id)) < CONFIG.editor_idle_ns
            if has_image and not at_rest and stamp == self._stamp(image_id):
                head = self.show(image_id, found) or head
                stamp = self._stamp(image_id)
        except LandmarkLabelError as error:
            return FileStamp(None, 0, f"{self._name(image_id)}: {error}")
        except OSError as error:
            return FileStamp(None, 0, f"{self._name(image_id)} cannot be written or read ({error.strerror or error})")
        settled = stamp and max(stamp[:2]) < time.time_ns() - CONFIG.mtime_settled_ns
        return FileStamp(stamp if settled else None, head.number if head else 0, problem)

    def _examine(self, image_id: str, head: Revision | None, last: FileStamp | None = None) -> FileState:
        path, data = self.path(image_id), None
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return FileState(State.MISSING)
        try:
            if not stat.S_ISREG(found.st_mode):
                raise LandmarkFileError(self._name(image_id), ["not a plain file (a link or folder); put the file itself there"])
            data = read_limited(path)
            if head and data == self._text(head).encode():
                return FileState(State.NEWEST, data)
            landmarks, renamed_since = self._parse(data, image_id, head)
        except LandmarkFileError as error:
            fragment = head and data is not None and self._is_fragment(data, head)
            return FileState(State.FRAGMENT, data) if fragment else FileState(State.UNREADABLE, data, fault=str(error))
        for revision in self._back_from(head):
            if head is not None and self._says(revision, landmarks):
                age = self._age(revision, head, found.st_ctime_ns, last)
                state = State.OLDER if age is State.NEWEST and renamed_since else age
                return FileState(state, data, landmarks, changed_ns=found.st_mtime_ns)
        return FileState(State.EDITED, data, landmarks, changed_ns=found.st_mtime_ns)

    def _age(self, revision: Revision, head: Revision, changed_ns: int, last: FileStamp | None) -> State:
        """Whose an earlier content is. Once the newest one was shown, or the file is newer than that, a person put it there."""
        if revision.number == head.number:
            return State.NEWEST
        was_shown = head.number in (self._shown.get(head.image_id), last and last.number)
        return State.PUT_BACK if was_shown or changed_ns > _created_ns(head) else State.OLDER

    def _readable(self, data: bytes, image_id: str, head: Revision | None) -> LandmarkSet | None:
        with suppress(LandmarkFileError):
            return self._parse(data, image_id, head)[0]
        return None

    def _parse(self, data: bytes, image_id: str, head: Revision | None) -> tuple[LandmarkSet, bool]:
        """A file's landmarks, and whether it has names that were changed since its revision. Raises LandmarkFileError."""
        task, what, plane = self._naming.task, self._name(image_id), self._naming.plane_of(image_id)
        try:
            return parse_markups(data, task, what, plane), False
        except LandmarkFileError as error:
            tried = {task.hash}
            for revision in self._back_from(head):
                old = task_of(revision.body, task)
                if old.hash not in tried:
                    tried.add(old.hash)
                    with suppress(LandmarkFileError):
                        return self._naming.read(body_of(parse_markups(data, old, what, plane))), True
            raise error

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
            return same_landmarks(self._naming.read(revision.body), landmarks)
        except StudyError:  # saved under a task of other dimensions
            return False

    def _save(
        self,
        image_id: str,
        landmarks: LandmarkSet,
        head: Revision | None,
        *,
        unseen: int | None = None,
        made_ns: int | None = None,
    ) -> Revision:
        """``unseen``: a revision that the file's author had not seen; ``made_ns``: when the file was saved. Raises Conflict."""
        if head:
            landmarks = placed_where_moved(landmarks, self._naming.read(head.body))
        body = body_of(landmarks) | self._naming.made_on(image_id, made_ns) | ({"unseen": unseen} if unseen else {})
        number = head.number if head else 0
        return self._revisions.save(image_id, body, author="file", source="edited file", base_revision=number)

    def _text(self, revision: Revision) -> str:
        return dump_markups(self._naming.read(revision.body), plane=self._naming.plane_of(revision.image_id))

    def _name(self, image_id: str) -> str:
        return f"labels/final/{image_id}{MARKUPS_SUFFIX}"

    def _stamp(self, image_id: str) -> list[int] | None:
        try:
            found = os.lstat(os.path.join(self.folder, check_id(image_id) + MARKUPS_SUFFIX))  # asked for every file at a restart
        except (OSError, LandmarkLabelError):
            return None
        return [found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino]

    def _remembered(self) -> dict[str, FileStamp]:
        try:
            content = json.loads(self._memory.read_text(encoding="utf-8"))
            same_task = content["task"] == self._naming.task.hash
            return {k: FileStamp(**v) for k, v in content["files"].items()} if same_task else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # only a memory: everything is looked at again


def _changed_ns(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return time.time_ns()
    return max(found.st_mtime_ns, found.st_ctime_ns)


def _created_ns(revision: Revision) -> int:
    return int(datetime.fromisoformat(revision.created).timestamp() * 1e9)
