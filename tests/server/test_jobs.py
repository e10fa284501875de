"""The list of trainings: whose they are, what a damaged list costs. The trainings themselves are in test_training_process."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import pytest

from landmarklabel.errors import Gone, NotFound, UsageError
from landmarklabel.portability import identity_of
from landmarklabel.services import jobs
from landmarklabel.services.jobs import Jobs, TrainingList
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.training_stats import TrainingReport, TrainingStats
from landmarklabel.training.publishing import ModelRegistry

GONE = [os.getpid(), 1.0]  # our number, but not our time


class Queue:
    """Instead of processes: what is to be done."""

    def __init__(self):
        self.asked: list[dict] = []

    def run(self, request, enqueue=False):
        self.asked.append(request)
        return {"id": str(len(self.asked)), "request": request}

    def tasks(self):
        return []


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def started(queue) -> list[dict]:
    return queue.asked


@pytest.fixture
def path(tmp_path):
    (tmp_path / ".landmarklabel").mkdir()
    return tmp_path / ".landmarklabel" / "trainings.json"


@pytest.fixture
def listed(tmp_path, path, queue) -> Jobs:
    return Jobs(tmp_path, ("scn",), queue)


def kept(path) -> list[str]:
    return [job["request"]["job"] for job in json.loads(path.read_text(encoding="utf-8"))]


def test_only_what_a_training_needs_is_passed_on(listed, path, started):
    listed.start("scn", {"minutes": 1, "key": "k", "name": "DOE_JANE", "train_ds": "/etc/passwd", "gpus": "0; rm -rf /"})
    assert started == [{"minutes": 1, "model": "scn", "job": "k"}] and kept(path) == ["k"]


def test_an_ended_servers_trainings_are_taken_over_once_and_another_servers_are_not(listed, path, started):
    entries = [({"model": "scn", "job": "left"}, GONE), ({"model": "scn", "job": "theirs"}, _parent())]
    path.write_text(json.dumps([{"request": r, "server": s} for r, s in entries]), encoding="utf-8")
    listed.go_on()
    listed.go_on()
    assert [request["job"] for request in started] == ["left"] and kept(path) == ["left", "theirs"]


def test_a_training_that_servers_die_of_is_given_up_and_the_next_ones_go_on(listed, path, started, console, capfd, tmp_path):
    entries = [{"request": {"model": "scn", "job": job}, "server": GONE, "at_work": True} for job in ("deadly", "next")]
    entries[1]["at_work"] = False
    path.write_text(json.dumps(entries), encoding="utf-8")
    for _ in range(LIMITS.ended_servers):
        listed.go_on()
        assert kept(path) == ["deadly", "next"]
        left = json.loads(path.read_text(encoding="utf-8"))
        assert [job["at_work"] for job in left] == [False, False]  # until the process of one says so
        assert TrainingList(tmp_path).begin("deadly") and not TrainingList(tmp_path).begin("never")
        left = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps([job | {"server": GONE} for job in left]), encoding="utf-8")
    assert [request["job"] for request in started] == ["deadly", "next"] * LIMITS.ended_servers
    listed.go_on()
    assert kept(path) == ["next"] and started[-1]["job"] == "next" and started[-2]["job"] == "next"
    said = f"study {tmp_path.name}: the training of scn is given up: 10 servers have ended by themselves while it was at work\n"
    assert said in "".join(capfd.readouterr())


def test_a_training_that_only_waited_or_whose_server_was_asked_to_end_is_never_given_up(listed, path, started, tmp_path):
    for job in ("at work", "waits"):
        listed.start("scn", {"key": job})
    for _ in range(LIMITS.ended_servers + 3):
        assert TrainingList(tmp_path).begin("at work")
        listed.leave()
        left = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps([job | {"server": GONE} for job in left]), encoding="utf-8")
        listed.go_on()
    assert kept(path) == ["at work", "waits"]
    assert [job["servers"] for job in json.loads(path.read_text(encoding="utf-8"))] == [0, 0]


def test_a_list_is_not_made_anew_where_the_study_was(listed, tmp_path, started):
    (tmp_path / ".landmarklabel").rmdir()
    for edit in (lambda: listed.start("scn", {}), lambda: TrainingList(tmp_path).end("a"), listed.go_on):
        with pytest.raises(Gone, match="the study folder is gone or has moved"):
            edit()
    assert not (tmp_path / ".landmarklabel").exists() and not started


def _parent() -> list[str]:
    return identity_of(os.getppid())


def test_a_training_that_is_over_is_forgotten(listed, path, started, tmp_path):
    for key in ("a", "b"):
        listed.start("scn", {"key": key})
    TrainingList(tmp_path).end("a")
    TrainingList(tmp_path).end("never")
    assert kept(path) == ["b"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', '[{"request": 1, "server": 2}]', '[{"request": {}}]'])
def test_a_damaged_list_costs_only_itself(listed, path, started, content):
    path.write_text(content, encoding="utf-8")
    listed.go_on()
    listed.start("scn", {"key": "new"})
    assert kept(path) == ["new"]


def test_an_unknown_model_and_too_many_trainings_are_refused(listed, path, started, monkeypatch):
    with pytest.raises(NotFound, match="no model 'other' to train; there are scn"):
        listed.start("other", {})
    monkeypatch.setattr(jobs, "LIMITS", replace(LIMITS, waiting_trainings=1))
    listed.start("scn", {})
    with pytest.raises(UsageError, match="1 trainings wait already"):
        listed.start("scn", {})


def test_a_training_whose_process_was_killed_has_failed_unless_it_was_done(tmp_path):
    stats = TrainingStats(ModelRegistry(tmp_path / "scn"))
    stats.file.parent.mkdir()
    began = time.time()
    TrainingReport(stats.file).end("done", "better than before")
    stats.end_failed("killed", began)  # when it had told so
    assert (stats.stats()["state"], stats.stats()["reason"]) == ("done", "better than before")
    stats.end_failed("killed", began + 10)  # the next one, which had not told anything yet
    assert (stats.stats()["state"], stats.stats()["reason"]) == ("failed", "killed")


def test_a_training_that_was_killed_where_its_study_has_moved_makes_nothing_anew(tmp_path):
    TrainingStats(ModelRegistry(tmp_path / "moved" / ".landmarklabel" / "models" / "scn")).end_failed("killed", time.time())
    assert list(tmp_path.iterdir()) == []
