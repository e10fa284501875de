"""Training and its server: neither survives the other in a way that harms the next start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from serving import LIB, is_alive, phantoms, processes_of, wait_until
from tests.thoroughness import times

from landmarklabel.scale_rules import PixelSize
from landmarklabel.services.jobs import TrainingList
from landmarklabel.services.server_process import SERVER_PID
from landmarklabel.store.opening import recorded_task
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


def test_a_training_waits_for_another_process_that_trains_its_model(tmp_path, running_server):
    """Of a server that was killed, of another server, or of the command line."""
    material = labelled_phantoms(tmp_path)
    waiting = material.study / ".landmarklabel" / "trainings.json"
    with running_server(material) as server:
        ask = lambda key: server.http("POST", "/train/scn", json={"max_epochs": 1, "key": key}).json()  # noqa: E731
        task = lambda: server.get("/train/")  # noqa: E731
        said = ["LandmarkLabel: waits for another process that trains this model"]
        with material.registry.training_lock():
            for key in ("taken back", "done"):
                ask(key)
                wait_until(lambda: task().get("details") == said, 60, "it to wait")
                time.sleep(3)  # longer than a moment's hold
                assert task()["status"] == "RUNNING" and key in waiting.read_text(encoding="utf-8")
                if key == "taken back":
                    assert server.http("DELETE", "/train/").json()["status"] == "STOPPED"
                    assert json.loads(waiting.read_text(encoding="utf-8")) == []
        wait_until(lambda: task()["status"] == "DONE", 120, "its turn")
        assert json.loads(waiting.read_text(encoding="utf-8")) == [] and len(material.registry.record()["history"]) == 1
        with material.registry.training_lock():
            ask("done by the other")
            wait_until(lambda: task().get("details") == said, 60, "it to wait")
            TrainingList(material.study).end("done by the other")
        wait_until(lambda: task()["status"] == "DONE", 60, "it to see that")
        assert len(material.registry.record()["history"]) == 1


def test_a_training_that_the_system_kills_is_not_tried_again_for_ever(tmp_path, running_server):
    material = labelled_phantoms(tmp_path)
    waiting = material.study / ".landmarklabel" / "trainings.json"
    with running_server(material) as server:
        server.http("POST", "/train/scn", json={"minutes": 5, "key": "too large"})
        for process in server.wait_for_training():
            process.kill()
        wait_until(lambda: json.loads(waiting.read_text(encoding="utf-8")) == [], 30, "it to be given up")
        assert server.get("/train/")["status"] == "ERROR"
        said = "was ended by SIGKILL; a machine with too little memory does that; train again to go on"
        assert f"the training of scn {said}" in server.log.read_text(encoding="utf-8")
        wait_until(lambda: server.stats().get("state") == "failed", 30, "the reason")
        assert server.stats()["reason"] == f"the training {said}"
    with running_server(material) as server:
        assert server.http("GET", "/train/").status_code == 404


def test_a_study_that_has_moved_is_not_made_anew_by_what_trains_or_is_asked_to(tmp_path, running_server):
    material, elsewhere = labelled_phantoms(tmp_path), tmp_path / "moved"
    with running_server(material) as server:
        server.http("POST", "/train/scn", json={"minutes": 5, "key": "kept"})
        server.wait_for_training()
        material.study.rename(elsewhere)
        wait_until(lambda: server.get("/train/")["status"] == "ERROR", 30, "the training to end")
        gone = "the study folder is gone or has moved: nothing was saved; start the server where it is now"
        for path in ("/train/scn", "/train/", "/batch/infer/scn"):
            answer = server.http("POST", path, json={})
            assert (answer.status_code, answer.json()) == (503, {"detail": gone})
        done = worker(sent_to_worker(material))
        assert (done.returncode, done.stdout + done.stderr) == (1, f"LandmarkLabel: train failed: {gone}\n")
        assert not material.study.exists()
    kept = json.loads((elsewhere / ".landmarklabel" / "trainings.json").read_text(encoding="utf-8"))
    assert [job["request"]["job"] for job in kept] == ["kept"]


def test_a_training_leaves_the_study_the_task_that_it_was_given_while_its_server_runs(tmp_path):
    """A scale rule that came by an import is newer than what the server remembers."""
    material = labelled_phantoms(tmp_path)
    newer = replace(material.task, scale=PixelSize(0.2))
    Study(material.study, newer).close()
    worker(sent_to_worker(material) | {"train_devices": 1})
    assert recorded_task(material.study) == newer


def sent_to_worker(material) -> dict:
    request = {"model": "scn", "job": "j"}
    return {"study": str(material.study), "task": material.task.to_json(), "store": None, "models": "scn", "request": request}


def worker(sent: dict, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "landmarklabel.services.worker", "train", sent["study"]]
    environment = {**os.environ, "PYTHONPATH": str(LIB), **environment}
    return subprocess.run(command, input=json.dumps(sent), env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("lost", ["server", "study"])
def test_a_process_that_is_busy_with_something_else_ends_soon_after_its_server_and_where_its_study_moves(tmp_path, lost):
    own = tmp_path / ".landmarklabel"
    own.mkdir()
    busy = (
        "import sys, threading, time; from dataclasses import replace; from pathlib import Path;"
        "from landmarklabel.services import worker; worker.LIMITS = replace(worker.LIMITS, look_s=0.1, orphan_s=0.1);"
        "threading.Thread(target=worker._watch, args=(Path(sys.argv[1]),), daemon=True).start();"
        "print('busy', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        environment = {**os.environ, "PYTHONPATH": str(LIB), SERVER_PID: str(server.pid)}
        process = subprocess.Popen([sys.executable, "-c", busy, str(own)], env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"busy\n"
        time.sleep(1)  # it has looked, ten times
        assert process.poll() is None
        if lost == "study":
            own.rmdir()
            assert process.wait(20) == 1
        server.kill()
    assert process.wait(20) == 1
    process.stdout.close()
