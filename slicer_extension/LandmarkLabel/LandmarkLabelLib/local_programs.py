"""The programs a server on this computer needs: started without Slicer's environment, and ended with all they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

END_S, CHILDREN_END_S, POLL_S = 10.0, 5.0, 0.1  # the server itself ends 7 s after it was asked, whatever it does
MOST_SAID = 400  # characters of what a program said
WINDOWS = os.name == "nt"
TEXT = {"encoding": "utf-8", "errors": "replace"}
_QUIET = {"creationflags": subprocess.CREATE_NO_WINDOW} if WINDOWS else {}

# What Slicer, or another Python, says to those it starts. PIP_*: would put packages elsewhere.
NOT_PASSED_ON = ("PYTHON", "QT_", "LD_", "DYLD_", "SLICER", "MONAI_LABEL_", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
NOT_PASSED_ON += ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON")

# Runs a module until it ends, or until whoever started it closes the pipe at the standard input, as the system does for one
# that crashed. The pipe is taken away from 0 because on Windows children that inherit one which is read from hang.
LAUNCHER = f"""
import os, runpy, signal, sys, threading
pipe, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
os.dup2(nothing, 0)
def watch():
    try:
        while os.read(pipe, 1):
            pass
    except OSError:
        pass
    late = threading.Timer({END_S}, os._exit, (1,))
    late.daemon = True
    late.start()
    signal.raise_signal(signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)
"""


class LocalServerError(Exception):
    """It cannot be done; the text is one line that says why, and what to do."""


class Programs:
    """Starts programs in one folder and one environment.

    Args:
        folder: where they run.
        startup_environment: see ``clean_environment``.
    """

    def __init__(self, folder: Path, startup_environment: Mapping[str, str]):
        self.folder, self.environment = folder, clean_environment(startup_environment)

    def ask(self, words: Sequence[object], seconds: float) -> subprocess.CompletedProcess:
        """Run a program that answers soon. Raises LocalServerError where it does not."""
        try:
            return subprocess.run(
                [*map(str, words)], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=seconds, **TEXT, **_QUIET,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LocalServerError(f"{words[0]} does not run: {one_line(str(error))}") from None

    def start(self, words: Sequence[object], **more) -> subprocess.Popen:
        """A process whose standard input is a pipe, and which leads a group of its own."""
        own = {} if WINDOWS else {"start_new_session": True}
        words = [*map(str, words)]
        try:
            return subprocess.Popen(
                words, env=self.environment, cwd=str(self.folder), stdin=subprocess.PIPE, **own, **_QUIET, **more
            )
        except OSError as error:
            raise LocalServerError(f"{words[0]} does not run: {error.strerror or error}") from None


def clean_environment(startup: Mapping[str, str]) -> dict[str, str]:
    """An environment without what leads into another Python, into Slicer's libraries, or to another place for packages."""
    kept = {name: value for name, value in startup.items() if not name.upper().startswith(NOT_PASSED_ON)}
    return {**kept, "PATH": kept.get("PATH") or os.defpath, "PIP_USER": "0"}


def python_of(place: Path) -> Path:
    """The interpreter of an environment."""
    return place / ("Scripts/python.exe" if WINDOWS else "bin/python")


def running_module(python: str | Path, module: str, *words: object) -> list[object]:
    """The command for a module that ends with this process, and whose Python looks nowhere but into itself."""
    return [python, "-I", "-X", "utf8", "-c", LAUNCHER, module, *words]


def end(process: subprocess.Popen) -> None:
    """Let a process end itself, as when Slicer is gone, and end what still runs after some seconds."""
    ended = process.poll() is not None
    with suppress(OSError):
        process.stdin.close()
    if ended:
        return  # its number may be another's by now
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        kill(process)
    if WINDOWS:
        return  # a training looks for its server, and ends
    deadline = time.monotonic() + CHILDREN_END_S
    with suppress(ProcessLookupError, PermissionError):  # none is left
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(POLL_S)
        os.killpg(process.pid, signal.SIGKILL)


def kill(process: subprocess.Popen) -> None:
    """End a process and what it has started, at once."""
    if process.poll() is not None:
        return
    with suppress(OSError, subprocess.SubprocessError):
        if WINDOWS:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **_QUIET}
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], timeout=END_S, **quiet)
        else:
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(OSError):
        process.kill()
    process.wait()


def hold(path: Path, taken: str, shared: bool = False) -> IO:
    """Keep a file from other programs until it is closed, also by a crash. Raises LocalServerError with ``taken``, OSError."""
    try:
        if fcntl is None and not shared:
            with suppress(FileNotFoundError):
                path.unlink()  # Windows refuses it while somebody has it open
        file = path.open("a")
    except PermissionError:
        if fcntl is None:
            raise LocalServerError(taken) from None
        raise
    try:
        if fcntl is not None:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise LocalServerError(taken) from None
    except OSError:
        pass  # a file system without locks
    return file


@contextmanager
def alone(path: Path, taken: str) -> Iterator[None]:
    """Hold a file for a while; raises as ``hold``."""
    with hold(path, taken):
        yield


def last(lines: Sequence[str]) -> str:
    """What was said last."""
    return next((one_line(line) for line in reversed(lines) if line.strip()), "it said nothing")


def one_line(text: str) -> str:
    """A text for people, on one line and not too long."""
    text = " ".join(text.split())
    return text if len(text) <= MOST_SAID else text[: MOST_SAID - 1] + "…"
