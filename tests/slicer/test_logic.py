"""Annotating through the module's logic: against a real server, against a faulty one, and with none at all."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from LandmarkLabelLib.client import Busy, Client
from LandmarkLabelLib.logic import AWAY, CONNECTED, IDLE, NOT_LET_IN, LandmarkLogic
from LandmarkLabelLib.options import Options
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED, UNSET, Point, Task, WireError
from serving import Material, phantoms, serving

DEADLINE_S = 60


def settle(logic: LandmarkLogic) -> None:
    """What the panel's timer does, until the background is idle."""
    end = time.monotonic() + DEADLINE_S
    while logic.worker.busy:
        assert time.monotonic() < end, "the background did not come to rest"
        logic.poll()
        time.sleep(0.005)


def connected(server, tmp_path: Path, image_id: str = "") -> LandmarkLogic:
    """One annotator, with a case that is open where one is named."""
    logic = LandmarkLogic(Options(server.url, "ann"), tmp_path / "work")
    logic.connect()
    settle(logic)
    if image_id:
        logic.open_case(image_id)
        settle(logic)
    return logic


@pytest.fixture()
def logic(server, tmp_path):
    logic = connected(server, tmp_path)
    yield logic
    logic.close()


def truth_of(material: Material, image_id: str) -> dict:
    rows = material.truth[image_id].positions_mm
    return {n: (float(x), float(y), 0.0) for n, (x, y) in zip(material.task.names, rows, strict=True)}


def mean_error(session: Session, truth: dict) -> float:
    return float(np.mean([np.linalg.norm(np.subtract(p.position, truth[p.name])) for p in session.points if p.position]))


def test_a_case_from_choice_to_submission(logic, material, server):
    logic.next_case("first")
    settle(logic)
    session = logic.session
    assert session.image_id == sorted(material.truth)[5] and session.reason and logic.online
    truth = truth_of(material, session.image_id)
    logic.predict()
    settle(logic)
    assert {p.state for p in session.points} == {PREDICTED} and session.next in material.task.names
    before = mean_error(session, truth)
    for _ in range(3):
        name = session.next
        logic.correct(name, truth[name])
        settle(logic)
        assert session.point(name) == Point(name, PLACED, truth[name])
    assert mean_error(session, truth) < 0.6 * before and logic.moved > 0
    logic.mark_absent(material.task.names[0])
    logic.accept_all()
    logic.mark_absent(material.task.names[1])
    assert logic.message == f"{material.task.names[1]} is accepted: unlock it first (U)"
    assert logic.submit()
    settle(logic)
    assert session.base_revision == 1 and logic.outbox.waiting() == []
    saved = server.get(f"/landmarks/images/{session.image_id}")
    assert saved["author"] == "ann" and [r["status"] for r in saved["landmarks"]] == [ABSENT] + [ACCEPTED] * 11


def test_two_annotators_of_one_case_see_both_versions(logic, server, material, tmp_path):
    image_id, (first, second, *_) = sorted(material.truth)[6], material.task.names
    other = LandmarkLogic(Options(server.url, "bob"), tmp_path / "other")
    other.connect()
    for one in (logic, other):
        settle(one)
        one.open_case(image_id)
        settle(one)
    for name, x in ((first, 11.0), (second, 21.0)):
        other.correct(name, (x, 12.0, 0.0))
        settle(other)
    other.submit()
    settle(other)
    logic.correct(first, (51.0, 52.0, 0.0))
    settle(logic)
    logic.submit(then="first")
    settle(logic)
    assert logic.session.image_id == image_id  # the next case waits until this one is settled
    assert logic.conflict.author == "bob" and logic.conflict.points[0].position == (11.0, 12.0, 0.0)
    assert logic.conflict.revision == 1
    assert logic.session.points[0].position == (51.0, 52.0, 0.0)  # mine is still here
    assert {first, second} <= set(logic.differences())
    assert [(e.image_id, e.state) for e in logic.unsent] == [(image_id, "conflict")]
    assert not logic.submit() and logic.message == "look at both versions first: take theirs, or press Submit mine"
    logic.take_theirs(second)
    logic.submit_mine()
    settle(logic)
    assert logic.unsent == [] and logic.trouble == "" and logic.conflict is None
    rows = {r["name"]: r["position"] for r in server.get(f"/landmarks/images/{image_id}")["landmarks"]}
    assert rows[first] == [51.0, 52.0] and rows[second] == [21.0, 12.0]
    logic.open_case(image_id)
    settle(logic)
    assert [(number, author) for number, author, _ in logic.review.revisions] == [(1, "bob"), (2, "ann")]
    assert logic.session.points[0].position == (51.0, 52.0, 0.0) and logic.session.base_revision == 2
    logic.restore(1)
    assert logic.session.points[0].position == (11.0, 12.0, 0.0) and "submit to make it the newest" in logic.message
    logic.submit()
    settle(logic)
    assert server.get(f"/landmarks/images/{image_id}")["revision"] == 3
    other.close()


