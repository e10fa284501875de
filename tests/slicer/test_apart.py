"""One computer, several people and studies: what one has not sent is neither shown to another nor sent under another's name."""

from __future__ import annotations

import shutil
import socket

import pytest
from annotators import at, opened, settle, submitted, token_of
from LandmarkLabelLib import connecting, work_folder
from LandmarkLabelLib.connecting import IDLE, OTHER_TASK
from LandmarkLabelLib.logic import LandmarkLogic
from LandmarkLabelLib.options import Options
from LandmarkLabelLib.outbox import Outbox
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.session_files import Sessions
from LandmarkLabelLib.wire import PLACED
from LandmarkLabelLib.work_folder import folder_of
from serving import Material, phantoms, serving

SUBMITTED, OPEN = "phantom00", "phantom01"


@pytest.fixture()
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_colleague_at_the_same_computer_neither_sends_nor_sees_it(tmp_path, port):
    material = phantoms(tmp_path / "study", 2)
    tokens = {name: token_of(material, name) for name in ("ann", "bob")}
    with serving(material, port=port) as server:
        ann = at(server.url, tmp_path / "work", tokens["ann"])
        opened(ann, SUBMITTED)
        ann.session.place(ann.task.names[0], (20.0, 30.0, 0.0))
        opened(ann, OPEN)
        ann.session.place(ann.task.names[0], (21.0, 31.0, 0.0))
    submitted(ann)
    ann.close()
    with serving(material, port=port) as server:
        bob = at(server.url, tmp_path / "work", tokens["bob"])
        assert bob.unsent == [] and bob.session is None
        assert bob.notices == ["2 cases of ann wait here to be sent: press Take over only if they are yours"]
        opened(bob, SUBMITTED)
        assert not any(p.by_person for p in bob.session.points)
        assert server.get(f"/landmarks/images/{OPEN}", headers=_of(tokens["bob"]))["revision"] == 0
        bob.close()
        again = at(server.url, tmp_path / "work", tokens["ann"])
        settle(again)
        saved = server.get(f"/landmarks/images/{OPEN}", headers=_of(tokens["ann"]))
        assert (saved["author"], saved["revision"]) == ("ann", 1)
        opened(again, SUBMITTED)
        assert again.session.points[0].state == PLACED and again.session.points[0].position == (20.0, 30.0, 0.0)
        again.close()


def _of(token: str) -> dict:
    return {"Authorization": f"Bearer {token}"}


def test_a_copy_of_the_study_at_the_same_address_does_not_get_it(tmp_path, port):
    first = phantoms(tmp_path / "first", 2)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = Material(tmp_path / "second" / first.study.name, tmp_path / "second" / first.task_file.name, first.task, first.truth)
    with serving(first, port=port) as server:
        logic = at(server.url, tmp_path / "work")
        opened(logic, SUBMITTED)
        logic.session.place(logic.task.names[0], (20.0, 30.0, 0.0))
    with serving(second, port=port) as server:
        assert submitted(logic)
        assert logic.state == OTHER_TASK
        assert logic.trouble == "another study is served there now: press Connect to work on it"
        assert [(e.image_id, e.state) for e in logic.unsent] == [(SUBMITTED, "waits")]
        logic.close()
        other = at(server.url, tmp_path / "work")
        assert other.unsent == [] and other.session is None
        assert other.notices == ["1 cases wait for another study at this address: they are sent when it is served"]
        assert not other.left
        assert server.get(f"/landmarks/images/{SUBMITTED}")["revision"] == 0
        other.close()
    with serving(first, port=port) as server:
        back = at(server.url, tmp_path / "work")
        assert back.unsent == [] and server.get(f"/landmarks/images/{SUBMITTED}")["revision"] == 1
        back.close()


