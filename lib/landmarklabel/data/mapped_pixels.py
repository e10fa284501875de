"""Pixels in temporary files that the operating system reads from as they are needed: for more images than memory holds."""

from __future__ import annotations

import mmap
import os
import tempfile
import threading

import numpy as np

_FILE_BYTES = 2**30  # of one file: a process may have some 1000 files open, and a study more images than that


class MappedPixels(np.ndarray):
    """An array whose values are in a file. Nothing but its class differs from another array; it cannot be written to."""


class PixelFiles:
    """Files without a name, which are gone when no array reads them any more, also after a process was killed.

    Args:
        file_bytes: of a file, but for one with a larger array.
    """

    def __init__(self, file_bytes: int = _FILE_BYTES):
        self._file_bytes = file_bytes
        self._file, self._mapped, self._used = None, None, 0
        self._one_at_a_time = threading.Lock()

    def keep(self, values: np.ndarray) -> MappedPixels:
        """The same values, read from a file. Raises OSError, as when the disk is full."""
        values = np.ascontiguousarray(values)
        with self._one_at_a_time:
            if self._file is None or self._mapped is None or self._used + values.nbytes > len(self._mapped):
                self._new_file(max(self._file_bytes, values.nbytes))
            start = self._used
            self._file.seek(start)
            self._file.write(values.reshape(-1).view(np.uint8).data)
            self._file.flush()
            self._used += -(-values.nbytes // 64) * 64  # so that numbers of any type begin where they may
            kept = np.frombuffer(self._mapped, values.dtype, values.size, start).reshape(values.shape)
        return kept.view(MappedPixels)

    def _new_file(self, size: int) -> None:
        self.close()
        self._file = tempfile.TemporaryFile(dir=folder())  # noqa: SIM115 - open as long as arrays go into it
        self._file.truncate(size)  # takes no room yet
        self._mapped, self._used = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ), 0

    def close(self) -> None:
        """Begin another file with the next array; those that are there can be read on."""
        if self._file is not None:
            self._file.close()
        self._file, self._mapped, self._used = None, None, 0


def folder() -> str | None:
    """Where the files are: in $TMPDIR, else in /var/tmp, since /tmp is often memory itself; None for where Python would."""
    return "/var/tmp" if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK) else None


PIXEL_FILES = PixelFiles()
