"""``predict``."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from landmarklabel.cli.progress import followed
from landmarklabel.cli.surfaces import SurfacesRead, stated_surfaces
from landmarklabel.errors import ImageRejected, LandmarkLabelError, StudyError, UsageError, counted, listed
from landmarklabel.inference.configuration import EXTENT
from landmarklabel.inference.model_card import cautions, hardly_trained
from landmarklabel.io.folders import Found as Images
from landmarklabel.io.folders import find_images
from landmarklabel.io.images import read_image, slice_plane
from landmarklabel.io.locks import NOT_LOCKED
from landmarklabel.io.markups import read_markups
from landmarklabel.io.pixels import pixel_hash
from landmarklabel.io.prediction_folder import TABLE, Found, PredictionFolder
from landmarklabel.io.surface_volumes import onto_surface, surface_at
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.store.study_task import check_same_task

if TYPE_CHECKING:
    from landmarklabel.inference.ensemble import Ensemble

_STAYS = "its earlier prediction stays in"


def predict(args: argparse.Namespace) -> int:
    """Predict images one by one; what this model predicted of the same pixels before is kept."""
    from landmarklabel.networks.devices import use_all_cores

    use_all_cores()
    with tempfile.TemporaryDirectory(prefix="landmarklabel-") as place:
        found = find_images(args.images)
        return _predict_found(args, found, stated_surfaces(found, args, Path(place)))


def _predict_found(args: argparse.Namespace, found: Images, surfaces: SurfacesRead) -> int:
    from landmarklabel.inference.ensemble import Ensemble
    from landmarklabel.inference.model_folder import load_model
    from landmarklabel.networks.devices import choose_device

    images = _images(args, found, surfaces)
    records = _records(args.model, *args.also)
    device = choose_device(args.device)
    model = Ensemble([load_model(folder, device=device) for folder in (args.model, *args.also)])
    for place in args.images:
        check_same_task(place, model.task, exactly=True)  # where it is a study
    rows: dict[str, LandmarkSet] = {}
    failed, doubtful = [*surfaces.unreadable.values()], list[str]()
    said = dict.fromkeys(text for record in records for text in cautions(record))  # each once
    kept: list[str] = [*said, *(f"{listed(ids)}: {text}" for text, ids in surfaces.remarks.items())]
    with PredictionFolder(args.out, _hash(records)) as folder:
        folder.check_tables()
        if not folder.is_locked:
            kept.append(f"{args.out}: {NOT_LOCKED}")
        for image_id, path in followed(images, "predict"):
            try:
                rows[image_id] = _predict_one(folder, model, records, image_id, path, kept, doubtful)
            except ImageRejected as error:
                failed.append(str(error) + _what_stays(folder, image_id))
            except LandmarkLabelError as error:
                failed.append(str(error))
            except MemoryError:
                failed.append(f"{image_id}: it needs more memory than there is" + _what_stays(folder, image_id))
        if rows or not failed:
            folder.write_tables(rows)
            if any(_STAYS in text for text in failed):
                kept.append(f"{TABLE} has no row for images that could not be predicted now")
        else:
            kept.append(f"no image could be predicted: {TABLE}, if there was one, stays as it was")
    if doubtful:
        kept.append(f"look at these, whose points contradict the others of their image: {listed(doubtful, longest=300)}")
    together = f", {len(records)} models together" if len(records) > 1 else ""
    print(f"{folder.folder}: {counted(len(rows), 'image')}{together}")
    for text in [*kept, *failed]:
        print("landmarklabel: " + " ".join(text.split()), file=sys.stderr)
    if failed:
        raise StudyError(f"{len(failed)} of {len(images) + len(surfaces.unreadable)} images could not be predicted, see above")
    return 0


def _images(args: argparse.Namespace, found: Images, surfaces: SurfacesRead) -> dict[str, Path]:
    """What is to be predicted. Raises StudyError where that is nothing."""
    images = found.paths
    for name, why in found.left_out.items():
        print(f"landmarklabel: left out: {name} ({why})", file=sys.stderr)
    if not images:
        for text in surfaces.unreadable.values():
            print(f"landmarklabel: {text}", file=sys.stderr)
        raise StudyError(f"no images in {', '.join(args.images)}")
    if Path(args.out).resolve() in {path.parent.resolve() for path in images.values()}:
        text = "what is predicted lies among the images: an import of that folder will name it as left out"
        print(f"landmarklabel: {args.out}: {text}", file=sys.stderr)
    return images


def _records(*folders: str) -> list[dict]:
    """The models' records, in this order. Raises ModelError, and UsageError where two models are the same."""
    from landmarklabel.inference.model_record import read_record

    records: list[dict] = []
    for folder in folders:
        record = read_record(folder)
        if any(record.get("weights_sha256") == other.get("weights_sha256") for other in records):
            raise UsageError(f"--also {folder}: this model is named twice; give each once")
        records.append(record)
    return records


def _hash(records: list[dict]) -> str:
    """Of all that the models' answer depends on: their records, which have the hashes of their weights."""
    of_each = [hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest() for record in records]
    return of_each[0] if len(of_each) == 1 else hashlib.sha256(" ".join(of_each).encode()).hexdigest()


def _predict_one(
    folder: PredictionFolder,
    model: Ensemble,
    records: list[dict],
    image_id: str,
    path: Path,
    kept: list[str],
    doubtful: list[str],
) -> LandmarkSet:
    """The landmarks that the folder's file has in the end; ``kept`` gets a line where a person changed it, ``doubtful`` one
    where points are flagged."""
    target = folder.path(image_id)
    folder.check(target.name)  # before the image is read
    image, plane = read_image(path, model.task.dims), slice_plane(path, model.task.dims)
    pixels = pixel_hash(image)
    found = folder.find(image_id, pixels)
    if found is Found.CHANGED_OTHER:
        raise StudyError(f"{target} is of another image and was changed by hand since; move it away to predict this one")
    if found is Found.CHANGED:
        kept.append(f"{target} kept: changed by hand since")
    flagged = None
    if found in (Found.NOTHING, Found.OTHER):
        case = model.case(image_id, image)
        model.check_extent(case)
        if (windows := model.count_windows(case)) > EXTENT.many_windows:
            text = f"{image_id} is much larger than the images of the training: {windows} windows are looked at, which takes long"
            print(f"landmarklabel: {text}", file=sys.stderr, flush=True)
        landmarks, flagged = model.propose(case)
        landmarks, moved = onto_surface(landmarks, surface_at(path) if model.task.dims == 3 else None)
        folder.write(image_id, pixels, landmarks, model.preset.key, plane)
        if np.isfinite(moved).any():
            where = f"median {np.nanmedian(moved):.3g} mm, at most {np.nanmax(moved):.3g} mm"
            kept.append(f"{image_id}: points put onto the nearest place of the surface ({where})")
    known = any(pixels in (record.get("train_pixels") or ()) for record in records)
    folder.tell(image_id, image.unit, trained_on=known, hardly_trained=any(map(hardly_trained, records)), flagged=flagged)
    if found is not Found.CHANGED and (names := folder.flagged(image_id)):
        doubtful.append(f"{image_id} ({listed(names)})")
    return read_markups(target, model.task, plane)


def _what_stays(folder: PredictionFolder, image_id: str) -> str:
    """A word on the earlier prediction of an image that cannot be read now."""
    target = folder.path(image_id)
    return f" ({_STAYS} {target})" if target.exists() else ""
