"""Annotating through the module's logic: against a real server, against a faulty one, and with none at all."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from annotators import DEADLINE_S, settle, truth_of
from LandmarkLabelLib.client import Refused, Unreachable
from LandmarkLabelLib.logic import LandmarkLogic
from LandmarkLabelLib.options import Options
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED, UNSET, Point, RevisionNumber, sha256_of


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
    before, placed = mean_error(session, truth), set()
    for _ in range(3):
        name = session.next
        placed.add(name)
        logic.correct(name, truth[name])
        settle(logic)
        assert session.point(name) == Point(name, PLACED, truth[name])
    assert mean_error(session, truth) < 0.6 * before and logic.moved > 0
    absent, accepted, *_ = (n for n in material.task.names if n not in placed)
    logic.mark_absent(absent)
    logic.accept_all()
    logic.mark_absent(accepted)
    assert logic.message == f"{accepted} is accepted: unlock it first (U)"
    assert logic.submit()
    settle(logic)
    assert session.base_revision == 1 and logic.outbox.waiting() == []
    saved = server.get(f"/landmarks/images/{session.image_id}")
    wanted = {n: PLACED if n in placed else ABSENT if n == absent else ACCEPTED for n in material.task.names}
    assert saved["author"] == "ann" and {r["name"]: r["status"] for r in saved["landmarks"]} == wanted


def beside(logic, server, folder: Path, image_id: str) -> LandmarkLogic:
    """A case is open at a panel, and at that of somebody else who is returned."""
    other = LandmarkLogic(Options(server.url, "bob"), folder / "other")
    other.connect()
    for one in (logic, other):
        settle(one)
        one.open_case(image_id)
        settle(one)
    return other


def test_two_annotators_of_one_case_see_both_versions(logic, server, material, tmp_path):
    image_id, (first, second, *_) = sorted(material.truth)[6], material.task.names
    other = beside(logic, server, tmp_path, image_id)
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


def test_after_a_restore_another_revision_of_the_same_number_is_no_base(logic, server, material, tmp_path):
    """It is told when the case is opened, when the panel looks for newer ones, and by the server."""
    image_id, (name, *_) = sorted(material.truth)[5], material.task.names
    logic.open_case(image_id)
    settle(logic)
    logic.correct(name, (10.0, 12.0, 0.0))
    settle(logic)
    assert logic.submit()
    settle(logic)
    logic.correct(name, (13.0, 12.0, 0.0))
    settle(logic)
    n, seen = int(logic.session.base_revision), server.get(f"/landmarks/images/{image_id}")["sha256"]
    assert sha256_of(logic.session.base_revision) == seen
    kept = logic.sessions.load(image_id, logic.task)  # as after the program was closed
    assert (int(kept.base_revision), sha256_of(kept.base_revision)) == (n, seen)
    logic.session.base_revision = RevisionNumber.of(n, "0" * 64)  # as if what is there now had come after a restore
    logic.look_for_newer()
    settle(logic)
    assert logic.conflict.author == "ann" and logic.conflict.revision == n
    logic.conflict = None
    assert logic.submit()  # without a look: the server refuses it
    settle(logic)
    assert logic.conflict is not None and server.get(f"/landmarks/images/{image_id}")["revision"] == n
    logic.submit_mine()
    settle(logic)
    assert server.get(f"/landmarks/images/{image_id}")["revision"] == n + 1 and logic.conflict is None


def test_a_label_of_another_person_is_no_agreement_with_a_proposal(logic, server, material, tmp_path):
    """Both saw the same proposals; one has accepted them all. What the other submits would make proposals of these labels."""
    image_id, names = sorted(material.truth)[7], material.task.names
    other = beside(logic, server, tmp_path, image_id)
    for one in (logic, other):
        one.predict()
        settle(one)
    other.accept_all()
    other.submit()
    logic.accept(names[0])
    settle(other)
    logic.submit()
    settle(logic)
    assert list(logic.differences()) == list(names[1:])
    logic.take_theirs(names[1])
    assert logic.session.point(names[1]).state == ACCEPTED


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


@pytest.mark.parametrize("asked", ["update", "predict"])
def test_an_answer_does_not_call_a_point_absent_again_that_was_unlocked_meanwhile(logic, server, material, monkeypatch, asked):
    first, second = material.task.names[:2]
    logic.open_case(sorted(material.truth)[7])
    settle(logic)
    real, told, gate = getattr(logic.client, asked), [], threading.Event()

    def slow(model, image_id, points, task):
        told.append([p.name for p in points if p.state == ABSENT])
        gate.wait(DEADLINE_S)
        return real(model, image_id, points, task)

    monkeypatch.setattr(logic.client, asked, slow)
    logic.mark_absent(first)
    logic.predict() if asked == "predict" else logic.correct(second, (20.0, 20.0, 0.0))
    logic.unlock(first)
    gate.set()
    settle(logic)
    assert told == [[first], []] and logic.session.point(first).state == PREDICTED
    logic.correct(first, (30.0, 30.0, 0.0))
    assert logic.session.point(first).state == PLACED


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
    logic.predict()
    settle(logic)
    assert logic.message == "a second reading is made without proposals"
    assert [p.name for p in logic.session.points if p.position] == [material.task.names[0]]
    assert logic.submit()
    settle(logic)
    assert logic.outbox.waiting() == [] and server.get(f"/landmarks/images/{image_id}") == before
    assert logic.message.startswith(f"the second reading of {image_id} is saved; 11 of its 12 points are not labelled")
    assert "Read twice by" in server.http("GET", "/landmarks/").text


@pytest.mark.parametrize("error", [Refused("this computer holds its share"), Unreachable("no answer")])
def test_that_a_case_is_saved_is_said_once_also_where_the_next_is_refused(logic, server, material, monkeypatch, error):
    logic.next_case("first")
    settle(logic)
    case, name = logic.session.image_id, material.task.names[0]
    logic.correct(name, (10.0, 12.0, 0.0))
    settle(logic)

    def no_next(strategy, who):
        raise error

    monkeypatch.setattr(logic.client, "next_case", no_next)
    assert logic.submit("first")
    settle(logic)
    assert logic.message.startswith(f"{case} is saved as revision ") and str(error) in logic.message
    logic.correct(name, (11.0, 12.0, 0.0))
    settle(logic)
    logic.open_case(sorted(material.truth)[7])
    settle(logic)
    assert "is saved" not in logic.message


def test_nothing_is_written_outside_the_given_folder(logic, tmp_path):
    assert {p.name for p in Path(tmp_path).iterdir()} == {"work"}
