"""Servers that are killed while people submit and edit files: what was acknowledged or saved by hand is there afterwards."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from serving import Material, serving, wait_until
from tests.thoroughness import times

from landmarklabel.io.markups import dump_markups, read_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store.study import Study

ARCHIVE = Path(__file__).resolve().parents[1] / "fixtures" / "made_by_77eac5a.tar.xz"
KILLS = times(5, in_full=20)
AT_ONCE, IMAGES = 50, 12


@pytest.fixture
def material(tmp_path):
    """The study of an earlier version, with its trained model and twelve images."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    place = tmp_path / "made_by_77eac5a"
    for i in range(6, IMAGES):
        shutil.copyfile(place / "study" / f"c{i - 6}.png", place / "study" / f"c{i}.png")
    task = LandmarkTask.load(place / "task.json")
    return Material(place / "study", place / "task.json", task, {})


def points(task, value) -> LandmarkSet:
    """Landmarks that tell which statement they are: the first is at that many hundredths of a pixel."""
    return LandmarkSet.of_positions(task, np.full((len(task), 2), value / 100) + np.arange(len(task))[:, None] / 10)


def statement(landmarks: LandmarkSet) -> int:
    """Which statement landmarks are."""
    return round(float(landmarks.positions_mm[0, 0]) * 100)


def kept(study: Study, image_id: str) -> set[int]:
    """The statements that an image's revisions hold, after another look at the files."""
    study.sync()
    return {statement(study.read(r)) for r in study.history(image_id)}


class People:
    """Two who submit, until they are told to stop, and one who edits files; ``said`` is what was acknowledged or saved."""

    def __init__(self, material, numbers):
        self.material, self.numbers = material, numbers
        self.said: dict[str, set[int]] = {"c5": set(), "c6": set()}
        self.stop, self.wrong = threading.Event(), []

    @property
    def count(self) -> int:
        return sum(map(len, self.said.values()))

    def submit(self, url: str, seed: int) -> None:
        rng = random.Random(seed)
        while not self.stop.is_set():
            image_id, value = rng.choice(["c5", "c6"]), next(self.numbers)
            body = {"landmarks": self._rows(value), "author": f"ann{seed}", "key": f"k{value}"}
            try:
                newest = requests.get(f"{url}/landmarks/images/{image_id}", timeout=10)
                base = newest.json()["revision"] if newest.status_code == 200 else 0
                answer = requests.put(f"{url}/landmarks/images/{image_id}", json={**body, "base_revision": base}, timeout=10)
            except requests.RequestException:  # nothing was acknowledged: it was killed, or this machine is very busy
                continue
            if newest.status_code != 200:
                self.wrong.append((newest.status_code, newest.text[:200]))
            if answer.status_code == 200:
                self.said[image_id].add(value)
            elif answer.status_code not in (409, 503):
                self.wrong.append((answer.status_code, answer.text[:200]))

    def _rows(self, value: int) -> list[dict]:
        positions = points(self.material.task, value).positions_mm.tolist()
        return [{"name": n, "status": "placed", "position": p} for n, p in zip(self.material.task.names, positions, strict=True)]

    def edit_one(self, image_id: str) -> None:
        """Save a label file by hand, as an editor that writes beside it and renames."""
        value, path = next(self.numbers), self.material.study / "labels" / "final" / f"{image_id}.mrk.json"
        fresh = self.material.study / f"{value}.tmp"
        fresh.write_text(dump_markups(points(self.material.task, value)), encoding="utf-8")
        os.replace(fresh, path)
        self.said[image_id].add(value)


@pytest.mark.slow
def test_killed_servers_lose_nothing(material):
    """In every round two people submit to a real server while a third saves a label file by hand; then it is killed -9."""
    rng, numbers = random.Random(15), iter(range(1, 10**6))
    people = People(material, numbers)
    for round_number in range(KILLS):
        with serving(material) as server:
            threads = [threading.Thread(target=people.submit, args=(server.url, 2 * round_number + i)) for i in range(2)]
            wanted = people.count + 2
            [t.start() for t in threads]
            try:
                wait_until(lambda wanted=wanted: people.count >= wanted, 60, "two acknowledged submissions", 0.01)
                people.edit_one("c5")  # once a round: a second one might replace the first, unseen by anybody
                time.sleep(rng.random() * 0.2)  # where in a save the kill falls is left to chance
                os.killpg(server.process.pid, signal.SIGKILL)
            finally:
                people.stop.set()
                [t.join() for t in threads]
            people.stop.clear()
        people.edit_one("c6")  # while no server runs: the last word
        study = Study(material.study, material.task)
        study.sync()
        for image_id, said in people.said.items():
            # an edit that changed places with a revision as the kill fell is taken in once its editor has been idle
            what = f"round {round_number}: all of {image_id}"
            wait_until(lambda s=study, i=image_id, said=said: said <= kept(s, i), 10, what, 0.5)
            shown = read_markups(material.study / "labels" / "final" / f"{image_id}.mrk.json", material.task) if said else None
            assert shown is None or np.allclose(shown.positions_mm, study.labels(image_id).positions_mm)
        assert study.revisions.verify() == []
        study.close()
    assert people.wrong == [] and all(len(said) > KILLS / 2 for said in people.said.values())


def test_fifty_at_once_are_all_answered_memory_stays_and_the_server_ends_soon(material):
    with serving(material) as server:
        process, outcomes = psutil.Process(server.process.pid), []

        def infer(i: int) -> None:
            answer = server.http("POST", f"/infer/scn?image=c{i % IMAGES}&output=json")
            outcomes.append((answer.status_code, answer.json().get("origin")))

        def all_at_once() -> int:
            outcomes.clear()
            threads = [threading.Thread(target=infer, args=(i,)) for i in range(AT_ONCE)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            assert outcomes == [(200, "model")] * AT_ONCE
            return process.memory_info().rss

        all_at_once()  # every image has been looked at and is remembered
        first = all_at_once()
        for _ in range(3):
            last = all_at_once()
        assert last < 1.05 * first, f"{first / 2**20:.0f} MiB grew to {last / 2**20:.0f}"
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        assert time.monotonic() - started < 10
