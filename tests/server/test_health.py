"""``/health`` and ``/metrics`` of a real server."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from serving import Material, phantoms
from test_access import another_address

from landmarklabel import __version__
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.server.health import Health
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens

FINE = {"status": "ok", "version": __version__}
PATIENT = "DOE_JANE_19700101"


@pytest.fixture
def material(tmp_path) -> Material:
    return phantoms(tmp_path, 2)


def test_health_is_open_and_says_what_is_wrong_with_the_study(material, running_server):
    own = material.study / ".landmarklabel"
    with running_server(material, host="0.0.0.0") as server:
        outside = server.url.replace("127.0.0.1", another_address())
        assert server.get("/health") == FINE
        assert requests.get(f"{outside}/health", timeout=30).json() == FINE, "without a token and over plain http"
        assert requests.get(f"{outside}/info/", timeout=30).status_code == 403
        Tokens(material.study).new("ann", "annotator")
        assert server.get("/health") == FINE
        assert server.http("GET", "/health", headers={"Host": "evil.example", "Origin": "https://evil.example"}).json() == FINE

        def reason() -> str:
            answer = server.http("GET", "/health")
            assert answer.status_code == 503 and answer.json()["version"] == __version__
            assert set(answer.json()) == {"status", "reason", "version"} and str(material.study) not in answer.text
            return answer.json()["reason"]

        material.study.rename(material.study.with_name("moved"))
        assert reason() == "the study folder is gone or has moved"
        material.study.with_name("moved").rename(material.study)
        assert server.get("/health") == FINE
        (own / "revisions.sqlite").rename(own / "elsewhere")
        assert reason() == "the database of the study is gone"
        (own / "elsewhere").rename(own / "revisions.sqlite")
        assert server.get("/health") == FINE


def test_health_does_not_wait_for_a_writer(material, running_server):
    database = material.study / ".landmarklabel" / "revisions.sqlite"
    with running_server(material) as server, sqlite3.connect(database, isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")  # a writer that takes its time
        assert server.get("/health") == FINE
        connection.execute("ROLLBACK")


def test_health_answers_within_a_second_when_the_study_does_not(material):
    """The database hangs, as one over a network does; many ask, one looks."""
    study, go, looks = Study(material.study, material.task), threading.Event(), []

    class Hanging:
        folder = study.folder

        class revisions:
            @staticmethod
            def latest_row():
                looks.append(1)
                go.wait(60)

    async def ask() -> list[str]:
        health = Health(Hanging(), embedded=True)
        found = await asyncio.gather(*(health.fault() for _ in range(20)))
        found.append(await health.fault())
        go.set()
        while health._look and not health._look.done():
            await asyncio.sleep(0.01)
        return [*found, await health.fault()]

    started = time.monotonic()
    found = asyncio.run(ask())
    assert set(found[:21]) == {"the study folder or its database does not answer"} and found[21] == ""
    assert time.monotonic() - started < 10 and len(looks) == 2
    study.close()


def samples(text: str) -> dict[tuple, float]:
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in text_string_to_metric_families(text) for s in f.samples}


def test_metrics_count_and_name_nobody(material, running_server):
    material.image("phantom00").rename(material.study / f"{PATIENT}.png")
    study = Study(material.study, material.task)
    study.save(PATIENT, LandmarkSet(material.task, *_points(material)), author="ann")
    study.close()
    tokens = Tokens(material.study)
    as_role = {role: {"Authorization": f"Bearer {tokens.new(f'{role}1', role)}"} for role in ("annotator", "reviewer", "admin")}
    with running_server(material) as server:
        assert server.http("GET", "/metrics").status_code == 401
        assert server.http("GET", "/metrics", headers=as_role["annotator"]).status_code == 403
        for _ in range(3):
            server.get(f"/landmarks/images/{PATIENT}", headers=as_role["reviewer"])
        server.http("GET", f"/landmarks/images/{PATIENT}x", headers=as_role["reviewer"])
        server.http("GET", f"/{PATIENT}")
        server.http(PATIENT, "/info/")
        answer = server.http("GET", "/metrics", headers=as_role["reviewer"])
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
        assert PATIENT not in answer.text and "reviewer1" not in answer.text and str(material.study) not in answer.text
        told = samples(answer.text)
        image = (("method", "GET"), ("route", "/landmarks/images/{image_id}"))
        assert told["landmarklabel_requests_total", (*image, ("status", "200"))] == 3
        assert told["landmarklabel_requests_total", (*image, ("status", "404"))] == 1
        assert told["landmarklabel_request_seconds_count", image] == 4
        assert told["landmarklabel_requests_total", (("method", "other"), ("route", "none"), ("status", "404"))] == 2
        assert told["landmarklabel_requests_total", (("method", "GET"), ("route", "/metrics"), ("status", "401"))] == 1
        assert told["landmarklabel_cases", ()] == 2 and told["landmarklabel_cases_labelled", ()] == 1
        assert told["landmarklabel_model_version", (("model", "scn"),)] == 0
        assert told["landmarklabel_training", (("model", "scn"), ("state", "running"))] == 0
        assert told["landmarklabel_study_usable", ()] == 1 and told["process_resident_memory_bytes", ()] > 1e7


def _points(material) -> tuple:
    truth = material.truth["phantom00"]
    return truth.positions_mm, truth.status
