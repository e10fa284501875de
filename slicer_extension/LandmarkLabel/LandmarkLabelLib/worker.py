"""Work that may wait, away from the thread that draws: jobs in, results out, one thread for each kind of work.

Decision: lanes instead of one queue, so that a download or a training that starts holds up neither a correction nor a submission.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

# The lanes: the case that opens, points that follow, submissions, images, what the study is, uploads, many images; and those
# for which nobody waits: whether the server is there, and what the points measure.
CASE, FOLLOW, SEND, IMAGE, STUDY, UPLOAD, BATCH = "case", "follow", "send", "image", "study", "upload", "batch"
ALIVE, MEASURE = "alive", "measure"
UNWAITED = (ALIVE, MEASURE)


class Worker:
    """``submit`` returns at once; ``drain``, called by a timer, runs the callbacks where it is called."""

    def __init__(self):
        self._lanes: dict[str, _Lane] = {}
        self._done: queue.SimpleQueue = queue.SimpleQueue()

    @property
    def busy(self) -> bool:
        """A job that somebody waits for is waiting, running, or has a result nobody has fetched."""
        return any(lane.open for name, lane in self._lanes.items() if name not in UNWAITED)

    @property
    def at_work(self) -> bool:
        """As ``busy``, of all jobs."""
        return any(lane.open for lane in self._lanes.values())

    @property
    def doing(self) -> list[str]:
        """What is being done, in the words given, oldest first."""
        return [what for lane in self._lanes.values() for what in lane.open.values() if what]

    def submit(
        self,
        job: Callable[[], object],
        done: Callable[[object], None],
        failed: Callable[[Exception], None],
        lane: str = "",
        what: str = "",
    ) -> None:
        """Run ``job`` after those before it in its lane; its result goes to ``done``, its exception to ``failed``.

        Args:
            what: shown to people while it lasts; empty for nothing.
        """
        if lane not in self._lanes:
            self._lanes[lane] = _Lane(f"LandmarkLabel {lane}", self._done)
        self._lanes[lane].put(job, done, failed, what)

    def waits(self, lane: str) -> bool:
        """Whether a lane has work."""
        return lane in self._lanes and bool(self._lanes[lane].open)

    def drain(self) -> int:
        """Deliver what has ended; returns how many."""
        count = 0
        while True:
            try:
                lane, number, callback, value = self._done.get_nowait()
            except queue.Empty:
                return count
            if lane.open.pop(number, None) is not None:  # else it was given up
                count += 1
                callback(value)

    def give_up(self, *lanes: str) -> None:
        """Drop what these lanes do and have to do: their results are not delivered, and new jobs do not wait for them."""
        for name in lanes:
            lane = self._lanes.pop(name, None)
            if lane is not None:
                lane.stop()

    def stop(self) -> None:
        """End all threads after the jobs they are at; results are dropped."""
        self.give_up(*list(self._lanes))


class _Lane:
    """One thread and its jobs; ``open`` are those whose results nobody has fetched: number to words."""

    def __init__(self, name: str, results: queue.SimpleQueue):
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._results, self._next, self.open = results, 0, {}
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, job: Callable, done: Callable, failed: Callable, what: str) -> None:
        self._next += 1
        self.open[self._next] = what
        self._jobs.put((self._next, job, done, failed))

    def stop(self) -> None:
        self.open.clear()
        self._jobs.put(None)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            number, job, done, failed = item
            if number not in self.open:
                continue  # given up before it began
            try:
                self._results.put((self, number, done, job()))
            except Exception as error:  # whatever a job raises belongs to its caller
                self._results.put((self, number, failed, error))
