"""The audit trail: who changed what and when, one row per change, chained by hash and written in the change's transaction.

Decision: rows are numbered and chained by the program, as revisions are (``revisions.py``), so the trail cannot fork. Each row of
a saved revision names it; rows of other changes (an image added, a model published) name none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, select

from landmarklabel.errors import UsageError
from landmarklabel.store.configuration import CONFIG

_COVERED = ("id", "at", "who", "what", "subject", "before", "after", "revision")  # by a row's place in the chain


@dataclass(frozen=True)
class Change:
    """One change.

    Args:
        who: the author, as far as the server knows.
        what: what was done, for example ``annotation`` or ``image added``.
        subject: the image or model it was done to.
        before, after: sha256 of the content before and after; empty where there was or is none.
        revision: row of the revision this change saved; None for other changes.
        at: UTC time, ISO 8601.
    """

    who: str
    what: str
    subject: str
    before: str = ""
    after: str = ""
    revision: int | None = None
    at: str = ""


def audit_table(metadata: MetaData) -> Table:
    """The table of the trail; belongs to the same database as the revisions."""
    texts = [Column(name, String, nullable=False) for name in ("at", "who", "what", "subject", "before", "after", "chain")]
    number = Column("id", Integer, primary_key=True, autoincrement=False)
    return Table("audit", metadata, number, *texts, Column("revision", Integer, nullable=True, unique=True))


def check_texts(**texts: str | None) -> None:
    """Raise UsageError for a text that the store could not keep; only ``key`` may be None."""
    for name, text in texts.items():
        fine = isinstance(text, str) and len(text) <= CONFIG.text_characters and text.isprintable() and (text or name != "key")
        if not fine and not (name == "key" and text is None):
            raise UsageError(f"{name} {str(text)[:80]!r} must be printable text of at most {CONFIG.text_characters} characters")


def append(connection: Connection, table: Table, change: Change) -> None:
    """Add one row, in the transaction of a writer."""
    last = connection.execute(select(table.c.id, table.c.chain).order_by(table.c.id.desc()).limit(1)).first()
    row = {**vars(change), "id": last.id + 1 if last else 1, "at": change.at or now()}
    connection.execute(table.insert().values(**row, chain=_chain(last.chain if last else "", row)))


def backfill_audit(connection: Connection, table: Table, revisions: Table) -> None:
    """Begin the trail of a store that is older than it with the revisions that are there."""
    columns = [revisions.c[name] for name in ("id", "image_id", "author", "source", "created", "sha256")]
    before: dict[str, str] = {}
    for row in connection.execute(select(*columns).order_by(revisions.c.id)).all():
        known = before.get(row.image_id, "")
        append(connection, table, Change(row.author, row.source, row.image_id, known, row.sha256, row.id, row.created))
        before[row.image_id] = row.sha256


def faults(connection: Connection, table: Table, revisions: Table) -> list[str]:
    """Rows that are not as they were written, and revisions that the trail does not tell of; one text each."""
    found, previous = [], ""
    for row in connection.execute(select(table).order_by(table.c.id).execution_options(yield_per=1000)):
        if _chain(previous, row._asdict()) != row.chain:
            found.append(f"audit row {row.id} ({row.what} of {row.subject}): it, or the row before it, is not as it was written")
        previous = row.chain
    same = (
        (table.c.revision == revisions.c.id) & (table.c.subject == revisions.c.image_id) & (table.c.after == revisions.c.sha256)
    )
    untold = select(revisions).outerjoin(table, same).where(table.c.id.is_(None))
    gone = select(table).outerjoin(revisions, same).where(table.c.revision.is_not(None), revisions.c.id.is_(None))
    found += [
        f"revision {r.number} of {r.image_id} (row {r.id}): the audit trail does not tell of it"
        for r in connection.execute(untold)
    ]
    return found + [
        f"audit row {r.id} ({r.what} of {r.subject}): its revision is gone or another" for r in connection.execute(gone)
    ]


def now() -> str:
    """UTC time, ISO 8601; for people, order is given by the rows' numbers."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _chain(previous: str, row: dict) -> str:
    return hashlib.sha256((previous + json.dumps([row[name] for name in _COVERED])).encode()).hexdigest()
