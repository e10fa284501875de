"""Trainings and batches in processes of their own, one of a kind at a time, in the words of MONAI Label's clients."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from landmarklabel.errors import NotFound
from landmarklabel.services.internal_errors import log_internal_error
from landmarklabel.services.limits import LIMITS

log = logging.getLogger(__name__)

_ENDED_BY = {-getattr(signal, name): name for name in ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGABRT") if hasattr(signal, name)}
_SUBMITTED, _RUNNING, _DONE, _ERROR, _STOPPED = "SUBMITTED", "RUNNING", "DONE", "ERROR", "STOPPED"  # as clients know them


class TaskQueue:
    """Tasks of one kind; each is done by ``services.worker`` in a process that hears of it on its standard input.

    Args:
        kind: ``train`` or ``batch_infer``.
        served: what the process has to know beside the request: the study, its task, store and models.
        turn: held while a task runs; the queues of studies that share a machine share it, so that one of them works.

    ``on_killed`` is called with the request of a task whose process a signal ended that no process sends to itself, the signal's
    name, and when the process was started.
    """

    def __init__(self, kind: str, served: Callable[[], dict[str, Any]], turn: threading.Lock | None = None):
        self.kind, self._served, self._turn = kind, served, turn or threading.Lock()
        self.on_killed: Callable[[dict[str, Any], str, float], None] = lambda request, signal_name, started: None
        self._tasks: list[dict[str, Any]] = []
        self._waiting: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._process: tuple[dict[str, Any], subprocess.Popen[str]] | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a task runs, or waits for its turn."""
        return self._process is not None or any(task["status"] == _SUBMITTED for task in self._tasks)

    def run(self, request: dict[str, Any], enqueue: bool = False) -> dict[str, Any] | None:
        """Line a task up; its description, or None where there is one already and this one is not to wait."""
        with self._lock:
            if self.busy and not enqueue:
                return None
            now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
            task = {"id": str(uuid.uuid4()), "status": _SUBMITTED, "request": request, "start_ts": now}
            self._tasks = [*self._tasks, task][-LIMITS.remembered_tasks :]
            self._waiting.put(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self.kind, daemon=True)
                self._thread.start()
            return dict(task)

    def tasks(self) -> list[dict[str, Any]]:
        """All that are remembered, oldest first."""
        return [{**task, "details": list(task["details"])} if "details" in task else dict(task) for task in self._tasks]

    def status(self, every: bool = False, running: bool = False) -> Any:
        """The newest task, or all, or the one that runs. Raises NotFound where there is none."""
        name, known, now = self.kind.capitalize(), self.tasks(), self._process
        if running:
            if now is None:
                raise NotFound(f"No {name} Tasks are currently Running")
            return next(task for task in known if task["id"] == now[0]["id"])
        if not known:
            raise NotFound(f"No {name} Tasks Found")
        return known if every else known[-1]

    def stop(self) -> dict[str, Any] | None:
        """Kill the process of the task that runs, or where none does take back the oldest that waits; its description.

        None where there is neither.
        """
        with self._lock:
            if self._process is None:
                waiting = next((task for task in self._tasks if task["status"] == _SUBMITTED), None)
                if waiting is not None:
                    waiting["status"] = _STOPPED
                return waiting and dict(waiting)
            task, process = self._process
            task["status"] = _STOPPED
        children = list[psutil.Process]()
        with suppress(psutil.Error):
            children = psutil.Process(process.pid).children(recursive=True)
        process.kill()  # first: it would take the end of the others for a fault
        for child in children:
            with suppress(psutil.Error):
                child.kill()
        process.wait()
        return next(one for one in self.tasks() if one["id"] == task["id"])

    def _work(self) -> None:
        while True:
            task = self._waiting.get()
            with self._turn:
                self._do(task)

    def _do(self, task: dict[str, Any]) -> None:
        try:
            place = TemporaryDirectory(prefix="landmarklabel-", ignore_cleanup_errors=True)  # of the task's own
        except OSError as error:  # a full disk: this task fails, and the next one has its turn
            log.error("a %s process cannot be started (%s)", self.kind, error.strerror)
            with self._lock:
                task["status"] = _ERROR if task["status"] == _SUBMITTED else task["status"]
            return
        with place as name:
            self._do_in(name, task)

    def _do_in(self, place: str, task: dict[str, Any]) -> None:
        sent = json.dumps({**self._served(), "request": task["request"], "place": place})
        with self._lock:
            if task["status"] != _SUBMITTED:  # taken back meanwhile
                return
            try:
                started, process = time.time(), self._start()
            except OSError as error:
                log.error("a %s process cannot be started (%s)", self.kind, error.strerror)
                task["status"] = _ERROR
                return
            task["details"] = deque(maxlen=LIMITS.remembered_lines)
            task["status"] = _RUNNING
            self._process = task, process
        assert process.stdin is not None and process.stdout is not None
        with suppress(OSError):  # it has ended already
            process.stdin.write(sent)
            process.stdin.close()
        for line in process.stdout:
            if line.strip():
                task["details"].append(line.rstrip())
        code = process.wait()
        process.stdout.close()
        with self._lock:
            self._process = None
            task["end_ts"] = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
            killed = task["status"] == _RUNNING and code in _ENDED_BY
            if task["status"] == _RUNNING:
                task["status"] = _ERROR if code else _DONE
        if killed:
            try:
                self.on_killed(task["request"], _ENDED_BY[code], started)
            except Exception as error:  # whatever it was, the next task has its turn
                log_internal_error(error)

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "landmarklabel.services.worker", self.kind, str(self._served()["study"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
