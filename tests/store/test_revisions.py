"""Revisions: numbered, hashed, chained, idempotent, and safe for many writers."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy.exc import IntegrityError

from landmarklabel.errors import Conflict, LandmarkLabelError, NotFound, StudyError, UsageError
from landmarklabel.store import revisions
from landmarklabel.store.database import StoreFault
from landmarklabel.store.revisions import RevisionStore


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/revisions.sqlite"


@pytest.fixture
def store(url):
    store = RevisionStore(url)
    yield store
    store.close()


def test_first_save_has_number_one_and_comes_back_whole(store):
    saved = store.save("a", {"x": [1.5, 2]}, author="ann", source="annotation")
    assert (saved.number, saved.author, saved.source, saved.body) == (1, "ann", "annotation", {"x": [1.5, 2]})
    assert saved.created.endswith("+00:00")
    assert saved.sha256 == hashlib.sha256(json.dumps({"x": [1.5, 2]}, sort_keys=True).encode()).hexdigest()
    assert store.head("a") == store.get("a", 1) == saved
    assert store.history("a") == [saved]


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


@pytest.mark.parametrize("url", ["no url at all", "nodatabase://x/y"])
def test_a_bad_url_is_one_clear_error(url):
    with pytest.raises(UsageError, match="database URL"):
        RevisionStore(url)


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path):
    (tmp_path / "r.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreFault, match="not a database"):
        RevisionStore(f"sqlite:///{tmp_path}/r.sqlite")


def test_a_store_in_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(StoreFault, match="unable to open"):
        RevisionStore(f"sqlite:///{tmp_path}/none/r.sqlite")


def test_a_full_disk_loses_nothing_and_works_again_when_there_is_space(store):
    store.save("a", {"i": 1})
    with store._engine.connect() as connection:  # the pool has this one connection; its page limit plays the full disk
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreFault, match="full") as caught:
        store.save("a", {"big": "x" * 100_000})
    assert caught.value.http_status == 507
    assert [r.body for r in store.history("a")] == [{"i": 1}]
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    assert store.save("a", {"big": "x" * 100_000}, base_revision=1).number == 2
    assert store.verify() == []


# --- many writers ----------------------------------------------------------------------------------------------------


def _save_many(url, writer, count, same_key=False):
    store = RevisionStore(url)
    for i in range(count):
        store.save("a", {"writer": writer, "i": i}, author=str(writer), key=f"k{i}" if same_key else None)
    store.close()


def _in_processes(n, *arguments):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_save_many, args=(arguments[0], w, *arguments[1:])) for w in range(n)]
    [p.start() for p in processes]
    [p.join(120) for p in processes]
    assert [p.exitcode for p in processes] == [0] * n


def test_processes_that_create_and_fill_one_store_keep_every_save_in_order(url):
    _in_processes(4, url, 50)
    store = RevisionStore(url)
    history = store.history("a")
    assert [r.number for r in history] == list(range(1, 201))
    for writer in range(4):
        assert [r.body["i"] for r in history if r.body["writer"] == writer] == list(range(50))
    assert store.verify() == []
    store.close()


def test_processes_that_repeat_the_same_keys_save_each_once(url):
    _in_processes(4, url, 20, True)
    store = RevisionStore(url)
    assert sorted(r.body["i"] for r in store.history("a")) == list(range(20))
    store.close()


def test_of_threads_with_one_base_exactly_one_wins(store):
    outcomes = []

    def save(i):
        try:
            outcomes.append(store.save("a", {"i": i}, base_revision=0).number)
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=save, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(map(str, outcomes)) == ["1"] + ["conflict"] * 7


@pytest.mark.parametrize("collisions", [1, 5, 1000])
def test_a_collision_of_writers_is_tried_again_and_not_for_ever(store, monkeypatch, collisions):
    """SQLite never collides here; PostgreSQL reports the row that another writer was faster with."""
    append, left = revisions._append, [IntegrityError("", {}, Exception())] * collisions

    def colliding(*arguments):
        if left:
            raise left.pop()
        return append(*arguments)

    monkeypatch.setattr(revisions, "_append", colliding)
    if collisions < 1000:
        assert store.save("a", {}).number == 1
    else:
        with pytest.raises(StoreFault, match="too many writers"):
            store.save("a", {})


# --- tampering -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["image_id", "author", "source", "created", "key", "body", "sha256", "chain"])
def test_one_changed_byte_in_the_file_is_found(url, tmp_path, field):
    store = RevisionStore(url)
    for i in range(5):
        store.save(f"image-{i}", {"value": f"body-{i}"}, author=f"author-{i}", source=f"source-{i}", key=f"key-{i}")
    store.close()
    path = tmp_path / "revisions.sqlite"
    with sqlite3.connect(path) as connection:
        rowid = 3
        value = connection.execute(f"SELECT {field} FROM revisions WHERE id = ?", (rowid,)).fetchone()[0].encode()
    data = bytearray(path.read_bytes())
    places = [i for i in range(len(data)) if data.startswith(value, i)]
    assert places
    for place in places:  # the row itself, and the index where there is one
        data[place + len(value) - 1] ^= 1
    path.write_bytes(data)
    store = RevisionStore(url)
    assert any("row 3" in fault for fault in store.verify())
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM revisions WHERE id = 3",
        "DELETE FROM revisions WHERE id = 1",
        "UPDATE revisions SET number = 7 WHERE id = 3",
        "UPDATE revisions SET key = NULL WHERE id = 3",
        "UPDATE revisions SET body = x'ff00' WHERE id = 3",
        "UPDATE revisions SET body = CAST(x'ff22' AS TEXT) WHERE id = 3",
        "UPDATE revisions SET id = id + 10 WHERE id = 5",
    ],
)
def test_a_changed_or_removed_row_is_found(url, store, tmp_path, statement):
    for i in range(5):
        store.save("a", {"i": i}, key=f"k{i}")
    with sqlite3.connect(tmp_path / "revisions.sqlite") as connection:
        connection.execute(statement)
    assert store.verify()


def test_a_body_changed_together_with_its_hash_breaks_the_chain(store, tmp_path):
    for i in range(3):
        store.save("a", {"i": i})
    text = '{"i": 9}'
    with sqlite3.connect(tmp_path / "revisions.sqlite") as connection:
        values = (text, hashlib.sha256(text.encode()).hexdigest())
        connection.execute("UPDATE revisions SET body = ?, sha256 = ? WHERE id = 2", values)
    told = store.verify()
    assert told[0] == "revision 2 of a (row 2): its fields, or the row before it, are not as they were saved"
    assert told[1:] == [
        "revision 2 of a (row 2): the audit trail does not tell of it",
        "audit row 2 ( of a): its revision is gone or another",
    ]


def test_a_damaged_body_is_an_error_and_not_a_traceback(store, tmp_path):
    store.save("a", {})
    with sqlite3.connect(tmp_path / "revisions.sqlite") as connection:
        connection.execute("UPDATE revisions SET body = '{'")
    with pytest.raises(StudyError, match="revision 1 of a is damaged"):
        store.head("a")


# --- model -----------------------------------------------------------------------------------------------------------


class AgainstADict(RuleBasedStateMachine):
    """Any sequence of saves, repeats and re-openings agrees with a dict of lists."""

    ids = st.sampled_from(["a", "b", "c d"])

    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp())
        self.store = RevisionStore(f"sqlite:///{self.folder}/r.sqlite")
        self.model, self.keys = {}, {}

    @rule(image_id=ids, value=st.integers(), base=st.none() | st.integers(0, 4), key=st.none() | st.integers(0, 5))
    def save(self, image_id, value, base, key):
        bodies = self.model.setdefault(image_id, [])
        try:
            saved = self.store.save(image_id, {"v": value}, base_revision=base, key=None if key is None else str(key))
        except LandmarkLabelError as error:
            if key in self.keys:
                assert self.keys[key][0] != image_id and isinstance(error, UsageError)
            else:
                assert isinstance(error, Conflict) and base != len(bodies)
            return
        if key in self.keys:
            assert self.keys[key] == (image_id, saved.number)
            return
        assert base in (None, len(bodies))
        bodies.append({"v": value})
        assert saved.number == len(bodies)
        if key is not None:
            self.keys[key] = (image_id, saved.number)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = RevisionStore(f"sqlite:///{self.folder}/r.sqlite")

    @invariant()
    def agrees(self):
        filled = {k: v for k, v in self.model.items() if v}
        assert {k: [r.body for r in self.store.history(k)] for k in filled} == filled
        assert {k: (r.number, r.body) for k, r in self.store.heads().items()} == {k: (len(v), v[-1]) for k, v in filled.items()}
        assert self.store.verify() == []

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
