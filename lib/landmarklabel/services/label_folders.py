"""Landmarks of many images, read from where people keep them: a study, a folder of label files, or a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from landmarklabel.errors import LandmarkFileError, StudyError, UsageError, counted, listed
from landmarklabel.io.folders import find_images, find_label_files
from landmarklabel.io.long_tables import NOBODY, is_long, mean_of_readers, read_long_table
from landmarklabel.io.markups import read_markups
from landmarklabel.io.tables import first_row, read_table
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.scale_rules import in_words
from landmarklabel.services.descriptions import image_plane
from landmarklabel.store.checks import KEPT, of_this_image, only_checks
from landmarklabel.store.opening import recorded_task
from landmarklabel.store.revisions import Revision
from landmarklabel.store.study_changes import BY_VERB
from landmarklabel.store.study_task import read_record

if TYPE_CHECKING:
    from landmarklabel.store.study import Study


def read_label_folder(
    folder: str | Path,
    task: LandmarkTask,
    images: Mapping[str, Path],
    taken: Callable[[LandmarkSet, str], LandmarkSet] = lambda landmarks, _: landmarks,
) -> dict[str, LandmarkSet]:
    """Landmarks of every .mrk.json and .fcsv in a folder, by image id.

    Args:
        folder: with the files.
        task: that they are of.
        images: id to file, as far as they are known: a 2D task's image may be a slice of a volume, on which its points lie.
        taken: what becomes of each set, given the file it is from.

    Raises:
        LandmarkFileError: naming every bad file, and files that are of one image.
    """
    out, faults = {}, []
    for image_id, path in find_label_files(folder).paths.items():
        plane = image_plane(images[image_id], task.dims) if image_id in images else None
        try:
            out[image_id] = taken(read_markups(path, task, plane), str(path))
        except LandmarkFileError as error:
            faults.append(str(error))
    if faults:
        raise LandmarkFileError(str(folder), faults)
    return out


def is_study_folder(place: Path) -> bool:
    """Whether a folder has labels as a study keeps them."""
    return (place / "labels" / "final").is_dir()


def images_beside(place: Path, images: str | Path | None = None) -> dict[str, Path]:
    """The images that were named, or those of a study; none elsewhere."""
    return find_images([images or place]).paths if images or is_study_folder(place) else {}


def read_readers(place: str | Path, task: LandmarkTask, images: Mapping[str, Path]) -> dict[str, dict[str, LandmarkSet]]:
    """Landmarks by reader and image id: of a long table with a column of readers, or of everybody who has labelled in a study.

    Of a study only independent readings count: what was imported of each person, otherwise the revisions of the one who labelled
    the case first, until somebody else changes it; and second readings, by the same person called ``NAME, second``. Whoever
    corrects, restores, renames or calls right what another has placed has not read the case alone; and what was read on another
    image, before this one was put in its place, is no reading of it.
    Proposals that nobody confirmed count for nobody's reading.

    Raises:
        UsageError: a folder or table that names no readers. LandmarkFileError.
    """
    place = Path(place)
    if place.is_file() and is_long(first_row(place), task.dims):
        readers = read_long_table(place, task)[0]
        stated = {who: {i: x.stated() for i, x in sets.items() if x.by_person.any()} for who, sets in readers.items()}
        return {who: sets for who, sets in stated.items() if sets}
    if not is_study_folder(place):
        what = "has no column annotator, which says who placed each point" if place.is_file() else "names no readers"
        raise UsageError(f"{place} {what}: give a study, or a table of one row a point with a column annotator")
    from landmarklabel.store.study import Study

    found: dict[str, dict[str, LandmarkSet]] = {}
    study = Study(place, recorded_task(place) or task)  # not the task given: to open a study with that would change the study
    try:
        study.verify()  # before it is asked which labels are in doubt
        histories = {image_id: study.history(image_id) for image_id in study.labelled()}
        for image_id, history in histories.items():
            for revision in of_this_image(_independent(study, history), history):
                found.setdefault(revision.author or NOBODY, {})[image_id] = study.read(revision).stated()
        first = {who: set(sets) for who, sets in found.items()}
        for image_id, further in study.repeats().items():
            for revision in of_this_image(further, histories.get(image_id, [])):  # of one that was mended, the newest counts
                who = revision.author or NOBODY
                name = f"{who}, second" if image_id in first.get(who, ()) else who
                found.setdefault(name, {})[image_id] = study.read(revision).stated()
    finally:
        study.close()
    return {who: {i: replace(x, task=task) for i, x in sets.items()} for who, sets in found.items()}


def readings_in(place: Path, task: LandmarkTask, images: Mapping[str, Path]) -> dict[str, dict[str, LandmarkSet]]:
    """As ``read_readers``; nothing where no reader is named, or a study is only read as the files it has."""
    names_readers = _own_task(place) is not None if place.is_dir() else is_long(first_row(place), task.dims)
    return read_readers(place, task, images) if names_readers else {}


def _independent(study: Study, history: Sequence[Revision]) -> Iterator[Revision]:
    """The revisions of a case that somebody made without another's points before their eyes, oldest first."""
    first, apart = None, any(r.source == "import" != r.author for r in history)
    for before, revision in pairwise([None, *history]):
        assert revision is not None  # only ``before`` may be
        if only_checks(study.read, revision, before) or revision.source.startswith(("restored", KEPT, BY_VERB)):
            continue
        if apart and revision.source == "import" == revision.author:
            continue  # the mean of the readers that were imported one by one
        if revision.source == "import":
            yield revision
            first = first or "\0"  # whoever goes on sees what was imported
        elif first in (None, revision.author):
            first = revision.author
            yield revision
        else:
            return


