"""A submission speaks of the pixels that were looked at, not of whatever has their case's name by now."""

from __future__ import annotations

import shutil

import SimpleITK as sitk
from annotators import connected, settle
from LandmarkLabelLib.client import Refused
from LandmarkLabelLib.connecting import AWAY
from LandmarkLabelLib.outbox import REFUSED
from LandmarkLabelLib.wire import PLACED
from serving import phantoms, serving

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
        assert logic.submit()
        settle(logic)
        (entry,) = logic.unsent
        assert entry.state == REFUSED and entry.why == f"phantom00: {CHANGED}"
        assert server.get("/landmarks/images/phantom00")["revision"] == 0
        logic.open_case("phantom00")
        settle(logic)
        assert logic.session.point(name).state == PLACED
        assert logic.trouble.endswith("phantom00 is another image than the one its points were placed on: look at every point")
        assert logic.submit()
        settle(logic)
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
    logic.submit()
    settle(logic)
    with serving(theirs) as server:
        logic.client.url = server.url
        logic.deliver()
        settle(logic)
        assert server.get("/landmarks/images/phantom00")["revision"] == 0
        assert [entry.why for entry in logic.unsent] == [f"phantom00: {CHANGED}"]
        assert logic.session.point(name).position == (20.0, 30.0, 0.0)
    logic.close()


def test_a_refused_case_that_is_open_is_mended_from_the_list(tmp_path):
    material = phantoms(tmp_path, 1)
    name = material.task.names[0]
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
        assert logic.correct(name, (20.0, 30.0, 0.0))
        invert(material.image("phantom00"))
        logic.submit()
        settle(logic)
        (entry,) = logic.unsent
        logic.open_unsent(entry)
        settle(logic)
        assert "phantom00 is another image than the one its points were placed on" in logic.trouble
        assert logic.submit()
        settle(logic)
        assert logic.unsent == [] and server.get("/landmarks/images/phantom00")["revision"] == 1
        logic.close()


def test_an_image_of_this_computer_is_shown_while_the_server_is_away_and_says_nothing_of_the_servers_pixels(tmp_path):
    material = phantoms(tmp_path, 1)
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
    logic.options.local_folder = str(material.study)
    logic.image, logic.session.pixels = None, "of the server"
    logic.poll()
    logic._fetch_image()
    settle(logic)
    assert logic.image == material.image("phantom00") and logic.session.pixels == ""
    logic.correct(material.task.names[0], (20.0, 30.0, 0.0))
    settle(logic)
    assert logic.state == AWAY
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
            logic.open_case("phantom00")
            settle(logic)
        assert logic.correct(material.task.names[0], (20.0, 30.0, 0.0))  # the next message
        settle(logic)
        assert logic.image is None and logic.trouble == "no image of phantom00 is shown: open the case again"
        logic.open_case("phantom00")
        settle(logic)
        assert logic.image is not None and logic.trouble == ""
        logic.close()


def test_points_that_could_not_be_kept_are_said_in_the_case_that_opens_next(tmp_path, monkeypatch):
    material = phantoms(tmp_path, 2)
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
        logic.session.place(material.task.names[0], (20.0, 30.0, 0.0))
        monkeypatch.setattr(logic.sessions, "keep", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        logic.open_case("phantom01")
        settle(logic)
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
        logic.open_case("phantom00")
        settle(logic)
        assert logic.image == other and logic.session.pixels  # the very file: a submission says of which pixels it speaks
        invert(other)
        logic.open_case("phantom00")
        settle(logic)
        assert logic.image.read_bytes() == material.image("phantom00").read_bytes()
        assert logic.message == f"{other} is not the image that the server has: the server's is shown"
        with monkeypatch.context() as patch:
            patch.setattr(logic.client, "download", lambda *_: (_ for _ in ()).throw(Refused("gone")))
            logic.open_case("phantom00")
            settle(logic)
        assert logic.image is None and logic.trouble == "no image of phantom00 is shown: open the case again"
        logic.close()


def test_what_is_discarded_is_gone_with_what_was_kept_of_it(tmp_path):
    material = phantoms(tmp_path, 2)
    with serving(material) as server:
        logic = connected(server, tmp_path, "phantom00")
        assert logic.correct(material.task.names[0], (20.0, 30.0, 0.0))
        invert(material.image("phantom00"))
        logic.submit()
        settle(logic)
        logic.open_case("phantom01")
        settle(logic)
        (entry,) = logic.unsent
        logic.discard(entry)
        assert logic.unsent == []
        logic.open_case("phantom00")
        settle(logic)
        assert not any(p.by_person for p in logic.session.points)
        logic.close()
