"""Work that may wait, away from the thread that draws: jobs in, results out, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Worker:
    """One background thread. ``submit`` returns at once; ``drain``, called by a timer, runs the callbacks where it is called."""

    def __init__(self):
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._done: queue.SimpleQueue = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="LandmarkLabel worker", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """A job is waiting, running, or has a result nobody has fetched."""
        return self._waiting > 0

    def submit(self, job: Callable[[], object], done: Callable[[object], None], failed: Callable[[Exception], None]) -> None:
        """Run ``job`` in the background; its result goes to ``done``, its exception to ``failed``, at the next ``drain``."""
        with self._lock:
            self._waiting += 1
        self._jobs.put((job, done, failed))

    def drain(self) -> int:
        """Deliver what has ended; returns how many."""
        count = 0
        while True:
            try:
                callback, value = self._done.get_nowait()
            except queue.Empty:
                return count
            with self._lock:
                self._waiting -= 1
            count += 1
            callback(value)

    def stop(self) -> None:
        """End the thread after the job it is at; results are dropped."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done, failed = item
            try:
                self._done.put((done, job()))
            except Exception as error:  # whatever a job raises belongs to its caller
                self._done.put((failed, error))
