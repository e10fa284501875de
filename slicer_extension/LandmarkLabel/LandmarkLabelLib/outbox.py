"""Submissions that survive a lost network and a crash, and arrive exactly once.

Each is a file until the server has acknowledged it and the case's session has heard of that; it carries a key, and the server
saves a key once, so sending it again after a lost answer is harmless. What the server will not take stays too, with its reason,
until a person has decided.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .client import Busy, Client, Conflict, NotAllowed, Refused, Unreachable
from .session import Session
from .session_files import write_atomically
from .wire import ABSENT, ACCEPTED, PLACED, Point, RevisionNumber, Task, WireError, parse_points, sha256_of, to_rows

WAITS, REFUSED, CONFLICT = "waits", "refused", "conflict"
MOST_BUSY = 3  # submissions that a server cannot take now, until the others are not tried either
_LOCKS: dict[Path, tuple[threading.RLock, threading.Lock]] = {}  # by folder: of its files, and of who delivers


@dataclass(frozen=True)
class Entry:
    """A submission that has not arrived.

    Args:
        key: its own.
        image_id: of the case.
        state: waits, refused or conflict.
        why: what the server said of it; empty where it only waits.
        points: as submitted; those the task no longer has are left out.
        base_revision, repeat, edits, pixels, gone: as of ``Session``.
    """

    key: str
    image_id: str
    state: str
    why: str
    points: list[Point]
    base_revision: int
    repeat: bool
    edits: int
    pixels: str = ""
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delivered:
    """What became of a submission: ``answer`` is the new revision's number, Conflict or Refused; ``unlabelled``:
    how many of its points nobody has placed, accepted or called absent."""

    key: str
    image_id: str
    repeat: bool
    edits: int
    answer: object
    unlabelled: int = 0


class Outbox:
    """A folder of submissions, oldest first.

    Args:
        folder: made if needed; one for each server and study.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        for name in ("refused", "acknowledged"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._files, self._delivering = _LOCKS.setdefault(self.folder.resolve(), (threading.RLock(), threading.Lock()))

    def waiting(self) -> list[Path]:
        """Files not delivered yet."""
        return sorted(self.folder.glob("*.json"))

    def _refused(self) -> list[Path]:
        return sorted((self.folder / "refused").glob("*.json"))

    def entries(self, task: Task) -> list[Entry]:
        """All that has not arrived, oldest first."""
        found = [_entry(path, task) for path in sorted([*self.waiting(), *self._refused()], key=lambda path: path.name)]
        return [entry for entry in found if entry is not None]

    def put(self, session: Session, author: str) -> str:
        """Keep the state of a case as a submission; it is safe once this returns its key. Raises OSError."""
        with self._files:
            key, base = f"{time.time_ns():020d}-{uuid.uuid4().hex}", session.base_revision
            known = sorted([*self.waiting(), *self._refused()], key=lambda path: path.name)
            earlier = [c for c in map(_content, known) if c and _is_of(c, session)]
            for path in sorted((self.folder / "acknowledged").glob("*.json")):  # which the session has not heard of
                content = _content(path)
                if content and _is_of(content, session) and content["base_revision"] == base:
                    base = _revision(content)
            content = {
                "image": session.image_id,
                "landmarks": to_rows(session.points),
                "base_revision": base,
                "base_sha256": sha256_of(base),
                "author": author,
                "key": key,
                "repeat": session.repeat,
                "pixels": session.pixels,
                "edits": session.edits,
                "after": earlier[-1]["key"] if earlier else "",
            }
            write_atomically(self.folder / f"{key}.json", json.dumps(content, allow_nan=False))
        return key

    def send_again(self, key: str) -> None:
        """Let one that was refused wait once more."""
        path = self.folder / "refused" / f"{key}.json"
        with self._files:
            if (content := _content(path)) is not None:
                content.pop("why", None)
                content.pop("state", None)
                write_atomically(self.folder / f"{key}.json", json.dumps(content, allow_nan=False))
                path.unlink(missing_ok=True)

    def discard(self, key: str) -> None:
        """A person has decided that it is not wanted, or has sent something newer; the file is kept out of sight."""
        place = self.folder / "discarded"
        with self._files:
            place.mkdir(exist_ok=True)
            for path in (self.folder / f"{key}.json", self.folder / "refused" / f"{key}.json"):
                if path.exists():
                    path.replace(place / path.name)

    def deliver(self, client: Client, task: Task) -> list[Delivered]:
        """Send what waits, oldest first, until the server cannot be reached or lets nobody in.

        One that the server cannot take now waits with the later ones of its case, and holds up no other case.

        Returns:
            What became of each that was sent. One that the server will not take is set aside with its reason, never deleted.
            Where an answer is Unreachable, or the token is wrong, the submission waits.
        """
        results: list[Delivered] = []
        held: set[tuple[str, bool]] = set()  # cases of which one waits
        busy = 0
        with self._delivering:  # one at a time, whoever asks
            for path in self.waiting():
                content = _content(path)
                if content is not None and (content["image"], _repeats(content)) in held:
                    continue
                result = self._deliver(path, client, task)
                if result is not None:
                    results.append(result)
                    if isinstance(result.answer, Busy):
                        held.add((result.image_id, result.repeat))
                        busy += 1
                    if _concerns_all(result.answer) or busy >= MOST_BUSY:
                        break
        return results

    def _deliver(self, path: Path, client: Client, task: Task) -> Delivered | None:
        """Send one; None where it was discarded meanwhile."""
        with self._files:
            content = _content(path)
            if content is None:
                if not path.exists():
                    return None
                kept = self.folder / "refused" / f"{path.stem}.damaged"
                path.replace(kept)
                why = Refused(f"the file of a submission is damaged; it is kept as {kept}")
                return Delivered(path.stem, path.stem, False, 0, why)
        answer = self._answer(content, client, task)
        try:
            self._keep(path, content, answer)
        except OSError as error:  # it is sent again when there is space: its key makes that harmless
            answer = Unreachable(f"{self.folder} cannot be written ({error.strerror})")
        edits = int(content.get("edits", 0))
        return Delivered(path.stem, str(content["image"]), _repeats(content), edits, answer, _unlabelled(content))

    def _keep(self, path: Path, content: dict, answer: object) -> None:
        """What became of a submission, on disk. Raises OSError."""
        with self._files:
            if isinstance(answer, int):
                kept = json.dumps({**content, "revision": answer, "sha256": sha256_of(answer)}, allow_nan=False)
                write_atomically(self.folder / "acknowledged" / path.name, kept)
                self._rebase(content["key"], answer)
                path.unlink(missing_ok=True)  # last: one that is sent again is the same revision
            elif isinstance(answer, Refused) and not _concerns_all(answer) and path.exists():
                conflict = isinstance(answer, Conflict)
                why = _conflict_text(answer, int(_base(content))) if conflict else str(answer)
                kept = json.dumps({**content, "state": CONFLICT if conflict else REFUSED, "why": why}, allow_nan=False)
                write_atomically(self.folder / "refused" / path.name, kept)
                path.unlink()
            elif isinstance(answer, Busy) and path.exists():
                write_atomically(path, json.dumps({**content, "why": str(answer)}, allow_nan=False))

    def _answer(self, content: dict, client: Client, task: Task) -> object:
        """The new revision's number, or the exception that says why there is none."""
        try:
            points = parse_points(content["landmarks"], task)
        except ValueError as error:  # its landmarks are not the task's any more
            return Refused(str(error))
        words = (content["image"], points, task, _base(content), content["author"], content["key"])
        try:
            return client.save(*words, _repeats(content), content["pixels"])
        except WireError as error:  # an answer that is none: a page to log in, another program
            return Unreachable(str(error))
        except (Unreachable, Refused) as error:
            return error

    def acknowledged(self) -> list[Delivered]:
        """What has arrived, and no session has heard of: the program ended in between."""
        found = []
        for path in sorted((self.folder / "acknowledged").glob("*.json")):
            if (content := _content(path)) is not None and isinstance(content.get("revision"), int):
                edits = int(content.get("edits", 0))
                of = path.stem, str(content["image"]), _repeats(content), edits, _revision(content)
                found.append(Delivered(*of, _unlabelled(content)))
        return found

    def forget(self, key: str) -> None:
        """The session has heard that it arrived."""
        with self._files, suppress(OSError):  # of a file that another program has open: it is heard of once more
            (self.folder / "acknowledged" / f"{key}.json").unlink(missing_ok=True)

    def _rebase(self, key: str, revision: int) -> None:
        """What was submitted on top of one that has arrived starts from its revision, also where it was refused meanwhile."""
        for path in [*self.waiting(), *self._refused()]:
            content = _content(path)
            if content is not None and content.get("after") == key:
                base = {"base_revision": revision, "base_sha256": sha256_of(revision), "after": ""}
                write_atomically(path, json.dumps({**content, **base}, allow_nan=False))


def _concerns_all(answer: object) -> bool:
    """Whether no submission can arrive now, whichever case it is of: nobody answers, or the token is wrong."""
    if isinstance(answer, NotAllowed):
        return answer.status == 401
    return isinstance(answer, Unreachable) and not isinstance(answer, Busy)


def newest_for(entries: Sequence[Entry], image_id: str, repeat: bool) -> Entry | None:
    """The last submission of a case that has not arrived."""
    return next((e for e in reversed(entries) if e.image_id == image_id and e.repeat == repeat), None)


def _content(path: Path) -> dict | None:
    """What is in a submission's file; None for a damaged one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = {"author": "", "edits": 0, "after": "", "pixels": "", **content}
        kinds = {str: ("image", "key", "author", "after", "pixels"), list: ("landmarks",), int: ("base_revision", "edits")}
        if not all(type(content[name]) is kind for kind, names in kinds.items() for name in names):
            return None
        return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _base(content: dict) -> RevisionNumber:
    """The revision that a submission is made on top of."""
    return RevisionNumber.of(content["base_revision"], content.get("base_sha256"))


def _revision(content: dict) -> RevisionNumber:
    """The revision that it has become."""
    return RevisionNumber.of(content["revision"], content.get("sha256"))


def _is_of(content: dict, session: Session) -> bool:
    return content["image"] == session.image_id and _repeats(content) == session.repeat


def _conflict_text(theirs: Conflict, base: int) -> str:
    who, older = theirs.author or "somebody", "the study was restored from an older copy"
    if theirs.revision > base:
        return f"{who} saved revision {theirs.revision}"
    return f"{older}: revision {theirs.revision} is {who}'s now" if theirs.revision else f"{older}, without this case's points"


def _unlabelled(content: dict) -> int:
    return sum(isinstance(row, dict) and row.get("status") not in (PLACED, ACCEPTED, ABSENT) for row in content["landmarks"])


def _repeats(content: dict) -> bool:
    return content.get("repeat") is True


def _entry(path: Path, task: Task) -> Entry | None:
    content = _content(path)
    if content is None:
        return None
    rows = [row for row in content["landmarks"] if isinstance(row, dict) and row.get("name") in task.names]
    try:
        points, base = parse_points(rows, task), _base(content)
    except (ValueError, TypeError):
        return None
    spoken = [row for row in content["landmarks"] if isinstance(row, dict) and row.get("status") in (PLACED, ACCEPTED, ABSENT)]
    return Entry(
        path.stem,
        content["image"],
        str(content.get("state", WAITS)),
        str(content.get("why", "")),
        points,
        base,
        _repeats(content),
        content["edits"],
        content["pixels"],
        tuple(str(row.get("name")) for row in spoken if row.get("name") not in task.names),
    )
