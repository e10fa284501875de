"""``evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from landmarklabel.cli.import_labels import read_markups_folder
from landmarklabel.errors import StudyError, listed
from landmarklabel.io.folders import find_images
from landmarklabel.io.long_tables import is_long, mean_of_readers, read_long_table
from landmarklabel.io.prediction_folder import read_notes
from landmarklabel.io.tables import first_row, read_table
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.metrics import summarize, unit_of
from landmarklabel.services.descriptions import image_unit
from landmarklabel.store.study_task import check_same_task
from landmarklabel.tasks import resolve_study_task


def evaluate(args: argparse.Namespace) -> None:
    """Print metrics of predictions against the truth; optionally write a report."""
    place = Path(args.truth)
    task = resolve_study_task(args.task, place)
    check_same_task(place, task, exactly=True)
    in_study = (place / "labels" / "final").is_dir()
    images = find_images([args.images or place]).paths if args.images or in_study else {}
    truth, remarks = _truth(place, task, images)
    predicted, notes = read_markups_folder(args.predictions, task, images), read_notes(args.predictions)
    both = [i for i in sorted(predicted) if i in truth and truth[i].defined.any()]
    if not both:
        raise StudyError(f"no image of {args.predictions} has landmarks in {args.truth}")
    trained_on = [i for i in both if notes.get(i, {}).get("trained_on") is True]
    used = both if args.include_training else [i for i in both if i not in set(trained_on)]
    if not used:
        raise StudyError(
            f"all {len(both)} images were used to train the model that predicted them: how well it finds landmarks shows on "
            "others only; --include-training measures it all the same"
        )
    unit = unit_of(task, (_unit(i, images, notes) for i in used))
    pairs = {i: (predicted[i], truth[i]) for i in used}
    metrics = summarize(list(pairs.values()), unit=unit)
    metrics["training_images"] = trained_on
    missing = sorted(i for i, x in truth.items() if x.defined.any() and i not in predicted)
    for text in [*remarks, *_remarks(args, len(predicted) - len(both), trained_on, missing)]:
        print(f"landmarklabel: {text}", file=sys.stderr)
    if args.report:
        from landmarklabel.report.evaluation import write_evaluation

        write_evaluation(args.report, task, pairs, metrics, images)
    if args.json:
        print(json.dumps(metrics, allow_nan=False))
    else:
        print(f"{metrics['n_images']} images: {metrics_line(metrics)}")
        if args.report:
            print(f"report: {args.report}")


def _truth(place: Path, task: LandmarkTask, images: Mapping[str, Path]) -> tuple[dict[str, LandmarkSet], list[str]]:
    """Landmarks by image id of a study, a folder of label files, or a table of either kind, and remarks on what was left out."""
    if place.is_file():
        if not is_long(first_row(place), task.dims):
            return read_table(place, task), []
        by_reader, remarks = read_long_table(place, task)
        ids = dict.fromkeys(i for sets in by_reader.values() for i in sets)
        return {i: mean_of_readers([sets[i] for sets in by_reader.values() if i in sets]) for i in ids}, remarks
    if not place.exists():
        raise StudyError(f"{place}: no such file or folder")
    labels = place / "labels" / "final"
    return read_markups_folder(labels if labels.is_dir() else place, task, images), []


def _unit(image_id: str, images: Mapping[str, Path], notes: Mapping[str, dict]) -> str:
    if noted := notes.get(image_id, {}).get("unit"):
        return str(noted)
    return image_unit(images[image_id]) if image_id in images else "mm"


def _remarks(args: argparse.Namespace, without_truth: int, trained_on: list[str], missing: list[str]) -> list[str]:
    remarks = [f"{without_truth} predicted images have no truth"] if without_truth else []
    if missing:
        remarks.append(f"{len(missing)} images of the truth have no prediction and do not count: {listed(missing)}")
    if trained_on:
        some = listed(trained_on)
        what = "are among these" if args.include_training else "are left out (--include-training has them)"
        remarks.append(f"{len(trained_on)} images that the model was trained on {what}: {some}")
    return remarks


def metrics_line(metrics: dict) -> str:
    """The metrics of ``summarize`` in one line."""
    if metrics.get("mre_mm") is None:
        return "no landmark found"
    sdr, outliers, unit = metrics["sdr"], metrics["outliers"], metrics.get("unit", "mm")
    return (
        f"MRE {metrics['mre_mm']:.3f} {unit}, median {metrics['median_mm']:.3f}, within 2/2.5/3/4 {unit} "
        f"{sdr['2']:.1f}/{sdr['2.5']:.1f}/{sdr['3']:.1f}/{sdr['4']:.1f} %, beyond 10 {unit} "
        f"{outliers['10']} of {metrics['n_points']}"
    )
