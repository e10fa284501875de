"""Locks on files: one holder among threads and processes, and nobody waits for ever."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from landmarklabel.errors import Busy
from landmarklabel.io.limits import LIMITS

_POLL_S = (0.001, 0.02)  # first and longest pause between two tries against other processes


class _Turn:
    """The threads of this process take turns here, so that one of them at most competes with other processes."""

    def __init__(self):
        self.lock, self.waiting, self.count = threading.Lock(), 0, threading.Lock()

    def take(self, seconds: float) -> bool:
        with self.count:
            if self.waiting >= LIMITS.waiting_threads:
                return False
            self.waiting += 1
        try:
            return self.lock.acquire(timeout=max(0.0, seconds))
        finally:
            with self.count:
                self.waiting -= 1


_turns: defaultdict[str, _Turn] = defaultdict(_Turn)
os.register_at_fork(after_in_child=_turns.clear)  # a forked child holds none of its parent's


@contextmanager
def locked(path: str | Path, seconds: float = LIMITS.lock_wait_s, what: str = "the study") -> Iterator[None]:
    """Hold the lock of a file; a process that is killed lets go.

    Args:
        path: of the lock file; made where it does not exist, its content does not matter.
        seconds: how long to wait for it.
        what: what it protects, for the message.

    Raises:
        Busy: not free within ``seconds``, or too many wait already. OSError: the file cannot be opened.
    """
    deadline = time.monotonic() + seconds
    turn = _turns[os.path.realpath(path)]
    if not turn.take(seconds):
        raise _busy(what)
    try:
        with open(path, "a", encoding="utf-8") as file:
            _flock(file, deadline, what)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # closing alone does not, where a child was forked meanwhile
    finally:
        turn.lock.release()


def _flock(file, deadline: float, what: str) -> None:
    pause, longest = _POLL_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise _busy(what) from None
        time.sleep(pause)
        pause = min(2 * pause, longest)


def _busy(what: str) -> Busy:
    return Busy(f"{what} is in use by another program or request; nothing was changed, try again in a moment")
