"""How the store opens its database and says what went wrong with it. The only place that knows SQLite from PostgreSQL.

Decision: writers take turns. A transaction that writes begins by taking one lock (SQLite: BEGIN IMMEDIATE, PostgreSQL: an
advisory lock), so whoever reads the newest row in it also writes the next one, and nothing has to be tried again.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from landmarklabel.errors import Busy, StudyError, UsageError
from landmarklabel.portability import DISK_FULL, in_forked_child
from landmarklabel.store.configuration import CONFIG

BUSY = "the revision store is in use by another program or request; nothing was changed, try again in a moment"
_LOCKED = ("database is locked", "database table is locked", "lock timeout", "QueuePool limit")  # in the database's own words
_CONNECTIONS = {"pool_size": 10, "max_overflow": 30, "pool_timeout": CONFIG.database_timeout_s}  # as many as a server has threads
_EXAMPLES = "examples: sqlite:////data/labels.sqlite, postgresql://user@host/name"
_TURN = "SELECT pg_advisory_xact_lock(hashtext('landmarklabel revisions'))"
_NETWORK = {  # libpq: a server that is gone without a word is noticed within BUSY_SECONDS, not after hours
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 1000 * CONFIG.database_timeout_s,
    "client_encoding": "utf8",
}
_REMEDIES = DISK_FULL | dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change who may write there")
_pools_of_parents: list[Any] = []  # a forked child must not close them: they are in use


class StoreFault(StudyError):
    """The store cannot be read or written: disk full, no permission, locked for too long, damaged, or unreachable."""

    http_status = 507


def reason(error: Exception) -> str:
    """The database's own words, one line."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def store_faults() -> Iterator[None]:
    """Say in one line what a database failure means."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, UnicodeError) as error:  # of a damaged file SQLite can even say no readable name
        if any(text in str(error) for text in _LOCKED):
            raise Busy(BUSY) from error
        raise StoreFault(
            f"the revision store cannot be used ({reason(error)}); check free space, permissions and the database"
        ) from error


@contextmanager
def file_faults(what: str) -> Iterator[None]:
    """Say in one line why a plain file cannot be written."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "mend that") + ", then try again"
        raise StoreFault(f"{what}: could not be written ({error.strerror or error}); {remedy}") from None


def open_engine(url: str | URL) -> Engine:
    """An engine for a database URL: what is committed is on disk, and writers take turns.

    Connections made with the execution option ``writes=True`` are for writing.

    Raises:
        UsageError: not a URL of SQLite or PostgreSQL, or the driver is not installed. StudyError: a path too long for SQLite.
    """
    try:
        url = make_url(url)
    except (ArgumentError, ValueError):  # their texts may hold a part of the password
        raise UsageError(f"the database URL cannot be read; {_EXAMPLES}") from None
    openers = {"sqlite": _sqlite, "sqlite+pysqlite": _sqlite, "postgresql": _postgresql, "postgresql+psycopg": _postgresql}
    if url.drivername not in openers:
        raise UsageError(f"the database URL begins with {url.drivername!r}; {_EXAMPLES}")
    engine = openers[url.drivername](url)
    _keep_out_of_forked_children(engine)
    return engine


def file_damage(connection: Connection) -> list[str]:
    """What SQLite finds wrong with its own file, for example an index that misses a row; PostgreSQL is not asked."""
    if connection.dialect.name != "sqlite":
        return []
    found = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
    return [f"the database file is damaged ({text}); restore it from a backup" for text in found if text != "ok"]


def _sqlite(url: URL) -> Engine:
    on_disk = url.database not in (None, "", ":memory:")
    if on_disk and (size := len(os.fsencode(os.path.realpath(str(url.database))))) > CONFIG.sqlite_path_bytes:
        most = CONFIG.sqlite_path_bytes
        raise StudyError(f"the revision store's path has {size} bytes and SQLite opens {most}: give the study a shorter path")
    engine = create_engine(url, connect_args={"timeout": CONFIG.database_timeout_s}, **_pool(url))

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions on its own
        _retry_while_locked(connection, "PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _pool(url: URL) -> dict:
    return {} if url.database in (None, "", ":memory:") else _CONNECTIONS


def _postgresql(url: URL) -> Engine:
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args=_NETWORK,
            isolation_level="READ COMMITTED",  # what is read after waiting for the lock is what the others committed
            pool_pre_ping=True,  # after a restart of the server the next request works
            **_CONNECTIONS,
        )
    except ImportError:
        raise UsageError("PostgreSQL needs its driver: pip install 'psycopg[binary]'") from None

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        connection.execute("SET synchronous_commit = on")
        connection.execute(f"SET lock_timeout = '{CONFIG.database_timeout_s}s'")
        connection.execute(f"SET statement_timeout = '{4 * CONFIG.database_timeout_s}s'")
        # a stopped writer holds the lock
        connection.execute(f"SET idle_in_transaction_session_timeout = '{2 * CONFIG.database_timeout_s}s'")
        connection.commit()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            connection.exec_driver_sql(_TURN)

    return engine


def _keep_out_of_forked_children(engine: Engine) -> None:
    """A forked process makes connections of its own: two processes on one would read each other's answers."""
    known = weakref.ref(engine)

    def leave_to_the_parent() -> None:
        if (engine := known()) is not None:
            _pools_of_parents.append(engine.pool)
            engine.dispose(close=False)

    in_forked_child(leave_to_the_parent)


def _retry_while_locked(connection: sqlite3.Connection, statement: str) -> None:
    # SQLite does not always wait for the busy timeout while a new database changes to WAL or a crashed one recovers.
    deadline = time.monotonic() + CONFIG.database_timeout_s
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
