"""``landmarklabel demo`` from the first to the last line, through its own servers, and what it does when something breaks."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from urllib3.util import Retry

from landmarklabel.cli.client import Client, wait_until_up
from landmarklabel.cli.demo import PLANS, wrong_points
from landmarklabel.data.synthetic import phantom_task
from landmarklabel.errors import StudyError
from landmarklabel.io.markups import read_markups
from landmarklabel.landmarks import LandmarkSet, Status

DEADLINE_S = 900  # a deadline, not an expectation: a minute or so on two quiet cores
QUICK = Retry(total=3, backoff_factor=0.01, allowed_methods=None)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process with the folder, or something in it, in its command line or environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), process.environ().get("MONAI_LABEL_STUDIES", "")]
            if process.pid != os.getpid() and any(str(folder) in w for w in words) and not _gone(process):
                found.append(process)
    return found


def _gone(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_ZOMBIE


@contextmanager
def playing(out: Path, minutes: float) -> Iterator[subprocess.Popen]:
    """The demo as a process; nothing of it is left afterwards, whatever happens."""
    words = [sys.executable, "-u", "-m", "landmarklabel", "demo", "--out", str(out), "--minutes", str(minutes)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    try:
        yield process
    finally:
        for left in [process, *processes_of(out)]:
            with suppress(psutil.Error, OSError):
                left.kill()
        process.communicate()


def read_until(process: subprocess.Popen, text: str) -> str:
    """What the demo says up to the line that has the text."""
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"the demo ended before it said {text!r}:\n{said}\n{process.stderr.read()}")


def assert_nothing_runs(out: Path) -> None:
    left = time.monotonic() + 20
    while processes_of(out) and time.monotonic() < left:
        time.sleep(0.2)
    assert not processes_of(out)


@pytest.mark.slow
def test_demo_ends_with_a_report_its_figures_and_no_server(tmp_path):
    out = tmp_path / "demo"
    with playing(out, 0.2) as process:
        said, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, f"{said[-2000:]}\n{errors[-2000:]}"
        assert_nothing_runs(out)
    report = (out / "report.html").read_text(encoding="utf-8")
    assert report.count("data:image/") >= 6
    words = re.sub(r'src="[^"]*"', "", report)
    for text in (said, errors, words):
        assert not re.search(r"\bnan\b|Traceback|Warning", text), text
    assert "2D, model scn: 16 landmarks" in report and "3D, model scn: 14 landmarks" in report
    assert "corrections for" in report and "Order of annotation: " in report
    assert f"report: {out / 'report.html'}" in said and "nothing proposed" in said
    figures = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    assert figures["failed"] == {} and figures["minutes"] > 0
    for plan in PLANS:
        assert_played(plan, out, figures["studies"][f"{plan.dims}d"])
        study, task = out / f"study{plan.dims}d", out / f"phantom{plan.dims}d.json"
        assert f"landmarklabel serve --studies {study} --task {task} --models {plan.model}" in said
    assert "/landmarks/" in said and "3D Slicer" in said


def assert_played(plan, out: Path, figures: dict) -> None:
    study, task = out / f"study{plan.dims}d", phantom_task(plan.dims)
    labels = sorted((study / "labels" / "final").glob("*.mrk.json"))
    names = [f"case{i:02d}.mrk.json" for i in range(plan.labels)] + [f"later{i:02d}.mrk.json" for i in range(plan.arrivals)]
    assert [p.name for p in labels] == names
    for path in labels:
        assert read_markups(path, task).by_person.all()
    assert len(list((out / f"tests{plan.dims}d").glob(f"test*{plan.suffix}"))) == plan.tests
    assert figures["labels"] == plan.labels and figures["test_images"] == plan.tests
    assert figures["template_mm"] > 0 and figures["state"] == "done"
    found = figures["model_mm"] is not None  # a model of so few seconds may call everything absent
    assert figures["model_of_template"] == (pytest.approx(figures["model_mm"] / figures["template_mm"]) if found else None)
    clicks = figures["clicks"]
    assert clicks["points"] == (plan.labels + plan.arrivals) * len(task)
    assert 0 < clicks["assisted"] <= clicks["points"] and 0 < clicks["alone"] <= clicks["points"]
    assert figures["flags"]["flagged_and_wrong"] <= min(figures["flags"]["flagged"], figures["flags"]["wrong"])
    assert set(figures["order"]["template_mm"]) == {"adaptive", "by name"}


@pytest.mark.slow
def test_a_half_whose_server_dies_leaves_the_other_half_and_its_report(tmp_path):
    out = tmp_path / "demo"
    with playing(out, 0.2) as process:
        said = read_until(process, "case")  # the server has answered
        for server in processes_of(out / "study2d"):
            server.kill()
        more, errors = process.communicate(timeout=DEADLINE_S)
        said += more
        assert process.returncode == 1, f"{said[-2000:]}\n{errors[-2000:]}"
        assert_nothing_runs(out)
    failures = [line for line in said.splitlines() if line.startswith("2D failed: ")]
    assert len(failures) == 1 and failures[0].endswith(f"the server's log is {out / 'server2d.log'}"), said
    assert "the server does not answer" in failures[0] and "Traceback" not in said + errors
    assert (out / "report.html").exists(), said
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "3D, model scn" in report and "The 2D study failed and is missing here" in report
    figures = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    assert list(figures["studies"]) == ["3d"] and list(figures["failed"]) == ["2D"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_demo_leaves_nothing_running_and_says_so(tmp_path, sent):
    out = tmp_path / "demo"
    with playing(out, 0.2) as process:
        said = read_until(process, "case")
        assert processes_of(out / "study2d")
        process.send_signal(sent)
        more, errors = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in errors, errors
        assert_nothing_runs(out)
    assert "stopped: no server and no training is left running" in said + more


@contextmanager
def breaking_server(answers: list[bytes | None]) -> Iterator[tuple[str, list[bytes]]]:
    """Answers one connection after the other, each with the given bytes and a reset; a whole answer ends orderly."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            with listener.accept()[0] as connection:
                asked.append(_request(connection))
                if answer is not None and answer.endswith(b"}"):
                    connection.sendall(answer)
                    continue
                if answer:
                    connection.sendall(answer)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join(10)