def meanwhile(server, image_id: str, name: str, position: list[float], author: str = "eve") -> int:
    """Somebody else saves a revision; its number."""
    base = server.get(f"/landmarks/images/{image_id}")["revision"]
    rows = [{"name": name, "status": "placed", "position": position}]
    body = {"landmarks": rows, "base_revision": base, "author": author}
    return server.http("PUT", f"/landmarks/images/{image_id}", json=body).json()["revision"]


def test_taking_theirs_can_be_undone(logic, server, material):
    image_id, name = sorted(material.truth)[7], material.task.names[0]
    logic.open_case(image_id)
    settle(logic)
    revision = meanwhile(server, image_id, name, [5.0, 6.0])
    logic.correct(name, (61.0, 62.0, 0.0))
    settle(logic)
    mine = list(logic.session.points)
    logic.submit()
    settle(logic)
    logic.take_theirs()
    assert logic.session.point(name).position == (5.0, 6.0, 0.0) and logic.session.base_revision == revision
    assert not logic.session.unsent and logic.unsent == []
    logic.undo()
    assert logic.session.points == mine and logic.session.unsent


def test_another_case_that_opens_destroys_no_correction(logic, server, material):
    (first, second), name = sorted(material.truth)[5:7], material.task.names[0]
    logic.open_case(first)
    settle(logic)
    logic.correct(name, (31.0, 32.0, 0.0))
    settle(logic)
    mine = list(logic.session.points)
    logic.open_case(second)
    settle(logic)
    assert logic.session.image_id == second and [s.image_id for s in logic.unsent] == [first]
    newer = meanwhile(server, first, name, [9.0, 9.0])
    logic.open_unsent(logic.unsent[0])
    settle(logic)
    assert logic.session.image_id == first and logic.session.points == mine and logic.session.unsent
    assert logic.conflict.author == "eve" and logic.conflict.revision == newer  # said at once, not only when it is submitted
    logic.submit_mine()
    settle(logic)
    assert server.get(f"/landmarks/images/{first}")["author"] == "ann" and logic.unsent == []
    logic.open_case(second)
    settle(logic)
    assert logic.unsent == []


def test_what_the_server_refuses_stays_readable_and_can_be_mended_and_sent_again(logic, server, material, monkeypatch):
    image_id, name = sorted(material.truth)[5], material.task.names[1]
    logic.open_case(image_id)
    settle(logic)
    logic.session.place(name, (-500.0, 4.0, 0.0))  # outside: the server does not take it
    logic.submit(then="first")
    settle(logic)
    assert logic.session.image_id == image_id and [(e.image_id, e.state) for e in logic.unsent] == [(image_id, "refused")]
    why = logic.unsent[0].why
    assert "outside" in why and why.partition(": ")[2] in logic.trouble
    assert logic.trouble.startswith(f"{image_id}: the server did not take it")
    again = LandmarkLogic(Options(server.url, "ann"), logic.folder.parent)  # also after a restart
    again.connect()
    settle(again)
    assert [e.why for e in again.unsent] == [why] and again.session.point(name).position == (-500.0, 4.0, 0.0)
    again.correct(name, (50.0, 44.0, 0.0))
    settle(again)
    again.submit()
    settle(again)
    assert again.unsent == [] and again.trouble == ""
    rows = {r["name"]: r["position"] for r in server.get(f"/landmarks/images/{image_id}")["landmarks"]}
    assert rows[name] == [50.0, 44.0]
    again.close()


