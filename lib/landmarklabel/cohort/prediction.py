"""One case of a cohort: read, predicted, and told as a row of numbers. What a worker does, whatever starts it."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.manifest import CohortCase, filesystem
from landmarklabel.cohort.run_folder import FAILED, OK, Row, check_model
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.io.images import read_image
from landmarklabel.io.memory import is_for_want_of_memory
from landmarklabel.io.pixels import pixel_hash

if TYPE_CHECKING:
    from landmarklabel.data.cases import Case


NO_ROOM = "no_room"  # of a row on its way to whoever may have the case tried again


@dataclass(frozen=True)
class PredictorSettings:
    """What a worker needs to know: the model's folder and its record's hash, the device, and the threads of its networks."""

    model: str
    model_sha256: str
    device: str = "cpu"
    threads: int = 1


class Executor(Protocol):
    """Whatever has workers predict cases: processes of this computer, or a cluster."""

    def rows(self, cases: Iterable[CohortCase]) -> Iterator[Row]:
        """A row for every case, in any order; raises StudyError where none can be predicted."""
        ...


class Read(NamedTuple):
    """A case that was read: as the model wants it, or why it cannot be; the seconds that took; whether memory was wanting."""

    case: Case | None
    pixels: str
    reason: str
    seconds: float
    no_room: bool = False


class Predictor:
    """A model that is loaded once and predicts case after case; ``read`` may run in another thread than ``predict``.

    Raises:
        ModelError: a damaged model. StudyError: not the cohort's model any more. UsageError: a device that is not there.
    """

    def __init__(self, settings: PredictorSettings):
        import torch

        from landmarklabel.inference.model_folder import load_model
        from landmarklabel.inference.model_record import read_record
        from landmarklabel.networks.devices import choose_device

        torch.set_num_threads(settings.threads)
        check_model(settings.model, settings.model_sha256)
        self._model = load_model(settings.model, device=choose_device(settings.device))
        self._trained_on = frozenset(read_record(settings.model).get("train_pixels") or ())

    def read(self, case: CohortCase) -> Read:
        """Read a case's image and prepare it for the networks; never raises."""
        started, made, pixels, reason, no_room = time.monotonic(), None, "", "", False
        try:
            with _local(case.path) as path:
                image = read_image(path, self._model.task.dims)
            pixels = pixel_hash(image)
            made = self._model.case(case.id, image)
            self._model.check_extent(made)
            made.coarse(self._model.networks.grid.spacing_for(image.geometry))  # kept by the case for when the networks look
        except Exception as error:  # whatever a file does to its reader, the other cases go on
            reason, no_room = _reason(error), is_for_want_of_memory(error)
        return Read(made, pixels, reason, time.monotonic() - started, no_room)

    def predict(self, case: CohortCase, read: Read) -> Row:
        """The row of a case, with ``NO_ROOM`` where memory was wanting, which is no result of it; never raises."""
        started = time.monotonic()
        if read.case is None or read.reason:
            return _failed(case, read, read.reason, read.no_room)
        try:
            found = self._found(read.case)
        except Exception as error:  # likewise
            return _failed(case, read, _reason(error), is_for_want_of_memory(error))
        seconds = {"read_s": _seconds(read.seconds), "predict_s": _seconds(time.monotonic() - started)}
        known = {"pixels": read.pixels, "unit": read.case.image.unit, "trained_on": read.pixels in self._trained_on}
        return {"id": case.id, "state": OK, **known, **found, **seconds}

    def _found(self, case: Case) -> Row:
        evidence, shape_fit = self._model.assess(case)
        suggestion = self._model.suggest(evidence, case.image.geometry, shape_fit=shape_fit)
        landmarks = suggestion.landmarks
        return {
            "positions": [[_rounded(x) for x in position] for position in landmarks.positions_mm.tolist()],
            "status": [status.value for status in landmarks.status],
            "expected_error": [_rounded(x) for x in landmarks.expected_error_mm.tolist()],
            "flagged": np.flatnonzero(suggestion.flagged).tolist(),
        }


def _failed(case: CohortCase, read: Read, reason: str, no_room: bool) -> Row:
    row = {"id": case.id, "state": FAILED, "reason": reason, "read_s": _seconds(read.seconds)}
    return {**row, NO_ROOM: True} if no_room else row


def _rounded(value: float) -> float | None:
    return round(value, CONFIG.digits) + 0.0 if math.isfinite(value) else None  # never -0.0


def _seconds(value: float) -> float:
    return round(value, 4)


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, LandmarkLabelError) else f"{type(error).__name__}: {text}"


@contextmanager
def _local(path: str) -> Iterator[Path]:
    """The file or folder itself, or a copy of what an address means, which is removed afterwards."""
    if "://" not in path:
        yield Path(path)
        return
    files, inside = filesystem(path)
    with tempfile.TemporaryDirectory(prefix="landmarklabel-") as place:
        copy = Path(place) / PurePosixPath(inside).name
        files.get(inside, str(copy), recursive=files.isdir(inside))
        yield copy
