"""A server on this computer: real environments, real pip, the real server; only what is installed is small."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from LandmarkLabelLib import local_programs
from LandmarkLabelLib.local_programs import LocalServerError
from LandmarkLabelLib.local_server import LocalServer, token_name
from local_servers import ROOT, TASK, WHEEL, Driver, answers, asked, environments, gone, posix, refused, who
from program_wheel import wheel_in


@pytest.fixture(scope="module")
def poison(place) -> dict[str, str]:
    """Variables with which no Python, and hardly a program, starts."""
    bad = place / "poison"
    bad.mkdir()
    for name in ("encodings.py", "site.py", "numpy.py", "pip.py", "json.py"):
        (bad / name).write_text("raise SystemExit('poisoned')\n")
    for name in ("libc.so.6", "libm.so.6", "libz.so.1"):
        (bad / name).write_text("poisoned")
    names = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "QT_PLUGIN_PATH", "PIP_TARGET", "PYTHONUSERBASE")
    return {**dict.fromkeys(names, str(bad)), "PYTHONNOUSERSITE": "1", "PIP_USER": "1"}


@pytest.fixture(scope="module")
def first(place, wheel, poison, environment):
    """What one poisoned process did: installed, started, stopped."""
    folder, study = place / "Slicer Ordner", place / "Ännes Hände"
    with Driver(environment, folder=folder, source=wheel, study=study, poison=poison) as driver:
        version = driver.expect("installed ")
        url, token, server = driver.running()
        told = who(url, token)
        open_to_all = asked(url, "/landmarks/task").status_code
        child_environment = server.environ()
        driver.process.stdin.write("\n")
        driver.process.stdin.flush()
        stopped = driver.expect("stopped ")
        assert not answers(url)
    return {
        "version": version, "who": told, "open_to_all": open_to_all, "environment": child_environment, "stopped": stopped,
        "gone": not server.is_running(), "said": driver.said, "folder": folder, "study": study,
    }  # fmt: skip


@pytest.fixture()
def local(first, environment):
    """The library as Slicer has it, with what is installed."""
    server = LocalServer(first["folder"], environment)
    yield server
    server.stop()


@posix
def test_the_poison_works(poison, environment):
    done = subprocess.run([sys.executable, "-c", "print(1)"], env={**environment, **poison}, capture_output=True)
    assert done.returncode != 0 and done.stdout == b""


def test_a_poisoned_process_installs_serves_and_stops(first):
    assert first["version"] == "0.1.0" and first["stopped"] == "False" and first["gone"]
    assert first["who"] == (token_name(), "admin") and first["open_to_all"] == 401
    said = [line[4:] for line in first["said"] if line.startswith("say ")]
    assert not any(" (from " in line or "WARNING" in line for line in said)
    assert said[0].startswith("making an environment with ") and said[1].startswith(f"installing {WHEEL} and what it needs")
    assert said[-2:] == ["checking what was installed", "LandmarkLabel 0.1.0 is installed"]
    assert any(line.startswith("Successfully installed landmarklabel") for line in said)
    assert not [n for n in first["environment"] if n.startswith(("PYTHONHOME", "PYTHONPATH", "LD_", "QT_", "VIRTUAL_ENV"))]
    assert environments(first["folder"]) == ["1"]
    current = json.loads((first["folder"] / "env" / "current.json").read_text(encoding="utf-8"))
    assert current["folder"] == "1" and current["version"] == "0.1.0" and current["source"].endswith(WHEEL)
    assert "Successfully installed" in (first["folder"] / "log.txt").read_text(encoding="utf-8")


def test_a_whole_installation_from_a_copy_of_the_repository(tmp_path):
    """With the Python and the packages that anybody would get."""
    copy, server = tmp_path / "Kopie ä", LocalServer(tmp_path / "own", os.environ)
    for name in ("lib", "apps", "scripts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    server.install(copy)
    try:
        assert server.installed and who(*server.start(tmp_path / "study", TASK)) == (token_name(), "admin")
    finally:
        server.stop()


def test_one_server_at_a_time_stop_and_a_study_without_tokens_left(first, local, environment):
    study, tokens = first["study"], first["study"] / ".landmarklabel" / "tokens.json"
    tokens.write_text("[]", encoding="utf-8")  # as when they have been removed: serve alone would let nobody in
    running = local.start(study)
    assert local.running == running and who(*running) == (token_name(), "admin")
    assert local.start(study) is running
    with pytest.raises(LocalServerError, match="^a server runs already: stop it, and start this one then$"):
        local.start(first["folder"] / "other", TASK)
    with pytest.raises(LocalServerError, match="^the server runs: stop it, and install then$"):
        local.install("landmarklabel")
    other = LocalServer(first["folder"], environment)
    with pytest.raises(LocalServerError) as refused:
        other.start(study)
    assert str(refused.value) == f"{study} is served already by another Slicer: use it there, or stop it there"
    assert who(*running) == (token_name(), "admin")
    server = psutil.Process(local._server.pid)
    local.stop()
    assert gone(server, 1) and local.running is None and not local.is_running
    local.stop()
    assert not answers(running.url)


@posix
def test_a_server_ends_with_the_process_that_started_it_however_that_ends(first, environment):
    with Driver(environment, folder=first["folder"], study=first["study"]) as driver:
        url, token, server = driver.running()
        assert who(url, token) == (token_name(), "admin")
        os.kill(driver.process.pid, signal.SIGKILL)
        driver.process.wait()
        assert gone(server, 10)
        assert not answers(url)


@pytest.mark.parametrize(
    "task, said",
    [
        (None, "the server did not start: which landmarks? {study} does not say it itself: give --task NAME_OR_FILE.json"),
        ("no_such", "the server did not start: "),
    ],
)
def test_a_server_that_does_not_start_says_why_and_leaves_the_study_alone(local, tmp_path, task, said):
    with pytest.raises(LocalServerError) as refused:
        local.start(tmp_path, task)
    assert str(refused.value).startswith(said.format(study=tmp_path)) and (task or "") in str(refused.value)
    assert "\n" not in str(refused.value) and list(tmp_path.iterdir()) == [] and not local.is_running


def test_a_taken_port_is_said(local, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(LocalServerError, match=r"^the server did not start: port \d+ of 127.0.0.1 is taken"):
            local.start(tmp_path, TASK, taken.getsockname()[1])


def test_nothing_to_start(tmp_path, environment):
    server = LocalServer(tmp_path / "new", environment)
    assert server.installed == "" and server.running is None
    with pytest.raises(LocalServerError, match="^no server is installed on this computer yet: install it first$"):
        server.start(tmp_path)
    with pytest.raises(LocalServerError, match="^name the folder of the study$"):
        server.start(" ")


def test_an_installation_that_fails_leaves_what_was_there(first, environment, tmp_path):
    server, log = LocalServer(first["folder"], environment), first["folder"] / "log.txt"
    house = wheel_in(tmp_path / "house", requires="landmarklabel-no-such-part>=2").parent
    why = "No matching distribution found for landmarklabel-no-such-part>=2 (it is not in house)"
    assert refused(server, house) == f"installing {WHEEL} failed: {why}; {log} has the whole"
    assert server.installed == "0.1.0" and environments(first["folder"]) == ["1"]


def test_one_installation_at_a_time(first, wheel, environment):
    server = LocalServer(first["folder"], environment)
    with local_programs.alone(first["folder"] / "env" / "installing", ""):
        assert refused(server, wheel) == "another Slicer is installing the server: wait until it has ended"
