"""The processes of one computer: each holds the model, reads ahead while its networks work, and may end at any time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.manifest import CohortCase
from landmarklabel.cohort.prediction import NO_ROOM, Predictor, PredictorSettings
from landmarklabel.cohort.run_folder import FAILED, Row
from landmarklabel.errors import LandmarkLabelError, StudyError

log = logging.getLogger(__name__)

_READY, _FAULT = "ready", "fault"


class LocalExecutor:
    """Predicts cases in ``workers`` processes.

    A case whose worker ends, as for want of memory, is tried again by a worker that has nothing else; where that ends as well,
    several times, the case has failed. A case that memory had no room for is tried again when no worker has another one.

    Args:
        settings: of the workers.
        workers: how many.
        case_s: the longest that a worker may look at one case, in seconds.
    """

    def __init__(self, settings: PredictorSettings, workers: int, case_s: float = CONFIG.case_s):
        self.settings, self.count, self.case_s = settings, workers, case_s

    def rows(self, cases: Iterable[CohortCase]) -> Iterator[Row]:
        """A row for every case, in the order in which they are done.

        Raises:
            StudyError: no model can be loaded, as it is damaged or the device is not there, or workers end before they have.
        """
        pool = _Pool(self, iter(cases))
        try:
            yield from pool.rows()
        finally:
            pool.end()


class _Worker:
    """A process, and the cases that it has: the first is looked at, the others are read."""

    def __init__(self, settings: PredictorSettings):
        context = multiprocessing.get_context("spawn")  # a fork would share locks and threads of torch
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, settings), daemon=True)
        with _ctrl_c_ignored():  # by the worker too, from its first moment: it is its parent's
            self.process.start()
        theirs.close()
        self.is_ready, self.cases, self.since = False, deque[CohortCase](), time.monotonic()
        self.alone = False

    def give(self, case: CohortCase, alone: bool = False) -> None:
        """Add a case to its own; that it has ended is noticed where it is listened to."""
        if not self.cases:
            self.since = time.monotonic()
        self.cases.append(case)
        self.alone = alone
        with suppress(OSError):
            self.connection.send(case)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Pool:
    def __init__(self, executor: LocalExecutor, cases: Iterator[CohortCase]):
        self.executor, self.cases = executor, cases
        self.suspects = deque[CohortCase]()  # whose worker has ended
        self.deaths = Counter[str]()
        self.without_room, self.tried_again = deque[CohortCase](), set[str]()
        self.failed_starts = 0
        self.workers = [_Worker(executor.settings) for _ in range(executor.count)]

    def rows(self) -> Iterator[Row]:
        while True:
            for worker in self.workers:
                self._feed(worker)
            if not any(worker.cases for worker in self.workers):
                if not self.without_room:
                    return
                self.workers[0].give(self.without_room.popleft(), alone=True)
            heard = set(wait([w.connection for w in self.workers if w.cases or not w.is_ready], CONFIG.look_s))
            for worker in list(self.workers):
                if worker.connection in heard:
                    yield from self._hear(worker)
                elif worker.is_ready and worker.cases and time.monotonic() - worker.since > self.executor.case_s:
                    yield from self._too_long(worker)

    def _feed(self, worker: _Worker) -> None:
        while len(worker.cases) < (1 if worker.alone and worker.cases else CONFIG.ahead):
            if self.suspects:
                if worker.cases:
                    return  # a suspect gets a worker of its own
                worker.give(self.suspects.popleft(), alone=True)
                return
            case = next(self.cases, None)
            if case is None:
                return
            worker.give(case)

    def _hear(self, worker: _Worker) -> Iterator[Row]:
        try:
            what, content = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._replace(worker)
            return
        if what == _FAULT:
            raise StudyError(content)
        if what == _READY:
            worker.is_ready, worker.since, self.failed_starts = True, time.monotonic(), 0
            return
        case = worker.cases.popleft()
        worker.since = time.monotonic()
        if content.pop(NO_ROOM, False) and case.id not in self.tried_again:
            self.tried_again.add(case.id)
            self.without_room.append(case)
            return
        yield content

    def _too_long(self, worker: _Worker) -> Iterator[Row]:
        case = worker.cases.popleft()
        yield {"id": case.id, "state": FAILED, "reason": f"it took longer than {self.executor.case_s:g} s"}
        self.suspects.extend(worker.cases)
        self._restart(worker)

    def _replace(self, worker: _Worker) -> Iterator[Row]:
        """A worker has ended: its cases go on elsewhere, one that has ended several by itself does not."""
        worker.process.join()
        code = worker.process.exitcode
        if not worker.is_ready:
            self.failed_starts += 1
            if self.failed_starts >= CONFIG.failed_starts:
                self._do_without(worker, f"workers end before they have loaded the model ({_ended(code)})")
                return
        elif len(worker.cases) == 1:
            case = worker.cases[0]
            self.deaths[case.id] += 1
            if self.deaths[case.id] >= CONFIG.deaths:
                worker.cases.clear()
                text = f"its process ended {CONFIG.deaths} times ({_ended(code)}), as for want of memory or by a damaged file"
                yield {"id": case.id, "state": FAILED, "reason": text}
        self.suspects.extend(worker.cases)
        self._restart(worker)

    def _do_without(self, worker: _Worker, why: str) -> None:
        """Go on with the others. Raises StudyError where there are none that work."""
        if not any(other.is_ready for other in self.workers):
            raise StudyError(f"{why}: fewer --workers need less memory")
        log.warning("%s; going on with %d of %d workers", why, len(self.workers) - 1, self.executor.count)
        self.suspects.extend(worker.cases)
        worker.end()
        self.workers.remove(worker)
        self.failed_starts = 0

    def _restart(self, worker: _Worker) -> None:
        worker.end()
        self.workers[self.workers.index(worker)] = _Worker(self.executor.settings)

    def end(self) -> None:
        for worker in self.workers:
            worker.end()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Processes that are started meanwhile ignore Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ended(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _work(connection: Connection, settings: PredictorSettings) -> None:
    """A worker's process: cases come, rows go, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        predictor = Predictor(settings)
    except LandmarkLabelError as error:
        connection.send((_FAULT, str(error)))
        return
    cases: queue.SimpleQueue[tuple[CohortCase, Future[Any]] | None] = queue.SimpleQueue()
    reader = ThreadPoolExecutor(1, "reader")

    def listen() -> None:
        try:
            while True:
                case = connection.recv()
                cases.put((case, reader.submit(predictor.read, case)))
        except (EOFError, OSError, RuntimeError):  # RuntimeError: of a reader that has ended
            cases.put(None)

    threading.Thread(target=listen, name="cases", daemon=True).start()
    try:
        connection.send((_READY, None))
        while (given := cases.get()) is not None:
            case, read = given
            connection.send(("row", predictor.predict(case, read.result())))
    except OSError:  # nobody listens any more
        pass
    os._exit(0)  # at once: there is nothing to tidy up, and threads that still read would be in the way
