"""``train`` and ``publish``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm

from landmarklabel.cli.configuration import CONFIG
from landmarklabel.errors import StudyError, UsageError, counted
from landmarklabel.io.tables import read_ids
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.networks.presets import Preset, find_preset
from landmarklabel.services.evaluations import metrics_line
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_study_task
from landmarklabel.training.configuration import PROCESSES, RENDEZVOUS

if TYPE_CHECKING:
    import torch

    from landmarklabel.training.fit import FitConfig
    from landmarklabel.training.group import TrainingGroup
    from landmarklabel.training.loop import Progress


def train(args: argparse.Namespace) -> int:
    """Train a model and offer it to the study's gate; Ctrl-C keeps what was learned for ``--resume``."""
    from landmarklabel.errors import Cancelled
    from landmarklabel.training.group import ProcessLost, is_one_of_several, join
    from landmarklabel.training.processes import LOST

    begun = time.monotonic()
    task = resolve_study_task(args.task, args.study, url=args.store)
    preset = find_preset(args.model, task.dims)
    _check(args)
    if args.devices > 1 and not is_one_of_several():
        return _train_together(args)
    if is_one_of_several() and RENDEZVOUS not in os.environ:
        _tell_of_others(args.devices, os.environ["WORLD_SIZE"])
    group, device = join(args.device)
    try:
        status = (
            _train(args, task, preset, begun, group, device) if group.leads else _train_along(args, task, preset, group, device)
        )
    except Cancelled:
        if group.leads:
            print("landmarklabel: stopped; the same command with --resume goes on from here", file=sys.stderr)
        return 130
    except ProcessLost as error:
        if (meeting := os.environ.get(RENDEZVOUS)) is None:
            raise
        with open(Path(meeting).with_name(f"{group.rank}.txt"), "a", encoding="utf-8") as file:
            print(error, file=file)  # for who started them all, and says which one was lost
        return LOST
    group.end()
    return status


def _tell_of_others(devices: int, started: str) -> None:
    """Say that something else has started several processes; UsageError where they were to be started here as well."""
    if devices > 1:
        text = (
            f"--devices {devices} starts processes itself, but WORLD_SIZE={started} says that torchrun or a scheduler has started"
        )
        raise UsageError(f"{text} them: leave out --devices, or unset WORLD_SIZE")
    text = f"trains as one of {started} processes, as WORLD_SIZE says, and waits for the others; unset it to train alone"
    print(f"landmarklabel: {text}", file=sys.stderr, flush=True)


def _train_together(args: argparse.Namespace) -> int:
    from landmarklabel.training.group import device_of
    from landmarklabel.training.processes import run_together

    device_of(args.device, 0, args.devices)  # refuses what cannot be, once
    status, said = run_together([sys.executable, "-m", "landmarklabel", *args.words], args.devices)
    if said:
        print(f"landmarklabel: {said}; the same command with --resume goes on from the last state", file=sys.stderr)
    return status


def _train(args, task: LandmarkTask, preset: Preset, begun: float, group: TrainingGroup, device: torch.device) -> int:
    from landmarklabel.services.train_and_publish import train_and_publish
    from landmarklabel.services.trainings import gather

    study = open_study(args.study, task, args.store)
    material = gather(study, read_ids(args.valid) if args.valid else None, group.on_this_computer)
    for text in [*material.left_out, *material.remarks]:
        _tell(text)
    on = f" on {group.size} devices" if group.size > 1 else ""
    print(f"training {preset.key} on {counted(len(material.train), 'image')}, {len(material.valid)} for validation{on}")
    config = _settings(args, preset, group, device)
    config.unlabelled = material.unlabelled
    if config.budget.minutes is not None and not args.resume:
        config.ends_at = begun + 60 * config.budget.minutes
    with TrainingProgress(preset.name) as show:
        done = train_and_publish(study, material, config, args.out, not args.no_publish, show, Interrupt(), _tell)
    print(f"{args.out or 'model'}: trained" + (f"; validation {metrics_line(done.metrics)}" if done.metrics else ""))
    if hasty := done.metrics.get("in_haste"):
        of = f"{hasty} of the {done.metrics['n_images']} validation cases"
        print(f"there was no time to search {of} as thoroughly as predict does: measure the model with evaluate")
    for text in done.remarks:
        _tell(text)
    if done.decision:
        print(done.decision)
    if not args.no_publish and not done.published and args.out:
        print(f"to have it answer all the same: landmarklabel publish {args.out} {study.folder}")
    study.close()
    return 0


def _tell(text: str) -> None:
    tqdm.write(f"landmarklabel: {text}", file=sys.stderr)  # beside a bar that may be on the terminal


