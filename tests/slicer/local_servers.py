"""What tests of a server on this computer share: a process that uses the library, and what is asked of what it made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
from LandmarkLabelLib.local_programs import LocalServerError
from LandmarkLabelLib.local_server import LocalServer

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = ROOT / "slicer_extension"
TASK = "hand_xray"
WHEEL = "landmarklabel-0.1.0-py3-none-any.whl"
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


def refused(server: LocalServer, source: object) -> str:
    with pytest.raises(LocalServerError) as error:
        server.install(source)
    assert "\n" not in str(error.value)
    return str(error.value)
