"""Work in the folders of other programs and people: what waits there, and how a case of it comes to this one's folder.

All of a case comes, or nothing of it: what is being moved is noted first, and goes on where a program was killed meanwhile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from .local_programs import LocalServerError
from .session_files import write_atomically

SENT = ("outbox", "outbox/refused", "outbox/acknowledged")  # folders of submissions
SESSIONS, OPEN, MOVING = "sessions", "open.json", "moving.json"
Case = tuple[str, bool]  # the image, and whether it is a second reading
Hold = Callable[[Path], AbstractContextManager]


@dataclass
class Brought:
    """What became of cases in other folders.

    Args:
        cases: how many were brought.
        left: how many stayed because this folder has something of the same case that is not sent, or it is open.
        is_open: whether the open case is one of those.
        is_in_use: whether some stayed because another program holds them.
    """

    cases: int = 0
    left: int = 0
    is_open: bool = False
    is_in_use: bool = False


def cases_in(folders: Iterable[Path]) -> dict[Case, set[str]]:
    """Cases of which something waits for a server, and who has done it: an empty name where that was not noted."""
    found: dict[Case, set[str]] = {}
    for folder in folders:
        for content in _unacknowledged(folder):
            found.setdefault(_case_of(content), set()).add(str(content.get("author") or ""))
    return found


def collect(
    folders: Iterable[Path],
    into: Path,
    hold: Hold,
    is_wanted: Callable[[set[str]], bool] = lambda _: True,
    but: Case | None = None,
) -> Brought:
    """Bring cases from other folders.

    A case of which something waits in ``into`` already stays until that is sent: one would be taken for the other.

    Args:
        folders: of programs that have ended, or of other people.
        into: this program's folder.
        hold: keeps other programs out of a folder; raises LocalServerError where one is in it.
        is_wanted: whether a case is, by the names of who has worked on it.
        but: a case that stays: it is open.
    """
    became = Brought()
    for folder in folders:
        waits = cases_in([folder])
        wanted = {case for case, authors in waits.items() if is_wanted(authors)}
        try:
            with hold(folder):
                own = {*cases_in([into]), but}
                _move(
                    folder, into, [case for case in _all_cases(folder) if case not in own and is_wanted(waits.get(case, set()))]
                )
                if wanted == set(waits):
                    _bring_open(folder, into)
        except LocalServerError:
            became.is_in_use = became.is_in_use or bool(wanted)
        except OSError:  # of a file that another program has open: it is tried again
            became.left += len(wanted)
        else:
            became.cases += len(wanted - own)
            became.left += len(wanted & own)
            became.is_open = became.is_open or but in wanted
    return became


def finish_move(into: Path) -> None:
    """Go on with what was being moved when a program was killed. Raises OSError."""
    begun = _content(into / MOVING)
    with suppress(KeyError, TypeError, ValueError):
        folder = into.with_name(Path(str(begun["from"])).name)
        cases = {(str(image), bool(repeat)) for image, repeat in begun["cases"]}
        for name in (*SENT, SESSIONS):
            (into / name).mkdir(parents=True, exist_ok=True)
            for path in _files(folder / name):
                if _case_of(_content(path)) in cases:
                    os.replace(path, into / name / path.name)
    (into / MOVING).unlink(missing_ok=True)


def _move(folder: Path, into: Path, cases: Collection[Case]) -> None:
    finish_move(into)
    if cases:
        write_atomically(into / MOVING, json.dumps({"from": folder.name, "cases": sorted(cases)}))
        finish_move(into)


def _bring_open(folder: Path, into: Path) -> None:
    """Which case was open there, and the one case that the first versions kept."""
    for parts in (("session.json",), (SESSIONS, OPEN)):
        old, new = folder.joinpath(*parts), into.joinpath(*parts)
        if old.is_file() and not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            os.replace(old, new)
    for path in (folder / "image").glob("*"):  # of a patient
        path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.session.json" if folder.name == SESSIONS else "*.json"))


def _all_cases(folder: Path) -> set[Case]:
    return {_case_of(_content(path)) for name in (*SENT, SESSIONS) for path in _files(folder / name)}


def _unacknowledged(folder: Path) -> list[dict]:
    """Submissions, and sessions with changes, that no server has acknowledged."""
    found = [content for name in SENT[:2] for path in _files(folder / name) if "image" in (content := _content(path))]
    for content in map(_content, _files(folder / SESSIONS)):
        with suppress(TypeError):
            if content.get("edits", 0) > content.get("delivered", 0):
                found.append(content)
    return found


def _case_of(content: dict) -> Case:
    """Of a submission or a session."""
    return str(content.get("image", content.get("image_id"))), content.get("repeat") is True


def _content(path: Path) -> dict:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_text(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
