"""A server on this computer: real environments, real pip, the real server; only what is installed is small.

The wheel that is installed here holds nothing but a path to this checkout and to the packages of the tests.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import psutil
import pytest
import requests
from LandmarkLabelLib import local_environment, local_programs, local_server
from LandmarkLabelLib.local_programs import LocalServerError, Programs, clean_environment, end, running_module
from LandmarkLabelLib.local_server import LocalServer, token_name
from program_wheel import program_wheel, wheel_in

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = ROOT / "slicer_extension"
LIBRARY = EXTENSION / "LandmarkLabel" / "LandmarkLabelLib"
TASK = "hand_xray"
OWN = "{}.{}".format(*sys.version_info)
WHEEL = "landmarklabel-0.1.0-py3-none-any.whl"
ALLOWED = "name the program's wheel (landmarklabel-….whl), a folder with it and all it needs, or a copy of its repository"
posix = pytest.mark.skipif(os.name == "nt", reason="scripts as interpreters, signals")

# What Slicer would leave in the environment of a process, made as harmful as can be.
DRIVER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
given = json.loads(sys.argv[2])
os.environ.update(given["poison"])
from LandmarkLabelLib.local_server import LocalServer
server = LocalServer(given["folder"], os.environ, lambda line: print("say", line, flush=True))
if given["source"]:
    server.install(given["source"])
    print("installed", server.installed, flush=True)
if given["study"]:
    print("running", json.dumps(server.start(given["study"], given["task"])), server._server.pid, flush=True)
    sys.stdin.readline()
    server.stop()
    print("stopped", server.is_running, flush=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder whose name is as difficult as people's are."""
    return tmp_path_factory.mktemp("Müllers Ordner [1] #2 %20;")


@pytest.fixture(scope="module")
def wheel(place) -> Path:
    return program_wheel(place)


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
def environment(place) -> dict[str, str]:
    """Of a user whose only Python is that of the tests."""
    return {**os.environ, "HOME": str(place), "USERPROFILE": str(place), "PATH": str(Path(sys.executable).parent)}