def test_what_an_earlier_version_kept_is_gone_on_with(tmp_path):
    material = phantoms(tmp_path / "study", 2)
    with serving(material) as server:
        probe = at(server.url, tmp_path / "elsewhere")
        task = probe.task
        probe.close()
        earlier = folder_of(tmp_path / "work", server.url)
        submitted, half_done = Session.fresh(task, SUBMITTED), Session.fresh(task, OPEN)
        submitted.place(task.names[0], (20.0, 30.0, 0.0))
        half_done.place(task.names[0], (21.0, 31.0, 0.0))
        Outbox(earlier / "outbox").put(submitted, "ann")
        Sessions(earlier / "sessions").keep(submitted)
        Sessions(earlier / "sessions").keep(half_done)
        (earlier / "image").mkdir()
        (earlier / "image" / "patient.png").touch()
        logic = at(server.url, tmp_path / "work")
        assert logic.session.image_id == OPEN and logic.session.points[0].position == (21.0, 31.0, 0.0)
        assert server.get(f"/landmarks/images/{SUBMITTED}")["revision"] == 1
        assert not list(earlier.rglob("*.json")) and not list(earlier.rglob("*.png"))
        logic.close()


def test_a_finished_case_is_opened_as_the_server_has_it_by_now(tmp_path):
    material = phantoms(tmp_path / "study", 2)
    with serving(material) as server:
        logic = at(server.url, tmp_path / "work")
        opened(logic, SUBMITTED)
        logic.session.place(logic.task.names[0], (20.0, 30.0, 0.0))
        submitted(logic)
        logic.close()
        rows = [{"name": logic.task.names[0], "status": "placed", "position": [5.0, 6.0]}]
        body = {"landmarks": rows, "base_revision": 1, "author": "bob"}
        assert server.http("PUT", f"/landmarks/images/{SUBMITTED}", json=body).status_code == 200
        again = at(server.url, tmp_path / "work")
        assert again.session.image_id == SUBMITTED and again.session.points[0].position == (5.0, 6.0, 0.0)
        assert again.session.base_revision == 2 and not again.session.unsent
        again.close()


@pytest.fixture()
def before_tokens(tmp_path, port):
    """A study whose server knows names by now, and what "somebody" has left of two cases from before: one is submitted."""
    material = phantoms(tmp_path / "study", 2)
    with serving(material, port=port) as server:
        logic = at(server.url, tmp_path / "work")
        for case, place in ((OPEN, (21.0, 31.0, 0.0)), (SUBMITTED, (20.0, 30.0, 0.0))):
            opened(logic, case)
            logic.correct(logic.task.names[0], place)
    submitted(logic)
    logic.close()
    return material


def test_what_was_kept_before_there_were_tokens_waits_for_who_has_that_name(before_tokens, tmp_path, port):
    ann, somebody = token_of(before_tokens, "ann"), token_of(before_tokens, "somebody")
    with serving(before_tokens, port=port) as server:
        logic = at(server.url, tmp_path / "work", ann)
        assert logic.unsent == [] and server.get(f"/landmarks/images/{SUBMITTED}", headers=_of(ann))["revision"] == 0
        asks = "2 cases of somebody wait here to be sent: press Take over only if they are yours"
        assert logic.notices == [asks]
        logic.close()
        logic = at(server.url, tmp_path / "work", somebody)
        settle(logic)
        saved = server.get(f"/landmarks/images/{SUBMITTED}", headers=_of(ann))
        assert (saved["revision"], saved["author"]) == (1, "somebody") and not logic.notices
        assert [s.image_id for s in logic.unsent] == [OPEN]
        logic.close()


def test_what_was_only_changed_before_there_were_tokens_is_nobody_elses_either(tmp_path, port):
    material = phantoms(tmp_path / "study", 2)
    with serving(material, port=port) as server:
        logic = at(server.url, tmp_path / "work")
        opened(logic, OPEN)
        logic.correct(logic.task.names[0], (21.0, 31.0, 0.0))
        logic.close()
    ann = token_of(material, "ann")
    with serving(material, port=port) as server:
        logic = at(server.url, tmp_path / "work", ann)
        assert logic.session is None and logic.unsent == [] and list(logic.left.values()) == ["somebody"]
        logic.close()


