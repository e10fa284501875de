"""Starts the processes that train together on one computer, and ends them all when one of them fails."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from landmarklabel.training.configuration import PROCESSES, RENDEZVOUS

STOPPED = 130  # exit status of one that was asked to stop
_SPEAKER = re.compile("landmarklabel: (train failed: )?", re.IGNORECASE)  # what a line on the console begins with
LOST = 75  # exit status of a process that could not go on because another had ended


def run_together(command: Sequence[str], count: int, sent: str | None = None, place: Path | None = None) -> tuple[int, str]:
    """Run the same command once for each device.

    Args:
        command: the program and its arguments; it finds the other processes by ``training.group.join``.
        count: how many processes.
        sent: to each on its standard input.
        place: an empty folder of this run's own, where the processes meet; by default a temporary one.

    Returns:
        The exit status of all, and what a person should be told beyond what the leading process has said.
    """
    with ExitStack() as stack:
        place = place or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="landmarklabel-")))
        group: list[psutil.Popen] = []
        stack.callback(_end, group)
        for number in range(count):
            group.append(_start(command, number, count, place, sent))
        leader = group[0]
        stack.enter_context(_handling(signal.SIGTERM, partial(_pass_on, leader)))
        stack.enter_context(_handling(signal.SIGINT, partial(_pass_on, leader)))
        failed = _first_failed(group)
        if failed is None:
            return 0, ""
        status = int(group[failed].returncode)
        spoke_itself = failed == 0 and status > 0 and status != LOST
        said = _last_line(place / f"{failed}.txt")
        return max(status, 1), "" if spoke_itself else f"process {failed} of {count} {_how(status, said)}"


@contextmanager
def _handling(number: signal.Signals, handler: Any) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _pass_on(leader: psutil.Popen, number: int, _: Any) -> None:
    """Tell the leading process, which decides; a terminal's Ctrl-C has told it already, and it takes both for one."""
    with suppress(psutil.Error, ValueError):  # it has ended; or this system cannot send that signal
        leader.send_signal(number)


def _end(group: Sequence[psutil.Popen]) -> None:
    _, alive = psutil.wait_procs(group, 0)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive)


def _start(command: Sequence[str], number: int, count: int, place: Path, sent: str | None) -> psutil.Popen:
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    environment = os.environ | {
        **{"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)},
        RENDEZVOUS: str(place / "meeting"),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # torch warns of what is meant to be so, and tells of a lost process in many lines
        **{"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback},  # nobody outside of this computer is let in
    }
    where: dict[str, Any] = {"env": environment} | ({} if sent is None else {"stdin": subprocess.PIPE})
    if number == 0:
        process = psutil.Popen(command, **where)
    else:
        with open(place / f"{number}.txt", "wb") as said:
            process = psutil.Popen(command, **{"stdin": subprocess.DEVNULL, **where}, stdout=subprocess.DEVNULL, stderr=said)
    if sent is not None:
        with suppress(OSError), process.stdin as pipe:  # it may have ended already
            pipe.write(sent.encode())
    return process


def _first_failed(group: Sequence[psutil.Popen]) -> int | None:
    """Wait for all, and no longer than a while after the leading one; the process to blame, or None where all went well."""
    alive = list(group)
    while alive and group[0].returncode is None and not any(p.returncode for p in group):
        _, alive = psutil.wait_procs(alive, PROCESSES.look_s)
    stopping = group[0] in alive and all(p.returncode in (None, 0, STOPPED) for p in group)
    psutil.wait_procs(alive, None if stopping else PROCESSES.grace_s)  # who was asked to stop may take its time to save
    failed = [n for n, p in enumerate(group) if p.returncode]
    return next((n for n in failed if group[n].returncode != LOST), failed[0] if failed else None)


def _how(status: int, said: str) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"was ended by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")
    return f"failed: {said}" if said else f"ended with status {status}"


def _last_line(file: Path) -> str:
    if not file.is_file():
        return ""
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return _SPEAKER.sub("", lines[-1]) if lines else ""
