"""A Ray cluster: actors read images and actors with a GPU run the networks; what ends is begun anew by Ray."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.manifest import CohortCase
from landmarklabel.cohort.prediction import NO_ROOM, Predictor, PredictorSettings
from landmarklabel.cohort.run_folder import FAILED, Row
from landmarklabel.errors import StudyError

LOCAL = "local"


class RayExecutor:
    """Predicts cases in a Ray cluster whose nodes all see the cohort's folder and the images under the same paths.

    Args:
        settings: of the actors; with a CUDA device, or ``auto`` where the cluster has GPUs, each that runs networks has one.
        address: of the cluster as Ray has it (``auto``, ``ray://…``), or ``local`` for one of this computer alone.
        workers: actors that run networks; as many as the cluster has GPUs, or else cores for, when None.
    """

    def __init__(self, settings: PredictorSettings, address: str, workers: int | None = None):
        self.settings, self.address, self.count = settings, address, workers

    def rows(self, cases: Iterable[CohortCase]) -> Iterator[Row]:
        """A row for every case, in the order in which they are done.

        Raises:
            StudyError: Ray is not installed or not there, no model can be loaded, or fewer GPUs are there than were asked for.
        """
        try:
            import ray
        except ImportError as error:
            raise StudyError(f"--ray needs the package ray, which the extra [ray] installs ({error})") from None
        own = self.address == LOCAL
        if own:  # Ray's workers give way to all else, which on a busy computer means that they never begin
            os.environ.setdefault("RAY_worker_niceness", "0")
        else:
            self._check_there()
        try:
            ray.init(address=None if own else self.address, include_dashboard=False if own else None, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise StudyError(f"--ray {self.address}: no cluster answers there ({' '.join(str(error).split())[:200]})") from None
        try:
            yield from self._rows(ray, iter(cases))
        finally:
            ray.shutdown()

    def _check_there(self) -> None:
        """Raise StudyError at once where nobody listens: Ray itself tries for minutes."""
        host, colon, port = self.address.removeprefix("ray://").rpartition(":")
        if not (colon and port.isdecimal()):
            return
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONFIG.connect_s).close()
        except (OSError, OverflowError) as error:
            raise StudyError(f"--ray {self.address}: no cluster answers there ({error})") from None

    def _rows(self, ray: Any, cases: Iterator[CohortCase]) -> Iterator[Row]:
        have = ray.cluster_resources()
        device, gpus = self._device(int(have.get("GPU", 0.0)))
        cores = have.get("CPU", 1.0) / self.settings.threads
        count = self.count or max(1, int(have.get("GPU", 0.0) if gpus else cores))
        again = {"max_restarts": -1, "max_task_retries": CONFIG.deaths - 1}
        share = min(self.settings.threads, have.get("CPU", 1.0) / (2 * count))  # the other half is the readers'
        runs = ray.remote(Predictor).options(num_gpus=gpus, num_cpus=share, **again)
        reads = ray.remote(Predictor).options(num_cpus=share, **again)
        predictors = [runs.remote(replace(self.settings, device=device)) for _ in range(count)]
        readers = [reads.remote(replace(self.settings, device="cpu")) for _ in range(count)]
        waiting: dict[Any, tuple[CohortCase, int]] = {}
        load = Counter({number: 0 for number in range(count)})
        while True:
            while len(waiting) < CONFIG.ahead * count and (case := next(cases, None)) is not None:
                number = min(load, key=load.__getitem__)
                load[number] += 1
                read = readers[number].read.remote(case)  # its pixels go from there to the predictor, not by here
                waiting[predictors[number].predict.remote(case, read)] = case, number
            if not waiting:
                return
            done, _ = ray.wait(list(waiting), num_returns=1)
            for answer in done:
                case, number = waiting.pop(answer)
                load[number] -= 1
                yield self._row(ray, answer, case)

    def _device(self, gpus: int) -> tuple[str, int]:
        """What each actor that runs networks computes on, and how many GPUs it needs; Ray gives it one and hides the others.

        Raises:
            StudyError: more GPUs were asked for than the cluster has; Ray itself would wait for them for ever.
        """
        wanted = self.settings.device
        if wanted == "auto" and not gpus:
            return "cpu", 0
        if wanted != "auto" and not wanted.startswith("cuda"):
            return wanted, 0
        if (self.count or 1) > gpus:
            raise StudyError(
                f"--ray {self.address}: {self.count or 1} workers with a GPU each were asked for, and the cluster has {gpus}; "
                "use fewer --workers, or --device cpu"
            )
        return "cuda", 1

    def _row(self, ray: Any, answer: Any, case: CohortCase) -> Row:
        try:
            row: Row = ray.get(answer)
            row.pop(NO_ROOM, None)
        except ray.exceptions.ActorDiedError as error:
            text = str(error)
            if "creation task" in text or "__init__" in text:  # of every actor alike: a damaged model, or no such device
                lines = [line for line in text.splitlines() if line.strip()]
                raise StudyError(f"no model can be loaded: {lines[-1][:300]}") from None
            row = {"id": case.id, "state": FAILED, "reason": f"its process ended {CONFIG.deaths} times"}
        except ray.exceptions.RayError as error:
            row = {"id": case.id, "state": FAILED, "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        return row