def test_what_was_left_under_another_name_is_taken_over_when_asked(before_tokens, tmp_path, port):
    ann = token_of(before_tokens, "ann")
    with serving(before_tokens, port=port) as server:
        logic = at(server.url, tmp_path / "work", ann)
        logic.take_over()
        settle(logic)
        saved = server.get(f"/landmarks/images/{SUBMITTED}", headers=_of(ann))
        assert (saved["revision"], saved["author"]) == (1, "ann") and not logic.notices and not logic.left
        assert [(s.image_id, s.point(logic.task.names[0]).position) for s in logic.unsent] == [(OPEN, (21.0, 31.0, 0.0))]
        logic.close()


def test_of_the_open_case_nothing_is_taken_over_until_it_is_left(before_tokens, tmp_path, port):
    ann = token_of(before_tokens, "ann")
    with serving(before_tokens, port=port) as server:
        logic = at(server.url, tmp_path / "work", ann)
        opened(logic, OPEN)
        logic.take_over()
        settle(logic)
        assert not any(p.by_person for p in logic.session.points) and logic.unsent == []
        asks = "1 cases of somebody wait here to be sent: press Take over only if they are yours"
        assert logic.notices == [asks]
        logic.correct(logic.task.names[1], (5.0, 6.0, 0.0))
        submitted(logic)
        opened(logic, SUBMITTED)
        logic.take_over()
        assert [s.image_id for s in logic.unsent] == [OPEN] and not logic.notices
        opened(logic, OPEN)  # both meet: what was taken over, and what the server has
        assert logic.session.points[0].position == (21.0, 31.0, 0.0) and logic.conflict.points[1].position == (5.0, 6.0, 0.0)
        logic.close()


def test_who_has_another_token_name_than_before_gets_at_the_own_work(tmp_path, port):
    material = phantoms(tmp_path / "study", 2)
    earlier, now = token_of(material, "asmith"), token_of(material, "anna.smith")
    with serving(material, port=port) as server:
        logic = at(server.url, tmp_path / "work", earlier)
        opened(logic, OPEN)
        logic.correct(logic.task.names[0], (21.0, 31.0, 0.0))
        logic.close()
        work_folder.let_go(tmp_path / "work")
        logic = at(server.url, tmp_path / "work", now)
        assert list(logic.left.values()) == ["asmith"] and logic.unsent == []
        logic.take_over()
        settle(logic)
        assert [s.image_id for s in logic.unsent] == [OPEN] and not logic.left
        logic.close()


def test_what_another_slicer_has_left_of_the_same_case_follows_once_that_is_sent(tmp_path):
    material = phantoms(tmp_path / "study", 2)
    with serving(material) as server:
        logic = at(server.url, tmp_path / "work")
        opened(logic, OPEN)
        logic.correct(logic.task.names[0], (21.0, 31.0, 0.0))
        second = logic.folder.with_name(f"{logic.folder.name}-2")
        other = Session.fresh(logic.task, OPEN)
        other.place(logic.task.names[1], (5.0, 6.0, 0.0))
        Sessions(second / "sessions").keep(other)
        logic.close()
        logic = at(server.url, tmp_path / "work")
        asks = "a Slicer that has ended left 1 cases that are unsent here too: they come when these are sent and closed"
        assert logic.notices == [asks] and logic.session.image_id == OPEN
        submitted(logic)
        assert logic.notices == [asks]  # it is open still
        opened(logic, SUBMITTED)
        assert not logic.notices and [s.image_id for s in logic.unsent] == [OPEN]
        logic.close()


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    material = phantoms(tmp_path / "study", 1)
    with serving(material) as server:
        logic = LandmarkLogic(Options(server.url, "ann"), tmp_path / "work")
        monkeypatch.setattr(connecting, "own_folder", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        logic.connect()
        settle(logic)
        assert (logic.state, logic.task) == (IDLE, None)
        assert logic.trouble == f"{tmp_path / 'work'} cannot be written (No space left on device): nothing could be kept"
        monkeypatch.undo()
        logic.connect()
        settle(logic)
        assert logic.online and logic.task is not None
        logic.close()
