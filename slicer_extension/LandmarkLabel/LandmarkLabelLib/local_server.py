"""A server on this computer: an environment of its own, and one process that ends with Slicer. No Qt and no MRML.

What may take long is for the worker: ``install``, ``start`` and ``stop``.
"""

from __future__ import annotations

import getpass
import hashlib
import http.client
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from .local_environment import LocalEnvironment
from .local_programs import POLL_S, LocalServerError, Programs, end, hold, last, one_line, running_module

START_S, ANSWER_S, TOKEN_S = 180.0, 3.0, 120.0  # that each may take at most
MOST_LOG_BYTES = 5 * 2**20
STOPPED = "the server was stopped while it started"
NO_TOKEN_LEFT = "this study asks for tokens"  # how a server says that nobody could use it


class Running(NamedTuple):
    """Where the server answers, and to which token."""

    url: str
    token: str


class LocalServer:
    """One environment with the program, and one server from it.

    Args:
        folder: of the user; holds ``env`` and ``log.txt``. Several Slicers may share it.
        startup_environment: as it was before Slicer changed it; what would lead into another Python is left out all the same.
        say: gets one line for every step of an installation, in the thread that installs.
        slicer_python: Slicer's own interpreter. An environment is made with it where there is no other Python.
    """

    def __init__(
        self,
        folder: str | Path,
        startup_environment: Mapping[str, str],
        say: Callable[[str], None] = lambda line: None,
        slicer_python: str = "",
    ):
        self.folder = Path(folder).absolute()
        self.log = self.folder / "log.txt"
        self._programs = Programs(self.folder, startup_environment)
        self._environment = LocalEnvironment(self._programs, self.log, say, slicer_python)
        self._lock = threading.RLock()
        self._server: subprocess.Popen | None = None
        self._serves: tuple[Path, Running] | None = None
        self._held: list[IO] = []  # locks, as long as the server runs

    @property
    def installed(self) -> str:
        """The version that is installed; empty for none."""
        return self._environment.version

    @property
    def is_running(self) -> bool:
        """Whether the server's process runs, also while it starts."""
        server = self._server
        return server is not None and server.poll() is None

    @property
    def running(self) -> Running | None:
        """Where the server answers; None where there is none."""
        return self._serves[1] if self._serves is not None and self.is_running else None

    def find_python(self) -> str:
        """A Python that can make the environment. Raises LocalServerError."""
        return self._environment.find_python()

    def install(self, source: str | Path) -> None:
        """Make a new environment from what a person names, and use it from now on.

        Args:
            source: a wheel of the program, a folder with it and all that it needs, or a copy of the repository.

        Raises:
            LocalServerError: it is none of these, a step failed, or ``cancel`` was called; what was installed before stays.
        """
        if self.is_running:
            raise LocalServerError("the server runs: stop it, and install then")
        self._environment.install(source)

    def cancel(self) -> None:
        """End an installation that runs, from any thread: ``install`` raises, and leaves nothing."""
        self._environment.cancel()

    def start(self, study: str | Path, task: str | None = None, port: int = 0) -> Running:
        """Serve a study on this computer, and return when it answers; the one that runs where it is this study's already.

        Decision: the token is made after the server has answered, so that a study which is refused stays as it was. Before,
        a study that never had tokens is open to programs of this computer, as with ``landmarklabel serve``; from then on it
        asks everybody for one.

        Args:
            study: its folder; made where there is none.
            task: file or name of a task; may be left out where the study knows it.
            port: 0 for a free one.

        Raises:
            LocalServerError: with what the server itself said last, where it ended.
        """
        if not str(study).strip():
            raise LocalServerError("name the folder of the study")
        if task and Path(task).expanduser().is_file():
            task = str(Path(task).expanduser().absolute())
        try:
            return self._start(Path(study).expanduser().resolve(), task, port)
        except OSError as error:
            self.stop()
            raise LocalServerError(f"{error.filename or self.folder}: {error.strerror or error}") from None

    def _start(self, study: Path, task: str | None, port: int) -> Running:
        with self._lock:
            if self.is_running:
                if self._serves is not None and self._serves[0] == study:
                    return self._serves[1]
                raise LocalServerError("a server runs already: stop it, and start this one then")
            python = self._environment.python
            if python is None:
                raise LocalServerError("no server is installed on this computer yet: install it first")
            self._hold(python, study)
            port = port or free_port()
        url, token = f"http://127.0.0.1:{port}", ""
        words = ["serve", f"--studies={study}", *([f"--task={task}"] if task else []), "--host=127.0.0.1", f"--port={port}"]
        try:
            try:
                self._serve(running_module(python, "landmarklabel", *words), port)
            except LocalServerError as error:
                if NO_TOKEN_LEFT not in str(error) or self._server is None:
                    raise
                end(self._server)
                token = self._new_token(python, study)  # whoever may write there may let himself in
                self._serve(running_module(python, "landmarklabel", *words), port)
            running = Running(url, token or self._new_token(python, study))
            if not self.is_running:
                raise LocalServerError(STOPPED)
        except BaseException:
            self.stop()
            raise
        self._serves = study, running
        return running

    def stop(self) -> None:
        """End the server and what it has started: gently first. Nothing happens where none runs."""
        server, self._server, self._serves = self._server, None, None
        if server is not None:
            end(server)
        self._let_go()

    def _hold(self, python: Path, study: Path) -> None:
        """Keep other Slicers from removing the environment, and from serving the same study."""
        number = hashlib.sha256(os.path.normcase(str(study)).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        self._let_go()  # what a server held that ended by itself
        taken = f"{study} is served already by another Slicer: use it there, or stop it there"
        self._held.append(hold(self.folder / f"served-{number}", taken))
        self._held.append(hold(python.parents[1] / "in_use", "the server is being installed anew: try again then", shared=True))

    def _let_go(self) -> None:
        with self._lock:
            while self._held:
                self._held.pop().close()

    def _serve(self, words: Sequence[object], port: int) -> None:
        """Start the server, and return when it answers. Raises LocalServerError."""
        long = self.log.is_file() and self.log.stat().st_size > MOST_LOG_BYTES
        with self.log.open("wb" if long else "ab") as log:
            begin = log.seek(0, os.SEEK_END)
            server = self._server = self._programs.start(words, stdout=log, stderr=log)
        deadline, why = time.monotonic() + START_S, "it does not answer"
        while time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                server.wait(POLL_S)
                if self._server is not server:
                    raise LocalServerError(STOPPED)
                raise LocalServerError(f"the server did not start: {self._said_since(begin)}")
            status, why = _health(port)
            if status == 200:
                return
        raise LocalServerError(f"the server did not start within {START_S:.0f} s: {why}; {self.log} has what it said")

    def _said_since(self, begin: int) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            lines = log.read().decode("utf-8", "replace").splitlines()
        return re.sub(r"^landmarklabel: ", "", last(lines))

    def _new_token(self, python: Path, study: Path) -> str:
        """A token for this Slicer; an earlier one ends."""
        words = ["token", "new", f"--name={token_name()}", "--role=admin", str(study)]
        done = self._programs.ask([python, "-I", "-X", "utf8", "-m", "landmarklabel", *words], TOKEN_S)
        if done.returncode or not done.stdout.strip():
            said = re.sub(r"^landmarklabel: ", "", last((done.stderr or done.stdout).splitlines()))
            raise LocalServerError(f"no token could be made: {said}")
        return done.stdout.strip()


def token_name() -> str:
    """Whose token it is: the user's name, with what a server takes."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = ""
    return "slicer-" + (re.sub(r"[^\w-]", "_", user)[:40] or "user")


def free_port() -> int:
    """A port of this computer that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _health(port: int) -> tuple[int, str]:
    """Status and reason of what answers; 0 where nobody does. Not urllib, which would ask a proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status, one_line(answer.read(2000).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        return 0, "it does not answer"
    finally:
        connection.close()
