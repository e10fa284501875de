"""Submissions on their way: what arrived, what waits, what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from LandmarkLabelLib.client import Busy, Conflict, NotAllowed, Refused, Unreachable
from LandmarkLabelLib.outbox import Outbox
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.wire import RevisionNumber, Task, WireError

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


@pytest.mark.parametrize(
    "theirs, author, said",
    [
        (8, "ann", "ann saved revision 8"),
        (2, "", "the study was restored from an older copy: revision 2 is somebody's now"),
        (0, "", "the study was restored from an older copy, without this case's points"),
    ],
)
def test_the_list_says_what_a_submission_met(tmp_path, theirs, author, said):
    outbox, session = Outbox(tmp_path), Session.fresh(TASK, "case")
    session.base_revision = RevisionNumber(7)
    session.place("a", (1, 2, 3))
    outbox.put(session, "bob")
    outbox.deliver(Deaf(Conflict("", theirs, author, [])), TASK)
    assert [e.why for e in outbox.entries(TASK)] == [said]


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


def test_what_one_case_may_not_do_holds_up_only_that_case(tmp_path):
    outbox, keys = Outbox(tmp_path), []
    for case, x in (("reviewed", 1), ("damaged", 2), ("reviewed", 3), ("other", 4)):
        session = Session.fresh(TASK, case)
        session.place("a", (x, 2, 3))
        keys.append(outbox.put(session, "ann"))
    no, broken = NotAllowed("that would remove its label: ask a reviewer", 403), Busy("the revision store cannot be used")
    server = Deaf(no, broken, no, 1)
    found = outbox.deliver(server, TASK)
    assert [(d.image_id, d.answer) for d in found] == [("reviewed", no), ("damaged", broken), ("reviewed", no), ("other", 1)]
    left = {(e.image_id, e.key): (e.state, e.why) for e in outbox.entries(TASK)}
    assert left == {
        ("reviewed", keys[0]): ("refused", str(no)),
        ("damaged", keys[1]): ("waits", str(broken)),
        ("reviewed", keys[2]): ("refused", str(no)),
    }
    outbox.send_again(keys[0])
    outbox.send_again(keys[2])
    outbox.deliver(Deaf(1, 2, 3), TASK)
    assert outbox.entries(TASK) == []


@pytest.mark.parametrize("answer", [Unreachable("gone"), NotAllowed("the token is wrong", 401)])
def test_where_nobody_answers_or_lets_in_no_other_is_tried(tmp_path, answer):
    outbox = Outbox(tmp_path)
    for case in ("a", "b"):
        outbox.put(Session.fresh(TASK, case), "ann")
    server = Deaf(answer)
    assert [d.answer for d in outbox.deliver(server, TASK)] == [answer] and len(server.asked) == 1
    assert [e.why for e in outbox.entries(TASK)] == ["", ""]


def test_however_many_cases_may_not_be_saved_the_others_are(tmp_path):
    outbox = Outbox(tmp_path)
    for number in range(6):
        outbox.put(Session.fresh(TASK, f"case{number}"), "ann")
    no = NotAllowed("a reviewer may", 403)
    assert [d.answer for d in outbox.deliver(Deaf(no, no, no, no, 1, 2), TASK)] == [no] * 4 + [1, 2]


def test_a_server_that_fails_with_every_case_is_not_asked_about_all_of_them(tmp_path):
    outbox = Outbox(tmp_path)
    for number in range(10):
        outbox.put(Session.fresh(TASK, f"case{number}"), "ann")
    server = Deaf(*[Busy("the server failed with 500")] * 10)
    assert len(outbox.deliver(server, TASK)) == len(server.asked) == 3 and len(outbox.entries(TASK)) == 10


def test_a_program_that_ends_between_two_submissions_of_a_case_does_not_meet_itself(tmp_path, monkeypatch):
    outbox, session = Outbox(tmp_path), Session.fresh(TASK, "case")
    for x in (1, 2):
        session.place("a", (x, 2, 3))
        outbox.put(session, "ann")
    first = outbox.waiting()[0]

    def killed(path, *_, **__):
        if path == first:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            outbox.deliver(Deaf(1), TASK)
    server = Deaf(1, 2)  # the first one's key is known: it is the same revision
    Outbox(tmp_path).deliver(server, TASK)
    assert [base for _, base, _ in server.asked] == [0, 1]


def test_what_is_submitted_after_a_refused_one_starts_from_its_revision_once_it_has_arrived(tmp_path):
    outbox, session = Outbox(tmp_path), Session.fresh(TASK, "case")
    session.place("a", (1, 2, 3))
    key = outbox.put(session, "ann")
    outbox.deliver(Deaf(Refused("another task")), TASK)
    session.place("a", (2, 2, 3))
    outbox.put(session, "ann")
    outbox.send_again(key)
    server = Deaf(1, 2)
    outbox.deliver(server, TASK)
    assert [base for _, base, _ in server.asked] == [0, 1]


def test_landmarks_that_the_task_gave_up_are_named(tmp_path):
    outbox, session = Outbox(tmp_path), Session.fresh(TASK, "case")
    session.place("a", (1, 2, 3))
    outbox.put(session, "ann")
    (entry,) = outbox.entries(Task("t", ("b", "c"), 3, {}, ()))
    assert [p.name for p in entry.points if p.by_person] == [] and entry.gone == ("a",)
