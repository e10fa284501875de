"""Whoever changes, removes, swaps or adds rows past the program is found out, whichever row and column it is."""

from __future__ import annotations

import hashlib
from itertools import combinations

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from tests.store.studies import execute

from landmarklabel.store import revisions
from landmarklabel.store.database import open_engine
from landmarklabel.store.revisions import RevisionStore

TABLES = {"revisions": revisions._rows, "audit": revisions._trail}


class Tampering:
    """Changes to one table that are looked at and then undone."""

    def __init__(self, store, url, table):
        self.store, self.table, self.engine = store, TABLES[table], open_engine(url)
        for i in range(4):
            store.save("ab"[i % 2], {"i": i}, author=f"author{i}", source="" if i else "annotation", key=f"key{i}" if i else None)
            store.log_change("image added", f"image{i}", who="ann", after=f"{i:064}")
        store.save("a", {"i": 9})
        assert store.verify() == []
        with self.engine.connect() as connection:
            self.rows = [row._asdict() for row in connection.execute(select(self.table).order_by(self.table.c.id))]

    def found(self, *new_rows):
        """What is found while these rows take the place of those with the same places in the list."""
        changed = list(self.rows)
        for place, row in new_rows:
            changed[place] = row
        self._put([row for row in changed if row is not None])
        return self.store.verify()

    def added(self, row):
        """What is found while there is one more row."""
        self._put([*self.rows, row])
        return self.store.verify()

    def _put(self, rows):
        with self.engine.begin() as connection:
            connection.execute(self.table.delete())
            connection.execute(self.table.insert(), rows)

    def undo(self):
        """All is well again."""
        self._put(self.rows)
        assert self.store.verify() == []
        self.engine.dispose()


@pytest.fixture(params=TABLES)
def tampering(request, store, url):
    tampering = Tampering(store, url, request.param)
    yield tampering
    tampering.undo()


def one_byte_changed(value):
    """Values that differ from one in a single byte, or in being there at all."""
    if value is None:
        return ["x", 99]
    if isinstance(value, int):
        return [value ^ (bit << 8 * byte) for byte in range(3) for bit in (1, 16)]
    places = sorted({0, len(value) // 2, len(value) - 1}) if value else []
    return [value[:i] + chr(ord(value[i]) ^ 1) + value[i + 1 :] for i in places] or ["x"]


def test_one_byte_of_any_column_of_any_row_is_found(tampering):
    tried, missed = set(), []
    for place, row in enumerate(tampering.rows):
        for column in tampering.table.c:
            for value in one_byte_changed(row[column.name]):
                if row[column.name] is None and not isinstance(value, column.type.python_type):
                    continue
                try:
                    found = tampering.found((place, {**row, column.name: value}))
                except IntegrityError:  # the database itself does not take it
                    continue
                tried.add((place, column.name))
                missed += [] if found else [(place, column.name, value)]
    assert missed == []
    assert len(tried) == len(tampering.rows) * len(tampering.table.c)


def test_any_removed_row_is_found(tampering):
    assert [place for place in range(len(tampering.rows)) if not tampering.found((place, None))] == []


def test_any_two_swapped_rows_are_found(tampering):
    for i, j in combinations(range(len(tampering.rows)), 2):
        one, other = tampering.rows[i], tampering.rows[j]
        assert tampering.found((i, {**other, "id": one["id"]}), (j, {**one, "id": other["id"]})), (i, j)


@pytest.mark.parametrize("chain", ["copied", "of the row before", "none"])
def test_any_added_row_is_found(tampering, chain):
    last = tampering.rows[-1]
    for row in tampering.rows:
        free = {"number": 99, "key": None} if "number" in row else {"revision": None}
        for number in (0, last["id"] + 1, last["id"] + 7):
            chains = {"copied": row["chain"], "of the row before": last["chain"], "none": ""}
            assert tampering.added({**row, **free, "id": number, "chain": chains[chain]}), (row, number)


def test_an_emptied_trail_is_found_and_not_begun_anew(store, url):
    store.save("a", {})
    store.log_change("image added", "b")
    execute(url, "DELETE FROM audit")
    store.close()
    store = RevisionStore(url)
    assert store.verify() == ["revision 1 of a (row 1): the audit trail does not tell of it"]
    store.close()


def test_a_body_changed_together_with_its_hash_breaks_the_chain(store, url):
    for i in range(3):
        store.save("a", {"i": i})
    body = '{"i": 9}'
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    execute(url, "UPDATE revisions SET body = :body, sha256 = :sha256 WHERE id = 2", body=body, sha256=sha256)
    assert store.verify() == [
        "revision 2 of a (row 2): its fields, or the row before it, are not as they were saved",
        "revision 2 of a (row 2): the audit trail does not tell of it",
        "audit row 2 ( of a): its revision is gone or another",
    ]
