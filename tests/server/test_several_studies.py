"""Several studies behind one server: each at its own address, with its own labels and tokens, and one training at a time."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from monailabel.client import MONAILabelClient
from serving import LIB, START_S, Material, phantoms, wait_until

from landmarklabel.services.task_queue import TaskQueue
from landmarklabel.store.database import StoreFault, file_faults
from landmarklabel.store.study import Study


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "landmarklabel", "serve", *map(str, words)]


def refusal(*words: object) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == 2 and done.stdout == ""
    return done.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(LIB), "PYTHONUNBUFFERED": "1"}


def renamed(material: Material, name: str) -> Material:
    study = material.study.rename(material.study.with_name(name))
    with Study(study, material.task):  # knows its task from now on
        pass
    return Material(study, material.task_file, material.task, material.truth)


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> list[Material]:
    places = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")]
    return [
        renamed(phantoms(places[0], 4, n_landmarks=5), "hands"),
        renamed(phantoms(places[1], 6, n_landmarks=7), "feet_2"),
    ]


@pytest.fixture(scope="module")
def served(studies, tmp_path_factory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "log"
    words = [word for one in studies for word in ("--studies", one.study)]
    with log.open("wb") as out:
        process = subprocess.Popen(command(*words, "--port", port), stdout=out, stderr=out, env=environment())
    try:
        said = lambda: log.read_text(encoding="utf-8")  # noqa: E731
        wait_until(lambda: process.poll() is not None or said().count("open http") == 2, START_S, "both addresses")
        yield f"http://127.0.0.1:{port}", said
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait(20)


def url_of(served, material: Material) -> str:
    return f"{served[0]}/{material.study.name}"


def test_each_address_is_said_and_is_its_own_study(served, studies):
    addresses = re.findall(r"open (\S+) · study \"(\w+)\", 0 of (\d+) cases", served[1]())
    assert addresses == [(f"{url_of(served, m)}/landmarks/", m.study.name, str(len(m.truth))) for m in studies]
    for material in studies:
        page = requests.get(f"{url_of(served, material)}/", timeout=20)
        assert page.url == f"{url_of(served, material)}/landmarks/"
        assert f"<title>LandmarkLabel: {material.task.name}</title>" in page.text
        assert set(re.findall(r"phantom\d\d", page.text)) == set(material.truth)
        client = MONAILabelClient(url_of(served, material), str(material.study.parent))
        assert client.info()["labels"] == list(material.task.names)
        assert client.next_sample("first", {})["id"] in material.truth


def test_a_saved_case_is_in_its_own_study_alone(served, studies):
    image = "phantom01"
    for material, author in zip(studies, ("ann", "bob"), strict=True):
        pairs = zip(material.task.names, material.truth[image].positions_mm.tolist(), strict=True)
        body = {"landmarks": [{"name": n, "position": p, "status": "accepted"} for n, p in pairs], "base_revision": 0}
        saving = requests.put(f"{url_of(served, material)}/landmarks/images/{image}", json={**body, "author": author}, timeout=20)
        assert saving.status_code == 200, saving.text
    for material, author in zip(studies, ("ann", "bob"), strict=True):
        with Study(material.study, material.task) as study:
            assert [revision.author for revision in study.history(image)] == [author]


def test_elsewhere_nothing_is_told(served, studies):
    for path in ("/", "/info/", "/nowhere/info/", "/HANDS/info/"):
        answer = requests.get(served[0] + path, timeout=20)
        assert answer.status_code == 404
        assert answer.json() == {"detail": "several studies are served here, each below the name of its folder"}


def test_a_study_s_name_without_a_slash_sends_nobody_elsewhere(served, studies):
    for path in (f"/{studies[0].study.name}", "/nowhere"):
        answer = requests.get(served[0] + path, headers={"Host": "evil.example"}, allow_redirects=False, timeout=20)
        assert (answer.status_code, "location" in answer.headers) == (404, False)
        assert answer.json() == {"detail": "several studies are served here, each below the name of its folder"}


def test_trainings_take_turns_and_one_that_waits_can_be_taken_back(served, studies):
    first, second = (url_of(served, material) for material in studies)
    status = lambda url: requests.get(f"{url}/train/", timeout=20).json()["status"]  # noqa: E731
    assert requests.post(f"{first}/train/scn", json={"minutes": 5}, timeout=20).status_code == 200
    wait_until(lambda: status(first) == "RUNNING", 60, "the first training")
    assert requests.post(f"{second}/train/scn", json={"minutes": 5, "key": "taken back"}, timeout=20).status_code == 200
    assert status(second) == "SUBMITTED"
    for url in (first, second):  # one that runs, and one that waits for its turn
        again = requests.post(f"{url}/train/scn", json={"minutes": 5}, timeout=20)
        assert again.status_code == 429 and "a training runs or waits for its turn; stop it" in again.json()["detail"]
        assert len(requests.get(f"{url}/train/?all=true", timeout=20).json()) == 1
    assert requests.delete(f"{second}/train/", timeout=20).json()["status"] == status(second) == "STOPPED"
    assert requests.post(f"{second}/train/scn", json={"minutes": 5}, timeout=20).status_code == 200
    assert (status(first), status(second)) == ("RUNNING", "SUBMITTED")
    assert requests.delete(f"{first}/train/", timeout=20).json()["status"] == "STOPPED"
    wait_until(lambda: status(second) == "RUNNING", 60, "the second study's turn")
    assert requests.get(f"{second}/train/?all=true", timeout=20).json()[0]["status"] == "STOPPED"
    assert requests.delete(f"{second}/train/", timeout=20).json()["status"] == "STOPPED"


def test_tokens_are_a_study_s_own(served, studies):
    closed, open_one = studies
    new = [sys.executable, "-m", "landmarklabel", "token", "new", str(closed.study), "--name", "ann", "--role", "annotator"]
    made = subprocess.run(new, capture_output=True, text=True, timeout=60, env=environment())
    token = made.stdout.split()[0]
    address = f"{url_of(served, closed)}/landmarks/images"
    assert requests.get(address, timeout=20).status_code == 401
    assert requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=20).status_code == 200
    assert requests.get(f"{url_of(served, open_one)}/landmarks/images", timeout=20).status_code == 200


def test_what_cannot_be_told_apart_is_refused(studies, tmp_path):
    (tmp_path / "Hands").mkdir()
    (tmp_path / "left hand").mkdir()
    hands = studies[0].study
    assert "two of the studies are called 'hands': rename one" in refusal("--studies", hands, "--studies", tmp_path / "Hands")
    assert "not 'left hand'" in refusal("--studies", hands, "--studies", tmp_path / "left hand")
    url = "postgresql://user@host/name"
    refused = refusal("--studies", hands, "--studies", studies[1].study, "--store", url)
    assert refused == "landmarklabel: --store is one study's database: serve a study with it alone\n"


def test_a_fault_at_the_start_names_its_study(studies, tmp_path):
    """Of the database, which the server finds, and of the tokens, which the command line does."""
    damaged = tmp_path / "damaged"
    shutil.copytree(studies[0].study, damaged)
    for left in (damaged / ".landmarklabel").glob("revisions.sqlite-*"):
        left.unlink()
    (damaged / ".landmarklabel" / "revisions.sqlite").write_bytes(b"no database" * 1000)
    words = ("--studies", studies[1].study, "--studies", damaged)
    said = refusal(*words)
    assert said.startswith("landmarklabel: study damaged: the revision store cannot be used (file is not a database)")
    assert said.count("\n") == 1
    tokens = damaged / ".landmarklabel" / "tokens.json"
    tokens.write_text("[]", encoding="utf-8")
    said = refusal(*words)
    assert said.startswith("landmarklabel: study damaged: nobody is let in: this study asks for tokens, and all tokens")


def test_a_study_that_may_only_be_read_is_refused_in_one_line(tmp_path):
    material = renamed(phantoms(tmp_path, 1), "read_only")
    (material.study / ".landmarklabel" / "trainings.lock").mkdir()  # also root cannot write to it
    said = refusal("--studies", material.study, "--port", "0")
    assert said.startswith("landmarklabel: the list of trainings: could not be written (") and said.count("\n") == 1


@pytest.mark.parametrize(("fault", "remedy"), [(errno.EROFS, "change who may write there"), (errno.ENOSPC, "free space")])
def test_what_cannot_be_written_has_its_own_remedy(fault, remedy):
    with pytest.raises(StoreFault, match=f"the list: could not be written .*; {remedy}"), file_faults("the list"):
        raise OSError(fault, os.strerror(fault))


def test_a_task_that_is_taken_back_before_its_turn_never_starts(tmp_path: Path):
    turn = threading.Lock()
    queue = TaskQueue("train", lambda: {"study": str(tmp_path)}, turn)
    with turn:
        task = queue.run({})
        assert task is not None and task["status"] == "SUBMITTED"
        stopped = queue.stop()
        assert stopped is not None and (stopped["id"], stopped["status"]) == (task["id"], "STOPPED")
        assert queue.stop() is None
    other = queue.run({})  # the thread has passed the first one when it ends this one
    assert other is not None
    wait_until(lambda: queue.status()["status"] == "ERROR", 60, "a worker without a study to end")
    assert [one["status"] for one in queue.tasks()] == ["STOPPED", "ERROR"] and "details" not in queue.tasks()[0]


def test_where_a_task_cannot_have_a_folder_the_next_one_still_has_its_turn(tmp_path: Path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    queue = TaskQueue("train", lambda: {"study": str(tmp_path)})
    with monkeypatch.context() as disk:
        disk.setattr("landmarklabel.services.task_queue.TemporaryDirectory", full)
        queue.run({})
        wait_until(lambda: queue.status()["status"] == "ERROR", 20, "the first one to fail")
    assert queue.run({}) is not None
    wait_until(lambda: queue.status()["status"] == "ERROR", 60, "a worker without a study to end")
    assert ["details" in one for one in queue.tasks()] == [False, True]
