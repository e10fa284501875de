"""A small HTTP client of the server, enough to play an annotator."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import urllib3
from urllib3.util import Retry

from landmarklabel.cli.configuration import CONFIG
from landmarklabel.errors import StudyError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.portability import end_with_children

# A lost connection, also one lost in the middle of an answer, is tried again for about 15 s. Every request may be sent twice:
# those that change something carry a key, and a case that is handed out twice comes back at the end.
TRIES = Retry(total=5, backoff_factor=0.5, allowed_methods=None, redirect=False)


class Client:
    """Calls of the server's HTTP interface that an annotator's program makes."""

    def __init__(self, url: str, task: LandmarkTask, tries: Retry = TRIES):
        self.url, self.task = url.rstrip("/"), task
        self.http = urllib3.PoolManager(retries=tries)

    def _call(self, method: str, path: str, seconds: float = CONFIG.answer_s, **more) -> dict:
        limits = urllib3.Timeout(connect=10, read=seconds)
        try:
            answer = self.http.request(method, self.url + path, timeout=limits, **more)
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", None) or error
            raise StudyError(f"{method} {path}: the server does not answer ({type(cause).__name__})") from None
        if answer.status >= 400:
            said = answer.data[:300].decode(errors="replace")
            raise StudyError(f"{method} {path}: the server answered {answer.status}: {said}")
        return answer.json()

    def info(self) -> dict:
        """What the server says of itself, its models and trainings."""
        return self._call("GET", "/info/", CONFIG.poll_s)

    def next_sample(self, strategy: str) -> dict:
        """{"id", "reason", …}, or {} when every image is labelled."""
        return self._call("POST", f"/activelearning/{strategy}", json={"client_id": "demo"})

    def infer(self, model: str, image_id: str) -> tuple[LandmarkSet, dict]:
        """Proposed landmarks of an image of the study, and the whole answer."""
        return self._read(self._call("POST", f"/infer/{model}?image={image_id}&output=json"))

    def infer_file(self, model: str, image: Path) -> tuple[LandmarkSet, dict]:
        """Proposed landmarks of an image the study does not have."""
        fields = {"file": (image.name, image.read_bytes(), "application/octet-stream")}
        return self._read(self._call("POST", f"/infer/{model}?output=json", fields=fields))

    def update(self, image_id: str, model: str, fixed: dict[str, list[float]], absent: list[str]) -> tuple[LandmarkSet, dict]:
        """The other landmarks moved to agree with a person's, and the whole answer."""
        given = {"fixed": fixed, "absent": absent, "model": model}
        return self._read(self._call("POST", f"/landmarks/images/{image_id}/update", json=given))

    def _read(self, answer: dict) -> tuple[LandmarkSet, dict]:
        landmarks = LandmarkSet.empty(self.task)
        errors = landmarks.expected_error_mm.copy()
        for i, row in enumerate(answer["landmarks"]):
            landmarks = landmarks.with_landmark(row["name"], row["position"], Status(row["status"]))
            errors[i] = row["expected_error_mm"] if row["expected_error_mm"] is not None else float("nan")
        return LandmarkSet(self.task, landmarks.positions_mm, landmarks.status, errors), answer

    def submit(self, image_id: str, landmarks: LandmarkSet) -> dict:
        """Save a finished case as its next revision; a submission that is sent twice is saved once."""
        base = self._call("GET", f"/landmarks/images/{image_id}")["revision"]
        rows = [
            {"name": name, "status": status.value, "position": place.tolist() if status.has_position else None}
            for name, status, place in zip(self.task.names, landmarks.status, landmarks.positions_mm, strict=True)
        ]
        body = {"landmarks": rows, "base_revision": base, "key": uuid.uuid4().hex, "author": "demo"}
        return self._call("PUT", f"/landmarks/images/{image_id}", json=body)

    def train(self, model: str, minutes: float) -> dict:
        """Start a training and wait for its end; returns its statistics."""
        self._call("POST", f"/train/{model}", json={"minutes": minutes, "key": uuid.uuid4().hex})
        deadline = time.monotonic() + 60 * minutes + 300
        while time.monotonic() < deadline:
            if self._call("GET", "/train/", CONFIG.poll_s)["status"] not in ("SUBMITTED", "RUNNING"):
                return self.info()["train_stats"][model]
            time.sleep(0.5)
        raise StudyError("the training did not end in time")


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
        end_with_children(process.pid, seconds=15)  # its trainings too
        process.wait()


def wait_until_up(url: str, process: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    """Return when the server answers. Raises StudyError with the end of its log otherwise."""
    deadline, http = time.monotonic() + seconds, urllib3.PoolManager()
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(urllib3.exceptions.HTTPError):  # not there yet, or too busy to answer
            if http.request("GET", f"{url}/info/", timeout=5, retries=False).status < 400:
                return
        time.sleep(0.1)
    end = log.read_text(errors="replace", encoding="utf-8")[-800:]
    raise StudyError(f"the server did not start; the end of {log}: {end}")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
