"""The landmarks that ``import`` is given, in any of its layouts, by image."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from landmarklabel.cli.names import NameMap, as_predicted, read_names
from landmarklabel.cli.progress import followed
from landmarklabel.errors import ImageRejected, LandmarkFileError, UsageError
from landmarklabel.geometry import SlicePlane
from landmarklabel.io.cl_detection import read_stack
from landmarklabel.io.files import image_id_of
from landmarklabel.io.folders import find_images, find_label_files
from landmarklabel.io.images import Description, slice_plane
from landmarklabel.io.index_points import IndexPoints, mean_points, read_isbi, read_voxels, text_files
from landmarklabel.io.long_tables import is_long, mean_of_readers, read_long_table, readers_apart
from landmarklabel.io.markups import read_markups
from landmarklabel.io.masks import MaskLandmarks, read_masks
from landmarklabel.io.monailabel_datastore import PROPOSED, RECORD, read_datastore
from landmarklabel.io.tables import first_row, is_named, read_table
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.services.label_folders import read_label_folder


class Given(NamedTuple):
    """Points of one image: whose, where (or what tells it, once the image is known), and when they were made, if that is said.

    ``kept``: whether they become a revision; a reading of which only the mean is taken is looked at all the same.
    """

    author: str
    points: LandmarkSet | IndexPoints | MaskLandmarks
    made: str = ""
    kept: bool = True


class Placed(NamedTuple):
    """A ``Given`` whose points have their place in the world."""

    author: str
    points: LandmarkSet
    made: str = ""
    kept: bool = True


@dataclass
class Labels:
    """What was read.

    Args:
        of: image id to what is given of it, the oldest first; empty where a file has nothing.
        remarks: what a person should know of how it was read.
        asked: whether landmarks were asked for at all.
        files: names of the files that were read, where there is one per image.
    """

    of: dict[str, list[Given]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    asked: bool = True
    files: set[str] = field(default_factory=set)

    def on(self, image_id: str, about: Description) -> list[Placed]:
        """What is given of an image, which says where index points and masks lie. Raises LandmarkFileError."""
        given = self.of.get(image_id, [])
        placed = ((g, g.points if isinstance(g.points, LandmarkSet) else g.points.on(about.geometry)) for g in given)
        return [Placed(g.author, points, g.made, g.kept) for g, points in placed]


def read_labels(args: argparse.Namespace, task: LandmarkTask, images: dict[str, Path]) -> Labels:
    """Read the layout that was given, and find the image of every label."""
    long = bool(args.table) and is_long(first_row(args.table), task.dims)
    for option, of, fits in (("annotators", "--isbi or a long --table", args.isbi or long), ("rule", "--masks", args.masks)):
        if getattr(args, option) and not fits:
            raise UsageError(f"--{option} goes with {of} only")
    if not 0 <= args.allow_outside < math.inf:
        raise UsageError(f"--allow-outside {args.allow_outside} must be a distance, 0 or more")
    named = (
        args.markups
        or args.monailabel
        or args.cl_detection
        or long
        or (args.table and is_named(first_row(args.table), task.dims))
    )
    if args.names and not named:
        raise UsageError(
            "--names goes with --markups, --monailabel, --cl-detection and tables whose columns or rows name landmarks"
        )
    labels = _read(args, read_names(args.names, task), images, long)
    _match_lost_zeros(labels, images)
    return labels


def _read(args: argparse.Namespace, names: NameMap, images: dict[str, Path], long: bool) -> Labels:
    task = names.task
    if args.isbi:
        files = {path.name for folder in args.isbi for path in Path(folder).glob("*.txt")}
        return Labels(_isbi(args.isbi, args.annotators or "mean", task), files=files)
    if args.voxels:
        texts = text_files(args.voxels)  # beside the images there may be other texts; they only count as without image
        points = read_voxels(args.voxels, {i: path for i, path in texts.items() if i in images}, task)
        read = {path.name for path in texts.values()}
        return Labels({i: [Given("import", points[i])] if i in points else [] for i in texts}, files=read)
    if args.masks:
        if not args.rule:
            raise UsageError("--masks needs --rule centroid or --rule extremes")
        masks = followed(find_images([args.masks]).paths, "masks")
        return _of_one(read_masks(args.masks, masks, task, args.rule))
    if long:
        return _long(args.table, args.annotators, names)
    if args.table:
        sets = read_table(args.table, names.columns_task(first_row(args.table)))
        return _of_one({i: names.to_task(x, f"{args.table}, {i}") for i, x in sets.items()})
    if args.markups:
        found, sets = find_label_files(args.markups), read_markups_folder(args.markups, task, images, names)
        one_folder = Path(args.markups).resolve() == Path(args.images).resolve()
        no_labels = {n: why for n, why in found.left_out.items() if not (one_folder and image_id_of(n) in images)}
        left_out = [f"left out of {args.markups}: {n} ({why})" for n, why in no_labels.items()]
        return Labels(_of_one(sets).of, left_out, files={path.name for path in found.paths.values()})
    if args.monailabel:
        return _monailabel(args.monailabel, names)
    if args.cl_detection:
        stack = read_stack(args.cl_detection)
        return _of_one({i: names.to_task(x, str(stack.points)) for i, x in stack.landmarks(names.files_task()).items()})
    return Labels(asked=False)


def _of_one(sets: dict) -> Labels:
    return Labels({image_id: [Given("import", landmarks)] for image_id, landmarks in sets.items()})


def _monailabel(folder: str, names: NameMap) -> Labels:
    """Every label file of a datastore as a revision of its annotator; what its models answered is nobody's label."""
    found, task, faults = read_datastore(folder), names.files_task(), []
    of: dict[str, list[Given]] = {}
    for image_id, stored in found.labels.items():
        plane = _plane(found.images[image_id], task)
        for label in stored:
            try:
                points = names.to_task(read_markups(label.path, task, plane), str(label.path))
            except LandmarkFileError as error:
                faults.append(str(error))
                continue
            points = as_predicted(points) if label.tag == PROPOSED else points
            of.setdefault(image_id, []).append(Given(label.author, points, label.made))
    if faults:
        more = [f"and {len(faults) - 1} more files"] if len(faults) > 1 else []
        hint = '--names MAP.json says what their landmarks are called here: {"name there": "name here", "to leave out": null}'
        raise LandmarkFileError(folder, [faults[0][:600], *more, hint])
    files = {label.path.name for stored in found.labels.values() for label in stored} | {RECORD}
    return Labels(of, [f"left out of {folder}: {name} ({why})" for name, why in found.left_out.items()], files=files)


