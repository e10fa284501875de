"""Training and its server: neither survives the other in a way that harms the next start."""

from __future__ import annotations

import os
import signal
import time

import psutil
from serving import is_alive, phantoms, processes_of, wait_until

from landmarklabel.store.study import Study


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
        assert not any(map(is_alive, training))
    with running_server(material) as server:
        stats = server.stats()
        assert stats["state"] == "stopped" and stats["reason"]
        assert server.client.info()["models"]["scn"]["version"] == 0
        stats = server.train({"max_epochs": 1})
        assert stats["state"] == "done" and stats["published"] and stats["version"] == 1
        assert not material.shelf.candidate.exists()


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
            (sessions / name / "meta.info").write_text(content)
        os.utime(sessions / name, (time.time() - 120,) * 2)  # a younger one may still be on its way
    with running_server(material) as server:
        assert server.client.info()["datastore"]["total"] == 1
        assert list(sessions.iterdir()) == []
        kept = server.client.create_session(str(material.image("phantom00")))["session_id"]
    with running_server(material) as server:
        assert server.client.get_session(kept)["name"] == kept  # only what is broken or expired goes
