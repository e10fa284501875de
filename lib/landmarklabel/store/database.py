"""How the store opens its database and says what went wrong with it. The only place that knows SQLite from others."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from landmarklabel.errors import StudyError, UsageError

BUSY_SECONDS = 30


class StoreFault(StudyError):
    """The store cannot be read or written: disk full, no permission, locked for too long, damaged, or unreachable."""

    http_status = 507


def reason(error: Exception) -> str:
    """The database's own words, one line."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]


@contextmanager
def store_faults() -> Iterator[None]:
    """Say in one line what a database failure means; collisions of writers pass, they are handled by trying again."""
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        raise StoreFault(
            f"the revision store cannot be used ({reason(error)}); check free space, permissions and the database"
        ) from error


def open_engine(url: str | URL) -> Engine:
    """An engine for a database URL; for SQLite: write-ahead log, full fsync, writers take the lock first.

    Connections made with the execution option ``writes=True`` are for writing.

    Raises:
        UsageError: not a database URL, or its driver is not installed.
    """
    try:
        url = make_url(url)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")  # the driver that is installed with the extra "postgresql"
        if url.get_backend_name() != "sqlite":
            return create_engine(url, pool_pre_ping=True)
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise UsageError(f"the database URL cannot be used ({error}); example: sqlite:////data/labels.sqlite") from None

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


def _retry_while_locked(connection: sqlite3.Connection, statement: str) -> None:
    # SQLite does not always wait for the busy timeout while a new database changes to WAL or a crashed one recovers.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