def _long(path: str, whose: str | None, names: NameMap) -> Labels:
    read, remarks = read_long_table(path, names.files_task())
    by_reader = {who: {i: names.to_task(x, f"{path}, {i}") for i, x in sets.items()} for who, sets in read.items()}
    if whose not in (None, "mean", "both"):
        wanted = [name.strip() for name in whose.split(",")]
        if unknown := [name for name in wanted if name not in by_reader]:
            known = ", ".join(by_reader)
            raise UsageError(f"--annotators: {path} has nothing by {unknown[0]!r}; it has points by {known}")
        by_reader = {name: by_reader[name] for name in wanted}
    if len(by_reader) == 1:
        ((name, sets),) = by_reader.items()
        return Labels({i: [Given(name, x)] for i, x in sets.items()}, remarks)
    advice = "; --annotators NAME[,NAME] takes some of them, --annotators both keeps each reader's own as well"
    kept = "their mean is taken, and each reader's own is kept" if whose == "both" else "their mean is taken"
    remarks.append(f"{path} has points by {', '.join(by_reader)}: {kept}{'' if whose else advice}")
    ids = dict.fromkeys(i for sets in by_reader.values() for i in sets)
    is_kept = whose == "both"
    _check_readers(by_reader if is_kept else (), path)
    own = {i: [Placed(name, sets[i], kept=is_kept) for name, sets in by_reader.items() if i in sets] for i in ids}
    if apart := readers_apart([g.points.stated() for g in given] for given in own.values()):
        mean, (most, name) = sum(apart.values()) / len(apart), max((distance, name) for name, distance in apart.items())
        text = f"two readers' points lie {mean:.3g} apart on average (unit of the table), farthest at {name} with {most:.3g}"
        remarks.append(text + (": check that all define it alike" if most > 2 * mean else ""))
    return Labels(
        {
            i: [*(Given(*g) for g in given), Given("import", mean_of_readers([g.points for g in given]))]
            for i, given in own.items()
        },
        remarks,
    )


