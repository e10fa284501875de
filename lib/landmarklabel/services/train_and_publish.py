"""A training as the command line and ``landmarklabel.train`` do it: the fit, the gate, and the model that answers afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from filelock import Timeout

from landmarklabel.errors import Cancelled, Gone, UsageError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_card import cautions
from landmarklabel.inference.model_record import RECORD, read_record
from landmarklabel.io.locks import NOT_LOCKED, file_lock, take
from landmarklabel.services.trainings import Material, fit_and_decide, live_model, publish_if_accepted, tell_material, trained_on
from landmarklabel.store.study import Study
from landmarklabel.training.fit import FitConfig, has_stopped
from landmarklabel.training.group import ProcessLost
from landmarklabel.training.loop import Progress
from landmarklabel.training.publishing import IN_USE, ModelRegistry

_NOTHING_LEARNED = {"state", "run.json"}  # what a training that made no step leaves behind
_MOVED = "the study folder is gone or has moved"


@dataclass(frozen=True)
class TrainingOutcome:
    """A finished training and what became of its model.

    Args:
        model: the trained model.
        metrics: on the validation cases; empty without any.
        folder: of the model; None where the gate refused it and nobody asked for a copy.
        published: whether it answers in the study now.
        decision: what the gate decided and why, in words; empty where it was not asked.
        remarks: what a person should know, one text each.
    """

    model: Localizer
    metrics: dict[str, Any]
    folder: Path | None
    published: bool = False
    decision: str = ""
    remarks: tuple[str, ...] = ()


def check_place(place: Path) -> None:
    """Refuse a place for a model where something else lies. Raises UsageError."""
    if place.exists() and not place.is_dir():
        raise UsageError(f"{place} is a file; give a folder for the model")
    inside = [folder for folder in (place.absolute(), *place.absolute().parents) if folder.name == ".landmarklabel"]
    if inside:
        raise UsageError(f"{place} is inside of a study's own folder, where its published models are; give another folder")
    if (place / ".landmarklabel").is_dir():
        raise UsageError(f"{place} is a study; give a folder of its own for the model")


def train_and_publish(
    study: Study,
    material: Material,
    config: FitConfig,
    out: str | Path | None = None,
    publish: bool = True,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda _: None,
) -> TrainingOutcome:
    """Train a model and let the gate decide whether it answers in the study from now on.

    Args:
        study: whose.
        material: of ``gather``.
        config: what to train and how long.
        out: where the model is written; without, only a published one is kept. A folder that has a model is renamed, but for
            ``resume``.
        publish: False leaves the study's own model alone; needs ``out``.
        on_progress, should_stop: as in ``fit``.
        tell: given what a person should know at once.

    Raises:
        UsageError: ``out`` is a file, a study, or inside of one, another training writes to it, or ``resume`` finds a model.
        Gone: the study that should get the model has moved; with ``out`` this is said in the end, and the model is there.
        StudyError: nothing to train on, or this model is being trained. Cancelled: stopped; ``resume`` goes on from there.
    """
    registry, place = ModelRegistry(study.models_dir / config.preset.served_as), Path(out) if out else None
    if place is not None:
        check_place(place)
    folder = place or registry.candidate
    if config.resume:
        _look_for_stopped(folder, place, tell)

    def stop_now() -> bool:
        if place is None and not study.is_there():  # and what was learned is in it
            raise Gone(f"{_MOVED}: the training has ended, and resumes where the study is now")
        return should_stop()

    with ExitStack() as held:
        if publish:
            held.enter_context(registry.training_lock())
        live, known = (live_model(study, registry, config.device), trained_on(registry)) if publish else (None, frozenset())
        tell_material(config.group, material)
        with _model_set_aside(None if config.resume else place, tell), _alone_in(place, tell):
            done = fit_and_decide(study, material, config, folder, live, on_progress, stop_now, publish, known)
            remarks = tuple(cautions(read_record(folder)))
            if not publish:
                return TrainingOutcome(done.model, done.metrics, folder, remarks=remarks)
            if not study.is_there():
                raise Gone(f"{_MOVED}: the model is in {folder}; publish offers it to the study where it is now")
            version = publish_if_accepted(study, registry, done.decision, place)
    return TrainingOutcome(
        done.model,
        done.metrics,
        place or (registry.live() if done.decision.publish else None),
        done.decision.publish,
        _outcome(study, registry.folder.name, version, done.decision.publish, done.decision.reason),
        remarks,
    )


def _look_for_stopped(folder: Path, place: Path | None, tell: Callable[[str], None]) -> None:
    """Say where there is no stopped training to go on with. Raises UsageError where a whole model would be written over."""
    if has_stopped(folder):
        return
    if place is not None and (place / RECORD).is_file():
        raise UsageError(
            f"cannot resume: {place} has a whole model and no stopped training; without --resume that model gets another name, "
            "and a training begins"
        )
    tell(f"no stopped training was found in {folder}: one begins")


@contextmanager
def _alone_in(place: Path | None, tell: Callable[[str], None]) -> Iterator[None]:
    """Let no other training write to the same folder meanwhile; the study's own folder has a lock already. Raises UsageError."""
    if place is None:
        yield
        return
    place.mkdir(parents=True, exist_ok=True)
    lock = file_lock(place / IN_USE)
    try:
        if not take(lock, 2.0):
            tell(f"{place}: {NOT_LOCKED}")
    except Timeout:
        raise UsageError(f"another training writes to {place}: wait for its end, or give another folder") from None
    try:
        yield
    finally:
        (place / IN_USE).unlink(missing_ok=True)
        lock.release()


@contextmanager
def _model_set_aside(place: Path | None, tell: Callable[[str], None]) -> Iterator[None]:
    """Give the folder of a model another name, so that a training does not write over it.

    It has its name again where the training was refused before it began; one that was stopped may be gone on with.
    """
    if place is None or not (place / RECORD).is_file():
        yield
        return
    with _alone_in(place, lambda _: None):  # one that has written its model may still decide whether to publish it
        pass
    there = place.resolve()
    free = next(p for n in count(1) if not (p := there.with_name(f"{there.name}-{n}")).exists())
    there.rename(free)
    tell(f"the model that was in {place} is now in {free}")
    try:
        yield
    except (Cancelled, ProcessLost):
        raise
    except Exception:
        if {path.name for path in there.rglob("*")} <= _NOTHING_LEARNED:
            shutil.rmtree(there, ignore_errors=True)
            with suppress(OSError):  # another training has begun there meanwhile
                free.rename(there)
                tell(f"the model that was in {place} is there again")
        raise


def _outcome(study: Study, name: str, version: int, published: bool, reason: str) -> str:
    if published:
        return f"published in {study.folder.name} as {name} version {version}: {reason}"
    answers = f"{name} version {version}" if version else "the template"
    return f"not published, {answers} stays live: {reason}"
