"""The environment a server on this computer runs in: found a Python, made, checked and exchanged as a whole.

Nothing is installed into Slicer's Python, and nothing comes from an index by a name: a person names a wheel, a folder of wheels
or a copy of the repository.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from .local_programs import TEXT, WINDOWS, LocalServerError, Programs, alone, kill, last, one_line, python_of, running_module
from .local_sources import VERSIONS, candidates, checked_source, dotted, versions_of
from .session_files import write_atomically

PROBE_S, VENV_S, PIP_S, CHECK_S = 20.0, 300.0, 7200.0, 600.0  # that each may take at most
# ensurepip: some systems pack it apart, and no environment can be made without it.
PROBE = "import sys; v = sys.version_info; print(v[0], v[1], int(sys.maxsize > 2**32), sys.executable); import ensurepip, venv"
INSIDE = "import sys; print(sys.prefix != sys.base_prefix)"


class LocalEnvironment:
    """At most one environment with the program in it.

    Decision: each installation is a folder of its own, which counts from the moment ``current.json`` names it. An environment
    cannot be renamed, because its programs know their place; and one that is interrupted never counts.

    Args:
        programs: for a folder of the user's.
        log: file that gets everything that is said.
        say: gets one line for every step of an installation, in the thread that installs.
        slicer_python: Slicer's own interpreter. An environment is made with it where there is no other Python.
    """

    def __init__(self, programs: Programs, log: Path, say: Callable[[str], None], slicer_python: str):
        self.programs, self.log, self.say, self.slicer_python = programs, log, say, slicer_python
        self.folder = programs.folder / "env"
        self._lock, self._cancelled = threading.RLock(), threading.Event()
        self._step_process: subprocess.Popen | None = None

    @property
    def version(self) -> str:
        """The version that is installed; empty for none."""
        return str(self._current().get("version", "")) if self.python is not None else ""

    @property
    def python(self) -> Path | None:
        """Its interpreter; None where none is installed, or the Python it was made with is gone."""
        name = str(self._current().get("folder", ""))
        path = python_of(self.folder / name)
        return path if re.fullmatch(r"\d+", name) and path.is_file() else None

    def find_python(self, versions: Sequence[tuple[int, int]] = VERSIONS) -> str:
        """A Python of one of these versions that can make environments. Raises LocalServerError."""
        unfit = []
        for words in candidates(self.programs.environment, versions):
            version, path, fault = self._probed(words)
            if version in versions and not fault:
                return path
            if version:
                unfit.append(f"{words[0]} {dotted(version)}" + (f" {fault}" if version in versions else ""))
        if self.slicer_python:
            version, _, fault = self._probed([self.slicer_python])
            if version in versions and not fault:
                return self.slicer_python
        wanted = " or ".join(map(dotted, versions))
        found = f" (found: {', '.join(unfit[:4])})" if unfit else ""
        remedy = "install python3-venv" if any("ensurepip" in one for one in unfit) and not WINDOWS else ""
        remedy = remedy or f"install Python {dotted(versions[0])}, for example from https://www.python.org/downloads/"
        raise LocalServerError(f"no Python {wanted} was found on this computer{found}: {remedy}, and try again")

    def install(self, source: str | Path) -> None:
        """Make a new environment from what a person names, and use it from now on.

        Args:
            source: a wheel of the program, a folder with it and all that it needs, or a copy of the repository.

        Raises:
            LocalServerError: it is none of these, a step failed, or ``cancel`` was called; what was installed before stays.
        """
        wheel, house = checked_source(source)
        self._cancelled.clear()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.folder / "installing", "another Slicer is installing the server: wait until it has ended"):
                version = self._exchange(wheel, house, str(source))
        except OSError as error:
            raise LocalServerError(f"{self.folder} cannot be written: {error.strerror or error}") from None
        self.say(f"LandmarkLabel {version} is installed")

    def cancel(self) -> None:
        """End an installation that runs, from any thread: ``install`` raises, and leaves nothing."""
        self._cancelled.set()
        with self._lock:
            if self._step_process is not None:  # between two steps ``_check_wanted`` ends it
                kill(self._step_process)

    def _exchange(self, wheel: Path, house: Path | None, source: str) -> str:
        """A new environment in the place of the one there is; the program's version."""
        self._remove_others()  # what was interrupted, or in use the last time
        numbers = [int(p.name) for p in self.folder.iterdir() if p.name.isdigit()]
        place = self.folder / str(max(numbers, default=0) + 1)
        try:
            with self.log.open("w", encoding="utf-8") as log:
                version = self._make(place, wheel, house, log)
            self._check_wanted()
            content = json.dumps({"folder": place.name, "version": version, "source": source})
            write_atomically(self.folder / "current.json", content)
        finally:
            self._step_process = None
            self._remove_others()
        return version

    def _make(self, place: Path, wheel: Path, house: Path | None, log: IO[str]) -> str:
        """Fill a new environment; the program's version."""
        base = self.find_python(versions_of(house))
        self.say(f"making an environment with {base}")
        code, lines = self._step(running_module(base, "venv", place), VENV_S, log)
        python = python_of(place)
        made = code == 0 and python.is_file()
        # never into the Python it was made with, which may be Slicer's
        if not made or self.programs.ask([python, "-I", "-c", INSIDE], PROBE_S).stdout.strip() != "True":
            why = f": {last(lines)}" if lines else ""
            raise LocalServerError(f"{base} cannot make an environment{why}: install Python {dotted(VERSIONS[0])}")
        self.say(f"installing {wheel.name} and what it needs; this takes some minutes")
        options = ["--require-virtualenv", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-color"]
        options += [] if house is None else ["--no-index", "--find-links", str(house)]
        named = f"landmarklabel[server] @ {wheel.as_uri()}"
        code, lines = self._step(running_module(python, "pip", "install", *options, named), PIP_S, log, self.say)
        if code:
            raise LocalServerError(f"installing {wheel.name} failed: {_said_by_pip(lines, house)}; {self.log} has the whole")
        self.say("checking what was installed")
        code, lines = self._step(running_module(python, "landmarklabel", "doctor", "--json"), CHECK_S, log, apart=True)
        return self._version(lines)

    def _version(self, lines: list[str]) -> str:
        """What the doctor says. Raises LocalServerError with what it finds bad."""
        try:
            checks = json.loads("\n".join(lines))["checks"]
            bad = [f"{c['what']}: {c['found']}" for c in checks if not c["ok"]]
            version = next(str(c["found"]) for c in checks if c["what"] == "landmarklabel")
        except (ValueError, KeyError, TypeError, StopIteration):
            why = last(self.log.read_text(encoding="utf-8", errors="replace").splitlines())
            raise LocalServerError(f"what was installed does not run: {why}; {self.log} has the whole") from None
        if bad:
            raise LocalServerError(f"what was installed does not work: {one_line('; '.join(bad))}; {self.log} has the whole")
        return version

    def _step(
        self, words: Sequence[object], seconds: float, log: IO[str], say: Callable[[str], None] = lambda line: None, apart=False
    ) -> tuple[int, list[str]]:
        """Run one program to its end; its exit code and lines. ``apart``: what it says on stderr goes to the log alone."""
        with self._lock:
            self._check_wanted()
            process = self.programs.start(words, stdout=subprocess.PIPE, stderr=log if apart else subprocess.STDOUT, **TEXT)
            self._step_process = process
        clock, lines = threading.Timer(seconds, kill, (process,)), []
        clock.daemon = True
        clock.start()
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                if line.strip():
                    lines.append(line.rstrip())
                    if not line.startswith(("WARNING:", "DEPRECATION:")):
                        say(one_line(line.partition(" (from ")[0]))
            process.wait()
        finally:
            late = not clock.is_alive()
            clock.cancel()
            kill(process)
            process.stdin.close()
            process.stdout.close()
        self._check_wanted()
        if late:
            raise LocalServerError(f"gave up after {seconds / 60:.0f} minutes; {self.log} says how far it came")
        return process.returncode, lines

    def _check_wanted(self) -> None:
        if self._cancelled.is_set():
            raise LocalServerError("the installation was cancelled; what was installed before is as it was")

    def _remove_others(self) -> None:
        """Remove all environments but the one in use here, and those that another Slicer's server runs from."""
        current = str(self._current().get("folder", ""))
        for place in self.folder.iterdir():
            if place.is_dir() and place.name != current:
                try:
                    with alone(place / "in_use", "it is used"):
                        pass
                except LocalServerError:
                    continue
                shutil.rmtree(place, ignore_errors=True)

    def _probed(self, words: Sequence[str]) -> tuple[tuple[int, int] | None, str, str]:
        """Version, path and fault of an interpreter; no version where it is none."""
        try:
            done = self.programs.ask([*words, "-I", "-X", "utf8", "-c", PROBE], PROBE_S)
        except LocalServerError:
            return None, "", ""
        said = re.fullmatch(r"(\d+) (\d+) ([01]) (.+)", done.stdout.strip())
        if said is None:
            return None, "", ""
        fault = "without ensurepip" if done.returncode else "" if said[3] == "1" else "for 32 bits"
        return (int(said[1]), int(said[2])), said[4], fault

    def _current(self) -> dict:
        """What ``current.json`` says; {} where there is none."""
        try:
            content = json.loads((self.folder / "current.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _said_by_pip(lines: list[str], house: Path | None) -> str:
    """Why it failed, and what helps where something could not be found."""
    why = last([line for line in lines if line.startswith("ERROR:")] or lines).replace("ERROR: ", "")
    if "No matching distribution" not in why and "Could not find a version" not in why:
        return why
    return why + (" (is there a connection to the internet?)" if house is None else f" (it is not in {house.name})")
