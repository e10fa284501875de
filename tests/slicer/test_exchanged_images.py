"""A submission speaks of the pixels that were looked at, not of whatever has their case's name by now."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
import qt_harness
import SimpleITK as sitk
from annotators import connected, opened, settle, submitted, until_back, until_compared
from LandmarkLabelLib.client import NotShownHere, Refused
from LandmarkLabelLib.connecting import AWAY, OTHER_TASK
from LandmarkLabelLib.outbox import REFUSED, WAITS
from LandmarkLabelLib.wire import PLACED, PREDICTED
from qt_harness import idle, press, wait_for
from serving import phantoms, serving, serving_labelled

qt = qt_harness.install()

import slicer  # noqa: E402
from test_drawn_images import agreement  # noqa: E402
from views import SliceView  # noqa: E402

CHANGED = "the image was changed since you opened it; open it again and look at the points"


def invert(path) -> None:
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(255 - image, str(path))


def test_points_of_an_image_that_was_exchanged_are_kept_here_until_somebody_has_looked(tmp_path):
    material = phantoms(tmp_path, 2)
    name = material.task.names[0]
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
        assert logic.correct(name, (20.0, 30.0, 0.0))
        settle(logic)
        invert(material.image("phantom00"))
        assert submitted(logic)
        (entry,) = logic.unsent
        assert entry.state == REFUSED and entry.why == f"phantom00: {CHANGED}"
        assert server.get("/landmarks/images/phantom00")["revision"] == 0
        opened(logic, "phantom00")
        assert logic.session.point(name).state == PLACED
        assert logic.trouble.endswith("phantom00 is another image than the one its points were placed on: look at every point")
        assert logic.warnings()[0] == "phantom00 is another image than the one its points were placed on: look at every point"
        assert submitted(logic)
        saved = server.get("/landmarks/images/phantom00")
        assert (
            saved["revision"] == 1
            and saved["pixels"] == server.get("/landmarks/images/phantom00/pixels")["pixels"]
            and not saved["changed"]
        )
        logic.close()


def test_what_waits_for_one_study_is_not_taken_by_another_at_the_same_address(tmp_path):
    ours, theirs = phantoms(tmp_path / "ours", 1), phantoms(tmp_path / "theirs", 1)  # a case of each has the same name
    invert(theirs.image("phantom00"))
    name = ours.task.names[0]
    with serving(ours) as server:
        logic = connected(server, tmp_path, "phantom00")
    assert logic.correct(name, (20.0, 30.0, 0.0))
    submitted(logic)
    with serving(theirs) as server:
        logic.client.url = server.url
        logic.deliver()
        settle(logic)
        assert server.get("/landmarks/images/phantom00")["revision"] == 0
        assert [entry.state for entry in logic.unsent] == [WAITS] and logic.state == OTHER_TASK
        assert logic.session.point(name).position == (20.0, 30.0, 0.0)
    logic.close()


def test_a_refused_case_that_is_open_is_mended_from_the_list(tmp_path):
    material = phantoms(tmp_path, 1)
    name = material.task.names[0]
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
        assert logic.correct(name, (20.0, 30.0, 0.0))
        invert(material.image("phantom00"))
        submitted(logic)
        (entry,) = logic.unsent
        logic.open_unsent(entry)
        settle(logic)
        assert "phantom00 is another image than the one its points were placed on" in logic.trouble
        assert submitted(logic)
        assert logic.unsent == [] and server.get("/landmarks/images/phantom00")["revision"] == 1
        logic.close()


def test_an_image_of_this_computer_is_shown_while_the_server_is_away_and_compared_when_it_is_back(tmp_path):
    material = phantoms(tmp_path, 1)
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
    logic.options.local_folder = str(material.study)
    logic.image, pixels = None, logic.session.pixels
    logic.poll()
    logic._fetch_image()
    settle(logic)
    assert logic.image == material.image("phantom00") and logic.session.pixels == pixels and not logic.is_compared
    shown = f"{logic.image} is shown; whether the server has the same image is not known yet"
    assert logic.trouble == shown
    logic.correct(material.task.names[0], (20.0, 30.0, 0.0))
    settle(logic)
    assert logic.state == AWAY and not logic.submit() and logic.outbox.waiting() == []
    assert logic.message.startswith("whether the server has the image that is shown is not known yet")
    with serving(material, port=int(server.url.rpartition(":")[2])):
        until_compared(logic)
        assert logic.session.pixels == pixels and logic.image == material.image("phantom00") and logic.trouble == ""
    logic.close()


def test_a_finished_case_of_another_image_says_so_when_it_is_opened(tmp_path):
    material = phantoms(tmp_path, 1)
    with serving(material) as server:
        server.client.save_label("phantom00", str(material.label_file("phantom00", tmp_path)), tag="final")
        invert(material.image("phantom00"))
        logic = connected(server, tmp_path, "phantom00")
        assert logic.trouble == "phantom00 is another image than the one its points were placed on: look at every point"
        logic.close()


def test_an_image_that_does_not_come_is_said_until_the_case_is_opened_again(tmp_path, monkeypatch):
    material = phantoms(tmp_path, 1)
    with serving(material) as server:
        logic = connected(server, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(logic.client, "download", lambda *_: (_ for _ in ()).throw(Refused("gone")))
            opened(logic, "phantom00")
        assert logic.correct(material.task.names[0], (20.0, 30.0, 0.0))  # the next message
        settle(logic)
        assert logic.image is None and logic.trouble == "no image of phantom00 is shown: open the case again"
        opened(logic, "phantom00")
        assert logic.image is not None and logic.trouble == ""
        logic.close()


def test_points_that_could_not_be_kept_are_said_in_the_case_that_opens_next(tmp_path, monkeypatch):
    material = phantoms(tmp_path, 2)
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
        logic.session.place(material.task.names[0], (20.0, 30.0, 0.0))
        monkeypatch.setattr(logic.sessions, "keep", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        opened(logic, "phantom01")
        assert "No space left on device" in logic.trouble
        logic.close()


def test_a_file_of_this_computer_that_is_not_the_servers_is_not_shown(tmp_path, monkeypatch):
    material = phantoms(tmp_path, 1)
    other = tmp_path / "own" / "phantom00.png"
    other.parent.mkdir()
    shutil.copy(material.image("phantom00"), other)
    with serving(material) as server:
        logic = connected(server, tmp_path)
        logic.options.local_folder = str(other.parent)
        opened(logic, "phantom00")
        assert logic.image == other and logic.session.pixels  # the very file: a submission says of which pixels it speaks
        invert(other)
        opened(logic, "phantom00")
        assert logic.image.read_bytes() == material.image("phantom00").read_bytes()
        assert logic.message == f"{other} is not the image that the server has: the server's is shown"
        with monkeypatch.context() as patch:
            patch.setattr(logic.client, "download", lambda *_: (_ for _ in ()).throw(Refused("gone")))
            opened(logic, "phantom00")
        assert logic.image is None and logic.trouble == "no image of phantom00 is shown: open the case again"
        logic.close()


def test_what_is_discarded_is_gone_with_what_was_kept_of_it(tmp_path):
    material = phantoms(tmp_path, 2)
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
        assert logic.correct(material.task.names[0], (20.0, 30.0, 0.0))
        invert(material.image("phantom00"))
        submitted(logic)
        opened(logic, "phantom01")
        (entry,) = logic.unsent
        logic.discard(entry)
        assert logic.unsent == []
        opened(logic, "phantom00")
        assert not any(p.by_person for p in logic.session.points)
        logic.close()


@pytest.fixture()
def panel(tmp_path):
    qt_harness.install()
    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.open_panel(tmp_path / "panel")
    yield panel
    panel.close()
    window.close()


def drawn(panel, image) -> float:
    """How well what the view shows agrees with a file."""
    read = sitk.ReadImage(str(image))
    read.SetSpacing((1, 1))
    read.SetOrigin((0, 0))
    view = SliceView(slicer.applicationLogic, panel.volume.node, "Axial", size=(400, 400))
    try:
        return agreement(view, read, np.random.default_rng(0))
    finally:
        view.close()


@pytest.mark.parametrize("is_local", [False, True])
def test_the_image_that_was_exchanged_is_the_one_that_is_drawn(tmp_path, panel, is_local):
    material = phantoms(tmp_path, 1)
    name, ui = material.task.names[0], panel.ui
    with serving(material) as server:
        ui.url.setText(server.url)
        ui.localFolder.setText(str(material.study) if is_local else "")
        press(panel, "connectButton")
        idle(panel)
        press(panel, "nextButton")
        idle(panel)
        assert drawn(panel, material.image("phantom00")) > 0.95
        assert panel.logic.correct(name, (20.0, 30.0, 0.0))
        idle(panel)
        invert(material.image("phantom00"))
        for _ in range(2):  # the other points are proposals or unset: the panel asks
            press(panel, "submitButton")
            idle(panel)
        assert ui.unsentList.item(0).text() == f"phantom00: {CHANGED}"
        press(panel, "openUnsentButton")
        idle(panel)
        assert drawn(panel, material.image("phantom00")) > 0.95  # and not the one that the point was placed on
        press(panel, "submitButton")
        assert ui.message.text().startswith(
            "phantom00 is another image than the one its points were placed on: look at every point"
        )
        assert server.get("/landmarks/images/phantom00")["revision"] == 0
        press(panel, "submitButton")
        idle(panel)
        assert server.get("/landmarks/images/phantom00")["revision"] == 1


def test_nothing_is_placed_or_submitted_while_no_image_is_shown(tmp_path, panel, monkeypatch):
    material = phantoms(tmp_path, 1)
    name, ui = material.task.names[0], panel.ui
    with serving(material) as server:
        ui.url.setText(server.url)
        press(panel, "connectButton")
        idle(panel)
        comes = threading.Event()
        download = panel.logic.client.download
        monkeypatch.setattr(panel.logic.client, "download", lambda *words: comes.wait(60) and download(*words))
        press(panel, "nextButton")
        wait_for(panel, lambda: panel.logic.session is not None, "the case")
        why = "the image of phantom00 is not shown: wait for it, or open the case again"
        assert not panel.logic.correct(name, (20.0, 30.0, 0.0)) and panel.logic.message == why
        press(panel, "submitButton")
        assert ui.message.text() == why
        press(panel, "cancelButton")
        panel.refresh()
        assert ui.trouble.text().replace("\u200b", "") == "no image of phantom00 is shown: open the case again"
        press(panel, "submitButton")
        assert ui.message.text() == why and server.get("/landmarks/images/phantom00")["revision"] == 0
        comes.set()
        monkeypatch.undo()
        ui.cases.setCurrentIndex(0)
        press(panel, "openCaseButton")
        idle(panel)
        assert panel.logic.correct(name, (20.0, 30.0, 0.0))


def test_a_local_image_that_turns_out_to_be_another_is_asked_about(tmp_path):
    material = phantoms(tmp_path, 1)
    other = tmp_path / "own" / "phantom00.png"
    other.parent.mkdir()
    shutil.copy(material.image("phantom00"), other)
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
    invert(other)
    logic.options.local_folder = str(other.parent)
    logic._fetch_image()
    settle(logic)
    assert logic.image == other and not logic.is_compared
    assert logic.correct(material.task.names[0], (20.0, 30.0, 0.0))
    with serving(material, port=int(server.url.rpartition(":")[2])):
        until_compared(logic)
        assert logic.image != other and logic.session.is_other_image
        assert logic.warnings()[0] == "phantom00 is another image than the one its points were placed on: look at every point"
    logic.close()


def test_proposals_come_with_the_image_where_they_are_wanted_at_once(tmp_path, panel):
    material = phantoms(tmp_path, 4)
    with serving_labelled(material, 3, tmp_path) as server:
        panel.ui.url.setText(server.url)
        panel.ui.predictAtOnce.setChecked(True)
        press(panel, "connectButton")
        idle(panel)
        press(panel, "nextButton")
        idle(panel)
        assert {p.state for p in panel.logic.session.points} == {PREDICTED}, panel.ui.message.text()


def test_an_image_that_a_person_opens_is_not_missed(tmp_path, monkeypatch):
    material = phantoms(tmp_path, 1)
    with serving(material) as server:
        logic = connected(server, tmp_path)
        monkeypatch.setattr(logic.client, "download", lambda *_: (_ for _ in ()).throw(NotShownHere("open it yourself")))
        opened(logic, "phantom00")
        assert logic.is_shown_by_hand and logic.image is None and logic.session.pixels and logic.trouble == ""
    logic.correct(material.task.names[0], (20.0, 30.0, 0.0))
    settle(logic)
    assert logic.state == AWAY
    with serving(material, port=int(server.url.rpartition(":")[2])) as server:
        until_back(logic)
        assert logic.trouble == "" and submitted(logic)
        assert server.get("/landmarks/images/phantom00")["revision"] == 1
    logic.close()


def test_submitting_mine_asks_about_an_image_that_was_exchanged(tmp_path, panel):
    material = phantoms(tmp_path, 1)
    name, ui = material.task.names[0], panel.ui
    with serving(material) as server:
        ui.url.setText(server.url)
        press(panel, "connectButton")
        idle(panel)
        press(panel, "nextButton")
        idle(panel)
        assert panel.logic.correct(name, (20.0, 30.0, 0.0))
        idle(panel)
        invert(material.image("phantom00"))
        rows = [{"name": name, "status": "placed", "position": [5.0, 6.0]}]
        body = {"landmarks": rows, "base_revision": 0, "author": "bob"}
        assert server.http("PUT", "/landmarks/images/phantom00", json=body).status_code == 200
        ui.cases.setCurrentIndex(0)
        press(panel, "openCaseButton")
        idle(panel)
        assert not ui.conflictFrame.isHidden()
        press(panel, "submitMineButton")
        assert ui.message.text().startswith(
            "phantom00 is another image than the one its points were placed on: look at every point"
        )
        assert server.get("/landmarks/images/phantom00")["revision"] == 1
        press(panel, "submitMineButton")
        idle(panel)
        assert server.get("/landmarks/images/phantom00")["revision"] == 2