def test_two_submissions_of_one_case_while_the_server_is_away_do_not_meet_each_other(material, tmp_path_factory, tmp_path):
    alone = phantoms(tmp_path_factory.mktemp("twice"), 2)
    image_id, name = sorted(alone.truth)[0], alone.task.names[0]
    with serving(alone) as server:
        logic = connected(server, tmp_path, image_id)
    for x in (11.0, 12.0):
        logic.session.place(name, (x, 5.0, 0.0))
        logic.submit()
        settle(logic)
    assert len(logic.outbox.waiting()) == 2
    with serving(alone) as server:
        logic.client.url = server.url
        logic.deliver()
        settle(logic)
        assert logic.unsent == [] and logic.conflict is None and not logic.session.unsent
        revisions = server.get(f"/landmarks/images/{image_id}/history")["revisions"]
        assert [r["landmarks"][0]["position"] for r in revisions] == [[11.0, 5.0], [12.0, 5.0]]
    logic.close()


def test_a_wrong_token_is_said_and_what_waits_goes_on_waiting(material, tmp_path_factory, tmp_path):
    alone = phantoms(tmp_path_factory.mktemp("closed"), 2)
    image_id = sorted(alone.truth)[0]
    made = subprocess.run(
        [sys.executable, "-m", "landmarklabel", "token", "new", str(alone.study), "--name", "ann", "--role", "annotator"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    token = re.search(r"\S{20,}", made.stdout)[0]
    with serving(alone) as server:
        logic = LandmarkLogic(Options(server.url, "ann"), tmp_path / "work", token="wrong" * 8)
        logic.connect()
        settle(logic)
        assert logic.state == NOT_LET_IN and not logic.online and logic.trouble.startswith("not let in: ")
        asked = []
        logic.client.alive = lambda: asked.append(1)
        logic.poll()
        assert asked == []  # it does not try again by itself: that would lock the user out
        right = LandmarkLogic(Options(server.url, "ann"), tmp_path / "work", token=token)
        right.connect()
        settle(right)
        assert right.state == CONNECTED and right.who["name"] == "ann" and not right.may_train
        right.open_case(image_id)
        settle(right)
        right.session.place(alone.task.names[0], (20.0, 20.0, 0.0))
        right.client._headers = logic.client._headers  # the token ends
        right.submit()
        settle(right)
        assert right.state == NOT_LET_IN and [e.state for e in right.unsent] == ["waits"]
        last = LandmarkLogic(Options(server.url, "ann"), tmp_path / "work", token=token)
        last.connect()
        settle(last)
        with_token = {"Authorization": f"Bearer {token}"}
        assert last.unsent == [] and server.get(f"/landmarks/images/{image_id}", headers=with_token)["revision"] == 1
        for one in (logic, right, last):
            one.close()


def test_a_server_that_stands_still_is_noticed_within_five_seconds_and_found_again(material, tmp_path_factory, tmp_path):
    alone = phantoms(tmp_path_factory.mktemp("still"), 2)
    with serving(alone) as server:
        logic = LandmarkLogic(Options(server.url, "ann"), tmp_path / "work")
        logic.connect()
        settle(logic)
        for action, online in ((signal.SIGSTOP, False), (signal.SIGCONT, True)):
            server.process.send_signal(action)
            began = time.monotonic()
            while logic.online != online:
                assert time.monotonic() - began < 5.0, logic.state
                logic.poll()
                time.sleep(0.01)
        logic.close()


def test_one_slow_request_blocks_no_other_and_can_be_given_up(logic, server, material, monkeypatch):
    image_id, name = sorted(material.truth)[5], material.task.names[0]
    logic.open_case(image_id)
    settle(logic)
    held = threading.Event()
    monkeypatch.setattr(logic.client, "predict", lambda *_: held.wait(DEADLINE_S))
    logic.predict()
    assert logic.worker.doing == ["predicting"]
    before = server.get(f"/landmarks/images/{image_id}")["revision"]
    logic.correct(name, (40.0, 41.0, 0.0))
    logic.submit()
    end = time.monotonic() + DEADLINE_S
    while server.get(f"/landmarks/images/{image_id}")["revision"] == before:
        assert time.monotonic() < end
        logic.poll()
    logic.cancel()
    assert logic.message == "cancelled" and "predicting" not in logic.worker.doing
    settle(logic)  # what was sent is heard of all the same
    assert not logic.session.unsent and logic.session.base_revision == before + 1 and logic.conflict is None
    held.set()


def test_after_a_second_pass_the_points_are_asked_for_again(logic, monkeypatch):
    answers = iter([True, False])
    asked = []

    def update(model, image_id, points, task):
        asked.append(image_id)
        return {"points": points, "next": None, "origin": "model", "second_pass": next(answers)}

    monkeypatch.setattr(logic.client, "update", update)
    monkeypatch.setattr("LandmarkLabelLib.logic.SECOND_PASS_S", 0.01)
    logic.session = Session.fresh(logic.task, "case")
    logic.correct(logic.task.names[0], (1.0, 2.0, 0.0))
    end = time.monotonic() + DEADLINE_S
    while len(asked) < 2 or logic.worker.busy:
        assert time.monotonic() < end, asked
        logic.poll()
        time.sleep(0.005)
    assert asked == ["case", "case"] and logic._ask_again_at is None


def test_a_session_reopens_where_it_was(logic, server, material):
    logic.open_case(sorted(material.truth)[7])
    settle(logic)
    logic.correct(material.task.names[3], (33.0, 44.0, 0.0))
    settle(logic)
    points = list(logic.session.points)
    again = LandmarkLogic(Options(server.url), logic.folder.parent)  # as after a crash: the old one was never closed
    again.connect()
    settle(again)
    assert again.session.image_id == sorted(material.truth)[7] and again.session.points == points
    again.close()


def test_undo_takes_back_the_correction_and_what_followed(logic, server, material):
    logic.open_case(sorted(material.truth)[7])
    settle(logic)
    logic.predict()
    settle(logic)
    before = list(logic.session.points)
    logic.correct(material.task.names[2], (20.0, 20.0, 0.0))
    settle(logic)
    assert logic.session.undo_text == ("the others follow", "")
    logic.undo()
    logic.undo()
    assert logic.session.points == before


def test_work_goes_on_without_the_server_and_arrives_exactly_once(material, tmp_path_factory, tmp_path):
    alone = phantoms(tmp_path_factory.mktemp("offline"), 3)
    image_id = sorted(alone.truth)[0]
    with serving(alone) as server:
        logic = connected(server, tmp_path, image_id)
        logic.session.propose([Point(n, PREDICTED, p) for n, p in truth_of(alone, image_id).items()])
        logic.template = list(logic.session.points)
    name = alone.task.names[0]
    x, y, z = truth_of(alone, image_id)[name]
    logic.correct(name, (x + 7.0, y, z))
    settle(logic)
    assert logic.state == AWAY and logic.message == "7 points moved; Ctrl+Z puts them back"
    shifts = [np.subtract(p.position, truth_of(alone, image_id)[p.name])[0] for p in logic.session.points]
    assert np.allclose(shifts, 7.0, atol=1e-6)  # one point shifts the others, computed here
    logic.submit()
    settle(logic)
    assert len(logic.outbox.waiting()) == 1
    sent = json.loads(logic.outbox.waiting()[0].read_text(encoding="utf-8"))
    with serving(alone) as server:
        logic.client.url = server.url
        logic.client.save(image_id, logic.session.points, logic.task, 0, "ann", sent["key"])  # its answer was lost, say
        logic.deliver()
        settle(logic)
        assert logic.outbox.waiting() == [] and logic.online
        revisions = server.get(f"/landmarks/images/{image_id}/history")["revisions"]
        assert len(revisions) == 1 and revisions[0]["author"] == "ann"
    logic.close()


def test_the_image_comes_from_the_server_or_from_this_computer(logic, server, material, tmp_path):
    image_id = sorted(material.truth)[5]
    logic.open_case(image_id)
    settle(logic)
    assert logic.image.read_bytes() == material.image(image_id).read_bytes()
    assert logic.folder in logic.image.parents and image_id not in logic.image.name  # no name of the server's on this disk
    logic.options.local_folder = str(material.study)
    logic.open_case(image_id)
    settle(logic)
    assert logic.image == material.image(image_id)


def test_a_new_image_is_sent_and_opened(logic, server, material, tmp_path):
    path = tmp_path / "new.png"
    shutil.copy(material.image(sorted(material.truth)[0]), path)
    path.write_bytes(path.read_bytes())
    logic.upload("fresh_case", path)
    settle(logic)
    assert logic.session.image_id == "fresh_case" and not path.exists()
    assert "fresh_case" in [row["image"] for row in logic.review.cases]
    server.http("DELETE", "/datastore/?id=fresh_case")


def test_a_training_is_followed_and_stopped(logic, server, material):
    logic.options.minutes = 5.0
    logic.train()
    settle(logic)
    end = time.monotonic() + DEADLINE_S
    while not logic.training.percent and time.monotonic() < end:
        logic.poll()
        time.sleep(0.02)
    assert logic.training.is_running and logic.training.model == "scn"
    logic.training.stop()
    while logic.training.is_running and time.monotonic() < end:
        logic.poll()
        time.sleep(0.02)
    settle(logic)
    assert not logic.training.is_running and logic.training.stats["state"] == "stopped"
    assert "training stopped" in logic.message


def test_a_training_that_is_stopped_at_once_leaves_nothing_running(logic, server, material):
    """Before its process has written statistics of its own."""
    logic.options.minutes = 5.0
    logic.train()
    settle(logic)
    logic.training.stop()
    end = time.monotonic() + DEADLINE_S
    while logic.training.is_running:
        assert time.monotonic() < end
        logic.poll()
        time.sleep(0.02)
    assert logic.message.startswith("training stopped: ")


def test_a_point_far_from_where_the_labelled_cases_have_it_is_asked_about(logic, server, material):
    image_id = sorted(material.truth)[5]
    logic.open_case(image_id)
    settle(logic)
    truth = truth_of(material, image_id)
    for name in material.task.names:
        logic.session.place(name, truth[name])
    slip = material.task.names[4]
    logic.correct(slip, (truth[slip][0] + 40.0, truth[slip][1] - 40.0, 0.0))
    settle(logic)
    assert logic.warnings() == [f"{slip} lies far from where the others have it"]
    logic.correct(slip, truth[slip])
    settle(logic)
    assert logic.warnings() == []


def test_who_placed_what_is_told_of_a_finished_case(logic, server, material):
    image_id, (first, second, third, *_) = sorted(material.truth)[6], material.task.names
    base = server.get(f"/landmarks/images/{image_id}")["revision"]
    for author, rows in (("ann", {first: 1.0, second: 2.0}), ("bob", {first: 1.0, second: 9.0, third: 3.0})):
        landmarks = [{"name": n, "status": "placed", "position": [x, x]} for n, x in rows.items()]
        body = {"landmarks": landmarks, "base_revision": base, "author": author}
        base = server.http("PUT", f"/landmarks/images/{image_id}", json=body).json()["revision"]
    logic.open_case(image_id)
    settle(logic)
    assert {n: logic.review.authors[n] for n in (first, second, third)} == {first: "ann", second: "bob", third: "bob"}


def test_a_second_reading_starts_empty_and_changes_no_label(logic, server, material, monkeypatch):
    image_id = sorted(material.truth)[0]  # labelled
    before = server.get(f"/landmarks/images/{image_id}")
    again = {"id": image_id, "reason": "a second reading", "repeat": True}
    monkeypatch.setattr(logic.client, "next_case", lambda strategy, who: again)
    logic.next_case()
    settle(logic)
    assert logic.session.repeat and {p.state for p in logic.session.points} == {UNSET}
    assert logic.sessions.last(logic.task).repeat
    logic.correct(material.task.names[0], (1.0, 2.0, 0.0))
    settle(logic)
    assert logic.submit()
    settle(logic)
    assert logic.outbox.waiting() == [] and server.get(f"/landmarks/images/{image_id}") == before
    assert "Read twice by" in server.http("GET", "/landmarks/").text


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
        ("500", "the server failed with 500; your work is kept here and sent later"),
        ("drop", "does not answer (ConnectionError); your work is kept here and sent later"),
        ("html", "the answer is no JSON: is http://127.0.0.1"),
        ("wrong", "{'name': 'nose'} is no landmark of task 'head'"),
        ("list", "the answer has no list of landmarks"),
        ("slow", "the answer has no list of landmarks"),
    ],
)
def test_a_faulty_server_gives_a_message_and_never_blocks(faulty, tmp_path, mode, text):
    Faulty.mode = mode
    logic = LandmarkLogic(Options(faulty), tmp_path / "work")
    logic.task = Task("head", ("nasion", "menton"), 3, {}, ())
    logic.state, logic._asked_alive_at = CONNECTED, float("inf")
    logic.session = Session.fresh(logic.task, "case")
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
    assert logic.session.points == [Point("nasion"), Point("menton")]
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


