"""The module's logic while the server is away, slow, busy or lets nobody in: work goes on, and arrives once."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from annotators import DEADLINE_S, connected, settle, truth_of
from LandmarkLabelLib.client import Busy
from LandmarkLabelLib.connecting import AWAY, CONNECTED, NOT_LET_IN
from LandmarkLabelLib.logic import LandmarkLogic
from LandmarkLabelLib.options import Options
from LandmarkLabelLib.wire import PREDICTED, UNSET, Point
from serving import phantoms, serving


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


def test_what_is_still_to_follow_does_not_change_a_case_that_is_submitted(logic, server, material, monkeypatch):
    first, second = material.task.names[:2]
    logic.open_case(sorted(material.truth)[7])
    settle(logic)
    real, gate = logic.client.update, threading.Event()

    def slow(*asked):
        gate.wait(DEADLINE_S)
        return real(*asked)

    monkeypatch.setattr(logic.client, "update", slow)
    logic.correct(first, (20.0, 20.0, 0.0))
    assert logic.submit()
    gate.set()
    settle(logic)
    assert logic.session.point(second).state == UNSET and logic.session.is_submitted
