"""Trainings that were asked for, on disk until they end: a restarted server goes on with them."""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path
from typing import Any

import psutil

from landmarklabel.errors import KeyReused, NotFound, UsageError
from landmarklabel.io.locks import LockedJson
from landmarklabel.services.console import NOTICE
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.request_values import key_of
from landmarklabel.services.task_queue import TaskQueue

log = logging.getLogger(__name__)

WANTED = ("pretrained", "device", "max_epochs", "minutes", "seed")  # of a request; the rest is MONAI Label's own


class TrainingList:
    """The trainings of a study that wait or run, on disk; safe for several processes. A lost one can be asked for again."""

    def __init__(self, study: Path):
        path = study / ".landmarklabel" / "trainings.json"
        self._list: LockedJson[list[dict[str, Any]]] = LockedJson(path, _parse, list, "the list of trainings")
        self.edit = self._list.edit

    def end(self, job: object) -> None:
        """A training is over, well or not: it will not be done again."""
        with self._list.edit() as waiting:
            waiting[:] = [one for one in waiting if one["request"].get("job") != job]


class Jobs:
    """The trainings of a study that wait or run, oldest first.

    Args:
        study: folder.
        models: names that can be trained.
        queue: does them.
    """

    def __init__(self, study: Path, models: tuple[str, ...], queue: TaskQueue):
        self.models, self.queue, self._list = models, queue, TrainingList(study)

    def start(self, model: str, params: dict, enqueue: bool = False) -> dict | None:
        """Begin a training, or line it up; its description, None where one runs already.

        Args:
            model: which.
            params: as MONAI Label's clients send them; a repeated ``key`` starts nothing and answers for the first.
            enqueue: wait for the one that runs.

        Raises:
            NotFound: no such model. UsageError: too many wait. Unusable: the ``key``. KeyReused: for another training.
        """
        if model not in self.models:
            raise NotFound(f"there is no model {model[:80]!r} to train; there are {', '.join(self.models)}")
        job = key_of(params) or uuid.uuid4().hex
        request = {key: params[key] for key in WANTED if key in params} | {"model": model, "job": job}
        if (known := self._task_of(job)) is not None:
            if any(known["request"].get(key) != request.get(key) for key in (*WANTED, "model")):
                raise KeyReused(f"key {job!r} was used to train {known['request'].get('model')!r} otherwise; use a new one")
            return known
        with self._list.edit() as waiting:
            if len(waiting) >= LIMITS.waiting_trainings:
                raise UsageError(f"{len(waiting)} trainings wait already; let some of them end first")
            task = self.queue.run(dict(request), enqueue)
            if task is not None:
                waiting.append({"request": request, "server": _this_server(), "servers": 0})
        return task

    def go_on(self) -> None:
        """Line up what servers that have ended left; what another server on this study still does is its own.

        The oldest one was at work when its server ended, and is given up when too many have ended so.
        """
        with self._list.edit() as waiting:
            left = [job for job in waiting if job["request"].get("model") in self.models and not _lives(job["server"])]
            if left:
                left[0]["servers"] += 1
                if left[0]["servers"] > LIMITS.ended_servers:
                    waiting.remove(left.pop(0))
                    log.log(NOTICE, f"a training is given up: {LIMITS.ended_servers} servers have ended while it was at work")
            for job in left:
                self.queue.run(dict(job["request"]), enqueue=True)
                job["server"] = _this_server()

    def stop(self) -> dict | None:
        """Stop the training that runs, for good, or the oldest one that waits where none runs."""
        task = self.queue.stop()
        if task is not None:
            self._list.end(task["request"].get("job"))
        return task

    def _task_of(self, job: str) -> dict | None:
        return next((task for task in self.queue.tasks() if task["request"].get("job") == job), None)


def _parse(listed: Any) -> list[dict[str, Any]]:
    return [
        {"request": dict(job["request"]), "server": list(job["server"]), "servers": int(job.get("servers", 0))} for job in listed
    ]


def _this_server() -> list[float]:
    return [os.getpid(), psutil.Process().create_time()]


def _lives(server: list[float]) -> bool:
    """Whether a process that was noted still runs; its number alone may be another's by now."""
    try:
        return psutil.Process(int(server[0])).create_time() == server[1]
    except (psutil.Error, ValueError, TypeError, IndexError):
        return False
