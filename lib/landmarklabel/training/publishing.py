"""Which model is live: versions in folders, one atomic pointer, and a gate that refuses a model measured to be no better."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from landmarklabel.data.cases import Case
from landmarklabel.errors import Busy, StudyError, counted
from landmarklabel.io.files import write_json
from landmarklabel.io.locks import locked
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.metrics import point_errors_mm, unit_of
from landmarklabel.portability import sync_to_disk

IN_USE = ".training"  # the lock in a folder that a training writes to, until its model is published
UNVALIDATED = "unvalidated"  # the first word of the reason for a model that nothing could be held against


class BeingTrained(StudyError):
    """Another process trains this model."""


class Predictor(Protocol):
    """A model, or what stands in for one while there is none."""

    def predict(self, case: Case) -> LandmarkSet:
        """The landmarks of a case."""


@dataclass(frozen=True)
class Decision:
    """Whether a candidate goes live, and why, in words; ``score``s are mean capped errors, lower is better: mm, or px for
    pictures without a spacing. ``live_score`` is that of the live model, or of the template where this would be the first model.
    """

    publish: bool
    reason: str
    candidate_score: float | None = None
    live_score: float | None = None


def capped_error_mm(model: Predictor, valid: Sequence[Case]) -> float | None:
    """Mean error over all validation landmarks, where a missed one, or one that is far off, costs 5 % of the image.

    None without a single landmark to measure.
    """
    values = [value for case in valid for value in _capped_errors_mm(model, case)]
    return float(np.mean(values)) if values else None


def _capped_errors_mm(model: Predictor, case: Case) -> list[float]:
    low, high = case.image.geometry.bounds_mm
    cap = 0.05 * float(np.linalg.norm(high - low)) * case.labels.scaled_to_mm()
    if np.isnan(cap):  # the scale rule's landmarks are not both in this image
        return []
    errors = point_errors_mm(model.predict(case), case.labels)
    return list(np.minimum(np.nan_to_num(errors, nan=cap), cap)[case.labels.defined])


def decide(
    candidate: Predictor,
    live: Predictor | None,
    valid: Sequence[Case],
    template: Predictor | None = None,
    left_out: Sequence[tuple[Case, Predictor, Predictor]] = (),
) -> Decision:
    """Compare a candidate with the live model on the same validation cases; a first model with the template.

    Args:
        candidate: the model that was trained.
        live: the one that answers now; None where there is none.
        valid: cases that neither was trained on.
        template: what answers while there is no model, made of the candidate's training cases.
        left_out: where there is no validation case: cases with a model and a template, both made without this case.
    """
    if live is None:
        return _decide_first(candidate, valid, template, left_out)
    new, old, unit = capped_error_mm(candidate, valid), capped_error_mm(live, valid), _unit(valid)
    if new is None or old is None:
        why = "none labelled, scale unknown, or the live model was trained on them"
        return Decision(True, f"{UNVALIDATED}: no validation case can be measured ({why})")
    if new < old:
        return Decision(True, f"better on the same {_cases(valid)}: {new:.3f} against {old:.3f} {unit}", new, old)
    return Decision(False, f"not better on the same {_cases(valid)}: {new:.3f} against {old:.3f} {unit}", new, old)


def _cases(valid: Sequence[Case]) -> str:
    return counted(len(valid), "validation case")


def _unit(cases: Sequence[Case]) -> str:
    return unit_of(cases[0].labels.task, (c.image.unit for c in cases)) if cases else "mm"


def _decide_first(
    candidate: Predictor,
    valid: Sequence[Case],
    template: Predictor | None,
    left_out: Sequence[tuple[Case, Predictor, Predictor]],
) -> Decision:
    new, unit = capped_error_mm(candidate, valid), _unit([*valid, *(case for case, *_ in left_out)])
    old = capped_error_mm(template, valid) if template is not None else None
    how = f"on {_cases(valid)}"
    if not valid and left_out:
        scores = [(_capped_errors_mm(model, case), _capped_errors_mm(mean, case)) for case, model, mean in left_out]
        models, templates = [value for s, _ in scores for value in s], [value for _, s in scores for value in s]
        new, old = (float(np.mean(models)), float(np.mean(templates))) if models else (None, None)
        how = f"on {len(left_out)} labelled cases, each left out of a shorter training"
    if new is None or old is None:
        why = "none could be kept out of the training, or there was no time for shorter trainings without some"
        return Decision(True, f"{UNVALIDATED}: first model of this study, held against no labelled case ({why})", new, old)
    if new < old:
        return Decision(True, f"first model, better than the template {how}: {new:.3f} against {old:.3f} {unit}", new, old)
    reason = f"not better than the template {how}: {new:.3f} against {old:.3f} {unit}; train longer or label more cases"
    return Decision(False, reason, new, old)


class ModelRegistry:
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
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
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

    def finalize_candidate(self, decision: Decision) -> int:
        """Publish or drop the finished candidate; returns the live version's number afterwards."""
        if decision.publish:
            return self._publish(self.candidate, decision)
        shutil.rmtree(self.candidate, ignore_errors=True)
        return self._keep(decision)

    def publish_copy(self, model: Path, decision: Decision) -> int:
        """As ``finalize_candidate``, for a copy of a model that was trained elsewhere: a candidate that waits to go on stays."""
        if not decision.publish:
            return self._keep(decision)
        place = self.folder / f"incoming-{secrets.token_hex(4)}"
        try:
            shutil.copytree(model, place, ignore=shutil.ignore_patterns("state", "left_out", IN_USE))
            return self._publish(place, decision)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _publish(self, model: Path, decision: Decision) -> int:
        record = self.record()
        number = max([0, *self.versions(), record["version"]]) + 1
        self._version(number).parent.mkdir(parents=True, exist_ok=True)
        model.rename(self._version(number))
        sync_to_disk(self._version(number).parent)
        self._point(record, number, "published", decision.reason)
        made: int = number
        return made

    def _keep(self, decision: Decision) -> int:
        record = self.record()
        self._point(record, record["version"], "kept", decision.reason)
        made: int = record["version"]
        return made

    def _point(self, record: dict, number: int, what: str, reason: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"version": number, "what": what, "reason": reason, "time": now}
        write_json(self.pointer, {"version": number, "history": [*record["history"], entry][-500:]})

    @contextmanager
    def training_lock(self, patience_s: float = 2.0, gives_up: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Held by the one process that trains this model; a killed one lets go.

        Args:
            patience_s: how long to try, because ``is_training`` holds the lock for a moment.
            gives_up: asked each time it is taken; where it says no, it is tried again.

        Raises:
            BeingTrained: it is taken.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(locked(self.folder / "lock", patience_s))
                    break
                except Busy:
                    if gives_up():
                        text = f"model {self.folder.name!r} is already being trained; wait or stop that run"
                        raise BeingTrained(text) from None
            yield

    def is_training(self) -> bool:
        """Whether some process holds the training lock."""
        if not self.folder.is_dir():  # of a study that has moved, which must not be made anew
            return False
        try:
            with self.training_lock(patience_s=0):
                return False
        except BeingTrained:
            return True