def test_nothing_is_written_outside_the_given_folder(logic, tmp_path):
    assert {p.name for p in Path(tmp_path).iterdir()} == {"work"}


def test_what_a_busy_server_did_not_take_is_sent_again_while_it_is_there(logic, server, material, monkeypatch):
    image_id, real = sorted(material.truth)[5], logic.client.save
    logic.open_case(image_id)
    settle(logic)
    logic.correct(material.task.names[3], (40.0, 40.0, 0.0))
    settle(logic)
    answers = [Busy("come again")]
    monkeypatch.setattr("LandmarkLabelLib.submitting.SEND_AGAIN_S", 0.05)
    monkeypatch.setattr(logic.client, "save", lambda *words: (_ for _ in ()).throw(answers.pop()) if answers else real(*words))
    logic.submit()
    settle(logic)
    assert logic.online and logic.message.startswith("come again") and [e.state for e in logic.unsent] == ["waits"]
    end = time.monotonic() + DEADLINE_S
    while logic.unsent:
        assert time.monotonic() < end
        logic.poll()
    assert server.get(f"/landmarks/images/{image_id}")["author"] == "ann"


@pytest.mark.parametrize("url", ["", "ftp://a", "http://"])
def test_an_address_that_is_none_is_said_with_one_that_is(tmp_path, url):
    logic = LandmarkLogic(Options(url), tmp_path / "work")
    logic.connect()
    settle(logic)
    assert logic.message.endswith("is no address: type one as http://127.0.0.1:8000") and not logic.online
    logic.close()


def test_what_arrives_after_a_new_connection_is_heard_of(logic, server, material, tmp_path, monkeypatch):
    """Connect pressed while a submission is on its way."""
    image_id, real, held = sorted(material.truth)[5], logic.client.save, threading.Event()
    logic.open_case(image_id)
    settle(logic)
    logic.correct(material.task.names[2], (44.0, 45.0, 0.0))
    settle(logic)
    monkeypatch.setattr(logic.client, "save", lambda *words: held.wait(DEADLINE_S) and real(*words))
    logic.submit()
    logic.close()
    again = LandmarkLogic(Options(server.url, "ann"), tmp_path / "work")
    again.connect()
    end = time.monotonic() + DEADLINE_S
    while again.task is None:
        assert time.monotonic() < end
        again.poll()
    assert again.session.unsent
    held.set()
    settle(again)
    assert not again.session.unsent and again.unsent == [] and again.conflict is None
    again.correct(material.task.names[2], (46.0, 45.0, 0.0))
    settle(again)
    again.submit()
    settle(again)
    assert again.conflict is None and not again.session.unsent
    again.close()


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