def _own_task(place: Path) -> LandmarkTask | None:
    """Of a study that can be opened here; None elsewhere: label files are read as they are."""
    record = read_record(place) if place.is_dir() else None
    if record is None or record.elsewhere or not os.access(place / ".landmarklabel", os.W_OK):
        return None
    return recorded_task(place)


def _of_study(place: Path, own: LandmarkTask, task: LandmarkTask) -> tuple[dict[str, LandmarkSet], list[str]]:
    from landmarklabel.store.study import Study

    study = Study(place, own)
    try:
        study.take_in_edits()
        study.verify()  # before it is asked which labels are in doubt
        remarks, sets = study.sync(), study.newest()
        heads = {i: study.read(head) for i, head in study.heads().items() if i in study.images() and i not in study.changed()}
    finally:
        study.close()
    if only := sorted(i for i, x in heads.items() if i not in sets and x.defined.any()):
        remarks.append(f"left out, with proposals only: {counted(len(only), 'case')} ({listed(only)})")
    if own.scale != task.scale:
        remarks.append(f"the scale rule of --task counts ({in_words(task.scale)}), not the study's own ({in_words(own.scale)})")
    return {i: replace(x, task=task) for i, x in sets.items()}, remarks


def read_many(place: str | Path, task: LandmarkTask, images: Mapping[str, Path]) -> tuple[dict[str, LandmarkSet], list[str]]:
    """Landmarks by image id of a study, a folder of label files, or a table of either kind, and remarks on what was left out.

    Of a study, what it calls labels: of images that are there, and are those that were labelled.

    Raises:
        StudyError: nothing is there. LandmarkFileError.
    """
    place = Path(place)
    if (own := _own_task(place)) is not None:
        return _of_study(place, own, task)
    if place.is_file():
        if not is_long(first_row(place), task.dims):
            return read_table(place, task), []
        by_reader, remarks = read_long_table(place, task)
        if len(by_reader) > 1:
            remarks = [
                *remarks,
                f"{place.name} has {len(by_reader)} readers ({listed(sorted(by_reader))}): of each case their mean is taken",
            ]
        ids = dict.fromkeys(i for sets in by_reader.values() for i in sets)
        return {i: mean_of_readers([sets[i] for sets in by_reader.values() if i in sets]) for i in ids}, remarks
    if not place.exists():
        raise StudyError(f"{place}: no such file or folder")
    return read_label_folder(place / "labels" / "final" if is_study_folder(place) else place, task, images), []
