"""Locks on files: one holder among threads and processes, and nobody waits for ever."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock, Timeout

from landmarklabel.errors import Busy, StudyError
from landmarklabel.io.files import write_json
from landmarklabel.io.limits import LIMITS
from landmarklabel.portability import in_forked_child

T = TypeVar("T")


# What an OSError has where a file system keeps no locks: a Lustre that was mounted without flock, an NFS without its lock daemon.
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
NOT_LOCKED = "its file system keeps no locks: nothing but you keeps another process from writing there at the same time"


def file_lock(path: str | Path, mode: int | None = None) -> FileLock:
    """The lock of a file, for whoever takes it himself; where there are none, taking it raises an OSError of ``NO_LOCKS``.

    filelock would use a file that is there or not in their place, which a killed process leaves behind for ever.
    """
    if mode is None:
        return FileLock(path, thread_local=False, fallback_to_soft=False)
    return FileLock(path, mode=mode, thread_local=False, fallback_to_soft=False)


def take(lock: FileLock, seconds: float = 0.0) -> bool:
    """Take a lock within seconds, or return False where the file system keeps none. Raises Timeout if another has it, OSError."""
    try:
        lock.acquire(timeout=seconds)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


class _Turn:
    """The threads of this process take turns here, so that one of them at most competes with other processes."""

    def __init__(self) -> None:
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
in_forked_child(_turns.clear)  # a forked child holds none of its parent's


@contextmanager
def locked(path: str | Path, seconds: float | None = None, what: str = "the study") -> Iterator[None]:
    """Hold the lock of a file; it is released when the process is killed.

    Args:
        path: of the lock file; made where it does not exist, its content does not matter.
        seconds: how long to wait for it; ``LIMITS.lock_wait_s`` when None.
        what: what it protects, for the message.

    Raises:
        Busy: not free within ``seconds``, or too many wait already. StudyError: the file system keeps no locks. OSError: the file
            cannot be opened.
    """
    seconds = LIMITS.lock_wait_s if seconds is None else seconds
    deadline = time.monotonic() + seconds
    turn = _turns[os.path.realpath(path)]
    if not turn.take(seconds):
        raise _busy(what)
    try:
        lock = file_lock(path)  # its own object: who takes it has waited for its turn
        try:
            lock.acquire(timeout=max(0.0, deadline - time.monotonic()), poll_interval=0.005)
        except Timeout:
            raise _busy(what) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            where = Path(path).parent
            raise StudyError(
                f"{where}: {what} needs a file system that keeps locks (flock), and this has none: move it"
            ) from None
        try:
            yield
        finally:
            lock.release()
    finally:
        turn.lock.release()


class LockedJson(Generic[T]):
    """A small JSON file that threads and processes change one after the other.

    Args:
        path: of the file; the lock lies beside it. Made when needed.
        parse: from what JSON holds to the content. Where it raises ValueError, TypeError, KeyError, AttributeError or
            OverflowError, or there is no file, the content is ``empty``.
        empty: makes an empty content.
        what: it is, for messages.
        faults: a context that turns OSErrors of the file into the caller's own errors.
        durable: whether an edit has ended only when it would outlive a power failure (``files.atomic_write``).
    """

    def __init__(
        self,
        path: str | Path,
        parse: Callable[[object], T],
        empty: Callable[[], T],
        what: str,
        faults: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        durable: bool = True,
    ):
        self.path, self.parse, self.empty, self.what, self.faults = Path(path), parse, empty, what, faults
        self.durable = durable

    @contextmanager
    def edit(self) -> Iterator[T]:
        """The content, to be changed in place; written on the way out where it has changed. Raises Busy."""
        with ExitStack() as held:
            with self.faults():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(self.path.with_suffix(".lock"), what=self.what))
            content = self._read()
            before = json.dumps(content, sort_keys=True)
            yield content
            if json.dumps(content, sort_keys=True) != before:
                with self.faults():
                    write_json(self.path, content, durable=self.durable)

    def _read(self) -> T:
        try:
            return self.parse(json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return self.empty()


def _busy(what: str) -> Busy:
    return Busy(f"{what} is in use by another program or request; nothing was changed, try again in a moment")
