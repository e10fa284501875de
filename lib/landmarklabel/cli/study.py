"""``task new`` and ``import``."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from landmarklabel.errors import Conflict, LandmarkFileError, LandmarkLabelError, StudyError, TaskError, UsageError
from landmarklabel.io.files import MARKUPS_SUFFIX, image_id_of, images_in, is_dicom_folder, write_json
from landmarklabel.io.images import read_image
from landmarklabel.io.markups import read_markups
from landmarklabel.io.masks import read_masks
from landmarklabel.io.seeds import mean_points, read_isbi, read_voxels, text_files
from landmarklabel.io.tables import read_ids, read_table
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule
from landmarklabel.store.bodies import same_landmarks
from landmarklabel.store.study import Study
from landmarklabel.store.study_changes import BY_VERB
from landmarklabel.store.study_task import check_same_task
from landmarklabel.tasks import resolve_study_task


def new_task(a: argparse.Namespace) -> None:
    """Write a task file."""
    if a.example:
        task = read_markups(a.example).task
        names, definitions = task.names, dict(task.definitions)
    else:
        names, definitions = _read_names(Path(a.names))
    scale = None
    if a.scale:
        try:
            scale = ScaleRule(a.scale[0], a.scale[1], float(a.scale[2]))
        except ValueError:
            raise TaskError("--scale", [f"{a.scale[2]!r} is not a number of millimetres"]) from None
    task = LandmarkTask(a.name, tuple(names), a.dims or 3, definitions, scale=scale)
    write_json(a.out, task.to_json())
    print(f"{a.out}: task {task.name!r} with {len(task)} landmarks in {task.dims}D")


def _read_names(path: Path) -> tuple[list[str], dict[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise TaskError(str(path), [f"cannot be read as a list of names ({error})"]) from None
    rows = [line.partition("\t") for line in lines if line.strip()]
    return [name.strip() for name, _, _ in rows], {name.strip(): text.strip() for name, _, text in rows if text.strip()}


def import_study(a: argparse.Namespace) -> None:
    """Copy images and landmarks into a study; what is already there and equal is left alone."""
    task = resolve_study_task(a.task, a.study, url=a.store)
    check_same_task(a.study, task)
    images = find_images([a.images])
    labels = _labels(a, task, images)
    wanted = set(read_ids(a.only)) if a.only else None
    if wanted is not None:
        missing = sorted(wanted - set(images))
        if missing:
            raise StudyError(f"--only names {len(missing)} images that are not in {a.images}, for example {missing[0]!r}")
        images = {i: p for i, p in images.items() if i in wanted}
    if not images:
        raise StudyError(f"no images in {a.images}")
    study, refused, saved, corrected = Study(a.study, task, a.store), [], 0, []
    for text in [*study.notices, *study.take_in_edits()]:  # what people changed in label files comes before what is imported
        print(f"landmarklabel: {text}", file=sys.stderr)
    for image_id, path in tqdm(images.items(), desc="import", unit="image", disable=None):
        try:
            given = labels.get(image_id, [])
            if any(not isinstance(x, LandmarkSet) for _, x in given):  # index points, which only the image can place
                geometry = read_image(path, task.dims).geometry
                given = [(who, x.on(geometry)) for who, x in given]
            study.add_image(image_id, path)
            if given and not a.replace and _corrected_since(study, image_id, given):
                corrected.append(image_id)
            else:
                saved += _save(study, image_id, given, a.replace)
        except Conflict:  # somebody saved in this very moment
            corrected.append(image_id)
        except LandmarkLabelError as error:
            refused.append(str(error))
    homeless = sorted(set(labels) - set(images)) if wanted is None else []
    print(f"{a.study}: {len(images) - len(refused)} images, {len(study.labelled())} labelled ({saved} new or changed)")
    for text in [*refused, *_remarks(a.study, homeless, sorted(study.changed() & set(labels)), corrected)]:
        print(f"landmarklabel: {text}", file=sys.stderr)
    study.close()
    if refused or corrected:
        what = [f"{len(refused)} of {len(images)} images"] if refused else []
        what += [f"the landmarks of {len(corrected)} images"] if corrected else []
        raise StudyError(f"{' and '.join(what)} were not imported, see above")


def _remarks(study: str, homeless: list[str], changed: list[str], corrected: list[str]) -> list[str]:
    """What was not done as the files say, one text a kind."""
    remarks = [f"{len(homeless)} labels have no image, for example {homeless[0]!r}"] if homeless else []
    if changed:
        remarks.append(
            f"{len(changed)} images are not those that were labelled, for example {changed[0]!r}, and are left out of training: "
            f"look at them, then submit their points or say: landmarklabel study keep-labels {study} {changed[0]}"
        )
    if corrected:
        remarks.append(
            f"{len(corrected)} cases were corrected by people since, for example {corrected[0]!r}: their landmarks stay as they "
            "are; --replace puts the imported ones above them"
        )
    return remarks


def _corrected_since(study: Study, image_id: str, given: list[tuple[str, LandmarkSet]]) -> bool:
    """Whether the newest landmarks are a person's own, and the import would put others above them."""
    history = [r for r in study.history(image_id) if not r.source.startswith(BY_VERB)]
    if not history or history[-1].source == "import":
        return False
    saved = [(r.author, study.read(r)) for r in history]
    return any(not any(who == w and same_landmarks(x, y) for w, y in saved) for who, x in given)


