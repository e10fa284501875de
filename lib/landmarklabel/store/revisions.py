"""Append-only revisions of JSON bodies: numbered per image, hashed, and chained in the order of their arrival.

Decision: a row is inserted and never changed. Its id is the last id + 1, chosen by the program while it is the only
writer (``database.py``); should two ever read the same end of the chain, the primary key refuses the second: the chain
cannot fork.
"""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    inspect,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from landmarklabel.errors import Busy, Conflict, KeyReused, NotFound
from landmarklabel.io.files import check_id
from landmarklabel.portability import in_forked_child
from landmarklabel.store import audit
from landmarklabel.store.audit import Change, audit_table
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.database import BUSY, StoreFault, file_damage, open_engine, reason, store_faults
from landmarklabel.store.revision_json import canonical

CIRCUMSTANCES = ("pixels", "unseen")  # keys of a body that say how it came about: a request sent twice may differ in them

_metadata = MetaData()
_rows = Table(
    "revisions",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("image_id", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("author", String, nullable=False),
    Column("source", String, nullable=False),
    Column("created", String, nullable=False),
    Column("key", String, nullable=True),
    Column("body", Text, nullable=False),
    Column("sha256", String, nullable=False),
    Column("chain", String, nullable=False),
    UniqueConstraint("image_id", "number", name="one_number_an_image"),
    UniqueConstraint("key", name="one_save_a_key"),
)
_trail = audit_table(_metadata)


@dataclass(frozen=True)
class Revision:
    """One saved state of one image.

    Args:
        image_id: the image.
        number: 1, 2, … within the image.
        author: who saved it.
        source: what it was saved by, for example ``annotation``.
        created: UTC time, ISO 8601; for people, order is given by ``number``.
        body: the content.
        sha256: of the body's canonical JSON.
        chain: sha256 over the previous row's chain and this row.
    """

    image_id: str
    number: int
    author: str
    source: str
    created: str
    body: dict
    sha256: str
    chain: str


class RevisionStore:
    """Revisions in the database at ``url``; tables are created on first use.

    Safe for threads and for several processes, forked ones too.

    Args:
        url: an SQLAlchemy URL, for example ``sqlite:////data/revisions.sqlite`` or ``postgresql://user@host/name``.

    Raises:
        StoreFault: the database cannot be opened.
        UsageError: not a database URL.
    """

    def __init__(self, url: str | URL):
        self._engine = open_engine(url)
        self._closing = weakref.finalize(self, self._engine.dispose)  # a store nobody closed closes its connections
        self._closing.atexit = False
        self._writer = self._engine.execution_options(writes=True)
        self._turn = threading.Lock()  # of this process: waiting writers hold no connection, so that readers have them
        in_forked_child(_renew_turn(weakref.ref(self)))
        self.damaged: dict[str, str] = {}  # of the last ``heads``: image to what is wrong with its newest revision
        self._create_tables()

    def save(
        self,
        image_id: str,
        body: dict,
        *,
        author: str = "",
        source: str = "",
        base_revision: int | None = None,
        key: str | None = None,
    ) -> Revision:
        """Append a revision, return it once it is on disk; a repeated ``key`` adds nothing and returns the first one.

        Raises:
            Conflict: ``base_revision`` is given and not the image's newest number (0 where there is none).
            UsageError: a bad id, text or body. KeyReused: the ``key`` was used for another image or body.
            Busy: others write for too long.
            StoreFault: not saved; where the database went away during the very commit, perhaps saved. With a ``key`` it is
                safe to save again.
        """
        check_id(image_id)
        audit.check_texts(author=author, source=source, key=key)
        values = {"image_id": image_id, "author": author, "source": source, "key": key, "body": canonical(body)}
        with self._writing() as connection:
            return _append(connection, values, base_revision)

    def has_key(self, key: str) -> bool:
        """Whether a revision was saved under an idempotency key."""
        with self._reading() as connection:
            return connection.execute(select(_rows.c.id).where(_rows.c.key == key)).first() is not None

    def save_all(self, bodies: Mapping[str, dict], *, author: str, source: str) -> None:
        """Append a revision to many images, all of them or none. Raises as ``save``."""
        audit.check_texts(author=author, source=source)
        rows = [
            {"image_id": check_id(image_id), "author": author, "source": source, "key": None, "body": canonical(body)}
            for image_id, body in bodies.items()
        ]
        with self._writing() as connection:
            for values in rows:
                _append(connection, values, None)

    def log_change(self, what: str, subject: str, *, who: str = "", before: str = "", after: str = "") -> None:
        """Append a change that is no revision to the audit trail, for example an image that was added.

        Raises:
            UsageError: a text that cannot be stored. StoreFault: nothing was recorded.
        """
        with self.recording(what, subject, who=who, before=before, after=after):
            pass

    @contextmanager
    def recording(self, what: str, subject: str, *, who: str = "", before: str = "", after: str = "") -> Iterator[None]:
        """As ``record``, for a change that is made inside the block: one that fails is not recorded."""
        audit.check_texts(what=what, subject=subject, who=who, before=before, after=after)
        with self._writing() as connection:
            audit.append(connection, _trail, Change(who, what, subject, before, after))
            yield

    def changes(self, subject: str | None = None, what: str | None = None) -> list[Change]:
        """The audit trail, oldest first; only of one image or model, or of one kind, where these are given."""
        query = select(_trail).order_by(_trail.c.id)
        for column, value in ((_trail.c.subject, subject), (_trail.c.what, what)):
            if value is not None:
                audit.check_texts(subject=value)
                query = query.where(column == value)
        with self._reading() as connection:
            return [Change(**{k: getattr(row, k) for k in Change.__dataclass_fields__}) for row in connection.execute(query)]

    def head(self, image_id: str) -> Revision | None:
        """The newest revision, or None. Raises UsageError for what cannot be an id, as ``get`` and ``history`` do."""
        query = select(_rows).where(_rows.c.image_id == check_id(image_id)).order_by(_rows.c.number.desc()).limit(1)
        with self._reading() as connection:
            row = connection.execute(query).first()
        return _revision(row) if row else None

    def get(self, image_id: str, number: int) -> Revision:
        """One revision. Raises NotFound."""
        query = select(_rows).where(_rows.c.image_id == check_id(image_id), _rows.c.number == number)
        with self._reading() as connection:
            row = connection.execute(query).first() if 0 < number <= CONFIG.revision_number else None
        if row is None:
            raise NotFound(f"{image_id} has no revision {number}; look at its history")
        return _revision(row)

    def history(self, image_id: str) -> list[Revision]:
        """All revisions of an image, oldest first."""
        query = select(_rows).where(_rows.c.image_id == check_id(image_id)).order_by(_rows.c.number)
        with self._reading() as connection:
            return [_revision(row) for row in connection.execute(query)]

    def heads(self) -> dict[str, Revision]:
        """The newest revision of every image, sorted by id, in one query; those not as they were saved are in ``damaged``."""
        newest = _newest_numbers().subquery()
        same = (_rows.c.image_id == newest.c.image_id) & (_rows.c.number == newest.c.number)
        revisions, damaged = [], {}
        with self._reading() as connection:
            for row in connection.execute(select(_rows).join(newest, same)):
                try:
                    revisions.append(_revision(row))
                except StoreFault as error:
                    damaged[str(row.image_id)] = str(error)
        self.damaged = damaged
        return {r.image_id: r for r in sorted(revisions, key=lambda r: r.image_id)}

    def authors(self) -> list[tuple[str, int, int, str]]:
        """Of every author, sorted: name, on how many images, how many revisions, and when the last was made."""
        images, last = func.count(_rows.c.image_id.distinct()), func.max(_rows.c.created)
        query = select(_rows.c.author, images, func.count(), last).group_by(_rows.c.author).order_by(_rows.c.author)
        with self._reading() as connection:
            return [(author, cases, count, when) for author, cases, count, when in connection.execute(query)]

    def newer_heads(self, known: Mapping[str, Revision], row: int) -> dict[str, Revision]:
        """As ``heads``, given an earlier answer: only what has a newer revision is read; the same objects otherwise.

        ``row`` is ``latest_row`` before the earlier answer, ``known``, was given.
        """
        if not known or self.latest_row() < row:  # an earlier state of the database was put back
            return self.heads()
        newer = select(_rows.c.image_id).where(_rows.c.id > row).distinct()
        with self._reading() as connection:
            ids = {image_id for (image_id,) in connection.execute(newer)} | self.damaged.keys()
        heads = dict(known)
        for image_id in ids:
            old = heads.pop(image_id, None)
            try:
                head = self.head(image_id)
            except StoreFault as error:
                self.damaged = {**self.damaged, image_id: str(error)}
                continue
            self.damaged = {i: why for i, why in self.damaged.items() if i != image_id}
            if head is not None:
                heads[image_id] = old if old and old.number == head.number else head
        return dict(sorted(heads.items()))

    def newest_body(self) -> dict | None:
        """The body of the newest revision of all; None where there is none. Raises StoreFault for a damaged one."""
        with self._reading() as connection:
            row = connection.execute(select(_rows).order_by(_rows.c.id.desc()).limit(1)).first()
        return _revision(row).body if row else None

    def numbers(self) -> dict[str, int]:
        """The newest number of every image, in one query and without the bodies."""
        with self._reading() as connection:
            return {image_id: number for image_id, number in connection.execute(_newest_numbers())}

    def latest_row(self) -> int:
        """Number of the newest row of all images, 0 for none: changes with every save."""
        with self._reading() as connection:
            return connection.execute(select(func.max(_rows.c.id))).scalar() or 0

    def verify(self) -> list[str]:
        """Every row of revisions and audit trail that is not as it was saved, by content or place; empty if all is well.

        Rows cut off at the very end of both leave no trace in the database: compare with a ``chain`` value kept elsewhere.

        Raises:
            StoreFault: the database is not there.
        """
        faults, previous = [], ""
        with self._reading() as connection:
            try:
                for row in connection.execute(select(_rows).order_by(_rows.c.id).execution_options(yield_per=1000)):
                    what = f"revision {row.number} of {row.image_id} (row {row.id})"
                    if _sha256(row.body) != row.sha256:
                        faults.append(f"{what}: the body does not have the hash it was saved with")
                    if _chain(previous, row._asdict()) != row.chain:
                        faults.append(f"{what}: its fields, or the row before it, are not as they were saved")
                    previous = row.chain
                faults += audit.faults(connection, _trail, _rows) + file_damage(connection)
            except (SQLAlchemyError, AttributeError, TypeError, ValueError) as error:
                if getattr(error, "connection_invalidated", False):
                    raise
                faults.append(f"the database is damaged ({reason(error)}); restore it from a backup")
        return faults

    def close(self) -> None:
        """Close all connections; for SQLite this folds the write-ahead log into the database file."""
        self._engine.dispose()
        self._closing.detach()

    def _create_tables(self) -> None:
        with self._writing() as connection:
            has_table = inspect(connection).has_table
            older_than_its_trail = has_table(_rows.name) and not has_table(_trail.name)
            _metadata.create_all(connection)
            if older_than_its_trail:
                audit.backfill_audit(connection, _trail, _rows)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction of the only writer: committed, on disk, when the block ends without an error. Raises Busy."""
        turn = self._turn
        if not turn.acquire(timeout=CONFIG.database_timeout_s):
            raise Busy(BUSY)
        try:
            with store_faults(), self._writer.begin() as connection:
                yield connection
        finally:
            turn.release()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with store_faults(), self._engine.connect() as connection:
            yield connection


def open_revisions(study: str | Path, url: str | URL | None = None) -> RevisionStore:
    """The revisions of a study folder: in the database at ``url``, by default in the folder. Raises StoreFault, UsageError."""
    place = Path(study).absolute() / ".landmarklabel" / "revisions.sqlite"
    return RevisionStore(url or URL.create("sqlite", database=str(place)))


def _renew_turn(store: weakref.ref) -> Callable[[], None]:
    """For a forked child, in which the thread that holds the lock does not exist."""

    def renew() -> None:
        if (known := store()) is not None:
            known._turn = threading.Lock()

    return renew


def _said(body: str) -> dict:
    """The content of a body without the keys that only say how it came about."""
    return {key: value for key, value in json.loads(body).items() if key not in CIRCUMSTANCES}


def _append(connection: Connection, values: dict, base_revision: int | None) -> Revision:
    image_id, key = values["image_id"], values["key"]
    if key is not None and (first := connection.execute(select(_rows).where(_rows.c.key == key)).first()):
        if first.image_id != image_id:
            raise KeyReused(f"idempotency key {key!r} was used for {first.image_id!r}; use a new one for {image_id!r}")
        if _said(first.body) != _said(values["body"]):
            raise KeyReused(f"idempotency key {key!r} was used for other landmarks of {image_id!r}; use a new one for these")
        return _revision(first)
    heads = select(_rows.c.number, _rows.c.sha256).where(_rows.c.image_id == image_id)
    newest = connection.execute(heads.order_by(_rows.c.number.desc()).limit(1)).first()
    current, before = (newest.number, newest.sha256) if newest else (0, "")
    if base_revision is not None and base_revision != current:
        raise Conflict(image_id, base_revision, current)
    last = connection.execute(select(_rows.c.id, _rows.c.chain).order_by(_rows.c.id.desc()).limit(1)).first()
    row = values | {
        "id": last.id + 1 if last else 1,
        "number": current + 1,
        "created": audit.now(),
        "sha256": _sha256(values["body"]),
    }
    row["chain"] = _chain(last.chain if last else "", row)
    connection.execute(_rows.insert().values(row))
    audit.append(
        connection, _trail, Change(row["author"], row["source"], image_id, before, row["sha256"], row["id"], row["created"])
    )
    fields = {name: row[name] for name in Revision.__dataclass_fields__}
    return Revision(**fields | {"body": json.loads(row["body"])})


def _newest_numbers():
    return select(_rows.c.image_id, func.max(_rows.c.number).label("number")).group_by(_rows.c.image_id)


def _revision(row: Row) -> Revision:
    """The row as a revision; a wrong position must not look like a label, so the body's hash is checked."""
    try:
        if not isinstance(row.image_id, str) or _sha256(row.body) != row.sha256:
            raise ValueError("not what was saved")
        fields = {name: getattr(row, name) for name in Revision.__dataclass_fields__}
        return Revision(**fields | {"body": json.loads(row.body)})
    except (AttributeError, TypeError, ValueError) as error:
        raise StoreFault(f"revision {row.number} of {row.image_id} is damaged ({error}); restore a backup") from None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _chain(previous: str, row: dict) -> str:
    fields = [row[name] for name in ("id", "image_id", "number", "author", "source", "created", "key", "sha256")]
    return _sha256(previous + json.dumps(fields))
