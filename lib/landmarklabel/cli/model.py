"""``train`` and ``evaluate``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tqdm import tqdm

from landmarklabel.cli.study import find_images, read_markups_folder
from landmarklabel.errors import StudyError, UsageError
from landmarklabel.io.tables import read_ids
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.metrics import summarize
from landmarklabel.networks.registry import find_preset
from landmarklabel.tasks import resolve_task

DEFAULT_MINUTES = 30.0


def train(a: argparse.Namespace) -> int:
    """Train a model; Ctrl-C keeps what was learned for ``--resume``."""
    from landmarklabel.networks.precision import choose_device
    from landmarklabel.training.fit import FitConfig, fit
    from landmarklabel.training.loop import Budget, Cancelled, use_all_cores

    task = resolve_task(a.task)
    preset = find_preset(a.model, task.dims)
    if (a.minutes is not None and not a.minutes > 0) or (a.steps is not None and a.steps < 1):
        raise UsageError("--minutes and --steps must be positive")
    if not 0 <= a.seed < 2**32:
        raise UsageError(f"--seed {a.seed} must be from 0 to {2**32 - 1}")
    minutes = DEFAULT_MINUTES if a.minutes is None and a.steps is None else a.minutes
    use_all_cores()
    train_cases, valid_cases, pool = _cases(a.study, task, a.valid)
    print(f"training {preset.key} on {len(train_cases)} images, {len(valid_cases)} for validation")
    config = FitConfig(preset, Budget(minutes, a.steps), a.seed, choose_device(a.device), a.resume, pool=pool)
    stop, lines = _Interrupt(), _Lines()
    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=1000, desc=preset.name, disable=None, bar_format=layout) as bar:

        def show(p) -> None:
            if bar.disable:
                lines(p)
            bar.set_postfix_str(f" {p.stage} step {p.step}, loss {p.loss:.3f}", refresh=False)
            bar.update(int(1000 * p.fraction) - bar.n)

        try:
            _, metrics = fit(task, train_cases, valid_cases, config, a.out, show, stop)
        except Cancelled:
            bar.close()
            print("landmarklabel: stopped; the same command with --resume goes on from here", file=sys.stderr)
            return 130
    print(f"{a.out}: trained" + (f"; validation {_line(metrics)}" if metrics else ""))
    return 0


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
    """Progress where there is no terminal for a bar: a line every tenth of the way."""

    def __init__(self):
        self.tenth = 0

    def __call__(self, p) -> None:
        if int(10 * p.fraction) > self.tenth:
            self.tenth = int(10 * p.fraction)
            print(f"{10 * self.tenth} %: {p.stage} step {p.step}, loss {p.loss:.3f}, {p.seconds / 60:.1f} min", flush=True)


def _cases(folder: str, task: LandmarkTask, valid_file: str | None):
    from landmarklabel.data.split import split_ids
    from landmarklabel.services.cases import load_cases
    from landmarklabel.store.study import Study

    if not Path(folder).is_dir():
        raise StudyError(f"{folder}: no such study folder; landmarklabel import makes one")
    study = Study(folder, task)
    for problem in study.sync():
        print(f"landmarklabel: {problem}", file=sys.stderr)
    labels = study.labelled()
    train_ids, valid_ids = split_ids(labels)
    if valid_file:
        wanted = set(read_ids(valid_file))
        unknown = sorted(wanted - set(labels))
        if unknown:
            raise StudyError(f"--valid names {len(unknown)} images without labels in the study, first {unknown[0]!r}")
        train_ids, valid_ids = [i for i in labels if i not in wanted], sorted(wanted)
    cases = {c.image_id: c for c in load_cases(study, {i: labels[i] for i in (*train_ids, *valid_ids)})}
    pool = [path for i, path in sorted(study.images().items()) if i not in labels]
    return [cases[i] for i in train_ids], [cases[i] for i in valid_ids], pool


def evaluate(a: argparse.Namespace) -> None:
    """Print metrics of predictions against the truth; optionally write a report."""
    task = resolve_task(a.task)
    truth_dir = Path(a.truth)
    in_study = truth_dir / "labels" / "final"
    truth = read_markups_folder(in_study if in_study.is_dir() else truth_dir, task)
    predicted = read_markups_folder(a.predictions, task)
    pairs = {i: (p, truth[i]) for i, p in sorted(predicted.items()) if i in truth and truth[i].defined.any()}
    if not pairs:
        raise StudyError(f"no image of {a.predictions} has landmarks in {a.truth}")
    metrics = summarize(list(pairs.values()))
    if len(pairs) < len(predicted):
        print(f"landmarklabel: {len(predicted) - len(pairs)} predicted images have no truth", file=sys.stderr)
    if a.report:
        from landmarklabel.report.evaluation import write_evaluation

        images = find_images([str(truth_dir)]) if in_study.is_dir() else {}
        write_evaluation(a.report, task, pairs, metrics, images)
    if a.json:
        print(json.dumps(metrics, allow_nan=False))
    else:
        print(f"{metrics['n_images']} images: {_line(metrics)}")
        if a.report:
            print(f"report: {a.report}")


def _line(metrics: dict) -> str:
    if metrics.get("mre_mm") is None:
        return "no landmark found"
    sdr, outliers = metrics["sdr"], metrics["outliers"]
    return (
        f"MRE {metrics['mre_mm']:.3f} mm, median {metrics['median_mm']:.3f}, within 2/2.5/3/4 mm "
        f"{sdr['2']:.1f}/{sdr['2.5']:.1f}/{sdr['3']:.1f}/{sdr['4']:.1f} %, beyond 10 mm {outliers['10']} of {metrics['n_points']}"
    )
