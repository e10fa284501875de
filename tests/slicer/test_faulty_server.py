"""The module's logic against a server that misbehaves: a message, no pause, and nothing written elsewhere."""

from __future__ import annotations

import http.server
import re
import threading
import time

import pytest
from annotators import DEADLINE_S, settle
from LandmarkLabelLib.client import Client
from LandmarkLabelLib.connecting import AWAY, CONNECTED, IDLE
from LandmarkLabelLib.logic import LandmarkLogic
from LandmarkLabelLib.options import Options
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.wire import Task, WireError


class Faulty(http.server.BaseHTTPRequestHandler):
    """A server that misbehaves as ``mode`` says."""

    mode = "500"

    def _answer(self):
        if Faulty.mode == "slow":
            time.sleep(0.5)
        if Faulty.mode == "drop":
            self.connection.close()
            return
        self.send_response(500 if Faulty.mode == "500" else 200)
        if Faulty.mode in ("escape", "page"):
            named = "../../../evil.nii.gz" if Faulty.mode == "escape" else "page.html"
            self.send_header("content-disposition", f'attachment; filename="{named}"')
        self.end_headers()
        bodies = {"html": b"<html>hello</html>", "wrong": b'{"landmarks": [{"name": "nose"}]}', "list": b"[1, 2]", "slow": b"{}"}
        self.wfile.write(bodies.get(Faulty.mode, b"oops"))

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *_):
        pass


@pytest.fixture()
def faulty():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    "mode, text",
    [
        ("500", "the server failed with 500"),
        ("drop", "does not answer (ConnectionError)"),
        ("html", "the answer is no JSON: is http://127.0.0.1"),
        ("wrong", "'nose' is no landmark of task 'head'"),
        ("list", "the answer has no list of landmarks"),
        ("slow", "the answer has no list of landmarks"),
    ],
)
@pytest.mark.parametrize("is_touched", [False, True])
def test_a_faulty_server_gives_a_message_and_never_blocks(faulty, tmp_path, mode, text, is_touched):
    Faulty.mode = mode
    logic = LandmarkLogic(Options(faulty), tmp_path / "work")
    logic.task = Task("head", ("nasion", "menton"), 3, {}, ())
    logic.state, logic._asked_alive_at = CONNECTED, float("inf")
    logic.session = Session.fresh(logic.task, "case")
    if is_touched:
        logic.session.mark_absent("menton")
    before = list(logic.session.points)
    started = time.perf_counter()
    logic.predict()
    longest = time.perf_counter() - started
    end = time.monotonic() + DEADLINE_S
    while logic.worker.busy and time.monotonic() < end:
        started = time.perf_counter()
        logic.poll()
        longest = max(longest, time.perf_counter() - started)
        time.sleep(0.005)
    assert text in logic.message and longest < 0.05
    assert logic.session.points == before
    assert ("; your work is kept here and sent later" in logic.message) == (is_touched and mode in ("500", "drop"))
    logic.close()


def test_a_hostile_image_name_stays_inside_and_no_page_is_taken_for_an_image(faulty, tmp_path):
    client = Client(faulty)
    Faulty.mode = "escape"
    path = client.download("../../x", tmp_path / "deep" / "image", (".nii.gz", ".png"))
    assert path.parent == tmp_path / "deep" / "image" and re.fullmatch(r"[0-9a-f]{16}\.nii\.gz", path.name)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    Faulty.mode = "page"
    with pytest.raises(WireError, match="case is stored in a way that is not shown here: open it in Slicer yourself"):
        client.download("case", tmp_path, (".nii.gz", ".png"))


def test_a_connection_that_is_given_up_or_fails_is_not_said_to_be_made(faulty, tmp_path):
    Faulty.mode = "500"
    logic = LandmarkLogic(Options(faulty), tmp_path / "work")
    logic.connect()
    settle(logic)
    assert logic.state == AWAY
    logic.connect()
    logic.cancel()
    assert logic.state == IDLE and logic.message == "cancelled"
    logic.close()


@pytest.mark.parametrize("url", ["", "ftp://a", "http://"])
def test_an_address_that_is_none_is_said_with_one_that_is(tmp_path, url):
    logic = LandmarkLogic(Options(url), tmp_path / "work")
    logic.connect()
    settle(logic)
    assert logic.message.endswith("is no address: type one as http://127.0.0.1:8000") and not logic.online
    logic.close()
