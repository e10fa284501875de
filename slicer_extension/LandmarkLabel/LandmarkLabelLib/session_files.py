"""The sessions of all cases on disk, one file each, kept until the server has acknowledged what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .session import Session
from .wire import Task

DAMAGED = ".damaged"  # suffix of a file that could not be read


class Sessions:
    """The sessions of one server's cases.

    Args:
        folder: of their files; made when something is kept.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def keep(self, session: Session, is_open: bool = True) -> None:
        """Write its state, and that its case is open; a crash leaves the old files or the new ones."""
        write_atomically(self._file(session.image_id, session.repeat), json.dumps(session.content()))
        if not is_open:
            return
        opened = json.dumps({"image_id": session.image_id, "repeat": session.repeat})
        if _text_of(self._open) != opened:
            write_atomically(self._open, opened)

    def load(self, image_id: str, task: Task, repeat: bool = False) -> Session | None:
        """The state that was kept; None where there is none. A damaged file is set aside, of one of another task a copy is."""
        file = self._file(image_id, repeat)
        if (text := _text_of(file)) is None:
            self._set_aside(file)
            return None
        try:
            content = json.loads(text)
            session = Session.of(content, task)
            if content["task"] != list(task.names):
                self._copy(file, text)
            return session if session.image_id == image_id else None
        except (ValueError, KeyError, TypeError):
            self._set_aside(file)
            return None

    def last(self, task: Task) -> Session | None:
        """The session of the case that was open when the program ended."""
        try:
            opened = json.loads(_text_of(self._open) or "{}")
            return self.load(str(opened["image_id"]), task, opened.get("repeat") is True)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def drop(self, session: Session) -> None:
        """Nothing of it is needed any more: the server has it, or the person does not want it."""
        try:
            self._file(session.image_id, session.repeat).unlink(missing_ok=True)
        except OSError:  # another program has it open: then it says that nothing of it has to be sent
            with suppress(OSError):
                self.keep(replace(session, delivered=session.edits), False)

    def unsent(self, task: Task) -> list[Session]:
        """All with something that the server has not acknowledged."""
        found = []
        for file in sorted(self.folder.glob("*.session.json")):
            try:
                session = Session.of(json.loads(_text_of(file) or ""), task)
            except (ValueError, KeyError, TypeError):
                self._set_aside(file)
                continue
            if session.unsent:
                found.append(session)
        return found

    def damaged(self) -> list[Path]:
        """Files that could not be read, as they were; they stay until a person has removed them."""
        return sorted(self.folder.glob(f"*{DAMAGED}"))

    @property
    def _open(self) -> Path:
        return self.folder / "open.json"

    def _file(self, image_id: str, repeat: bool) -> Path:
        """The id is a server's word, and no part of a file's name."""
        name = hashlib.sha256(f"{image_id}\0{repeat}".encode()).hexdigest()[:24]
        return self.folder / f"{name}.session.json"

    def _set_aside(self, file: Path) -> None:
        """What cannot be read stays under another name, and the case is begun anew."""
        with suppress(OSError):
            os.replace(file, file.with_name(f"{file.stem}-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}{DAMAGED}"))

    def _copy(self, file: Path, text: str) -> None:
        copy = file.with_name(f"{file.stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.kept")
        if not copy.exists():
            write_atomically(copy, text)


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def write_atomically(path: Path, text: str) -> None:
    """Through a temporary file and a rename, synced to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
