"""``compare``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from landmarklabel.services.descriptions import check_scale, unit_lookup
from landmarklabel.services.evaluations import Comparison
from landmarklabel.services.evaluations import compare as hold_against
from landmarklabel.services.label_folders import images_beside, read_label_folder, read_many
from landmarklabel.services.paired_comparison import comparison_lines, paired_comparison
from landmarklabel.services.predicted_images import of_models, other_pixels
from landmarklabel.store.pixels import hashes_of
from landmarklabel.store.study_task import check_same_task
from landmarklabel.tasks import resolve_study_task


def compare(args: argparse.Namespace) -> None:
    """Print which of two predictions is nearer to the truth, and by how much."""
    place = Path(args.truth)
    task = resolve_study_task(args.task, place)
    check_same_task(place, task, exactly=True)
    images = images_beside(place, args.images)
    truth, remarks = read_many(place, task, images)
    said = list(remarks)
    both: list[Comparison] = []
    known = hashes_of(place, task.dims)
    for name, folder in (("A", args.predictions_a), ("B", args.predictions_b)):
        predicted, notes, of_them = of_models(folder, read_label_folder(folder, task, images))
        check_scale(task, sorted(predicted), notes, images)
        done = hold_against(
            task,
            predicted,
            truth,
            unit=unit_lookup(notes, images),
            trained_on=[i for i, note in notes.items() if note.get("trained_on") is True],
            include_training=args.include_training,
            places=(folder, args.truth),
        )
        other = other_pixels(notes, images, done.pairs, known)
        said += [f"{name}: {text}" for text in [*of_them, *other, *done.remarks]]
        both.append(done)
    found = paired_comparison(both[0], both[1])
    for text in said:
        print(f"landmarklabel: {text}", file=sys.stderr)
    if args.json:
        print(json.dumps(found, allow_nan=False))
        return
    print("\n".join(comparison_lines(found)))
