"""Where this program keeps the work for one server: never two programs in one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import IO

from .left_work import collect, finish_move, read_text
from .local_programs import LocalServerError, hold
from .options import address_of
from .session_files import write_atomically

MOST_PROGRAMS = 9  # that are open for one server at once
LOCK, PLACE = "in_use.lock", "place.txt"
_HELD: dict[Path, IO] = {}  # locks of this program, until it ends


def own_folder(base: Path, place: str) -> tuple[Path, bool]:
    """A folder for this program and one server, and whether it is the first one for it.

    The first one collects what others have left that have ended.
    """
    for number, folder in enumerate(folders_of(base, place), 1):
        if folder not in _HELD:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                _HELD[folder] = hold(folder / LOCK, "taken")
            except LocalServerError:
                continue
        if number == 1:
            with suppress(OSError):
                finish_move(folder)
            collect(others_of(base, place), folder, held)
            if read_text(folder / PLACE) != place:
                write_atomically(folder / PLACE, place)
        return folder, number == 1
    return folder, False


def let_go(base: Path) -> None:
    """Hold no folder below ``base`` any more, as where it is removed."""
    for folder in [folder for folder in _HELD if base in folder.parents]:
        _HELD.pop(folder).close()


def held(folder: Path) -> AbstractContextManager:
    """Holds a folder that this program does not hold anyway. Raises LocalServerError where another one does."""
    return nullcontext() if folder in _HELD else hold(folder / LOCK, "taken")


def folder_of(base: Path, url: str) -> Path:
    """Where the work for one server is kept: what was made for one never goes to another."""
    return base / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]


def folders_of(base: Path, place: str) -> Iterator[Path]:
    """The folders of all programs that may be open for a place at once, the first one first; they need not exist."""
    first = folder_of(base, place)
    yield first
    for number in range(2, MOST_PROGRAMS + 1):
        yield first.with_name(f"{first.name}-{number}")


def others_of(base: Path, place: str) -> list[Path]:
    """The folders of other programs than the first one for a place, and those of earlier spellings of its address."""
    first = folder_of(base, place)
    spelled = [folder for folder, noted in _noted(base).items() if noted == place and _first(folder) != first]
    return [folder for folder in folders_of(base, place) if folder != first and folder.is_dir()] + spelled


def places(base: Path) -> dict[str, list[Path]]:
    """What the folders of work are for, or the folder itself where nobody has noted that, to its folders."""
    found: dict[str, list[Path]] = {}
    for folder, place in _noted(base).items():
        found.setdefault(place, []).append(folder)
    return found


def _noted(base: Path) -> dict[Path, str]:
    """Every folder of work, and what it is for, its address spelled as today."""
    found = {}
    for lock in sorted(base.glob(f"*/{LOCK}")):
        found[lock.parent] = _spelled(read_text(_first(lock.parent) / PLACE)) or str(lock.parent)
    return found


def _spelled(place: str) -> str:
    if "://" not in place:  # of a server on this computer
        return place
    address, separator, rest = place.partition(" as ") if " as " in place else place.partition(", study ")
    return address_of(address) + separator + rest


def _first(folder: Path) -> Path:
    return folder.with_name(folder.name.partition("-")[0])
