"""A server whose trainings use several devices, here processes on the cores: one model, one reason, and no orphans."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest
from serving import is_alive, processes_of, wait_until
from test_training_process import kill_server_only, labelled_phantoms

from landmarklabel.inference.model_record import read_record

STEPS = 100  # more than are made until somebody looks


def ranks(study) -> dict[int, psutil.Process]:
    """The processes that train, by number."""
    found = {}
    for process in processes_of(study):
        try:
            rank = process.environ().get("RANK")
        except psutil.Error:
            continue
        if rank is not None:
            found[int(rank)] = process
    return found


def test_two_processes_train_and_go_on_after_a_restart_and_a_killed_one_is_named(tmp_path, running_server):
    material = labelled_phantoms(tmp_path)
    waiting = material.study / ".landmarklabel" / "trainings.json"
    with running_server(material, "train_devices", "2") as server:
        server.http("POST", "/train/scn", json={"max_epochs": 2000, "key": "long"})
        wait_until(lambda: server.stats().get("current_iteration", 0) >= STEPS, 240, "the first steps")
        assert set(ranks(material.study)) == {0, 1}
        kill_server_only(server)
        wait_until(lambda: not processes_of(material.study), 60, "all processes to end by themselves")
    assert [job["request"]["job"] for job in json.loads(waiting.read_text(encoding="utf-8"))] == ["long"]
    with running_server(material, "train_devices", "2") as server:  # goes on by itself
        wait_until(lambda: server.stats().get("state") == "running", 120, "the training to go on")
        wait_until(lambda: server.stats().get("current_iteration", 0) > 0, 120, "a step")
        assert server.stats()["current_iteration"] > STEPS
        trained = ranks(material.study)
        trained[1].kill()
        wait_until(lambda: server.stats()["state"] == "failed", 60, "the end to be told")
        assert server.stats()["reason"] == "process 1 of 2 was ended by SIGKILL, as the system does when memory runs out"
        wait_until(lambda: not any(map(is_alive, trained.values())), 30, "the others to end")
        server.wait_for_end("/train/")
        assert json.loads(waiting.read_text(encoding="utf-8")) == [], "a person decides whether it begins once more"
        stats = server.train({"max_epochs": 1, "pretrained": False})
        assert stats["state"] == "done", stats
        server.client.train_start("scn", {"minutes": 5})
        wait_until(lambda: set(ranks(material.study)) == {0, 1}, 120, "the processes of another training")
        assert server.http("DELETE", "/train/").json()["status"] == "STOPPED"
        wait_until(lambda: not ranks(material.study), 20, "them to be stopped")


@pytest.mark.timeout(900)
def test_where_a_model_is_live_a_further_training_ends_well(tmp_path, running_server):
    material = labelled_phantoms(tmp_path)
    with running_server(material, "train_devices", "2") as server:
        stats = server.train({"max_epochs": 30})
        assert stats["published"], f"no model is live that could be trained further: {stats['reason']}"
        first = material.registry.live()
        assert read_record(first)["devices"] == 2
        begun = time.time()
        stats = server.train({"max_epochs": 2})
        assert stats["state"] == "done" and stats["start_ts"] >= int(begun), stats


def test_several_devices_that_are_not_there_end_the_training_with_the_reason(tmp_path, running_server):
    material = labelled_phantoms(tmp_path)
    with running_server(material, "train_devices", "2") as server:
        stats = server.train({"max_epochs": 1, "device": "cuda"})
        reason = "device 'cuda' was asked for, but this machine has no usable CUDA device; use --device cpu"
        assert (stats["state"], stats["reason"]) == ("failed", reason)
        assert json.loads((material.study / ".landmarklabel" / "trainings.json").read_text(encoding="utf-8")) == []


def test_asked_to_end_all_at_once_they_keep_what_they_have(tmp_path, running_server):
    """As by a system that shuts down, which tells every process."""
    material = labelled_phantoms(tmp_path)
    with running_server(material, "train_devices", "2") as server:
        server.http("POST", "/train/scn", json={"max_epochs": 2000, "key": "long"})
        wait_until(lambda: server.stats().get("current_iteration", 0) > 0, 240, "the first steps")
        os.killpg(server.process.pid, signal.SIGTERM)
        wait_until(lambda: not processes_of(material.study), 60, "all to end")
    waiting = material.study / ".landmarklabel" / "trainings.json"
    assert [job["request"]["job"] for job in json.loads(waiting.read_text(encoding="utf-8"))] == ["long"]
