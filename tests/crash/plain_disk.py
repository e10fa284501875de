"""Stands between a program and its plain files: writes down what is done to them, and is full at the moment a test chooses.

SQLite reads and writes below Python and does not pass here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from landmarklabel.io import atomic_exchange


@dataclass(frozen=True)
class Step:
    """One thing done to one file or folder: create, write, fsync, replace, swap, chmod, mkdir, unlink.

    Args:
        what: its name.
        path: of the file or folder; for replace the old name, for swap the one that comes in.
        target: the new name for replace and swap.
        content: of the file after the step, None for folders.
    """

    what: str
    path: str
    target: str = ""
    content: bytes | None = None


class PlainDisk:
    """Everything that is done through ``os`` from now on, until monkeypatch's context ends.

    Args:
        patch: pytest's monkeypatch.
        before: called before every step.
        full_at: the number of the step that needs space, counting from 1, and finds none; a write then writes half.
    """

    def __init__(self, patch, before: Callable[[], None] = lambda: None, full_at: int | None = None):
        self.steps: list[Step] = []
        self._before = before
        self.full_at, self.was_full = full_at, False
        self._open, self._fdopen, self._fsync = os.open, os.fdopen, os.fsync
        for name in ("open", "fdopen", "fsync", "sendfile"):
            patch.setattr(os, name, getattr(self, f"_do_{name}"))
        self._swapped = atomic_exchange._swapped
        patch.setattr(atomic_exchange, "_swapped", self._do_swap)
        for name in ("replace", "chmod", "mkdir", "unlink"):
            patch.setattr(os, name, self._plain(name, getattr(os, name)))

    def _step(self, what: str, path: str, target: str = "") -> None:
        self._before()
        number = 1 + sum(step.what != "unlink" for step in self.steps)  # removing needs no space
        if what != "unlink" and number == self.full_at and not self.was_full:
            self.was_full = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self.steps.append(Step(what, path, target))

    def _done(self, name: str) -> None:
        """The last step left this in the file."""
        step = self.steps[-1]
        content = Path(name).read_bytes() if os.path.isfile(name) else None
        self.steps[-1] = Step(step.what, step.path, step.target, content)

    def _plain(self, what, do):
        def step(path, *rest, **more):
            if what == "mkdir" and os.path.isdir(path):
                return do(path, *rest, **more)
            target = str(rest[0]) if what == "replace" else ""
            self._step(what, str(path), target)
            do(path, *rest, **more)
            return self._done(target or str(path))

        return step

    def _do_open(self, path, flags, *rest, **more):
        creates = flags & os.O_CREAT and not os.path.lexists(path)  # what is there needs no space to be opened
        if creates:
            self._step("create", str(path))
        handle = self._open(path, flags, *rest, **more)
        if creates:
            self._done(str(path))
        return handle

    def _do_swap(self, new, path):
        self._step("swap", new, path)
        there = self._swapped(new, path)
        self._done(path)
        return there

    def _do_fdopen(self, handle, *rest, **more):
        file = self._fdopen(handle, *rest, **more)
        return _File(self, file, _name(handle)) if file.writable() else file

    def _do_fsync(self, handle):
        self._step("fsync", _name(handle))
        self._fsync(handle)
        self._done(_name(handle))

    def _do_sendfile(self, out, into, offset, count):
        data = os.pread(into, count, offset)
        return self.write(_name(out), data, lambda part: os.write(out, part)) if data else 0

    def write(self, name: str, data: bytes, write) -> int:
        """Half of it where the disk is full."""
        try:
            self._step("write", name)
        except OSError:
            write(data[: len(data) // 2])
            raise
        written = write(data)
        self._done(name)
        return written


class _File:
    def __init__(self, disk: PlainDisk, file, name: str):
        self._disk, self._file, self._name = disk, file, name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        return self._disk.write(self._name, data, self._now)

    def _now(self, data):
        written = self._file.write(data)
        self._file.flush()
        return written


def _name(handle: int) -> str:
    return os.readlink(f"/proc/self/fd/{handle}")
