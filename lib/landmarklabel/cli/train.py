"""``train`` and ``publish``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from landmarklabel.errors import LandmarkLabelError, StudyError, UsageError
from landmarklabel.io.tables import read_ids
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.networks.registry import find_preset
from landmarklabel.services.evaluations import metrics_line
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_study_task

DEFAULT_MINUTES = 30.0


def train(a: argparse.Namespace) -> int:
    """Train a model and offer it to the study's gate; Ctrl-C keeps what was learned for ``--resume``."""
    from landmarklabel.networks.precision import choose_device
    from landmarklabel.services.offering import train_and_offer
    from landmarklabel.services.trainings import gather
    from landmarklabel.training.fit import FitConfig
    from landmarklabel.training.loop import Budget, Cancelled, use_all_cores

    begun = time.monotonic()
    task = resolve_study_task(a.task, a.study, url=a.store)
    preset = find_preset(a.model, task.dims)
    _check(a)
    minutes = DEFAULT_MINUTES if a.minutes is None and a.steps is None else a.minutes
    use_all_cores()
    study = open_study(a.study, task, a.store)
    material = gather(study, read_ids(a.valid) if a.valid else None)
    for text in [*material.left_out, *material.remarks]:
        print(f"landmarklabel: {text}", file=sys.stderr)
    print(f"training {preset.key} on {len(material.train)} images, {len(material.valid)} for validation")
    config = FitConfig(preset, Budget(minutes, a.steps), a.seed, choose_device(a.device), a.resume, pool=material.unlabelled)
    if minutes is not None and not a.resume:
        config.ends_at = begun + 60 * minutes
    try:
        with _Progress(preset.name) as show:
            done = train_and_offer(study, material, config, a.out, not a.no_publish, show, _Interrupt())
    except Cancelled:
        print("landmarklabel: stopped; the same command with --resume goes on from here", file=sys.stderr)
        return 130
    print(f"{a.out or 'model'}: trained" + (f"; validation {metrics_line(done.metrics)}" if done.metrics else ""))
    for text in done.remarks:
        print(f"landmarklabel: {text}", file=sys.stderr)
    if done.said:
        print(done.said)
    if not a.no_publish and not done.published and a.out:
        print(f"to have it answer all the same: landmarklabel publish {a.out} {study.folder}")
    study.close()
    return 0


def _check(a: argparse.Namespace) -> None:
    if (a.minutes is not None and not a.minutes > 0) or (a.steps is not None and a.steps < 1):
        raise UsageError("--minutes and --steps must be positive")
    if not 0 <= a.seed < 2**32:
        raise UsageError(f"--seed {a.seed} must be from 0 to {2**32 - 1}")
    if a.no_publish and not a.out:
        raise UsageError("--no-publish without --out would keep nothing: say with --out where the model goes")


def publish(a: argparse.Namespace) -> None:
    """Make a trained model the one that answers in a study, whatever the gate would say; says what it would."""
    from landmarklabel.inference.model import load_model, read_record
    from landmarklabel.services.trainings import gather, hold_against, live_model, record_published, trained_on
    from landmarklabel.training.publishing import Decision, ModelShelf

    record = read_record(a.model)
    study = open_study(a.study, resolve_study_task(a.task, a.study, url=a.store), a.store)
    model = load_model(a.model, study.task)
    shelf = ModelShelf(study.models_dir / model.preset.served_as)
    with shelf.training_lock():
        try:
            said = hold_against(study, gather(study), record, model, live_model(study, shelf), trained_on(shelf)).reason
        except LandmarkLabelError as error:
            said = f"not measured: {error}"
        version = shelf.adopt(Path(a.model), Decision(True, f"published by hand; {said}"))
        record_published(study, shelf, version)
    print(f"published in {study.folder.name} as {shelf.folder.name} version {version}, by hand; {said}")
    study.close()


def open_study(folder: str, task: LandmarkTask, url: str | None = None) -> Study:
    """A study that is there; what its opening has to say goes to stderr. Raises StudyError."""
    if not Path(folder).is_dir():
        raise StudyError(f"{folder}: no such study folder; landmarklabel import makes one")
    study = Study(folder, task, url)
    for text in study.notices:
        print(f"landmarklabel: {text}", file=sys.stderr)
    return study


class _Progress:
    """A bar with time left on a terminal, else a line every tenth of the way."""

    def __init__(self, name: str):
        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self.bar, self.lines = tqdm(total=1000, desc=name, disable=None, bar_format=layout), _Lines()

    def __enter__(self) -> Callable:
        return self._show

    def __exit__(self, *_) -> None:
        self.bar.close()

    def _show(self, p) -> None:
        if self.bar.disable:
            self.lines(p)
        self.bar.set_postfix_str(f" {p.stage} step {p.step}, loss {p.loss:.3f}", refresh=False)
        self.bar.update(int(1000 * p.fraction) - self.bar.n)


class _Interrupt:
    """True after the first Ctrl-C; a second one ends the program at once."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __call__(self) -> bool:
        return self.asked


class _Lines:
    """Progress where there is no terminal for a bar: a line every tenth of the way, and where a phase begins."""

    def __init__(self):
        self.tenth, self.stage = 0, ""

    def __call__(self, p) -> None:
        if int(10 * p.fraction) > self.tenth or p.stage != self.stage:
            self.tenth, self.stage = int(10 * p.fraction), p.stage
            print(f"{10 * self.tenth} %: {p.stage} step {p.step}, loss {p.loss:.3f}, {p.seconds / 60:.1f} min", flush=True)
