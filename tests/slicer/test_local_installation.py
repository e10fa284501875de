"""A server is installed on this computer as a whole or not at all, and what stands in the way is said."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from pathlib import Path
from typing import IO

import psutil
import pytest
from LandmarkLabelLib import local_programs
from LandmarkLabelLib.local_programs import LocalServerError, running_module
from LandmarkLabelLib.local_server import LocalServer
from local_servers import WHEEL, environments, gone, posix, refused
from program_wheel import wheel_in

ALLOWED = "name the program's wheel (landmarklabel-….whl), a folder with it and all it needs, or a copy of its repository"


def test_what_is_no_source_is_refused_before_anything_is_made(tmp_path, environment, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = LocalServer(tmp_path / "own", environment)
    unknown = f"{tmp_path / 'landmarklabel'}: no such file or folder, and nothing is taken from an index by its name: {ALLOWED}"
    assert refused(server, "landmarklabel") == unknown
    assert refused(server, "") == ALLOWED
    other = wheel_in(tmp_path, "numpy")
    assert refused(server, other) == f"{other.name} is a wheel of numpy: {ALLOWED}"
    renamed = other.rename(tmp_path / WHEEL)
    assert refused(server, renamed) == f"{WHEEL} is a wheel of numpy: {ALLOWED}"
    renamed.write_bytes(b"PK")
    assert refused(server, renamed) == f"{WHEEL} is damaged: {ALLOWED}"
    text = tmp_path / "notes.txt"
    text.write_text("x")
    assert refused(server, text) == f"notes.txt is no wheel: {ALLOWED}"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(server, empty) == f"{empty} has no wheel of the program and is no copy of its repository: {ALLOWED}"
    for name in ("landmarklabel-1-py3-none-any.whl", "landmarklabel-2-py3-none-any.whl"):
        (empty / name).write_bytes(b"")
    assert refused(server, empty) == f"{empty} has 2 wheels of the program: leave one, or name it"
    assert not (tmp_path / "own").exists()


def test_what_does_not_run_or_is_bad_is_said(environment, tmp_path):
    server = LocalServer(tmp_path, environment)

    def said(*words: str) -> str:
        with server.log.open("w", encoding="utf-8") as log:
            _, lines = server._environment._step(running_module(sys.executable, *words), 60, log, apart=True)
        with pytest.raises(LocalServerError) as error:
            server._environment._version(lines)
        return str(error.value)

    end = f"; {server.log} has the whole"
    assert re.fullmatch(
        "what was installed does not run: .*No module named no_such_program" + re.escape(end), said("no_such_program")
    )
    checks = [{"what": "landmarklabel", "ok": True, "found": "0.1.0"}, {"what": "server", "ok": False, "found": "no\nfastapi"}]
    (tmp_path / "checks.json").write_text(json.dumps({"checks": checks}))
    bad = said("json.tool", str(tmp_path / "checks.json"))
    assert bad == f"what was installed does not work: server: no fastapi{end}"


@posix
def test_a_step_that_takes_too_long_is_ended(environment, tmp_path):
    server = LocalServer(tmp_path, environment)
    with server.log.open("w", encoding="utf-8") as log, pytest.raises(LocalServerError, match="^gave up after 0 minutes; "):
        server._environment._step([sys.executable, "-c", "import time; time.sleep(60)"], 0.2, log)


@posix
def test_what_is_cancelled_ends_at_once_and_leaves_nothing(environment, tmp_path, monkeypatch):
    """In the middle of pip's work: the copy of the repository that it builds tells when it is being built, and does not end.

    It is the pip of these tests, so that there is no environment to wait for.
    """
    source, answers = tmp_path / "copy", []
    (source / "lib" / "landmarklabel").mkdir(parents=True)
    (source / "lib" / "landmarklabel" / "__init__.py").write_text("")
    (source / "setup.cfg").write_text("[metadata]\nname = landmarklabel\n")
    backend = '[build-system]\nrequires = []\nbuild-backend = "slow"\nbackend-path = ["."]\n'
    (source / "pyproject.toml").write_text(backend)
    with socket.create_server(("127.0.0.1", 0)) as door:
        (source / "slow.py").write_text(
            "import os, socket\n"
            "def get_requires_for_build_wheel(settings=None):\n"
            f"    line = socket.create_connection(('127.0.0.1', {door.getsockname()[1]}))\n"
            "    line.sendall(str(os.getpid()).encode() + b'\\n')\n"
            "    line.recv(1)\n"
        )
        server = LocalServer(tmp_path / "own", environment)
        local = server._environment

        def make(place: Path, source: Path, house: Path | None, log: IO[str]) -> None:
            place.mkdir()
            local._step(running_module(sys.executable, "pip", "wheel", "--no-deps", "-w", place, source), 60, log)

        monkeypatch.setattr(local, "_make", make)
        thread = threading.Thread(target=lambda: answers.append(refused(server, source)))
        thread.start()
        door.settimeout(60)
        line, _ = door.accept()
        with line:
            builds = psutil.Process(int(line.makefile().readline()))
            server.cancel()
            thread.join(20)
    assert answers == ["the installation was cancelled; what was installed before is as it was"]
    assert gone(builds, 5) and environments(tmp_path / "own") == [] and server.installed == ""


def test_an_interrupted_installation_and_one_in_use(environment, tmp_path):
    """What no installation has finished goes with the next; what another Slicer's server runs from stays."""
    kept = tmp_path / "env"
    for name in ("1", "2", "3"):
        (kept / name).mkdir(parents=True)
    (kept / "current.json").write_text('{"folder": "3"}', encoding="utf-8")
    server = LocalServer(tmp_path, environment)
    with local_programs.hold(kept / "2" / "in_use", "", shared=True):
        server._environment._remove_others()
    assert environments(tmp_path) == ["2", "3"]
