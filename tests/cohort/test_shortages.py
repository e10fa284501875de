"""A cohort where something is short: memory for a moment, files that may be open at once, locks, GPUs of a Ray cluster."""

from __future__ import annotations

import errno
import fcntl
import os
from collections import Counter
from dataclasses import replace
from multiprocessing import Pipe

import psutil
import pytest

from landmarklabel.cohort import local, run_folder
from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.local import LocalExecutor
from landmarklabel.cohort.manifest import CohortCase, Shard
from landmarklabel.cohort.prediction import NO_ROOM, Predictor, PredictorSettings
from landmarklabel.cohort.ray_executor import RayExecutor
from landmarklabel.cohort.run_folder import FAILED, OK, CohortRun, Results
from landmarklabel.errors import StudyError
from landmarklabel.io import images

SETTINGS = PredictorSettings("model", "sha256")


def test_an_image_that_memory_has_no_room_for_now_is_told_from_a_damaged_one(model, scans, monkeypatch):
    predictor = Predictor(replace(SETTINGS, model=str(model), model_sha256=run_folder._sha256(model / "model.json")))
    path = next(scans.rglob("*.png"))
    case = CohortCase("a", str(path))
    assert predictor.predict(case, predictor.read(case))["state"] == OK
    monkeypatch.setattr(images, "memory_faults", lambda *_: ["too large for the memory that is free: size (1, 1)"])
    row = predictor.predict(case, predictor.read(case))
    assert row["state"] == FAILED and row[NO_ROOM]
    monkeypatch.undo()
    row = predictor.predict(case, predictor.read(replace(case, path=str(path.with_name("none.png")))))
    assert row["state"] == FAILED and NO_ROOM not in row


def test_a_case_that_memory_had_no_room_for_is_tried_again_when_the_others_are_done(monkeypatch):
    looked: list[str] = []

    class Worker:
        """Answers at once; has no room for ``large`` while other cases are left, and for ``giant`` never."""

        def __init__(self, _):
            self.connection, self.theirs = Pipe()
            self.theirs.send((local._READY, None))
            self.is_ready, self.cases, self.since, self.alone = False, [], 0.0, False

        def give(self, case, alone=False):
            looked.append(case.id)
            self.cases, self.alone = _Queue([*self.cases, case]), alone
            short = case.id == "giant" or (case.id == "large" and len(set(looked)) < 8)
            self.theirs.send(("row", {"id": case.id, "state": FAILED, NO_ROOM: True} if short else {"id": case.id, "state": OK}))

        def end(self):
            self.connection.close()

    class _Queue(list):
        popleft = lambda self: self.pop(0)  # noqa: E731

    monkeypatch.setattr(local, "_Worker", Worker)
    ids = ["giant", "large", *"abcdef"]
    rows = list(LocalExecutor(SETTINGS, 2).rows(CohortCase(i, i) for i in ids))
    assert {row["id"]: row["state"] for row in rows} == {i: FAILED if i == "giant" else OK for i in ids}
    assert len(rows) == len(ids) and not any(NO_ROOM in row for row in rows)
    assert Counter(looked) == Counter(ids) + Counter(["giant", "large"]) and {row["id"] for row in rows[-2:]} == {
        "giant",
        "large",
    }


@pytest.fixture(scope="module")
def planned(tmp_path_factory, cohort, model, scans):
    folder = tmp_path_factory.mktemp("planned") / "run"
    cohort("plan", scans, "--model", model, "--out", folder)
    return folder


def test_more_result_files_than_may_be_open_are_read(planned, monkeypatch):
    run = CohortRun(planned)
    cases = list(run.cases())
    opened, most = Counter(), []
    for case in cases:
        with Results(run, Shard.of("1/1")) as results:
            results.add({"id": case.id, "state": FAILED, "reason": f"of {case.id}"})
    assert len(list(run.results.glob("*.jsonl"))) == len(cases) > 3
    monkeypatch.setattr(run_folder, "CONFIG", replace(CONFIG, open_files=2))
    before = psutil.Process().num_fds()
    for case, row in run.rows():
        assert row["reason"] == f"of {case.id}"
        opened[case.id] += 1
        most.append(psutil.Process().num_fds() - before)
    assert len(opened) == len(cases) and max(most) == 2


def test_a_part_goes_on_where_the_file_system_keeps_no_locks(planned, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    run = CohortRun(planned)
    for _ in range(2):  # a process that was killed leaves nothing behind that would keep the next one away
        results = Results(run, Shard.of("1/2"))
        assert not results.is_locked
    results.add({"id": "a", "state": FAILED, "reason": "x"})
    assert Results(run, Shard.of("1/2")).is_locked is False


@pytest.mark.parametrize(
    ("device", "workers", "gpus", "what"),
    [("auto", None, 0, ("cpu", 0)), ("auto", None, 2, ("cuda", 1)), ("cuda:1", 2, 2, ("cuda", 1)), ("cpu", 9, 2, ("cpu", 0))],
)
def test_on_a_ray_cluster_each_worker_has_a_gpu_of_its_own_where_there_are_some(device, workers, gpus, what):
    assert RayExecutor(replace(SETTINGS, device=device), "auto", workers)._device(gpus) == what


@pytest.mark.parametrize(("device", "workers", "gpus"), [("cuda", None, 0), ("auto", 3, 2)])
def test_more_gpus_than_a_ray_cluster_has_are_not_waited_for(device, workers, gpus):
    with pytest.raises(StudyError, match=rf"{workers or 1} workers with a GPU each were asked for, and the cluster has {gpus}"):
        RayExecutor(replace(SETTINGS, device=device), "auto", workers)._device(gpus)
