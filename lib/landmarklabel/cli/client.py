"""A small HTTP client of the server, enough to play an annotator."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from landmarklabel.errors import StudyError
from landmarklabel.io.markups import dump_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status


class Client:
    """Calls of MONAI Label's REST contract that an annotator's program makes."""

    def __init__(self, url: str, task: LandmarkTask):
        self.url, self.task, self.session = url.rstrip("/"), task, requests.Session()

    def _call(self, method: str, path: str, **more) -> requests.Response:
        answer = self.session.request(method, self.url + path, timeout=300, **more)
        if answer.status_code >= 400:
            raise StudyError(f"{method} {path}: the server answered {answer.status_code}: {answer.text[:300]}")
        return answer

    def info(self) -> dict:
        return self._call("GET", "/info/").json()

    def next_sample(self, strategy: str) -> dict:
        """{"id", "reason", …}, or {} when every image is labelled."""
        return self._call("POST", f"/activelearning/{strategy}", json={"client_id": "demo"}).json()

    def infer(self, model: str, image_id: str) -> tuple[LandmarkSet, dict]:
        """Proposed landmarks of an image of the study, and the whole answer."""
        answer = self._call("POST", f"/infer/{model}", params={"image": image_id, "output": "json"}).json()
        landmarks = LandmarkSet.empty(self.task)
        errors = landmarks.expected_error_mm.copy()
        for i, row in enumerate(answer["landmarks"]):
            landmarks = landmarks.with_landmark(row["name"], row["position"], Status(row["status"]))
            errors[i] = row["expected_error_mm"] if row["expected_error_mm"] is not None else float("nan")
        return LandmarkSet(self.task, landmarks.positions_mm, landmarks.status, errors), answer

    def submit(self, image_id: str, landmarks: LandmarkSet) -> dict:
        """Submit a finished case."""
        files = {"label": (f"{image_id}.mrk.json", dump_markups(landmarks), "application/json")}
        where, who = {"image": image_id, "tag": "final"}, {"params": '{"client_id": "demo"}'}
        return self._call("PUT", "/datastore/label", params=where, data=who, files=files).json()

    def train(self, model: str, minutes: float) -> dict:
        """Start a training and wait for its end; returns its statistics."""
        self._call("POST", f"/train/{model}", json={"minutes": minutes})
        deadline = time.monotonic() + 60 * minutes + 300
        while time.monotonic() < deadline:
            status = self._call("GET", "/train/").json()["status"]
            if status not in ("SUBMITTED", "RUNNING"):
                return self.info()["train_stats"][model]
            time.sleep(1.0)
        raise StudyError("the training did not end in time; look at the server's log")


@contextmanager
def running_server(study: Path, task_file: Path, log: Path, models: str = "scn", port: int | None = None) -> Iterator[str]:
    """Run ``landmarklabel serve`` in a process of its own; yields its address and stops it at the end."""
    port = port or free_port()
    command = [sys.executable, "-m", "landmarklabel", "serve", "--studies", str(study), "--task", str(task_file)]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*command, "--models", models, "--port", str(port)], stdout=out, stderr=out, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_up(url, process, log)
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_up(url: str, process: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    """Return when the server answers. Raises StudyError with the end of its log otherwise."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(requests.ConnectionError):
            if requests.get(f"{url}/info/", timeout=5).ok:
                return
        time.sleep(0.1)
    end = log.read_text(errors="replace")[-800:]
    raise StudyError(f"the server did not start; the end of {log}: {end}")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
