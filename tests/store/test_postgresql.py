"""What only a database server does: it is away, comes back, lets wait, or hangs up; and what its URL says."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest
from sqlalchemy import text

from landmarklabel.errors import Busy, UsageError
from landmarklabel.store import database, revisions
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.database import StoreFault, open_engine
from landmarklabel.store.revisions import RevisionStore


@pytest.fixture
def url(postgres):
    return postgres.new_database()


def one_line_of(caught):
    """The text of a fault, which is one line and answered with 507; 503 where it helps to come again."""
    assert caught.value.http_status == (503 if isinstance(caught.value, Busy) else 507) and "\n" not in str(caught.value)
    return str(caught.value)


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "no url at all",
            "the database URL cannot be read; examples: sqlite:////data/labels.sqlite, postgresql://user@host/name",
        ),
        ("postgresql://ann:secret@host:port/name", "the database URL cannot be read; examples: "),
        ("nodatabase://x/y", "the database URL begins with 'nodatabase'; examples: "),
        ("mysql://x/y", "the database URL begins with 'mysql'; examples: "),
    ],
)
def test_a_bad_url_is_one_clear_error_that_tells_no_password(url, message):
    with pytest.raises(UsageError) as caught:
        RevisionStore(url)
    assert str(caught.value).startswith(message)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://ann@host/name", "postgresql+psycopg://ann@host/name"])
def test_without_the_driver_the_error_says_what_to_install(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError) as caught:
        RevisionStore(url)
    assert str(caught.value) == "PostgreSQL needs its driver: pip install 'psycopg[binary]'"


def test_a_server_that_is_not_there_is_one_clear_error():
    pytest.importorskip("psycopg")
    started = time.monotonic()
    with pytest.raises(StoreFault, match="Connection refused") as caught:
        RevisionStore("postgresql://ann:secret@127.0.0.1:1/labels")
    assert "secret" not in one_line_of(caught) and time.monotonic() - started < 10


def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    """A port that is open while nobody speaks: the handshake ends at the connection's time limit."""
    import socket

    pytest.importorskip("psycopg")
    monkeypatch.setitem(database._NETWORK, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(StoreFault, match="timeout") as caught:
            RevisionStore(f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/labels")
        one_line_of(caught)
        assert time.monotonic() - started < 10


def test_a_database_that_does_not_exist_is_named(postgres):
    with pytest.raises(StoreFault, match='database "nothing" does not exist') as caught:
        RevisionStore(postgres.url.replace("/postgres", "/nothing"))
    one_line_of(caught)


def test_a_user_who_may_not_create_tables_is_told(postgres, url):
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS guest")
        connection.exec_driver_sql("CREATE ROLE guest LOGIN")
    with pytest.raises(StoreFault, match="permission denied|no schema has been selected") as caught:
        RevisionStore(url.replace("landmarklabel@", "guest@"))
    one_line_of(caught)
    engine.dispose()


def test_what_is_acknowledged_is_on_disk_whatever_the_servers_default_is(url):
    """A server may be set up to confirm before it has written, or to isolate so that a waiting writer sees old rows."""
    url += "%20-csynchronous_commit%3Doff%20-cdefault_transaction_isolation%3Dserializable"
    store = RevisionStore(url)
    with store._engine.connect() as connection:
        shown = {s: connection.exec_driver_sql(f"SHOW {s}").scalar() for s in ("synchronous_commit", "transaction_isolation")}
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "10s"
    assert shown == {"synchronous_commit": "on", "transaction_isolation": "read committed"}
    outcomes = []
    threads = [threading.Thread(target=lambda i=i: outcomes.append(store.save("a", {"i": i}).number)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(outcomes) == list(range(1, 9)) and store.verify() == []
    store.close()


def test_a_full_disk_of_the_server_is_one_clear_error_and_leaves_no_half_save(url):
    """The server says what it says when its disk is full, between the two rows of a save."""
    store = RevisionStore(url)
    store.save("a", {"i": 1})
    full = "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full', HINT = 'Check it.'"
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {full}; END $$")
        connection.exec_driver_sql("CREATE TRIGGER full_disk BEFORE INSERT ON audit EXECUTE FUNCTION full_disk()")
    with pytest.raises(StoreFault, match=r"\(could not extend file: No space left on device\); check free space") as caught:
        store.save("a", {"i": 2})
    one_line_of(caught)
    assert [r.body for r in store.history("a")] == [{"i": 1}] and store.verify() == []
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER full_disk ON audit")
    engine.dispose()
    assert store.save("a", {"i": 2}, base_revision=1).number == 2 and store.verify() == []
    store.close()


# --- waiting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(url, monkeypatch):
    """A store whose writers wait one second for their turn, and where a silent one loses it after two."""
    for module in (database, revisions):
        monkeypatch.setattr(module, "CONFIG", replace(CONFIG, database_timeout_s=1))
    store = RevisionStore(url)
    yield store
    store.close()


def test_who_waits_too_long_for_the_turn_is_told_and_saves_nothing(impatient, url):
    other = open_engine(url)
    with other.execution_options(writes=True).begin() as holder:
        holder.execute(text("SELECT 1"))
        started = time.monotonic()
        with pytest.raises(Busy, match="the revision store is in use by another") as caught:
            impatient.save("a", {})
        assert 0.9 < time.monotonic() - started < 10
        one_line_of(caught)
        assert impatient.history("a") == []  # reading goes on
    assert impatient.save("a", {}).number == 1
    other.dispose()


def test_a_writer_that_stands_still_loses_the_turn_to_the_others(impatient, url):
    others = RevisionStore(url)
    with pytest.raises(StoreFault, match="the revision store cannot be used"), impatient._writing() as stopped:
        stopped.execute(text("SELECT 1"))
        time.sleep(2.5)  # as a machine that was sent to sleep
        assert others.save("a", {"i": 1}).number == 1
        stopped.execute(text("SELECT 1"))
    assert impatient.save("a", {"i": 2}).number == 2 and impatient.verify() == []
    others.close()


def test_a_statement_that_takes_for_ever_is_ended(impatient):
    with pytest.raises(StoreFault, match="statement timeout") as caught, impatient._writing() as connection:
        connection.execute(text("SELECT pg_sleep(60)"))
    one_line_of(caught)
    assert impatient.save("a", {}).number == 1


# --- going away ------------------------------------------------------------------------------------------------------


def test_connections_that_the_server_closed_are_made_again(url):
    store = RevisionStore(url)
    store.save("a", {})
    other = open_engine(url)
    with other.begin() as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    other.dispose()
    assert store.save("a", {}).number == 2 and store.head("a").number == 2
    store.close()


def _save_until(stop, store, writer, acknowledged, faults):
    """As a client does: what was not acknowledged is sent again with its key."""
    i = 0
    while not stop.is_set():
        try:
            saved = store.save("ab"[writer % 2], {"writer": writer, "i": i}, key=f"{writer}-{i}")
        except StoreFault as error:
            faults.append(str(error))
            time.sleep(0.05)
        else:
            acknowledged.append((writer, i, saved.image_id, saved.number, saved.sha256))
            i += 1


def test_a_server_that_dies_amid_saves_and_comes_back_loses_none_and_doubles_none(postgres, url):
    store, stop, acknowledged, faults = RevisionStore(url), threading.Event(), [], []
    threads = [threading.Thread(target=_save_until, args=(stop, store, w, acknowledged, faults)) for w in range(6)]
    [t.start() for t in threads]
    time.sleep(1)
    postgres.stop()
    before = len(acknowledged)
    with pytest.raises(StoreFault, match="the revision store cannot be used") as caught:
        store.head("a")
    one_line_of(caught)
    with pytest.raises(StoreFault, match="the revision store cannot be used"):
        store.verify()  # away is not damaged
    postgres.start()
    deadline = time.monotonic() + 60
    while len(acknowledged) < before + 30 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(acknowledged) >= before + 30 and faults  # all go on by themselves
    stop.set()
    [t.join(60) for t in threads]
    assert all("\n" not in fault and fault.startswith("the revision store cannot be used (") for fault in faults)
    kept = [(r.body["writer"], r.body["i"], r.image_id, r.number, r.sha256) for i in "ab" for r in store.history(i)]
    assert set(acknowledged) <= set(kept) and len(kept) - len(acknowledged) <= len(threads)
    assert len({k[:2] for k in kept}) == len(kept)  # what was sent twice is there once
    assert store.verify() == []
    store.close()


def _save_until_killed(url, pipe):
    store = RevisionStore(url)
    while True:
        saved = store.save("a", {"pid": os.getpid()})
        os.write(pipe, f"{saved.number} {saved.sha256}\n".encode())


def test_killed_writers_lose_nothing_and_do_not_keep_the_turn(url):
    store, dice, acknowledged = RevisionStore(url), random.Random(0), []
    for _ in range(10):
        read_end, write_end = os.pipe()
        children = [multiprocessing.get_context("fork").Process(target=_save_until_killed, args=(url, write_end)) for _ in "123"]
        [c.start() for c in children]
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            acknowledged.append(pipe.readline())  # they are at work
            time.sleep(dice.uniform(0, 0.06))
            [os.kill(c.pid, signal.SIGKILL) for c in children]
            [c.join() for c in children]
            acknowledged += pipe.readlines()
        started = time.monotonic()
        store.save("b", {})
        assert time.monotonic() - started < 5
    kept = {f"{r.number} {r.sha256}\n" for r in store.history("a")}
    assert set(acknowledged) <= kept and len(acknowledged) >= 10
    assert store.verify() == []
    store.close()
