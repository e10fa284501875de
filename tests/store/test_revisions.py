"""Revisions: numbered, hashed, chained and idempotent, on both databases."""

from __future__ import annotations

import gc
import hashlib
import json
import sqlite3
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text
from tests.store.studies import execute

from landmarklabel.errors import Conflict, KeyReused, LandmarkLabelError, NotFound, StudyError, UsageError
from landmarklabel.store import audit
from landmarklabel.store.database import StoreFault
from landmarklabel.store.revisions import RevisionStore


def test_first_save_has_number_one_and_comes_back_whole(store):
    saved = store.save("a", {"x": [1.5, 2]}, author="ann", source="annotation")
    assert (saved.number, saved.author, saved.source, saved.body) == (1, "ann", "annotation", {"x": [1.5, 2]})
    assert saved.created.endswith("+00:00")
    assert saved.sha256 == hashlib.sha256(json.dumps({"x": [1.5, 2]}, sort_keys=True).encode()).hexdigest()
    assert store.head("a") == store.get("a", 1) == saved
    assert store.history("a") == [saved]


def test_a_store_nobody_closed_closes_its_connections(url):
    store = RevisionStore(url)
    store.save("a", {"x": 1})
    engine, opened = store._engine, []
    with engine.connect() as connection:
        opened.append(connection.connection.driver_connection)
    del store
    gc.collect()
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
        opened[0].execute("SELECT 1")


def test_numbers_count_per_image_and_heads_has_the_newest_of_each(store):
    for i in range(3):
        store.save("b", {"i": i})
    store.save("a", {"i": 9})
    assert [r.number for r in store.history("b")] == [1, 2, 3]
    assert {k: (r.number, r.body["i"]) for k, r in store.heads().items()} == {"a": (1, 9), "b": (3, 2)}
    assert list(store.heads()) == ["a", "b"]
    assert store.numbers() == {"a": 1, "b": 3}


def test_an_empty_store_answers(store):
    assert (store.head("a"), store.history("a"), store.heads(), store.numbers(), store.verify()) == (
        None,
        [],
        {},
        {},
        [],
    )


def test_an_unknown_revision_is_not_found(store):
    store.save("a", {})
    with pytest.raises(NotFound, match="a has no revision 2"):
        store.get("a", 2)


@pytest.mark.parametrize(("saved", "base"), [(0, 1), (1, 0), (3, 2), (3, 4)])
def test_a_stale_base_is_a_conflict_that_names_both_numbers(store, saved, base):
    for i in range(saved):
        store.save("a", {"i": i})
    with pytest.raises(Conflict) as caught:
        store.save("a", {"mine": True}, base_revision=base)
    assert (caught.value.base, caught.value.current) == (base, saved)
    assert len(store.history("a")) == saved


def test_the_current_base_is_accepted(store):
    assert store.save("a", {}, base_revision=0).number == 1
    assert store.save("a", {}, base_revision=1).number == 2


def test_a_repeated_key_returns_the_first_revision_even_after_others_saved(store):
    first = store.save("a", {"i": 1}, base_revision=0, key="k1")
    store.save("a", {"i": 2})
    assert store.save("a", {"i": 1}, base_revision=0, key="k1") == first
    assert len(store.history("a")) == 2


def test_a_key_of_another_image_is_refused(store):
    store.save("a", {}, key="k1")
    with pytest.raises(UsageError, match="'k1' was used for 'a'"):
        store.save("b", {}, key="k1")


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_id": "../a"},
        {"image_id": ""},
        {"body": [1]},
        {"body": {"x": float("nan")}},
        {"body": {"x": object()}},
        {"author": "a\0b"},
        {"author": "x" * 201},
        {"author": None},
        {"source": "\ud800"},
        {"key": ""},
        {"key": 7},
    ],
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(store, arguments):
    arguments = {"image_id": "a", "body": {}} | arguments
    with pytest.raises(UsageError):
        store.save(arguments.pop("image_id"), arguments.pop("body"), **arguments)
    assert store.heads() == {}


def test_names_and_bodies_in_any_script_survive(store):
    body = {"имя": "関節 🦴", "b": None, "a": [True, 0.1]}
    store.save("Röntgen 1", body, author="Ann Ünsal")
    assert store.head("Röntgen 1").body == body
    assert store.head("Röntgen 1").author == "Ann Ünsal"
    assert store.verify() == []


