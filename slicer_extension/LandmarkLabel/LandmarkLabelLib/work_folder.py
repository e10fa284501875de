"""Where this program keeps the work for one server: never two programs in one folder, and nothing forgotten in another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .local_programs import LocalServerError, hold
from .session_files import write_atomically

MOST_PROGRAMS = 9  # that are open for one server at once
LOCK, PLACE = "in_use.lock", "place.txt"
SENT = ("outbox", "outbox/refused", "outbox/acknowledged")  # folders of submissions
SESSIONS, OPEN = "sessions", "open.json"
_HELD: dict[Path, IO] = {}  # locks of this program, until it ends
Case = tuple[str, bool]  # the image, and whether it is a second reading


def own_folder(base: Path, place: str) -> tuple[Path, bool]:
    """A folder for this program and one server, and whether it is the first one for it.

    The first one takes over what others have left that have ended.
    """
    for number, folder in _folders(base, place):
        if folder not in _HELD:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                _HELD[folder] = hold(folder / LOCK, "taken")
            except LocalServerError:
                continue
        if number == 1:
            take_over(base, place)
            if _text(folder / PLACE) != place:
                write_atomically(folder / PLACE, place)
        return folder, number == 1
    return folder, False


def let_go(base: Path) -> None:
    """Hold no folder below ``base`` any more, as where it is removed."""
    for folder in [folder for folder in _HELD if base in folder.parents]:
        _HELD.pop(folder).close()


def folder_of(base: Path, url: str) -> Path:
    """Where the work for one server is kept: what was made for one never goes to another."""
    return base / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]


def waiting_elsewhere(base: Path, *places: str) -> dict[str, int]:
    """Other places than these, or the folders of their work where nobody has noted which, to how many cases wait for them."""
    own = {folder for place in places for _, folder in _folders(base, place)}
    found: dict[str, int] = {}
    for lock in sorted(base.glob(f"*/{LOCK}")):
        folder = lock.parent
        if folder not in own and (count := len(_waiting(folder))):
            name = _text(folder.with_name(folder.name.partition("-")[0]) / PLACE) or str(folder)
            found[name] = found.get(name, 0) + count
    return found


def _folders(base: Path, place: str) -> Iterator[tuple[int, Path]]:
    first = folder_of(base, place)
    for number in range(1, MOST_PROGRAMS + 1):
        yield number, first if number == 1 else first.with_name(f"{first.name}-{number}")


def take_over(base: Path, place: str, but: Case | None = None) -> int:
    """Bring submissions and sessions of programs that have ended to the first folder; how many cases had to stay.

    All of a case of which something waits there already stays until that has been sent: one would be taken for the other. So
    does the case ``but``, which is open.
    """
    first, left = folder_of(base, place), set()
    for number, folder in _folders(base, place):
        if number == 1 or not folder.is_dir():
            continue
        with suppress(LocalServerError, OSError), _held(folder):
            _bring(folder, first, but)
            left |= _waiting(folder)
    return len(left)


@dataclass
class Adopted:
    """What became of work that was kept for other places.

    Args:
        cases: that were brought.
        is_open: whether some stayed because their case is open here.
        is_in_use: whether some stayed because another program holds them.
    """

    cases: int = 0
    is_open: bool = False
    is_in_use: bool = False


def adopt(base: Path, places: Iterable[str], folder: Path, person: str = "", but: Case | None = None) -> Adopted:
    """Bring what was kept for other places to the folder of who works here now. Raises OSError.

    Args:
        base: of all folders.
        places: what they are for.
        folder: that this program holds.
        person: whose alone it may be: what anybody else has done, or nobody knows who, stays with all that lies beside it. Empty
            for whoever it was.
        but: a case that stays where it is: it is open.
    """
    found, became = [earlier for place in dict.fromkeys(places) for _, earlier in _folders(base, place)], Adopted()
    for earlier in found:
        if earlier == folder or not earlier.is_dir() or (person and set(authors_of(earlier)) - {person}):
            continue
        waits = _waiting(earlier)
        try:
            with _held(earlier):
                _adopt(earlier, folder, but)
        except LocalServerError:
            became.is_in_use = became.is_in_use or bool(waits)
        else:
            became.cases += len(waits - _waiting(earlier))
            became.is_open = became.is_open or but in waits
    return became


def _held(folder: Path) -> AbstractContextManager:
    """Holds a folder that this program does not hold anyway. Raises LocalServerError where another one does."""
    return nullcontext() if folder in _HELD else hold(folder / LOCK, "taken")


def _adopt(earlier: Path, folder: Path, but: Case | None) -> None:
    _bring(earlier, folder, but)
    opened = (SESSIONS, OPEN)
    for parts in (("session.json",), opened):
        old, new = earlier.joinpath(*parts), folder.joinpath(*parts)
        if old.is_file() and not new.exists():
            os.replace(old, new)
    for path in (earlier / "image").glob("*"):  # of a patient
        path.unlink(missing_ok=True)


def _bring(folder: Path, first: Path, but: Case | None = None) -> None:
    own = {*_waiting(first), but}
    for name in (*SENT, SESSIONS):
        (first / name).mkdir(parents=True, exist_ok=True)
        for path in sorted((folder / name).glob("*.session.json" if name == SESSIONS else "*.json")):
            if _case_of(_content(path)) not in own:
                os.replace(path, first / name / path.name)


def authors_of(folder: Path) -> list[str]:
    """Who has done what a server has not acknowledged; empty where that was not noted."""
    return sorted({str(c.get("author") or "") for c in _unacknowledged(folder)})


def _waiting(folder: Path) -> set[Case]:
    """Cases with something that a server has not acknowledged."""
    return {_case_of(content) for content in _unacknowledged(folder)}


def _unacknowledged(folder: Path) -> list[dict]:
    """Submissions, and sessions with changes, that no server has acknowledged."""
    found = [c for name in SENT[:2] for path in (folder / name).glob("*.json") if "image" in (c := _content(path))]
    for content in map(_content, (folder / SESSIONS).glob("*.session.json")):
        with suppress(TypeError):
            if content.get("edits", 0) > content.get("delivered", 0):
                found.append(content)
    return found


def _case_of(content: dict) -> Case:
    """Of a submission or a session: the image, and whether it is a second reading."""
    return str(content.get("image", content.get("image_id"))), content.get("repeat") is True


def _content(path: Path) -> dict:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
