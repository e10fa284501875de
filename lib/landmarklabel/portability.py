"""What Linux, macOS and Windows do differently; everything else is written once.

Decision: only here is a system asked for by name, and only here are functions used that one of them lacks. psutil is imported
where it is used: training needs none of it.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WINDOWS = sys.platform == "win32"
# What an OSError has where there is no room, or no more for this user, and what helps.
DISK_FULL = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space, or have your quota raised",
    errno.EFBIG: "write where larger files are allowed (file system, ulimit -f)",
}


def sync_file(handle: int) -> None:
    """Return when what was written to an open file is on disk. Raises OSError."""
    if sys.platform == "darwin":  # there fsync leaves data in the drive's own memory
        import fcntl

        with suppress(OSError):  # a file system without it
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def sync_to_disk(path: str | Path) -> None:
    """Return when a file, or the names in a folder, are on disk; Windows writes the names of a folder by itself."""
    if WINDOWS and os.path.isdir(path):
        return
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        sync_file(handle)
    finally:
        os.close(handle)


def available_cores() -> int:
    """Cores that this process may run on."""
    if sys.platform == "linux":
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def give_way(niceness: int) -> None:
    """Let other processes come first, where the system allows it."""
    import psutil

    with suppress(psutil.Error, OSError):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else niceness)


def thread_gives_way(niceness: int) -> None:
    """Let the other threads of this process come first; only Linux can do that."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def end_with_children(pid: int, seconds: float) -> None:
    """Ask a process and all that it has started to end, and end what still runs after so many seconds."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        for one in family:
            with suppress(psutil.Error):
                one.terminate()
        _, alive = psutil.wait_procs(family, seconds)
        for one in alive:
            with suppress(psutil.Error):
                one.kill()


def limit_process(most_bytes: int, most_seconds: float) -> None:
    """End this process by itself where it takes more memory or computes for longer; Windows has no such limits."""
    if sys.platform == "win32":
        return
    import resource

    for what, most in ((resource.RLIMIT_AS, most_bytes), (resource.RLIMIT_CPU, int(most_seconds) + 1)):
        with suppress(ValueError, OSError):  # macOS knows no limit of addresses
            _, hard = resource.getrlimit(what)
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def in_forked_child(call: Callable[[], object]) -> None:
    """Have this called in every child that is forked from now on; Windows forks none."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def identity_of(pid: int) -> list[str]:
    """What tells a running process from every other one, before and after it: its number alone is given again. [] for none.

    On Linux it does not change with the clock, which may be set while the process runs.
    """
    import psutil

    try:
        if sys.platform == "linux":
            since_boot = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
            return [str(pid), since_boot, _boot()]
        return [str(pid), repr(psutil.Process(pid).create_time())]
    except (psutil.Error, OSError, IndexError):
        return []


def _boot() -> str:
    """What tells a start of this Linux from every other; empty where it may not be read."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


class Parent:
    """The process that started this one; ``is_gone`` once it has ended, even before this was made.

    Args:
        pid: of it, where another than the direct parent is meant.
    """

    def __init__(self, pid: int = 0):
        self._direct = os.getppid()
        self._pid = pid if pid not in (0, os.getpid()) else self._direct
        self._identity = identity_of(self._pid)

    def is_gone(self) -> bool:
        """Whether it has ended; on Linux and macOS its children get another parent, on Windows its number stays."""
        now = identity_of(self._pid)
        return os.getppid() != self._direct or not now or now != self._identity
