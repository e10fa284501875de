"""Submitting at the panel: twice, untouched, on a full disk, given up; and other servers meanwhile."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import qt_harness
from cases_at_panel import opened, predicted
from qt_harness import idle, press, wait_for

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.client import Conflict, Refused, Unreachable  # noqa: E402
from LandmarkLabelLib.connecting import AWAY  # noqa: E402
from LandmarkLabelLib.session_files import Sessions  # noqa: E402
from LandmarkLabelLib.volumes import CaseVolume  # noqa: E402
from LandmarkLabelLib.wire import PLACED, Task  # noqa: E402


@pytest.fixture()
def case(panel_at_server, material):
    """A case in which one point was placed, and its id."""
    image_id = sorted(material.truth)[5]
    predicted(panel_at_server, image_id)
    panel_at_server.logic.correct(material.task.names[0], tuple(panel_at_server.logic.session.points[0].position))
    idle(panel_at_server)
    return panel_at_server, image_id


def revision(server, image_id: str) -> int:
    return server.get(f"/landmarks/images/{image_id}")["revision"]


def test_submitting_twice_saves_once(case, server, material):
    panel, image_id = case
    before = revision(server, image_id)
    panel.logic.submit()
    panel.logic.submit()  # before the first has arrived
    idle(panel)
    assert revision(server, image_id) == before + 1
    panel.logic.submit()
    idle(panel)
    assert revision(server, image_id) == before + 1
    assert f"{image_id} is saved; nothing has changed since" in panel.logic.message
    panel.logic.mark_absent(material.task.names[1])
    panel.logic.submit()
    idle(panel)
    assert revision(server, image_id) == before + 2


def test_no_key_but_undo_and_redo_repeats_while_it_is_held(panel_at_server):
    repeating = {made.key().toString() for made in panel_at_server._shortcuts if made.autoRepeat()}
    assert repeating == {"Ctrl+Z", "Ctrl+Y", "Ctrl+Shift+Z"}


def test_an_untouched_case_is_asked_about_before_it_is_submitted(panel_at_server, server, material):
    panel, image_id = panel_at_server, sorted(material.truth)[6]
    opened(panel, image_id)
    press(panel, "submitButton")
    idle(panel)
    assert "no point was placed, accepted or called absent. Submit again if it is right." in panel.ui.message.text()
    assert revision(server, image_id) == 0
    press(panel, "submitButton")
    idle(panel)
    assert revision(server, image_id) == 1


def test_a_case_whose_points_cannot_be_kept_stays_open(panel_at_server, material, monkeypatch):
    panel, image_id = panel_at_server, sorted(material.truth)[7]
    predicted(panel, image_id)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Sessions, "keep", full)
    panel.logic.mark_absent(material.task.names[1])
    before = list(panel.logic.session.points)
    opened(panel, sorted(material.truth)[6])
    assert panel.logic.session.image_id == image_id and panel.logic.session.points == before
    assert f"{image_id} stays open" in panel.ui.message.text()
    assert panel.logic.review.image_id in ("", image_id)  # nothing of another case can be restored into this one
    assert "your points are only in memory: " in panel.ui.trouble.text().replace("\u200b", "")
    panel.ui.url.setText("http://127.0.0.1:9")
    press(panel, "connectButton")  # nor does another server make it go
    assert panel.logic.session.points == before
    monkeypatch.undo()
    opened(panel, sorted(material.truth)[6])
    assert panel.logic.session.image_id == sorted(material.truth)[6]
    assert any(x.image_id == image_id for x in panel.logic.unsent)


def test_a_submission_that_is_given_up_in_a_conflict_leaves_the_points_and_can_be_made_again(case, server, monkeypatch):
    panel, image_id = case
    theirs, before = list(panel.logic.session.points), revision(server, image_id)

    def refuse(*_, **__):
        raise Conflict("newer", 99, "bob", theirs)

    monkeypatch.setattr(panel.logic.client, "save", refuse)
    panel.logic.submit()
    idle(panel)
    assert not panel.ui.conflictFrame.isHidden()
    press(panel, "discardButton")
    assert f"the submission of {image_id} will be gone, its points stay open here" in panel.ui.message.text()
    press(panel, "discardButton")
    assert f"{image_id}: the submission is discarded; the points are still open here, and not sent" in panel.ui.message.text()
    assert panel.logic.session.points[0].state == PLACED and panel.logic.unsent == []
    monkeypatch.undo()
    panel.logic.conflict = None
    panel.logic.submit()
    idle(panel)
    assert revision(server, image_id) == before + 1


def test_a_waiting_submission_that_is_given_up_can_be_made_again(case, server, monkeypatch):
    panel, image_id = case
    before = revision(server, image_id)

    def gone(*_, **__):
        raise Unreachable("the server does not answer")

    monkeypatch.setattr(panel.logic.client, "save", gone)
    panel.logic.submit()
    idle(panel)
    press(panel, "discardButton")
    press(panel, "discardButton")
    monkeypatch.undo()
    panel.logic.submit()
    idle(panel)
    assert revision(server, image_id) == before + 1


@pytest.mark.parametrize("is_away", [False, True])
def test_what_was_done_and_undone_since_is_nothing_to_send(case, server, material, monkeypatch, is_away):
    panel, image_id = case
    before, save = revision(server, image_id), panel.logic.client.save

    def gone(*_, **__):
        raise Unreachable("the server does not answer")

    if is_away:
        monkeypatch.setattr(panel.logic.client, "save", gone)
    panel.logic.submit()
    idle(panel)
    panel.logic.mark_absent(material.task.names[2])
    press(panel, "undoButton")
    monkeypatch.setattr(panel.logic.client, "save", save)
    asked = []
    monkeypatch.setattr(panel.logic, "next_case", asked.append)
    panel.logic.submit("first")
    idle(panel)
    assert asked == ["first"]  # the next case is asked for
    assert revision(server, image_id) == before + 1 and not panel.logic.unsent
    opened(panel, image_id)
    assert not panel.logic.session.unsent and "not sent" not in panel.ui.caseLabel.text()


def test_only_the_submission_that_was_refused_can_be_made_again(case, server, material, monkeypatch):
    """Two wait; the older is refused, the newer taken: nothing is left to send."""
    panel, image_id = case
    before, save, refused = revision(server, image_id), panel.logic.client.save, []

    def gone(*_, **__):
        raise Unreachable("the server does not answer")

    def picky(*words, **more):
        if not refused:
            refused.append(words)
            raise Refused("not this one")
        return save(*words, **more)

    monkeypatch.setattr(panel.logic.client, "save", gone)
    panel.logic.submit()
    idle(panel)
    panel.logic.mark_absent(material.task.names[3])
    panel.logic.submit()
    idle(panel)
    monkeypatch.setattr(panel.logic.client, "save", picky)
    panel.logic.deliver()
    idle(panel)
    panel.logic.submit()
    idle(panel)
    assert revision(server, image_id) == before + 1 and panel.logic.message.endswith("is saved; nothing has changed since")


def test_what_changed_without_a_hand_since_can_be_submitted(case, server):
    """Others follow, a prediction is made anew, and undo takes it back: what is on screen is what counts."""
    panel, image_id = case
    before = revision(server, image_id)
    panel.logic.submit()
    idle(panel)
    moved = [
        replace(p, position=tuple(v + 0.5 for v in p.position)) if not p.by_person else p for p in panel.logic.session.points
    ]
    panel.logic.session.propose(moved)
    panel.logic.submit()
    idle(panel)
    assert revision(server, image_id) == before + 2
    press(panel, "undoButton")
    panel.logic.submit()
    idle(panel)
    assert revision(server, image_id) == before + 3


def test_a_case_that_waits_and_is_opened_again_waits_once(case, monkeypatch, material):
    panel, image_id = case
    panel.logic.mark_absent(material.task.names[4])

    def gone(*_, **__):
        raise Unreachable("the server does not answer")

    monkeypatch.setattr(panel.logic.client, "save", gone)
    panel.logic.submit()
    idle(panel)
    assert panel.logic.session.unsent
    opened(panel, sorted(material.truth)[6])
    opened(panel, image_id)
    panel.logic.submit()
    assert f"{image_id} waits to be sent" in panel.logic.message
    idle(panel)
    assert len(panel.logic.outbox.waiting()) == 1


def test_the_end_of_a_batch_is_shown_though_nobody_presses_anything(panel_at_server, material, tmp_path):
    panel = panel_at_server
    (tmp_path / "images").mkdir()
    for image_id in sorted(material.truth)[:3]:
        shutil.copy(material.image(image_id), tmp_path / "images")
    panel.ui.batchFolder.setText(str(tmp_path / "images"))
    panel.ui.batchOut.setText(str(tmp_path / "results"))
    press(panel, "batchButton")
    wait_for(panel, lambda: panel.ui.batchText.text().startswith("3 predicted, "), "the end of the batch")
    assert panel.ui.batchButton.isEnabled() and not panel.ui.stopBatchButton.isEnabled() and panel.ui.batchBar.isHidden()


def test_another_connection_ends_a_batch_in_words_and_leaves_no_image(panel_at_server, server, material, tmp_path):
    panel = panel_at_server
    for number in range(2):
        CaseVolume(slicer.mrmlScene).show(material.image(sorted(material.truth)[number]), f"open {number}")
    panel.ui.batchVolumes.setChecked(True)
    panel.ui.batchOut.setText(str(tmp_path / "results"))
    press(panel, "batchButton")
    place = panel.batch._temporary.name
    press(panel, "connectButton")
    idle(panel)
    assert panel.ui.batchText.text() == "stopped by another connection; the same again goes on"
    wait_for(panel, lambda: not any(Path(place).glob("*")), "the images of the batch to go")
    assert panel.ui.batchButton.isEnabled()
    panel.ui.batchVolumes.setChecked(False)
    slicer.mrmlScene.Clear(False)


def test_a_server_that_is_back_with_another_task_is_not_taken_for_the_same(case, server, monkeypatch):
    panel, image_id = case
    logic = panel.logic
    other = Task("skull", ("apex",), 3, {}, ())
    monkeypatch.setattr(logic.client, "task", lambda: other)
    logic.state, logic._asked_alive_at = AWAY, 0.0
    wait_for(panel, lambda: logic.trouble, "the other task to be noticed")
    assert logic.trouble == "another task is served there now (skull): press Connect to work on it" and not logic.online
    logic.review.list_cases()  # an answer to something else does not make it the same
    idle(panel)
    assert not logic.online and panel.ui.serverStatus.text() == "another task or study is served: connect again"
    before = revision(server, image_id)
    logic.submit()
    idle(panel)
    assert revision(server, image_id) == before and len(logic.outbox.waiting()) == 1
    assert panel.ui.message.text() == "it is kept until its own task and study are served here again"
    press(panel, "nextButton")
    assert logic.session.image_id == image_id and logic.trouble.startswith("another task is served there now")
    monkeypatch.undo()
    press(panel, "connectButton")
    idle(panel)
    assert panel.logic.online and not panel.logic.trouble


def test_paths_that_no_file_system_takes_are_said(panel_at_server, material, monkeypatch):
    panel = panel_at_server
    panel.ui.localFolder.setText("/" + "x" * 5000)
    panel.ui.localFolder.editingFinished.emit()
    opened(panel, sorted(material.truth)[5])
    assert panel.volume.node is not None  # from the server
    monkeypatch.setattr(type(panel.local.server), "installed", True)
    panel.ui.study.setText("/tmp/" + "x" * 300)
    panel.ui.study.editingFinished.emit()
    panel.refresh()
    press(panel, "startButton")
    assert "File name too long" in panel.ui.message.text()


def test_another_task_is_noticed_though_something_else_was_answered_first(case, server, monkeypatch):
    panel, image_id = case
    logic, before = panel.logic, revision(server, image_id)
    monkeypatch.setattr(logic.client, "task", lambda: Task("skull", ("apex",), 3, {}, ()))
    logic._failed(Unreachable("the server does not answer"))
    logic.outbox.put(logic.session, "ann")
    logic.review.list_cases()
    idle(panel)
    wait_for(panel, lambda: not logic.online, "the other task to be noticed")
    assert revision(server, image_id) == before and len(logic.outbox.waiting()) == 1


def test_the_model_that_is_chosen_is_the_one_that_is_used_after_connecting_again(panel_at_server):
    panel = panel_at_server
    first, second = list(panel.logic.models)[:2]
    assert (panel.ui.models.currentText(), panel.logic.model) == (first, first)
    panel.ui.models.setCurrentIndex(1)
    press(panel, "connectButton")
    idle(panel)
    assert (panel.ui.models.currentText(), panel.logic.model) == (second, second)


def test_a_path_that_was_emptied_counts_no_more(panel_at_server, material):
    panel = panel_at_server
    panel.ui.localFolder.setText(str(material.study))
    assert panel.options.local_folder == str(material.study)
    panel.ui.localFolder.setText("")  # of which CTK's line tells nobody
    press(panel, "nextButton")
    assert panel.options.local_folder == ""
    idle(panel)
