"""``evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from landmarklabel.cli.surfaces import SurfacesRead, stated_surfaces
from landmarklabel.errors import FaultsError, listed
from landmarklabel.io.folders import Found
from landmarklabel.io.surface_formats import check_unit
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.services.descriptions import check_scale, unit_lookup
from landmarklabel.services.evaluations import compare, metrics_line
from landmarklabel.services.label_folders import images_beside, read_label_folder, read_many
from landmarklabel.services.predicted_images import of_models, other_pixels
from landmarklabel.store.pixels import hashes_of
from landmarklabel.store.study_task import check_same_task
from landmarklabel.tasks import resolve_study_task


def evaluate(args: argparse.Namespace) -> None:
    """Print metrics of predictions against the truth; optionally write a report."""
    place = Path(args.truth)
    task = resolve_study_task(args.task, place)
    check_same_task(place, task, exactly=True)
    images = images_beside(place, args.images)
    if args.report:
        check_unit(images, args.mesh_unit)
    truth, remarks = read_many(place, task, images)
    predicted, notes, of_them = of_models(args.predictions, read_label_folder(args.predictions, task, images))
    check_scale(task, sorted(predicted), notes, images)
    done = compare(
        task,
        predicted,
        truth,
        unit=unit_lookup(notes, images),
        trained_on=[i for i, note in notes.items() if note.get("trained_on") is True],
        include_training=args.include_training,
        places=(args.predictions, args.truth),
    )
    other = other_pixels(notes, images, done.pairs, hashes_of(place, task.dims))
    for text in [*remarks, *of_them, *other, *done.remarks]:
        print(f"landmarklabel: {text}", file=sys.stderr)
    if args.report:
        from landmarklabel.report.evaluation import write_evaluation

        with tempfile.TemporaryDirectory(prefix="landmarklabel-") as stated:
            compared = {i: path for i, path in images.items() if i in done.pairs}
            surfaces = stated_surfaces(found := Found(compared), args, Path(stated))
            said = [f"{listed(ids)}: {text}" for text, ids in surfaces.remarks.items()]
            said += [f"no picture: {text}" for text in surfaces.unreadable.values()]
            said += _off_surface(surfaces, found.paths, {i: truth for i, (_, truth) in done.pairs.items()})
            write_evaluation(args.report, task, done.pairs, done.metrics, found.paths, of_them)
        for text in said:
            print(f"landmarklabel: {text}", file=sys.stderr)
    if args.json:
        print(json.dumps(done.metrics, allow_nan=False))
    else:
        print(f"{done.metrics['n_images']} images: {metrics_line(done.metrics)}")
        if args.report:
            print(f"report: {args.report}")


def _off_surface(surfaces: SurfacesRead, paths: Mapping[str, Path], truth: Mapping[str, LandmarkSet]) -> list[str]:
    """Of which surfaces the unit or frame was said wrongly, as the true landmarks tell: pictures show these beside it."""
    said = []
    for image_id, path in sorted(paths.items()):
        try:
            surfaces.check(image_id, path, truth[image_id], f"landmarks of {image_id}")
        except FaultsError as error:  # or the surface is damaged
            said.append(str(error))
    return said
