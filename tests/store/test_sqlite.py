"""What only SQLite has: a file that can be missing, damaged byte by byte, or full."""

from __future__ import annotations

import random
import sqlite3

import pytest

from landmarklabel.errors import LandmarkLabelError
from landmarklabel.store.database import StoreFault
from landmarklabel.store.revisions import RevisionStore


@pytest.fixture
def file(tmp_path):
    return tmp_path / "revisions.sqlite"


@pytest.fixture
def url(file):
    return f"sqlite:///{file}"


def filled(url):
    """A closed store with five saves, every text of which is in the file only where it belongs."""
    store = RevisionStore(url)
    for i in range(5):
        store.save(f"image-{i}", {"value": f"body-{i}"}, author=f"author-{i}", source=f"source-{i}", key=f"key-{i}")
    store.save("image-3", {"value": "second"})
    store.log_change("published", "model-1", who="machine-1", before="b" * 64, after="c" * 64)
    store.save("image-9", {})
    store.close()


def test_every_connection_waits_for_the_disk(store):
    with store._reading() as one, store._reading() as other:
        for connection in (one, other):
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL: fsync at every commit
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_file_that_is_no_database_is_one_clear_error(file, url):
    file.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreFault, match="not a database"):
        RevisionStore(url)


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


@pytest.mark.parametrize(
    "column",
    [f"revisions.{c}" for c in ("image_id", "author", "source", "created", "key", "body", "sha256", "chain")]
    + [f"audit.{c}" for c in ("at", "who", "what", "subject", "before", "after", "chain")],
)
def test_one_changed_byte_in_the_file_is_found(file, url, column):
    filled(url)
    table, name = column.split(".")
    row = 7 if name in ("what", "who", "before", "subject") else 3
    with sqlite3.connect(file) as connection:
        value = connection.execute(f"SELECT {name} FROM {table} WHERE id = ?", (row,)).fetchone()[0].encode()
    data = bytearray(file.read_bytes())
    places = [i for i in range(len(data)) if data.startswith(value, i)]
    assert places
    for place in places:  # the row itself, and the index where there is one
        data[place + len(value) - 1] ^= 1
    file.write_bytes(data)
    store = RevisionStore(url)
    assert any(f"row {row}" in fault for fault in store.verify())
    store.close()


def test_whatever_byte_of_the_file_changes_it_is_found_or_nothing_reads_otherwise(file, url):
    """Not every byte means something, but none that does changes an answer unseen; not in the indices either."""
    filled(url)
    whole, dice, found = file.read_bytes(), random.Random(0), 0

    def answers():
        store = RevisionStore(url)
        try:
            told = [store.history(f"image-{i}") for i in range(10)], store.heads(), store.changes(), store.latest_row()
            return told, store.verify()
        finally:
            store.close()

    expected = answers()[0]
    meant = [i for i, byte in enumerate(whole) if byte]  # most of the rest is empty space
    for place in dice.sample(meant, 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << dice.randrange(8)
        file.write_bytes(damaged)
        for leftover in file.parent.glob("revisions.sqlite-*"):
            leftover.unlink()
        try:
            told, faults = answers()
        except LandmarkLabelError as error:
            assert "\n" not in str(error)
            found += 1
            continue
        assert faults or told == expected, place
        found += bool(faults)
    assert found > 75


@pytest.mark.parametrize("value", ["x'ff00'", "CAST(x'ff22' AS TEXT)", "7", "CAST(x'7b7d00' AS TEXT)"])
def test_a_body_that_is_no_text_is_found(store, file, value):
    store.save("a", {})
    store.save("a", {})
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE revisions SET body = {value} WHERE id = 1")
    assert store.verify()
