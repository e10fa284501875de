"""Training and its server: neither survives the other in a way that harms the next start."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
from serving import is_alive, phantoms, processes_of, wait_until
from tests.thoroughness import times

from landmarklabel.store.study import Study

ASKED = times(2, in_full=3)  # trainings: one runs, the others wait


def labelled_phantoms(folder):
    material = phantoms(folder, 6)
    study = Study(material.study, material.task)
    for image_id, landmarks in material.truth.items():
        study.save(image_id, landmarks, author="ann")
    study.close()
    return material


def kill_server_only(server) -> None:
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(20)


def test_a_training_ends_after_its_server_was_killed(tmp_path, running_server):
    material = labelled_phantoms(tmp_path)
    with running_server(material) as server:
        server.client.train_start("scn", {"minutes": 5})
        training = server.wait_for_training()
        assert training and set(processes_of(material.study)) >= {psutil.Process(server.process.pid), *training}
        kill_server_only(server)
        assert any(map(is_alive, training))  # otherwise the kill ended it, not its own watch
        wait_until(lambda: not processes_of(material.study), 20, "the orphaned training to end by itself")
        wait_until(lambda: not any(map(is_alive, training)), 20, "its processes to be gone")
    with running_server(material) as server:
        server.wait_for_training()  # goes on by itself
        assert server.client.info()["models"]["scn"]["version"] == 0
        assert server.http("DELETE", "/train/").json()["status"] == "STOPPED"
    with running_server(material) as server:  # what a person stopped stays stopped
        stats = server.stats()
        assert stats["state"] == "stopped" and stats["reason"]
        stats = server.train({"max_epochs": 1})
        assert stats["state"] == "done" and stats["version"] == int(stats["published"])  # two steps rarely beat the template
        assert not material.registry.candidate.exists()


def test_a_restarted_server_goes_on_with_what_ran_and_with_what_waited(tmp_path, running_server):
    material = labelled_phantoms(tmp_path)
    waiting = material.study / ".landmarklabel" / "trainings.json"
    with running_server(material) as server:
        ask = lambda k: server.http("POST", "/train/scn?enqueue=true", json={"max_epochs": 1, "key": f"k{k}"}).json()["id"]  # noqa: E731
        ids = [ask(k) for k in range(ASKED)]
        assert [ask(k) for k in range(ASKED)] == ids and len(set(ids)) == ASKED  # asking again starts nothing
        wait_until(lambda: server.stats().get("state") == "running", 120, "the first training to run")
        kill_server_only(server)
        kept = json.loads(waiting.read_text(encoding="utf-8"))
        assert [job["request"]["job"] for job in kept] == [f"k{k}" for k in range(ASKED)]
        wait_until(lambda: not processes_of(material.study), 30, "the training to end by itself")
    with running_server(material) as server:
        wait_until(lambda: json.loads(waiting.read_text(encoding="utf-8")) == [], 500, "all trainings to be done", 0.5)
        assert len(material.registry.record()["history"]) == ASKED
    with running_server(material) as server:
        assert server.http("GET", "/train/?check_if_running=true").status_code == 404


def test_a_training_that_was_just_starting_ends_too(tmp_path, running_server):
    material = labelled_phantoms(tmp_path)
    with running_server(material) as server:
        server.client.train_start("scn", {"minutes": 5})
        children = psutil.Process(server.process.pid).children
        wait_until(lambda: len(children()) > 0, 20, "the training process")
        [training] = children()
        time.sleep(0.5)  # Python is still importing
        assert server.stats() == {}
        kill_server_only(server)
        assert is_alive(training)
        wait_until(lambda: not is_alive(training), 30, "the orphaned training to end by itself")


def test_a_session_left_half_written_is_swept_away(tmp_path, running_server):
    material = phantoms(tmp_path, 1)
    sessions = material.study / ".landmarklabel" / "sessions"
    for name, content in (("0b0b0b0b-0000-11f1-8000-000000000001", ""), ("0b0b0b0b-0000-11f1-8000-000000000002", None)):
        (sessions / name).mkdir(parents=True)
        if content is not None:
            (sessions / name / "meta.info").write_text(content, encoding="utf-8")
        os.utime(sessions / name, (time.time() - 120,) * 2)  # a younger one may still be on its way
    with running_server(material) as server:
        assert server.client.info()["datastore"]["total"] == 1
        assert list(sessions.iterdir()) == []
        kept = server.client.create_session(str(material.image("phantom00")))["session_id"]
    with running_server(material) as server:
        assert server.client.get_session(kept)["name"] == kept  # only what is broken or expired goes


def test_ctrl_c_at_the_servers_terminal_loses_no_training(tmp_path, running_server):
    """A terminal sends it to the training's process too, which ends with its server and is lined up by the next one."""
    material = labelled_phantoms(tmp_path)
    waiting = material.study / ".landmarklabel" / "trainings.json"
    with running_server(material) as server:
        server.http("POST", "/train/scn", json={"minutes": 5, "key": "kept"})
        server.wait_for_training()
        os.killpg(server.process.pid, signal.SIGINT)
        wait_until(lambda: not processes_of(material.study), 60, "the server and its training to end")
    assert [job["request"]["job"] for job in json.loads(waiting.read_text(encoding="utf-8"))] == ["kept"]