def _train_along(args, task: LandmarkTask, preset: Preset, group: TrainingGroup, device: torch.device) -> int:
    """What a process does that does not lead."""
    from landmarklabel.services.trainings import hear_material, train_along

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leading process decides
    if RENDEZVOUS in os.environ:  # and whoever has started this one ends it, if need be
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told = hear_material(group)
    study = open_study(args.study, task, args.store)
    train_along(study, _settings(args, preset, group, device), told)
    study.close()
    return 0


def _settings(args: argparse.Namespace, preset: Preset, group: TrainingGroup, device: torch.device) -> FitConfig:
    from landmarklabel.training.fit import FitConfig
    from landmarklabel.training.loop import Budget

    minutes = CONFIG.train_minutes if args.minutes is None and args.steps is None else args.minutes
    budget = Budget(minutes, args.steps)
    return FitConfig(preset, budget, args.seed, device, args.resume, group=group, accumulate=args.accumulate)


def _check(args: argparse.Namespace) -> None:
    check_budget(args)
    if args.devices < 1 or args.accumulate < 1:
        raise UsageError("--devices and --accumulate must be at least 1")
    if not 0 <= args.seed < 2**32:
        raise UsageError(f"--seed {args.seed} must be from 0 to {2**32 - 1}")
    if args.no_publish and not args.out:
        raise UsageError("--no-publish without --out would keep nothing: say with --out where the model goes")


def check_budget(args: argparse.Namespace) -> None:
    """Raise UsageError where ``--minutes`` or ``--steps`` leave no time to train."""
    if (args.minutes is not None and not args.minutes > 0) or (args.steps is not None and args.steps < 1):
        raise UsageError("--minutes and --steps must be positive")


def publish(args: argparse.Namespace) -> None:
    """Make a trained model the one that answers in a study, even if the gate would refuse it; prints its opinion."""
    from landmarklabel.services.trainings import publish_by_hand

    study = open_study(args.study, resolve_study_task(args.task, args.study, url=args.store), args.store)

    def say(text: str) -> None:
        print(f"landmarklabel: {text}", file=sys.stderr, flush=True)

    name, version, reason = publish_by_hand(study, Path(args.model), say)
    print(f"published in {study.folder.name} as {name} version {version}, by hand; {reason}")
    study.close()


def open_study(folder: str, task: LandmarkTask, url: str | None = None) -> Study:
    """A study that is there; what its opening has to say goes to stderr. Raises StudyError."""
    if not Path(folder).is_dir():
        raise StudyError(f"{folder}: no such study folder; landmarklabel import makes one")
    study = Study(folder, task, url)
    for text in study.notices:
        print(f"landmarklabel: {text}", file=sys.stderr)
    return study


class TrainingProgress:
    """A bar with time left on a terminal, else a line every tenth of the way, on stdout unless another ``file`` is given."""

    def __init__(self, name: str, file: TextIO | None = None):
        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self.bar, self.lines = tqdm(total=1000, desc=name, disable=None, bar_format=layout), _Lines(file)

    def __enter__(self) -> Callable[[Progress], None]:
        return self._show

    def __exit__(self, *_) -> None:
        self.bar.close()

    def _show(self, p) -> None:
        if self.bar.disable:
            self.lines(p)
        self.bar.set_postfix_str(f" {p.stage} step {p.step}, loss {p.loss:.3f}", refresh=False)
        self.bar.update(int(1000 * p.fraction) - self.bar.n)


class Interrupt:
    """True after the first Ctrl-C, or once who started several such processes is gone; a second one ends the program at once.

    One of several processes hears of the same Ctrl-C from the terminal and from who started it.
    """

    def __init__(self):
        from landmarklabel.portability import Parent

        self.asked, self.again_from = False, 0.0
        self.one_of_several = RENDEZVOUS in os.environ
        self.orphaned = Parent().is_gone if self.one_of_several else lambda: False
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_) -> None:
        if self.asked and time.monotonic() > self.again_from:
            raise KeyboardInterrupt
        self.asked, self.again_from = True, time.monotonic() + (PROCESSES.same_signal_s if self.one_of_several else 0)

    def __call__(self) -> bool:
        return self.asked or self.orphaned()


class _Lines:
    """Progress where there is no terminal for a bar: a line every tenth of the way, and where a stage begins."""

    def __init__(self, file: TextIO | None):
        self.tenth, self.stage, self.file = 0, "", file

    def __call__(self, p) -> None:
        if int(10 * p.fraction) > self.tenth or p.stage != self.stage:
            self.tenth, self.stage = int(10 * p.fraction), p.stage
            print(
                f"{10 * self.tenth} %: {p.stage} step {p.step}, loss {p.loss:.3f}, {p.seconds / 60:.1f} min",
                file=self.file,
                flush=True,
            )
