"""Pixels in temporary files that the operating system reads from as they are needed: for more images than memory holds."""

from __future__ import annotations

import mmap
import os
import tempfile
import threading

import numpy as np

from landmarklabel.errors import NoRoom

_FILE_BYTES = 2**30  # of one file: a process may have some 1000 files open, and a study more images than that


class MappedPixels(np.ndarray):
    """An array whose values are in a file; it cannot be written to. What is computed from it is in memory, but of this class."""


class PixelFiles:
    """Files without a name: each is gone when no array reads it and another was begun, and all are when the process ends.

    Args:
        file_bytes: of a file, but for one with a larger array.
    """

    def __init__(self, file_bytes: int = _FILE_BYTES):
        self._file_bytes = file_bytes
        self._file: _File | None = None
        self._one_at_a_time = threading.Lock()

    def keep(self, values: np.ndarray) -> MappedPixels:
        """The same values, read from a file. Raises NoRoom."""
        values = np.ascontiguousarray(values)
        with self._one_at_a_time:
            try:
                if self._file is None or self._file.left < values.nbytes:
                    self._leave()  # before the next one takes room
                    self._file = _File(max(self._file_bytes, values.nbytes))
                kept: MappedPixels = self._file.append(values).view(MappedPixels)
            except OSError as error:
                self._leave()  # with what was written in part
                there = folder() or tempfile.gettempdir()
                text = f"memory has no room for all images, nor has {there} for temporary files of them ({error.strerror})"
                raise NoRoom(f"{text}: free space there, or name another folder with TMPDIR") from None
        return kept

    def _leave(self) -> None:
        """Begin another file with the next array; those that are there can be read on."""
        if self._file is not None:
            self._file.handle.close()
        self._file = None


class _File:
    """A file without a name, mapped into memory, that is filled from its beginning."""

    def __init__(self, size: int):
        self.handle = tempfile.TemporaryFile(buffering=0, dir=folder())  # noqa: SIM115 - open as long as arrays go into it
        self.handle.truncate(size)  # takes no room yet
        self._mapped, self._used = mmap.mmap(self.handle.fileno(), size, access=mmap.ACCESS_READ), 0

    @property
    def left(self) -> int:
        """Bytes that it has room for."""
        return len(self._mapped) - self._used

    def append(self, values: np.ndarray) -> np.ndarray:
        """The same values, read from here. Raises OSError."""
        start, left = self._used, values.reshape(-1).view(np.uint8).data
        self.handle.seek(start)
        while left:
            left = left[self.handle.write(left) :]
        self._used += -(-values.nbytes // 64) * 64  # so that numbers of any type begin where they may
        kept: np.ndarray = np.frombuffer(self._mapped, values.dtype, values.size, start)
        return kept.reshape(values.shape)


def folder() -> str | None:
    """Where the files are: in $TMPDIR, else in /var/tmp, since /tmp is often memory itself; None for where Python would."""
    return "/var/tmp" if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK) else None


PIXEL_FILES = PixelFiles()


def where_it_was(values: np.ndarray, source: np.ndarray) -> np.ndarray:
    """What was computed from an image's pixels: in a file where they are in one, as there was no room for them. Raises NoRoom."""
    return PIXEL_FILES.keep(values) if isinstance(source, MappedPixels) and values is not source else values
