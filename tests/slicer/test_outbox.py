"""Submissions on their way: what arrived, what waits, what is damaged."""

from __future__ import annotations

import json

import pytest
from LandmarkLabelLib.client import Refused, Unreachable
from LandmarkLabelLib.outbox import Outbox
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.wire import Task, WireError

TASK = Task("t", ("a", "b", "c", "d", "e", "f"), 3, {}, ())


class Deaf:
    """A server that saves, and whose answers may be lost; or that is none."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def save(self, image_id, points, task, base_revision, author, key, repeat=False, pixels=""):
        self.asked.append((image_id, base_revision, key))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


def test_what_arrived_is_known_after_the_program_ended_before_it_heard_of_it(tmp_path):
    outbox, session = Outbox(tmp_path), Session.fresh(TASK, "case")
    session.place("a", (1, 2, 3))
    key = outbox.put(session, "ann")
    outbox.deliver(Deaf(1), TASK)  # and nobody hears the result
    again = Outbox(tmp_path)
    assert [(d.image_id, d.edits, d.answer) for d in again.acknowledged()] == [("case", session.edits, 1)]
    session.place("a", (2, 2, 3))
    second = outbox.put(session, "ann")  # before the session has heard of the first
    server = Deaf(2)
    outbox.deliver(server, TASK)
    assert server.asked == [("case", 1, second)]  # on top of its own first revision
    outbox.forget(key)
    assert [d.answer for d in outbox.acknowledged()] == [2] and outbox.waiting() == []


def test_what_was_refused_together_is_sent_again_one_on_top_of_the_other(tmp_path):
    """As by a server that had another task for a while: the second must not meet the first as somebody else's."""
    outbox, session = Outbox(tmp_path), Session.fresh(TASK, "case")
    keys = []
    for x in (1, 2):
        session.place("a", (x, 2, 3))
        keys.append(outbox.put(session, "ann"))
    outbox.deliver(Deaf(Refused("another task"), Refused("another task")), TASK)
    server = Deaf(1, 2)
    for key in keys:
        outbox.send_again(key)
        outbox.deliver(server, TASK)
    assert server.asked == [("case", 0, keys[0]), ("case", 1, keys[1])] and outbox.entries(TASK) == []


def test_an_older_submission_that_arrives_leaves_the_newer_one_to_be_sent():
    session = Session.fresh(TASK, "case")
    session.place("a", (1, 2, 3))
    session.submitted("older")
    older = session.edits
    session.place("a", (2, 2, 3))
    session.submitted("newer")
    session.acknowledged(older, 1, "older")
    assert session.unsent and session.base_revision == 1
    session.acknowledged(session.edits, 2, "newer")
    assert not session.unsent


def test_an_answer_that_is_none_lets_a_submission_wait(tmp_path):
    outbox = Outbox(tmp_path)
    outbox.put(Session.fresh(TASK, "case"), "ann")
    (result,) = outbox.deliver(Deaf(WireError("the answer is no JSON: log in")), TASK)
    assert isinstance(result.answer, Unreachable) and len(outbox.waiting()) == 1


def test_a_submission_that_is_discarded_while_it_is_sent_stays_discarded(tmp_path):
    outbox = Outbox(tmp_path)
    keys = [outbox.put(Session.fresh(TASK, f"case{i}"), "ann") for i in range(2)]

    def late() -> int:
        outbox.discard(keys[0])
        raise Refused("too late")

    results = outbox.deliver(Deaf(late, 1), TASK)
    assert [type(r.answer).__name__ for r in results] == ["Refused", "int"] and outbox.entries(TASK) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("landmarks", None), ("edits", None), ("base_revision", float("nan")), ("image", 5), ("author", 7), ("key", None)],
)
def test_a_damaged_submission_is_named_and_holds_up_no_other(tmp_path, key, value):
    outbox = Outbox(tmp_path)
    first, second = (outbox.put(Session.fresh(TASK, f"case{i}"), "ann") for i in range(2))
    file = tmp_path / f"{first}.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
    server = Deaf(1)
    damaged, arrived = outbox.deliver(server, TASK)
    assert "the file of a submission is damaged; it is kept as " in str(damaged.answer) and arrived.answer == 1
    assert [asked[2] for asked in server.asked] == [second] and list((tmp_path / "refused").glob("*.damaged"))


def test_an_answer_that_cannot_be_kept_for_a_full_disk_is_asked_for_again(tmp_path, monkeypatch):
    outbox, session = Outbox(tmp_path), Session.fresh(TASK, "case")
    session.place("a", (1, 2, 3))
    key = outbox.put(session, "ann")
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("LandmarkLabelLib.outbox.write_atomically", lambda *_: (_ for _ in ()).throw(full))
    (result,) = outbox.deliver(Deaf(1), TASK)
    assert str(result.answer) == f"{tmp_path} cannot be written (No space left on device)" and len(outbox.waiting()) == 1
    monkeypatch.undo()
    (result,) = outbox.deliver(Deaf(1), TASK)
    assert (result.key, result.answer) == (key, 1) and outbox.waiting() == []