class Driver:
    """A process of its own that uses the library; ``expect`` reads what it prints."""

    def __init__(self, environment: dict, **given: object):
        words = [sys.executable, "-c", DRIVER, str(EXTENSION / "LandmarkLabel")]
        given = {"source": "", "study": "", "task": TASK, "poison": {}, **{k: v for k, v in given.items()}}
        self.process = subprocess.Popen(
            [*words, json.dumps(given, default=str)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
        self.said: list[str] = []

    def expect(self, begin: str) -> str:
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if line.startswith(begin):
                return line[len(begin) :].strip()
        raise AssertionError(f"{begin!r} was not said: {self.said}\n{self.process.stderr.read()}")

    def running(self) -> tuple[str, str, psutil.Process]:
        address, _, pid = self.expect("running ").rpartition(" ")
        return (*json.loads(address), psutil.Process(int(pid)))

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


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


def asked(url: str, path: str, token: str = "") -> requests.Response:
    return requests.get(url + path, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=30)


def who(url: str, token: str) -> tuple[str, str]:
    """Whose token it is, and the most he may do."""
    answer = asked(url, "/auth/token/valid", token).json()
    return answer["name"], answer["roles"][-1]


def answers(url: str) -> bool:
    try:
        return asked(url, "/health").ok
    except requests.ConnectionError:
        return False


def gone(process: psutil.Process, seconds: float) -> bool:
    """Whether it ends within so many seconds; also one that nobody waits for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            process.wait(0.05)
            return True
        except psutil.NoSuchProcess:
            return True
        except psutil.TimeoutExpired:
            continue
    return False


def environments(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "env").iterdir() if p.is_dir())


# --- from nothing to a server ----------------------------------------------------------------------------------------


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


def test_what_is_left_out_of_the_environment():
    left_out = ("PYTHONHOME", "Ld_Library_Path", "QT_X", "MONAI_LABEL_AUTH_ENABLE", "VIRTUAL_ENV", "PIP_TARGET", "SLICER_HOME")
    startup = {"PATH": "x", "HTTPS_PROXY": "p", "PIP_INDEX_URL": "i", **dict.fromkeys(left_out, "1")}
    assert clean_environment(startup) == {"PATH": "x", "HTTPS_PROXY": "p", "PIP_INDEX_URL": "i", "PIP_USER": "0"}
    assert clean_environment({})["PATH"] == os.defpath


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


# --- serving ---------------------------------------------------------------------------------------------------------


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


@posix
def test_what_does_not_end_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(local_programs, "END_S", 0.2)
    monkeypatch.setattr(local_programs, "CHILDREN_END_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    child = f"subprocess.Popen([sys.executable, '-c', {deaf!r}])"
    code = f"import subprocess, sys; print({child}.pid, flush=True); {deaf}"
    process = Programs(tmp_path, os.environ).start([sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8")
    child = psutil.Process(int(process.stdout.readline()))
    end(process)
    assert process.returncode == -signal.SIGKILL and gone(child, 5)
    process.stdout.close()


# --- what is named ---------------------------------------------------------------------------------------------------


def refused(server: LocalServer, source: object) -> str:
    with pytest.raises(LocalServerError) as error:
        server.install(source)
    assert "\n" not in str(error.value)
    return str(error.value)


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


def test_an_installation_that_fails_leaves_what_was_there(first, environment, tmp_path):
    server, log = LocalServer(first["folder"], environment), first["folder"] / "log.txt"
    house = wheel_in(tmp_path / "house", requires="landmarklabel-no-such-part>=2").parent
    why = "No matching distribution found for landmarklabel-no-such-part>=2 (it is not in house)"
    assert refused(server, house) == f"installing {WHEEL} failed: {why}; {log} has the whole"
    assert server.installed == "0.1.0" and environments(first["folder"]) == ["1"]


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


def test_one_installation_at_a_time(first, wheel, environment):
    server = LocalServer(first["folder"], environment)
    with local_programs.alone(first["folder"] / "env" / "installing", ""):
        assert refused(server, wheel) == "another Slicer is installing the server: wait until it has ended"


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


# --- which Python ----------------------------------------------------------------------------------------------------


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def alone_with(folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    return {"PATH": str(folder), "HOME": str(folder), "USERPROFILE": str(folder)}


def test_a_python_is_found_by_its_name_or_its_version(environment, tmp_path):
    found = LocalServer(tmp_path, environment).find_python()
    assert subprocess.run([found, "-V"], capture_output=True, text=True).stdout.split()[1].startswith(OWN)


@posix
def test_no_python_is_said_with_what_was_found(tmp_path, monkeypatch):
    places = tmp_path / "bin"
    begin, end = "no Python 3.13 or 3.12 or 3.11 was found on this computer", "and try again"
    server = LocalServer(tmp_path, alone_with(places))
    remedy = "install Python 3.13, for example from https://www.python.org/downloads/"
    said = lambda: pytest.raises(LocalServerError, server.find_python).value.args[0]  # noqa: E731
    assert said() == f"{begin}: {remedy}, {end}"
    old = script(places / "python3", f"echo 3 9 1 {places}/python3")
    assert said() == f"{begin} (found: {old} 3.9): {remedy}, {end}"
    monkeypatch.setattr(local_environment, "PROBE_S", 0.3)
    script(places / "python3.13", "exec /bin/sleep 60")  # one that does not answer
    script(places / "python3.12", "echo pyenv: no such version >&2; exit 127")
    assert said() == f"{begin} (found: {old} 3.9): {remedy}, {end}"
    bare = script(places / "python3.11", f"echo 3 11 1 {places}/python3.11; exit 1")
    assert said() == f"{begin} (found: {bare} 3.11 without ensurepip, {old} 3.9): install python3-venv, {end}"


@posix
def test_slicers_own_python_comes_last_and_only_where_it_is_new_enough(tmp_path):
    nothing, slicers = alone_with(tmp_path / "none"), script(tmp_path / "bin" / "PythonSlicer", f'exec "{sys.executable}" "$@"')
    assert LocalServer(tmp_path, nothing, slicer_python=str(slicers)).find_python() == str(slicers)
    other = script(tmp_path / "none" / "python3.11", "echo 3 11 1 /there/python3.11")
    assert other and LocalServer(tmp_path, nothing, slicer_python=str(slicers)).find_python() == "/there/python3.11"
    old = script(tmp_path / "bin" / "PythonSlicer", "echo 3 9 1 /x")
    with pytest.raises(LocalServerError, match="^no Python 3.13 or"):
        LocalServer(tmp_path, alone_with(tmp_path / "empty"), slicer_python=str(old)).find_python()


@posix
def test_nothing_is_installed_where_no_environment_came_about(tmp_path, wheel):
    """For example with an interpreter that says it has made one."""
    places = tmp_path / "bin"
    script(places / "python3.11", f"echo 3 11 1 {places}/python3.11")
    said = refused(LocalServer(tmp_path / "own", alone_with(places)), wheel)
    assert said.startswith(f"{places}/python3.11 cannot make an environment") and said.endswith(": install Python 3.13")
    assert environments(tmp_path / "own") == []


def test_a_folder_of_wheels_gets_the_python_it_was_made_for(tmp_path):
    from LandmarkLabelLib.local_sources import VERSIONS, versions_of

    assert versions_of(None) == versions_of(tmp_path) == VERSIONS
    (tmp_path / "torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl").touch()
    assert versions_of(tmp_path) == [(3, 12)]


# --- Slicer's Python -------------------------------------------------------------------------------------------------


def test_it_is_written_for_python_3_9():
    for path in LIBRARY.glob("local_*.py"):
        text = path.read_text(encoding="utf-8")
        ast.parse(text, feature_version=(3, 9))
        assert "strict=" not in text and "match " not in text.split('"""')[-1], path.name


def test_what_is_run_names_no_folder_but_its_own(tmp_path):
    words = running_module("python", "pip", "install")
    assert words[1:4] == ["-I", "-X", "utf8"] and words[-2:] == ["pip", "install"] and '"' not in local_programs.LAUNCHER
    assert local_server.token_name().startswith("slicer-")
