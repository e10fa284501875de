"""Put a file in another's place without ever losing what lay there: compare-and-swap for files that people edit."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)  # kernels and file systems without it


class _Flag(IntEnum):
    """Of Linux' renameat2: paths relative to the working folder, and how to rename."""

    HERE = -100
    NO_REPLACE = 1
    EXCHANGE = 2


def swap_in(new: str | Path, path: str | Path) -> bool:
    """Put ``new`` at ``path``; what lay there at that very moment lies at ``new`` afterwards.

    Both must be in the same file system. Readers of ``path`` see the old or the new file. Where the system has no exchange of
    names, there may be none for a moment, and what lay there stays beside ``new`` (an ``a`` before its name) if somebody saved
    another file in that moment.

    Returns:
        Whether anything lay there; if not, there is no file ``new`` afterwards.

    Raises:
        OSError: neither name was changed.
    """
    while True:
        try:
            return _swapped(os.fspath(new), os.fspath(path))
        except FileExistsError:  # somebody made or removed the file between two looks
            continue


def _swapped(new: str, path: str) -> bool:
    if os.path.lexists(path):
        with suppress(FileNotFoundError):
            if not _rename(new, path, _Flag.EXCHANGE):
                _exchange_in_steps(new, path)
            return True
    if not os.path.lexists(new):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), new)
    if not _rename(new, path, _Flag.NO_REPLACE):
        os.link(new, path)
        os.unlink(new)
    return False


def _exchange_in_steps(new: str, path: str) -> None:
    folder, name = os.path.split(new)
    aside = os.path.join(folder, f"a{name}")
    os.rename(path, aside)
    try:
        os.link(new, path)  # fails where somebody has saved just now; a rename would replace that
    except FileExistsError:
        raise
    except OSError:  # a disk without links
        os.replace(new, path)
    os.replace(aside, new)


def _rename(old: str, new: str, flag: int) -> bool:
    """Rename with a flag; False where that is not to be had. Raises OSError."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(_Flag.HERE, os.fsencode(old), _Flag.HERE, os.fsencode(new), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_HERE:
        return False
    raise OSError(code, os.strerror(code), new)