def _request(connection: socket.socket) -> bytes:
    """One request with all of its body, in however many pieces it comes."""
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if end and len(body) >= int(length[1] if length else 0):
            return data
        data += connection.recv(65536)


def whole(content: dict) -> bytes:
    body = json.dumps(content)
    head = ["HTTP/1.1 200 OK", "Content-Type: application/json", "Connection: close", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", body]).encode()


@pytest.mark.parametrize("broken", [None, whole({"status": "DONE"})[:-4]], ids=["at once", "in the middle of the answer"])
def test_a_poll_whose_connection_is_reset_is_sent_again(broken):
    stats = {"state": "done", "reason": "first model of this study"}
    answers = [whole({"id": "x"}), broken, whole({"status": "DONE"}), broken, whole({"train_stats": {"scn": stats}})]
    with breaking_server(answers) as (url, asked):
        assert Client(url, phantom_task(2), QUICK).train("scn", 0.01) == stats
    lines = [request.split(b" HTTP")[0] for request in asked]
    assert lines == [b"POST /train/scn", b"GET /train/", b"GET /train/", b"GET /info/", b"GET /info/"]


def test_a_submission_that_is_sent_twice_carries_the_same_key():
    task = phantom_task(2)
    placed = LandmarkSet(task, np.zeros((len(task), 2)), (Status.PLACED,) * len(task))
    with breaking_server([whole({"revision": 3}), None, whole({"revision": 4})]) as (url, asked):
        assert Client(url, task, QUICK).submit("a", placed) == {"revision": 4}
    first, second = (json.loads(request.split(b"\r\n\r\n", 1)[1]) for request in asked[1:])
    assert first == second and first["key"] and first["base_revision"] == 3


def test_a_server_that_is_gone_is_given_up_in_words():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StudyError, match=r"GET /info/: the server does not answer \(NewConnectionError\)"):
        Client(f"http://127.0.0.1:{port}", phantom_task(2), QUICK).info()


def test_a_server_that_breaks_off_at_its_start_is_waited_for(tmp_path):
    with breaking_server([None, whole({"name": "x"})]) as (url, asked), subprocess.Popen(["sleep", "30"]) as process:
        wait_until_up(url, process, tmp_path / "log")
        process.kill()
    assert len(asked) == 2


def test_what_the_annotator_takes_for_wrong():
    task = phantom_task(2, 5)
    S = Status
    truth = LandmarkSet(task, [[0, 0], [0, 0], [0, 0], [np.nan] * 2, [np.nan] * 2], (*[S.PLACED] * 3, S.ABSENT, S.ABSENT))
    shown = LandmarkSet(
        task, [[1, 0], [2, 0], [np.nan] * 2, [5, 5], [np.nan] * 2], (S.PREDICTED, S.PREDICTED, S.ABSENT, S.PREDICTED, S.ABSENT)
    )
    assert wrong_points(shown, truth, 1.5).tolist() == [False, True, True, True, False]
