"""``measure``: what a task measures, of many cases."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from landmarklabel.agreement import agreements
from landmarklabel.cli.configuration import CONFIG
from landmarklabel.errors import StudyError, UsageError, counted, listed
from landmarklabel.io.files import MARKUPS_SUFFIX, atomic_write, check_empty, check_id
from landmarklabel.io.prediction_folder import NOTES, not_written_by_predict, notes_remarks, read_notes
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.measurements import Measured
from landmarklabel.services.descriptions import UNSURE, check_scale, image_plane, of_unknown_unit, unit_lookup, unit_or_unsure
from landmarklabel.services.label_folders import images_beside, is_study_folder, read_many, read_readers, readings_in
from landmarklabel.services.measuring import COLUMNS, agreement_text, measured_cases, measurements_text
from landmarklabel.store.study_task import check_same_task
from landmarklabel.tasks import resolve_study_task

_UNCONFIRMED = "predicted points that nobody has confirmed are in"


def measure(args: argparse.Namespace) -> None:
    """Write the measurements of every case, or how far readers agree on them."""
    place = Path(args.landmarks)
    task = resolve_study_task(args.task, place)
    check_same_task(place, task, exactly=True)
    if not task.measurements:
        raise UsageError(
            f'task {task.name!r} measures nothing: name distances, angles and indices under "measurements" in its file'
            + ("; landmarklabel shapes says how alike people place its points" if args.readers else "")
        )
    if args.report and not args.readers:
        raise UsageError("--report belongs to --readers; a report of predictions is made by landmarklabel evaluate --report")
    if args.slicer and args.readers:
        raise UsageError("--slicer writes the measurements of cases; leave --readers out")
    if args.slicer:
        check_empty(Path(args.slicer), "--slicer")
    if args.out:
        _check_may_be_written(Path(args.out))
    images = images_beside(place, args.images)
    notes = read_notes(place) if place.is_dir() else {}
    unit = unit_lookup(notes, images)
    if args.readers:
        _readers(args, task, place, images, notes)
        return
    sets, remarks = read_many(place, task, images)
    sets = {i: x for i, x in sorted(sets.items()) if x.defined.any()}
    check_scale(task, sets, notes, images)
    if not sets:
        raise StudyError(f"no case of {place} has landmarks")
    changed = _changed_since_predicted(place, sets) if notes else []
    sets |= {i: replace(sets[i], covariance_mm2=None, interval_factors={}) for i in changed}  # of where the points were
    cases = measured_cases(sets, unit)
    for text in [*remarks, *_remarks(sets, changed, is_study_folder(place), bool(notes)), *notes_remarks(notes)]:
        print(f"landmarklabel: {text}", file=sys.stderr)
    if args.slicer:
        _write_nodes(Path(args.slicer), task, sets, images)
    lengths = any(m.unit == "mm" for case in cases.values() for m in case)
    without_image = set(of_unknown_unit(task, sets, notes, images)) if lengths else set()
    _say_unknown(sorted(without_image), task)
    text = measurements_text(cases, without_image)
    if args.out:
        atomic_write(args.out, text)
        print(f"{args.out}: {counted(len(cases), 'case')}, {counted(len(task.measurements), 'measurement')} each")
        print(_summary(task, list(cases.values())))
    else:
        print(text, end="")


def _changed_since_predicted(place: Path, sets: Collection[str]) -> list[str]:
    files = {i: place / f"{i}{MARKUPS_SUFFIX}" for i in sets}
    return not_written_by_predict(place, {i: file for i, file in files.items() if file.is_file()})


def _remarks(sets: Mapping[str, LandmarkSet], changed: list[str], is_study: bool, is_noted: bool) -> list[str]:
    """What whoever uses the measurements should know; ``changed``: predictions that are not as ``predict`` wrote them."""
    proposed = sorted(i for i, x in sets.items() if (x.defined & ~x.by_person).any()) if is_study else []
    remarks = [f"{_UNCONFIRMED} {counted(len(proposed), 'case')}: {listed(proposed)}"] if proposed else []
    if not is_study and not is_noted and any(x.covariance_mm2 is not None for x in sets.values()):
        remarks.append(f"whether these predictions were changed since cannot be told: {NOTES} of their folder is not there")
    what = "without intervals, since changed after they were predicted"
    return [*remarks, *([f"{what}: {counted(len(changed), 'file')} ({listed(changed)})"] if changed else [])]


def _say_unknown(without_image: list[str], task: LandmarkTask) -> None:
    if not without_image:
        return
    taken = "their lengths are called mm, and are px where the image states no spacing"
    if task.scale is not None:
        taken = f"their points are taken as pixels, and {task.scale.text}"
    text = f"the unit of {counted(len(without_image), 'case')} is not known ({listed(without_image)})"
    print(f"landmarklabel: {text}: {taken}; name the images with --images", file=sys.stderr)


def _write_nodes(folder: Path, task: LandmarkTask, sets: dict[str, LandmarkSet], images: dict[str, Path]) -> None:
    from landmarklabel.io.measurement_markups import slicer_type, write_lines_and_angles

    for image_id in sets:
        check_id(image_id)  # of all, before anything is written
    planes = {i: image_plane(images[i], task.dims) if i in images else None for i in sets}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".measure-", dir=folder) as place:  # a stop leaves nothing in the way
        files = sum(len(write_lines_and_angles(Path(place) / i, landmarks, planes[i])) for i, landmarks in sets.items())
        for made in sorted(Path(place).iterdir()):
            made.rename(folder / made.name)
    others = sum(slicer_type(task, m) is None for m in task.measurements)
    rest = f"; Slicer has no node that measures the same as the other {others} of {len(task.measurements)}" if others else ""
    print(f"{folder}: {files} lines and angles{rest}", file=sys.stderr)


def _check_may_be_written(out: Path) -> None:
    """Only a table that ``measure`` itself wrote is written anew. Raises UsageError."""
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: give the name of a file")
    if out.is_file():
        with out.open("rb") as file:
            first = file.readline(200)
        if not first.startswith((",".join(COLUMNS[:3]).encode(), b"measurement,unit,reader")):
            raise UsageError(f"--out {out} is there already, and no table that measure wrote: give another name")


def shapes(args: argparse.Namespace) -> None:
    """Write the tables for geometric morphometrics."""
    from landmarklabel.services.morphometrics import READ_TWICE, SIZES, write_shapes

    place = Path(args.landmarks)
    task = resolve_study_task(args.task, place)
    check_same_task(place, task, exactly=True)
    images = images_beside(place, args.images)
    sets, remarks = read_many(place, task, images)
    notes = read_notes(place) if place.is_dir() else {}
    there = {i: x for i, x in sets.items() if x.defined.any()}
    check_scale(task, there, notes, images)
    unsure, known_unit = of_unknown_unit(task, there, notes, images), unit_lookup(notes, images)
    unit = unit_or_unsure(known_unit, unsure)
    for text in [*remarks, *notes_remarks(notes), *_shape_remarks(task, there, known_unit)]:
        print(f"landmarklabel: {text}", file=sys.stderr)
    _say_unknown(unsure, task)
    whole, lacking = write_shapes(Path(args.out), task, there, unit, args.leave_out, readings_in(place, task, images))
    rest = f"; left out, see left_out.csv: {lacking}" if lacking else ""
    rest += f"; how alike people read them: {READ_TWICE}" if (Path(args.out) / READ_TWICE).exists() else ""
    print(f"{args.out}: {counted(whole, 'specimen')} laid over one another, sizes in {SIZES}{rest}")


def _shape_remarks(task: LandmarkTask, sets: Mapping[str, LandmarkSet], unit: Callable[[str], str]) -> list[str]:
    """What whoever uses the tables of shapes should know."""
    from landmarklabel.services.morphometrics import SIZES

    remarks = []
    if task.scale is not None and (without := sorted(i for i, x in sets.items() if not np.isfinite(x.scaled_to_mm()))):
        ends = " and ".join(map(repr, task.scale.landmarks))
        what = f"no size in mm, which takes {ends} at two places"
        remarks.append(f"{what}: {counted(len(without), 'specimen')} ({listed(without)})")
    if task.scale is None and len({unit(i) for i in sets}) > 1:
        remarks.append(f"some images state their spacing and some do not: see the column unit of {SIZES}")
    if mixed := sorted(i for i, x in sets.items() if x.by_person.any() and (x.defined & ~x.by_person).any()):
        what = f"{_UNCONFIRMED} {counted(len(mixed), 'specimen')}: {listed(mixed)}"
        remarks.append(f"{what}; see the column predicted of {SIZES}")
    return remarks


def _readers(args: argparse.Namespace, task: LandmarkTask, place: Path, images: dict[str, Path], notes: dict) -> None:
    by_reader, unit = read_readers(place, task, images), unit_lookup(notes, images)
    check_scale(task, sorted({i for sets in by_reader.values() for i in sets}), notes, images)
    units = {unit(i) for sets in by_reader.values() for i in sets}
    if len(units) > 1 and task.scale is None:
        raise UsageError(f"some images of {place} state their spacing and some do not: their lengths cannot be compared")
    ids = sorted({i for sets in by_reader.values() for i in sets})
    _say_unknown(unsure := of_unknown_unit(task, ids, notes, images), task)
    found = agreements(task, by_reader, next(iter(units), "mm"))
    found = [replace(a, unit=UNSURE) if unsure and a.unit == "mm" and task.scale is None else a for a in found]
    if not found:
        by = ", ".join(sorted(by_reader)) or "nobody"
        read = Counter(i for sets in by_reader.values() for i in sets)
        if twice := [i for i, count in read.items() if count > 1]:
            raise StudyError(
                f"of {place}, two people have read {counted(len(twice), 'case')}, none with all points of a measurement"
            )
        how = "; in a table, a column annotator says who placed a point" if place.is_file() else ""
        raise StudyError(f"no case of {place} was read by two people: its points are by {by}{how}")
    if (fewest := min(len(a.means) for a in found)) < CONFIG.few_read_twice:
        few = f"some limits of agreement and ICCs rest on {counted(fewest, 'case')}: of others they tell little"
        print(f"landmarklabel: {few}", file=sys.stderr)
    text = agreement_text(found)
    if args.out:
        atomic_write(args.out, text)
        print(f"{args.out}: {len(by_reader)} readers, {len(found)} pairs of readers and measurements")
    else:
        print(text, end="")
    if args.report:
        from landmarklabel.report.agreement import write_agreement

        write_agreement(args.report, task, found)
        print(f"report: {args.report}", file=sys.stderr)


def _summary(task: LandmarkTask, cases: list[list[Measured]]) -> str:
    """A line for each measurement: how many cases have it, mean and standard deviation over them, and what is usual."""
    lines = []
    for k, m in enumerate(task.measurements):
        there = [c[k] for c in cases if c[k].available]
        if not there:
            lines.append(f"  {m.name}: not available in any case ({cases[0][k].reason})")
        for unit in sorted({x.unit for x in there}):  # of images that state their spacing, and of those that do not
            numbers = np.array([x.value for x in there if x.unit == unit])
            spread = f" ± {numbers.std(ddof=1):.2f}" if len(numbers) > 1 else ""
            norm = f", usual {m.norm.mean:g}" if m.norm and any(x.norm for x in there if x.unit == unit) else ""
            lines.append(f"  {m.name}: {numbers.mean():.2f}{spread} {unit} ({counted(len(numbers), 'case')}{norm})")
    return "\n".join(lines)
