"""The list of trainings: whose they are, what a damaged list costs. The trainings themselves are in test_training_process."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import psutil
import pytest

from landmarklabel.errors import NotFound, UsageError
from landmarklabel.server import jobs
from landmarklabel.services.jobs import Jobs
from landmarklabel.services.limits import LIMITS

GONE = [os.getpid(), 1.0]  # our number, but not our time


@pytest.fixture
def started(monkeypatch) -> list[dict]:
    """Instead of processes: what was asked of MONAI Label."""
    asked: list[dict] = []

    def run(method, request=None, enqueue=False):
        asked.append(request)
        return {"id": str(len(asked)), "request": request}, None

    monkeypatch.setattr(jobs.AsyncTask, "run", run)
    return asked


@pytest.fixture
def listed(tmp_path) -> Jobs:
    return Jobs(tmp_path / "trainings.json", ("scn",))


def kept(jobs: Jobs) -> list[str]:
    return [job["request"]["job"] for job in json.loads(jobs.path.read_text(encoding="utf-8"))]


def test_only_what_a_training_needs_is_passed_on(listed, started):
    listed.start("scn", {"minutes": 1, "key": "k", "name": "DOE_JANE", "train_ds": "/etc/passwd", "gpus": "0; rm -rf /"})
    assert started == [{"minutes": 1, "model": "scn", "job": "k"}] and kept(listed) == ["k"]


def test_an_ended_servers_trainings_are_taken_over_once_and_another_servers_are_not(listed, started):
    entries = [({"model": "scn", "job": "left"}, GONE), ({"model": "scn", "job": "theirs"}, _parent())]
    listed.path.write_text(json.dumps([{"request": r, "server": s} for r, s in entries]), encoding="utf-8")
    listed.go_on()
    listed.go_on()
    assert [request["job"] for request in started] == ["left"] and kept(listed) == ["left", "theirs"]


def test_a_training_that_servers_die_of_is_given_up_and_the_next_ones_go_on(listed, started, console, capfd):
    entries = [{"request": {"model": "scn", "job": job}, "server": GONE} for job in ("deadly", "next")]
    listed.path.write_text(json.dumps(entries), encoding="utf-8")
    for _ in range(LIMITS.ended_servers):
        listed.go_on()
        assert kept(listed) == ["deadly", "next"]
        left = json.loads(listed.path.read_text(encoding="utf-8"))
        listed.path.write_text(json.dumps([job | {"server": GONE} for job in left]), encoding="utf-8")
    assert [request["job"] for request in started] == ["deadly", "next"] * LIMITS.ended_servers
    listed.go_on()
    assert kept(listed) == ["next"] and started[-1]["job"] == "next" and started[-2]["job"] == "next"
    assert "a training is given up: 10 servers have ended while it was at work" in "".join(capfd.readouterr())


def _parent() -> list[float]:
    return [os.getppid(), psutil.Process(os.getppid()).create_time()]


def test_a_training_that_is_over_is_forgotten(listed, started):
    for key in ("a", "b"):
        listed.start("scn", {"key": key})
    listed.end("a")
    listed.end("never")
    assert kept(listed) == ["b"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', '[{"request": 1, "server": 2}]', '[{"request": {}}]'])
def test_a_damaged_list_costs_only_itself(listed, started, content):
    listed.path.write_text(content, encoding="utf-8")
    listed.go_on()
    listed.start("scn", {"key": "new"})
    assert kept(listed) == ["new"]


def test_an_unknown_model_and_too_many_trainings_are_refused(listed, started, monkeypatch):
    with pytest.raises(NotFound, match="no model 'other' to train; there are scn"):
        listed.start("other", {})
    monkeypatch.setattr(jobs, "LIMITS", replace(LIMITS, waiting_trainings=1))
    listed.start("scn", {})
    with pytest.raises(UsageError, match="1 trainings wait already"):
        listed.start("scn", {})