def _save(study: Study, image_id: str, given: list[tuple[str, LandmarkSet]], replace_newest: bool) -> int:
    """Append what was never imported of (author, landmarks), in this order.

    What was newest stays so where all of it was imported before, unless ``replace_newest``. Raises Conflict where somebody else
    saves meanwhile.
    """
    saved = [(r.author, study.read(r)) for r in study.history(image_id)]
    number = len(saved)
    new = [(who, x) for who, x in given if not any(who == w and same_landmarks(x, y) for w, y in saved)]
    if replace_newest and given and not same_landmarks((new or saved)[-1][1], given[-1][1]):
        new.append(given[-1])
    elif new and new[-1][1] is not given[-1][1]:  # the last one was imported before: what was newest stays newest
        new.append(saved[-1])
    for base, (author, landmarks) in enumerate(new, number):
        bare = replace(landmarks, expected_error_mm=None)
        study.save(image_id, bare, author=author, source="import", base_revision=base)
    return int(bool(new))


def _labels(a: argparse.Namespace, task: LandmarkTask, images: dict[str, Path]) -> dict[str, list[tuple]]:
    """Image id to (author, landmarks), oldest first; index points and masks get their places from the image later."""
    for option, of in (("annotators", "isbi"), ("rule", "masks")):
        if getattr(a, option) and not getattr(a, of):
            raise UsageError(f"--{option} goes with --{of} only")
    if a.isbi:
        return _annotators(a.isbi, a.annotators or "mean", task)
    if a.voxels:
        files = text_files(a.voxels)  # beside the images there may be other texts; they only count as without image
        points = read_voxels(a.voxels, {i: path for i, path in files.items() if i in images}, task)
        return {i: [("import", points[i])] if i in points else [] for i in files}
    if a.masks:
        if not a.rule:
            raise UsageError("--masks needs --rule centroid or --rule extremes")
        masks = tqdm(find_images([a.masks]).items(), desc="masks", unit="image", disable=None)
        sets = read_masks(a.masks, masks, task, a.rule)
    elif a.table:
        sets = read_table(a.table, task)
    else:
        sets = read_markups_folder(a.markups, task) if a.markups else {}
    return {image_id: [("import", landmarks)] for image_id, landmarks in sets.items()}


def _annotators(folders: list[str], whose: str, task: LandmarkTask) -> dict[str, list[tuple]]:
    """(author, points) of every image; folder names are the authors where both annotators are kept."""
    needed = {"mean": len(folders), "first": 1}.get(whose, 2)
    if len(folders) > 2 or len(folders) < needed:
        allowed = "two" if whose in ("second", "both") else "one or two"
        raise UsageError(f"--isbi got {len(folders)} folders; --annotators {whose} takes {allowed}")
    authors = [Path(os.path.abspath(folder)).name for folder in folders]
    if whose == "both" and authors[0] == authors[1]:
        raise UsageError(f"both --isbi folders are called {authors[0]!r}; rename one, their names become the authors")
    wanted = folders[1:] if whose == "second" else folders[:needed]
    points = [read_isbi(folder, task) for folder in wanted]
    newest = mean_points(*points) if len(points) == 2 else points[0]
    apart = list(zip(authors, points, strict=True)) if whose == "both" else []
    return {i: [*((who, own[i]) for who, own in apart), ("import", mean)] for i, mean in newest.items()}


def read_markups_folder(folder: str | Path, task: LandmarkTask) -> dict[str, LandmarkSet]:
    """Landmarks of every .mrk.json and .fcsv in a folder, by image id. Raises LandmarkFileError naming every bad file."""
    out, faults = {}, []
    if not Path(folder).is_dir():
        raise StudyError(f"{folder} is not a folder")
    for path in sorted(Path(folder).iterdir()):
        suffix = next((s for s in (MARKUPS_SUFFIX, ".fcsv") if path.name.endswith(s)), None)
        if suffix is None or path.name.startswith("."):
            continue
        try:
            out[path.name[: -len(suffix)]] = read_markups(path, task)
        except LandmarkFileError as error:
            faults.append(str(error))
    if faults:
        raise LandmarkFileError(str(folder), faults)
    return out


def find_images(paths: list[str]) -> dict[str, Path]:
    """Image id to file or DICOM folder, from files and folders of images."""
    out: dict[str, Path] = {}
    for place in map(Path, paths):
        if place.is_dir():
            found = images_in(place) or ([place] if is_dicom_folder(place) else [])
        elif place.exists():
            found = [place]
        else:
            raise StudyError(f"{place}: no such file or folder")
        for path in found:
            known = out.setdefault(image_id_of(path), path)
            if known != path:
                raise StudyError(f"{known} and {path} would both be image {image_id_of(path)!r}; rename one")
    return out
