"""``simulate``: an annotator who knows the truth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from landmarklabel.errors import FaultsError, StudyError, UsageError
from landmarklabel.io.tables import read_ids
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_task


def clicks(a: argparse.Namespace) -> None:
    """Print and plot error against clicks, assisted and alone."""
    from landmarklabel.active.annotator import click_through, summarize_clicks
    from landmarklabel.inference.model import load_model
    from landmarklabel.io.images import read_image
    from landmarklabel.networks.precision import choose_device
    from landmarklabel.training.loop import use_all_cores

    if a.clicks < 1:
        raise UsageError(f"--clicks {a.clicks} must be at least 1")
    task = resolve_task(a.task)
    use_all_cores()
    model = load_model(a.model, task, choose_device(a.device))
    if not Path(a.study).is_dir():
        raise StudyError(f"{a.study}: no such study folder; landmarklabel import makes one")
    study = Study(a.study, task)
    labels = _chosen(study, a.only)
    if model.prior is None:
        print("landmarklabel: the model has no shape prior: clicks move nothing else", file=sys.stderr)
    played = {}
    for image_id, truth in tqdm(labels.items(), desc="clicks", unit="image", disable=None):
        try:
            image = read_image(study.image_path(image_id), task.dims)
        except FaultsError as error:
            print(f"landmarklabel: {error}", file=sys.stderr)
            continue
        played[image_id] = click_through(model, model.case(image_id, image, truth))
    if not played:
        raise StudyError(f"{a.study}: no labelled image could be read")
    result = summarize_clicks(list(played.values()), a.clicks)
    if a.report:
        from landmarklabel.report.clicks import write_clicks

        write_clicks(a.report, task, played, result)
    if a.json:
        print(json.dumps(result, allow_nan=False))
        return
    _print(result, a.clicks)
    if a.report:
        print(f"report: {a.report}")


def _chosen(study: Study, only: str | None) -> dict[str, LandmarkSet]:
    labels = {i: landmarks for i, landmarks in study.labelled().items() if landmarks.defined.any()}
    if only:
        wanted = read_ids(only)
        if unknown := sorted(set(wanted) - set(labels)):
            raise StudyError(f"--only names {len(unknown)} images without labels in the study, first {unknown[0]!r}")
        labels = {i: labels[i] for i in wanted}
    if not labels:
        raise StudyError(f"{study.folder}: no labelled image")
    return labels


def _print(result: dict, clicks: int) -> None:
    print("clicks    " + "".join(f"{k:>8}" for k in range(clicks + 1)))
    for name, key in (("assisted", "mre_mm"), ("alone", "alone_mre_mm")):
        print(f"{name:<10}" + "".join("       -" if e is None else f"{e:8.2f}" for e in result[key]) + "  mm")
    for radius in result["noc"]:
        needed = result["noc"][radius]
        print(f"clicks until every point is within {radius} mm: {needed['assisted']:.1f} assisted, {needed['alone']:.1f} alone")