@pytest.mark.parametrize("number", [0, -1, 2, 2**31, 10**30])
def test_a_number_that_no_revision_has_is_not_found(store, number):
    store.save("a", {})
    with pytest.raises(NotFound, match=f"a has no revision {number}"):
        store.get("a", number)


@pytest.mark.parametrize("image_id", ["a\0b", "\ud800", "", "../a", "x" * 300])
def test_what_cannot_be_an_id_is_asked_for_in_vain(store, image_id):
    store.save("a", {})
    for ask in (store.head, store.history, lambda i: store.get(i, 1)):
        with pytest.raises(UsageError, match="image id .* is not allowed"):
            ask(image_id)


@pytest.mark.parametrize("subject", ["a\0b", "\ud800", "x" * 300])
def test_what_cannot_be_a_subject_is_asked_for_in_vain(store, subject):
    with pytest.raises(UsageError, match="must be printable text"):
        store.changes(subject)


def test_characters_that_databases_cannot_hold_survive_inside_a_body(store):
    body = {"nul": "a\0b", "half of a pair": "\ud800", "line\n\u2028": "\x7f", "key\0": 1}
    store.save("a", body)
    assert store.head("a").body == body and store.verify() == []


def test_a_very_long_body_survives(store):
    body = {"long": "ü" * 3_000_000, "many": list(range(200_000))}
    store.save("a", body)
    assert store.head("a").body == body and store.verify() == []


def test_the_longest_id_key_and_author_survive(store):
    image_id, key, author = "関" * 74, "🦴" * 200, "é" * 200
    store.save(image_id, {}, key=key, author=author)
    assert store.save(image_id, {}, key=key).number == 1
    assert store.head(image_id).author == author


@pytest.mark.parametrize("body", ["{", '{"x": 2}', ""])
def test_a_damaged_body_is_an_error_and_neither_a_traceback_nor_a_label(store, url, body):
    store.save("a", {"x": 1})
    execute(url, "UPDATE revisions SET body = :body", body=body)
    store.save("b", {"x": 1})
    for ask in (store.head, store.history, lambda i: store.get(i, 1)):
        with pytest.raises(StudyError, match=r"revision 1 of a is damaged \(not what was saved\)"):
            ask("a")
    assert list(store.heads()) == ["b"]  # one damaged row does not stop the others
    assert store.damaged == {"a": "revision 1 of a is damaged (not what was saved); restore a backup"}


def test_a_writer_who_did_not_wait_for_the_turn_cannot_fork_the_chain(store, url, monkeypatch):
    """The primary key is the second lock: a row that was read as the newest and is not any more is refused."""
    store.save("a", {})
    append = audit.append

    def late(connection, *rest):
        row = "1, 'b', 1, '', '', '', NULL, '{}', '', ''"
        connection.execute(text(f"INSERT INTO revisions VALUES ({row})"))
        append(connection, *rest)

    monkeypatch.setattr(audit, "append", late)
    with pytest.raises(StoreFault, match=r"^the revision store cannot be used \(.*\); check free space") as caught:
        store.save("b", {})
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert store.numbers() == {"a": 1} and store.verify() == []
    assert store.save("b", {}).number == 1


def test_a_clock_that_jumps_back_disturbs_neither_order_nor_verification(store, monkeypatch):
    times = iter([datetime(2026, 1, 1, tzinfo=UTC) - timedelta(days=400 * i) for i in range(99)])
    monkeypatch.setattr(audit, "now", lambda: next(times).isoformat())
    for i in range(5):
        store.save("a", {"i": i}, base_revision=i)
        store.log_change("image added", f"b{i}")
    created = [r.created for r in store.history("a")]
    assert created == sorted(created, reverse=True) and created[0] != created[-1]
    assert [r.body["i"] for r in store.history("a")] == list(range(5)) and store.head("a").number == 5
    assert [c.subject for c in store.changes()] == ["a", "b0", "a", "b1", "a", "b2", "a", "b3", "a", "b4"]
    assert store.verify() == []


# --- audit trail -----------------------------------------------------------------------------------------------------


