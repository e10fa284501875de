"""``evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from landmarklabel.cli.import_labels import read_markups_folder
from landmarklabel.errors import StudyError
from landmarklabel.io.folders import find_images
from landmarklabel.metrics import summarize
from landmarklabel.store.study_task import check_same_task
from landmarklabel.tasks import resolve_study_task


def evaluate(a: argparse.Namespace) -> None:
    """Print metrics of predictions against the truth; optionally write a report."""
    truth_dir = Path(a.truth)
    task = resolve_study_task(a.task, truth_dir)
    check_same_task(truth_dir, task, exactly=True)
    in_study = truth_dir / "labels" / "final"
    images = find_images([truth_dir]).paths if in_study.is_dir() else {}
    truth = read_markups_folder(in_study if in_study.is_dir() else truth_dir, task, images)
    predicted = read_markups_folder(a.predictions, task, images)
    pairs = {i: (p, truth[i]) for i, p in sorted(predicted.items()) if i in truth and truth[i].defined.any()}
    if not pairs:
        raise StudyError(f"no image of {a.predictions} has landmarks in {a.truth}")
    metrics = summarize(list(pairs.values()))
    if len(pairs) < len(predicted):
        print(f"landmarklabel: {len(predicted) - len(pairs)} predicted images have no truth", file=sys.stderr)
    if a.report:
        from landmarklabel.report.evaluation import write_evaluation

        write_evaluation(a.report, task, pairs, metrics, images)
    if a.json:
        print(json.dumps(metrics, allow_nan=False))
    else:
        print(f"{metrics['n_images']} images: {metrics_line(metrics)}")
        if a.report:
            print(f"report: {a.report}")


def metrics_line(metrics: dict) -> str:
    """The metrics of ``summarize`` in one line."""
    if metrics.get("mre_mm") is None:
        return "no landmark found"
    sdr, outliers = metrics["sdr"], metrics["outliers"]
    return (
        f"MRE {metrics['mre_mm']:.3f} mm, median {metrics['median_mm']:.3f}, within 2/2.5/3/4 mm "
        f"{sdr['2']:.1f}/{sdr['2.5']:.1f}/{sdr['3']:.1f}/{sdr['4']:.1f} %, beyond 10 mm {outliers['10']} of {metrics['n_points']}"
    )
