"""Saves labels until it is killed; run as ``label_writer.py STUDY ROUNDS SEED``.

One warm parent forks a writer a round, kills it 5 to 60 ms after its start or, in every fourth round, after its first save, and
prints for every round what the writer said it had saved before it died and what a look at the study finds. Forking saves
the second an import would cost each time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

import numpy as np

from landmarklabel.io.markups import read_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store.study import Study

TASK = LandmarkTask("hand", tuple(f"p{i}" for i in range(20)), dims=3)
IDS = [f"case{i}" for i in range(10)]


def write_until_killed(folder: str, seed: int, pipe: int) -> None:
    """Acknowledge every save on the pipe: one write, so a line arrives whole or not at all."""
    rng = np.random.default_rng(seed)
    study = Study(folder, TASK)
    while True:
        image_id = IDS[rng.integers(len(IDS))]
        landmarks = LandmarkSet.of_positions(TASK, rng.uniform(-100, 100, (len(TASK), 3)))
        revision = study.save(image_id, landmarks, author=str(seed))
        os.write(pipe, f"{image_id} {revision.number} {revision.sha256}\n".encode())


def killed_round(folder: str, seed: int, milliseconds: float, after_a_save: bool) -> list[str]:
    """The saves that one writer acknowledged before SIGKILL."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            write_until_killed(folder, seed, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        first = pipe.readline() if after_a_save else ""
        time.sleep(milliseconds / 1000)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        acknowledged = (first + pipe.read()).splitlines()
    assert os.WIFSIGNALED(status), "the writer ended by itself"
    return acknowledged


def look(folder: str, acknowledged: list[str]) -> dict:
    """Reopen the study and compare it with what was acknowledged."""
    started = time.perf_counter()
    study = Study(folder, TASK)
    reopened = time.perf_counter() - started
    lost = []
    for line in acknowledged:
        image_id, number, sha256 = line.split()
        if study.revisions.get(image_id, int(number)).sha256 != sha256:
            lost.append(line)
    half_written = []
    for path in (study.folder / "labels" / "final").glob("[!.]*"):
        try:
            read_markups(path, TASK)
        except Exception as error:
            half_written.append(f"{path.name}: {error}")
    problems = study.sync()
    hidden = [p.name for p in (study.folder / "labels" / "final").glob(".*")]
    study.close()
    return {
        "acknowledged": acknowledged,
        "lost": lost,
        "half_written": half_written,
        "problems": problems,
        "leftovers": hidden,
        "reopen_s": reopened,
    }


def main(folder: str, rounds: int, seed: int) -> None:
    clock = random.Random(seed)
    Study(folder, TASK).close()
    for i in range(rounds):
        acknowledged = killed_round(folder, i, clock.uniform(5, 60), after_a_save=i % 4 == 3)
        sys.stdout.write(json.dumps(look(folder, acknowledged)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