def _check_readers(kept: Iterable[str], where: str) -> None:
    """Raise UsageError where a reader who is kept has the name under which the mean of all is kept."""
    if "import" in kept:
        raise UsageError(f"{where} has a reader called 'import', as the mean of the readers is called here: rename that one")


def _isbi(folders: list[str], whose: str, task: LandmarkTask) -> dict[str, list[Given]]:
    """What is given of every image; folder names are the authors where both annotators are kept."""
    if whose not in ("mean", "first", "second", "both"):
        raise UsageError(f"--annotators {whose!r}: with --isbi it is mean, first, second or both")
    needed = {"mean": len(folders), "first": 1}.get(whose, 2)
    if len(folders) > 2 or len(folders) < needed:
        allowed = "two" if whose in ("second", "both") else "one or two"
        raise UsageError(f"--isbi got {len(folders)} folders; --annotators {whose} takes {allowed}")
    authors = [Path(os.path.abspath(folder)).name for folder in folders]
    if whose == "both" and authors[0] == authors[1]:
        raise UsageError(f"both --isbi folders are called {authors[0]!r}; rename one, their names become the authors")
    _check_readers(authors if whose == "both" else (), "--isbi")
    wanted = folders[1:] if whose == "second" else folders[:needed]
    points = [read_isbi(folder, task) for folder in wanted]
    newest = mean_points(*points) if len(points) == 2 else points[0]
    apart = list(zip(authors, points, strict=True)) if len(points) == 2 else []
    kept = whose == "both"
    return {
        i: [*(Given(who, own[i], kept=kept) for who, own in apart if i in own), Given("import", mean)]
        for i, mean in newest.items()
    }


def read_markups_folder(
    folder: str | Path, task: LandmarkTask, images: Mapping[str, Path], names: NameMap | None = None
) -> dict[str, LandmarkSet]:
    """As ``services.label_folders.read_label_folder``; ``names``: what the files call the landmarks."""
    names = names or NameMap(task)
    return read_label_folder(folder, names.files_task(), images, names.to_task)


def _plane(image: Path | None, task: LandmarkTask) -> SlicePlane | None:
    with suppress(ImageRejected):  # said when the image itself is looked at
        return slice_plane(image, task.dims) if image is not None else None
    return None


def _match_lost_zeros(labels: Labels, images: dict[str, Path]) -> None:
    """Give ``1`` to image ``001``: spreadsheets take ids for numbers. Only where no other reading is possible."""
    bare: dict[str, list[str]] = {}
    for image_id in images:
        bare.setdefault(image_id.lstrip("0") or "0", []).append(image_id)
    full_id_of = {}
    for short in labels.of:
        if short not in images and len(found := bare.get(short.lstrip("0") or "0", [])) == 1 and found[0] not in labels.of:
            full_id_of[short] = found[0]
    for short in [s for s in labels.of if s not in images and re.fullmatch(r"\d+\.0", s)]:  # as a spreadsheet writes the number
        whole = short.removesuffix(".0")
        candidates = [whole] if whole in images else bare.get(whole.lstrip("0") or "0", [])
        if len(candidates) == 1 and candidates[0] not in labels.of:
            full_id_of[short] = candidates[0]
    if not full_id_of:
        return
    twice = sorted(s for s, full in full_id_of.items() if list(full_id_of.values()).count(full) > 1)
    if twice:
        raise LandmarkFileError("ids", [f"{', '.join(twice)} would all be image {full_id_of[twice[0]]}: keep one of them"])
    for short, full in full_id_of.items():
        labels.of[full] = labels.of.pop(short)
    short, full = next(iter(full_id_of.items()))
    labels.remarks.append(
        f"{len(full_id_of)} ids have lost leading zeros, as a spreadsheet does: {short} was taken for image {full}, and so on"
    )
