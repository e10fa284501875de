"""Trainings that were asked for, on disk until they end: a restarted server goes on with them."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from landmarklabel.errors import Gone, KeyReused, LandmarkLabelError, NotFound, UsageError
from landmarklabel.io.locks import LockedJson
from landmarklabel.portability import identity_of
from landmarklabel.services.console import NOTICE
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.request_values import key_of
from landmarklabel.services.task_queue import TaskQueue
from landmarklabel.store.database import file_faults
from landmarklabel.store.image_files import GONE

log = logging.getLogger(__name__)

WANTED = ("pretrained", "device", "max_epochs", "minutes", "seed")  # of a request; the rest is MONAI Label's own


class TrainingList:
    """The trainings of a study that wait or run, on disk; safe for several processes. A lost one can be asked for again."""

    def __init__(self, study: Path):
        path, what = study / ".landmarklabel" / "trainings.json", "the list of trainings"
        self._list: LockedJson[list[dict[str, Any]]] = LockedJson(path, _parse, list, what, lambda: file_faults(what))

    @contextmanager
    def edit(self) -> Iterator[list[dict[str, Any]]]:
        """The trainings, oldest first, to be changed. Raises Busy, StoreFault, and Gone where the study has moved."""
        if not self._list.path.parent.is_dir():
            raise Gone(GONE)
        with self._list.edit() as waiting:
            yield waiting

    def begin(self, job: object) -> bool:
        """A training is at work from now on: True; False where it is not listed any more."""
        with self.edit() as waiting:
            mine = [one for one in waiting if one["request"].get("job") == job]
            for one in mine:
                one["at_work"] = True
        return bool(mine)

    def end(self, job: object) -> None:
        """A training is over, well or not: it will not be done again."""
        with self.edit() as waiting:
            waiting[:] = [one for one in waiting if one["request"].get("job") != job]


class Jobs:
    """The trainings of a study that wait or run, oldest first.

    Args:
        study: folder.
        models: names that can be trained.
        queue: does them.
        on_failed: given a model, why its training failed, and when it began, where the training's process could not tell.
    """

    def __init__(
        self,
        study: Path,
        models: tuple[str, ...],
        queue: TaskQueue,
        on_failed: Callable[[str, str, float], None] = lambda model, reason, begun: None,
    ):
        self.study, self.models, self.queue, self._list = study.name, models, queue, TrainingList(study)
        self._on_failed = on_failed
        queue.on_killed = self._killed

    def start(self, model: str, params: dict, enqueue: bool = False) -> dict | None:
        """Begin a training, or line it up; its description, None where one runs or waits already.

        Args:
            model: which.
            params: as MONAI Label's clients send them; a repeated ``key`` starts nothing and answers for the first.
            enqueue: wait for those before it.

        Raises:
            NotFound: no such model. UsageError: too many wait. Unusable: the ``key``. KeyReused: for another training.
            Gone: the study has moved.
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
                waiting.append({"request": request, "server": _this_server(), "servers": 0, "at_work": False})
        return task

    def go_on(self) -> None:
        """Line up what servers that have ended left; what another server on this study still does is its own.

        One is given up when too many servers have ended by themselves while it was at work: they may have died of it.
        """
        with self._list.edit() as waiting:
            left = [job for job in waiting if job["request"].get("model") in self.models and not _lives(job["server"])]
            for job in left:
                job["servers"] += job["at_work"]
                if job["servers"] > LIMITS.ended_servers:
                    waiting.remove(job)
                    ended = f"{LIMITS.ended_servers} servers have ended by themselves while it was at work"
                    log.log(NOTICE, f"study {self.study}: the training of {job['request']['model']} is given up: {ended}")
                    continue
                self.queue.run(dict(job["request"]), enqueue=True)
                job["server"], job["at_work"] = _this_server(), False

    def leave(self) -> None:
        """This server was asked to end: it does not die of the training that is at work."""
        with self._list.edit() as waiting:
            for job in waiting:
                job["at_work"] = job["at_work"] and job["server"] != _this_server()

    def stop(self) -> dict | None:
        """Stop the training that runs, for good, or the oldest one that waits where none runs."""
        task = self.queue.stop()
        if task is not None:
            self._list.end(task["request"].get("job"))
        return task

    def _killed(self, request: dict[str, Any], signal_name: str, started: float) -> None:
        """A training was killed and may be again: a person decides whether it begins once more."""
        why = "; a machine with too little memory does that" if signal_name == "SIGKILL" else ""
        said = f"was ended by {signal_name}{why}; train again to go on"
        log.log(NOTICE, f"study {self.study}: the training of {request['model']} {said}")
        try:
            self._list.end(request.get("job"))
        except LandmarkLabelError as error:
            log.log(NOTICE, f"study {self.study}: the list of trainings was not kept ({error})")
        self._on_failed(request["model"], f"the training {said}", started)

    def _task_of(self, job: str) -> dict | None:
        return next((task for task in self.queue.tasks() if task["request"].get("job") == job), None)


def _parse(listed: Any) -> list[dict[str, Any]]:
    def one(job: Any) -> dict[str, Any]:
        ended, at_work = int(job.get("servers", 0)), job.get("at_work", False) is True
        return {"request": dict(job["request"]), "server": list(job["server"]), "servers": ended, "at_work": at_work}

    return [one(job) for job in listed]


def _this_server() -> list[str]:
    return identity_of(os.getpid())


def _lives(server: list[str]) -> bool:
    """Whether a process that was noted still runs; its number alone may be another's by now."""
    try:
        return identity_of(int(server[0])) == server
    except (ValueError, TypeError, IndexError):
        return False
