"""Faults of a study that a program can see: images that cannot be read, points outside of them or where no others lie."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
from sqlalchemy import URL

from landmarklabel.data.shape_outliers import OutlierConfig, shape_outliers
from landmarklabel.errors import LandmarkLabelError, StudyError
from landmarklabel.io.bounds_check import check_inside
from landmarklabel.io.images import Description, describe_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.services.descriptions import shown_length
from landmarklabel.store.revisions import RevisionStore


@contextmanager
def revisions_as_they_are(own: Path, url: str | None) -> Iterator[tuple[RevisionStore, bool]]:
    """The revisions of a study's ``.landmarklabel``, and whether they may be written: if not, a copy is looked at.

    Raises:
        StudyError: they may not even be read. StoreFault: they cannot be used.
    """
    database = own.absolute() / "revisions.sqlite"
    writable = url is not None or (os.access(own, os.W_OK) and os.access(database, os.W_OK))
    with tempfile.TemporaryDirectory() as place:
        if not writable:
            try:
                database = _copied(database, Path(place))
            except OSError as error:
                raise StudyError(f"{database} cannot be read ({error.strerror or error}); run doctor as a user who may") from None
        revisions = RevisionStore(url or URL.create("sqlite", database=str(database)))
        try:
            yield revisions, writable
        finally:
            revisions.close()


def _copied(database: Path, place: Path) -> Path:
    """A copy of a database that this user may not write. Raises OSError."""
    copy = place / database.name
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as now, closing(sqlite3.connect(copy)) as new:
            now.backup(new)
    except sqlite3.Error:  # of one that nobody has open SQLite may not make the files beside it; nobody writes it then
        copy.unlink(missing_ok=True)
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{database}{suffix}", f"{copy}{suffix}")
    return copy


def look_at_images(images: Mapping[str, Path], dims: int) -> tuple[dict[str, Description], list[str]]:
    """What the images' headers say, and why those that are missing cannot be read."""
    found, faults = {}, []
    for image_id, path in images.items():
        try:
            found[image_id] = describe_image(path, dims)
        except LandmarkLabelError as error:
            faults.append(str(error))
    return found, faults


def points_outside(labelled: Mapping[str, LandmarkSet], images: Mapping[str, Description]) -> list[str]:
    """A text for each image with points outside of it."""
    faults = []
    for image_id, landmarks in labelled.items():
        if image_id in images:
            try:
                check_inside(landmarks, images[image_id].geometry, image_id, option="import --allow-outside MM")
            except LandmarkLabelError as error:
                faults.append(str(error))
    return faults


def unlabelled_landmarks(labelled: Mapping[str, LandmarkSet], task: LandmarkTask) -> list[str]:
    """Names of landmarks of which no case says anything; empty without cases."""
    if not labelled:
        return []
    stated = np.any([x.by_person for x in labelled.values()], axis=0)
    return [name for name, known in zip(task.names, stated, strict=True) if not known]


def not_compared(labelled: Mapping[str, LandmarkSet]) -> list[str]:
    """Names of landmarks that ``odd_shapes`` says nothing of, because too few cases have them."""
    least = OutlierConfig().min_cases
    counts = np.sum([x.stated().defined for x in labelled.values()], axis=0) if labelled else np.zeros(0)
    names = next(iter(labelled.values())).task.names if labelled else ()
    return [name for name, count in zip(names, counts, strict=True) if 0 < count < least]


def odd_shapes(labelled: Mapping[str, LandmarkSet], images: Mapping[str, Description]) -> list[str]:
    """A text for each point of a person that lies far from where the other points of its case expect it."""
    out = []
    for o in shape_outliers({i: x.stated() for i, x in labelled.items()}):
        size, unit = shown_length(labelled[o.image_id].task, images[o.image_id].unit if o.image_id in images else "mm")
        usual = f"half of the cases: {size * o.typical_mm:.1f}"
        out.append(f"{o.image_id}: {o.name} is {size * o.off_mm:.1f} {unit} from where its others expect it ({usual})")
    return out
