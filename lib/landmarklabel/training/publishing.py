"""Which model is live: versions in folders, one atomic pointer, and a gate that only lets a better model through."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from landmarklabel.data.cases import Case
from landmarklabel.errors import NotFound, StudyError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.io.files import write_json
from landmarklabel.metrics import point_errors_mm


@dataclass(frozen=True)
class Decision:
    """Whether a candidate goes live, and why, in words; ``score``s are mean capped errors in mm, lower is better."""

    publish: bool
    reason: str
    candidate_score: float | None = None
    live_score: float | None = None


def capped_error_mm(model: Localizer, valid: Sequence[Case]) -> float | None:
    """Mean error over all validation landmarks, where a missed one, or one that is far off, costs 5 % of the image.

    None without a single landmark to measure.
    """
    values = []
    for case in valid:
        low, high = case.image.geometry.bounds_mm
        cap = 0.05 * float(np.linalg.norm(high - low)) * case.landmarks.scaled_to_mm()
        if np.isnan(cap):  # the scale rule's landmarks are not both in this image
            continue
        errors = point_errors_mm(model.predict(case), case.landmarks)
        values += list(np.minimum(np.nan_to_num(errors, nan=cap), cap)[case.landmarks.defined])
    return float(np.mean(values)) if values else None


def decide(candidate: Localizer, live: Localizer | None, valid: Sequence[Case]) -> Decision:
    """Compare two models on the same validation cases."""
    if live is None:
        return Decision(True, "first model of this study", capped_error_mm(candidate, valid))
    new, old = capped_error_mm(candidate, valid), capped_error_mm(live, valid)
    if new is None or old is None:
        return Decision(True, "published unmeasured: no labelled case is in the validation split yet")
    if new < old:
        return Decision(True, f"better on the same {len(valid)} validation cases: {new:.3f} against {old:.3f} mm", new, old)
    return Decision(False, f"not better on the same {len(valid)} validation cases: {new:.3f} against {old:.3f} mm", new, old)


class ModelShelf:
    """The versions of one model of a study.

    ``versions/0001/`` are model folders, ``live.json`` names the live one and is replaced atomically, ``training/`` is
    the candidate being made, ``lock`` is held while training.

    Args:
        folder: of the model, for example ``STUDY/.landmarklabel/models/scn``.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @property
    def candidate(self) -> Path:
        """Where the next model is trained."""
        return self.folder / "training"

    @property
    def pointer(self) -> Path:
        return self.folder / "live.json"

    def record(self) -> dict:
        """{"version", "history": […]}; version 0 when nothing is live."""
        try:
            record = json.loads(self.pointer.read_text(encoding="utf-8"))
            return {"version": int(record["version"]), "history": list(record["history"])}
        except FileNotFoundError:
            return {"version": 0, "history": []}
        except (ValueError, TypeError, KeyError, RecursionError):
            raise StudyError(f"{self.pointer}: damaged; delete it to start over, the versions stay") from None

    def live(self) -> Path | None:
        """The live model's folder."""
        version = self.record()["version"]
        return self._version(version) if version else None

    def _version(self, number: int) -> Path:
        return self.folder / "versions" / f"{int(number):04d}"

    def versions(self) -> list[int]:
        """Numbers of the stored versions, ascending."""
        place = self.folder / "versions"
        return sorted(int(p.name) for p in place.iterdir() if p.name.isdigit()) if place.is_dir() else []

    def settle(self, decision: Decision) -> int:
        """Publish or drop the finished candidate; returns the live version's number afterwards."""
        record = self.record()
        if not decision.publish:
            shutil.rmtree(self.candidate, ignore_errors=True)
            self._point(record, record["version"], "kept", decision.reason)
            return record["version"]
        number = max([0, *self.versions(), record["version"]]) + 1
        self._version(number).parent.mkdir(parents=True, exist_ok=True)
        self.candidate.rename(self._version(number))
        self._point(record, number, "published", decision.reason)
        return number

    def roll_back(self, number: int | None = None) -> int:
        """Make an earlier version live again (the previous one by default). Raises NotFound."""
        record = self.record()
        earlier = [v for v in self.versions() if v < record["version"]]
        number = number if number is not None else max(earlier, default=0)
        if number not in self.versions():
            raise NotFound(f"there is no version {number} to go back to; stored: {self.versions()}")
        self._point(record, number, "rolled back", f"from version {record['version']}")
        return number

    def _point(self, record: dict, number: int, what: str, reason: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"version": number, "what": what, "reason": reason, "time": now}
        write_json(self.pointer, {"version": number, "history": [*record["history"], entry][-500:]})

    @contextmanager
    def training_lock(self, patience_s: float = 2.0) -> Iterator[None]:
        """Held by the one process that trains this model; a killed one lets go. Raises StudyError when taken.

        ``patience_s``: how long to try, because ``is_training`` holds the lock for a moment.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience_s
        with (self.folder / "lock").open("a") as file:
            while not _locked(file):
                if time.monotonic() > deadline:
                    raise StudyError(f"model {self.folder.name!r} is already being trained; wait or stop that run")
                time.sleep(0.05)
            yield

    def is_training(self) -> bool:
        """Whether some process holds the training lock."""
        try:
            with self.training_lock(patience_s=0):
                return False
        except StudyError:
            return True


def _locked(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