def test_every_change_is_told_with_who_what_before_and_after(store):
    first = store.save("a", {"i": 1}, author="ann", source="annotation")
    store.log_change("image added", "b", who="bob", after="f" * 64)
    second = store.save("a", {"i": 2}, author="cem", source="edited file")
    told = [(c.who, c.what, c.subject, c.before, c.after, c.revision) for c in store.changes()]
    assert told == [
        ("ann", "annotation", "a", "", first.sha256, 1),
        ("bob", "image added", "b", "", "f" * 64, None),
        ("cem", "edited file", "a", first.sha256, second.sha256, 2),
    ]
    assert [c.at for c in store.changes("a")] == [first.created, second.created]


def test_what_is_refused_or_repeated_is_no_change(store):
    store.save("a", {}, key="k")
    store.save("a", {}, key="k")
    with pytest.raises(Conflict):
        store.save("a", {}, base_revision=0)
    assert len(store.changes()) == 1


@pytest.mark.parametrize("when", ["before the audit row", "after the audit row"])
def test_a_fault_in_a_save_leaves_neither_revision_nor_audit_row(store, monkeypatch, when):
    store.save("a", {"i": 0})
    append = audit.append

    def failing(*arguments):
        if when.startswith("after"):
            append(*arguments)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(audit, "append", failing)
        with pytest.raises(ZeroDivisionError):
            store.save("a", {"i": 1})
        with pytest.raises(ZeroDivisionError):
            store.log_change("image added", "b")
    assert (len(store.history("a")), len(store.changes()), store.verify()) == (1, 1, [])
    assert store.save("a", {"i": 1}).number == 2 and len(store.changes()) == 2


def test_a_store_that_is_older_than_its_trail_gets_one_of_what_is_there(store, url):
    saved = [store.save(i, {"n": n}, author="ann") for n, i in enumerate("aba")]
    told = store.changes()
    store.close()
    execute(url, "DROP TABLE audit")
    store = RevisionStore(url)
    assert store.changes() == told and store.verify() == []
    store.save("a", {"n": 3})
    assert [c.after for c in store.changes()][:3] == [r.sha256 for r in saved] and store.verify() == []
    store.close()


# --- model -----------------------------------------------------------------------------------------------------------


class AgainstADict(RuleBasedStateMachine):
    """Any sequence of saves, repeats and re-openings agrees with a dict of lists."""

    ids = st.sampled_from(["a", "b", "c d"])

    def __init__(self, new_url):
        super().__init__()
        self.new_url = new_url

    @initialize()
    def open(self):
        self.url = self.new_url()
        self.store = RevisionStore(self.url)
        self.model, self.keys, self.saves = {}, {}, 0

    @rule(image_id=ids, value=st.integers(0, 3), base=st.none() | st.integers(0, 4), key=st.none() | st.integers(0, 5))
    def save(self, image_id, value, base, key):
        bodies = self.model.setdefault(image_id, [])
        try:
            saved = self.store.save(image_id, {"v": value}, base_revision=base, key=None if key is None else str(key))
        except LandmarkLabelError as error:
            if key in self.keys:
                assert self.keys[key][0] != (image_id, value) and isinstance(error, KeyReused)
            else:
                assert isinstance(error, Conflict) and base != len(bodies)
            return
        if key in self.keys:
            assert self.keys[key] == ((image_id, value), saved.number)
            return
        assert base in (None, len(bodies))
        bodies.append({"v": value})
        self.saves += 1
        assert saved.number == len(bodies)
        if key is not None:
            self.keys[key] = (image_id, value), saved.number

    @rule()
    def reopen(self):
        self.store.close()
        self.store = RevisionStore(self.url)

    @invariant()
    def agrees(self):
        filled = {k: v for k, v in self.model.items() if v}
        assert {k: [r.body for r in self.store.history(k)] for k in filled} == filled
        assert {k: (r.number, r.body) for k, r in self.store.heads().items()} == {k: (len(v), v[-1]) for k, v in filled.items()}
        assert self.store.numbers() == {k: len(v) for k, v in filled.items()}
        assert self.store.latest_row() == len(self.store.changes()) == self.saves
        assert self.store.verify() == []

    def teardown(self):
        self.store.close()


def test_any_sequence_agrees_with_a_dict_of_lists(new_url):
    limits = settings(max_examples=12, stateful_step_count=10, deadline=None)
    run_state_machine_as_test(lambda: AgainstADict(new_url), settings=limits)
