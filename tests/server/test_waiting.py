"""Somebody else holds the study or its database: who wants to save is told to come again, everybody else is answered."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from contextlib import contextmanager

import pytest
from serving import phantoms

SUBMITS = 45  # more than the server has threads


@pytest.fixture(scope="module")
def served(tmp_path_factory, running_server):
    material = phantoms(tmp_path_factory.mktemp("waiting"), 3, size=(48, 64))
    with running_server(material) as server:
        yield server, material


@contextmanager
def lock_held(material):
    with (material.study / ".landmarklabel" / "lock").open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def database_held(material):
    connection = sqlite3.connect(material.study / ".landmarklabel" / "revisions.sqlite", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("ROLLBACK")
    connection.close()


@pytest.mark.parametrize(("held", "free"), [(lock_held, "phantom01"), (database_held, "phantom02")])
def test_submits_are_told_to_come_again_while_others_are_answered(served, held, free):
    server, material = served
    places = material.truth["phantom00"].positions_mm.tolist()
    rows = [{"name": n, "position": p} for n, p in zip(material.task.names, places, strict=True)]
    answers, body = [], {"landmarks": rows, "base_revision": 0, "author": held.__name__}

    def submit() -> None:
        answers.append(server.http("PUT", "/landmarks/images/phantom00", json=body))

    with held(material):
        started = time.monotonic()
        threads = [threading.Thread(target=submit) for _ in range(SUBMITS)]
        [t.start() for t in threads]
        looks = []
        while any(t.is_alive() for t in threads):
            before = time.monotonic()
            assert server.http("GET", "/info/").status_code == 200
            assert server.http("GET", "/landmarks/images/phantom00").json()["revision"] == 0
            looks.append(time.monotonic() - before)
        assert time.monotonic() - started < 30 and max(looks) < 5  # a look takes milliseconds on a quiet machine
    assert {a.status_code for a in answers} == {503} and len(answers) == SUBMITS
    assert {a.headers["retry-after"] for a in answers} == {"5"}
    assert all("is in use by another program or request" in a.json()["detail"] for a in answers)
    last = server.http("PUT", f"/landmarks/images/{free}", json=body)  # held no longer, and an image nobody has saved before
    assert last.status_code == 200 and last.json()["revision"] == 1
