"""``task new`` and ``task show``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from landmarklabel.errors import LandmarkLabelError, TaskError
from landmarklabel.io.files import write_json
from landmarklabel.io.long_tables import labels_of
from landmarklabel.io.markups import read_markups
from landmarklabel.io.tables import first_row
from landmarklabel.landmarks import FORMAT, LandmarkTask
from landmarklabel.measurement_definitions import Measurement
from landmarklabel.scale_rules import PixelSize, ScaleRule
from landmarklabel.services.label_folders import is_study_folder
from landmarklabel.task_pictures import data_uri
from landmarklabel.tasks import resolve_study_task, resolve_task


def new_task(args: argparse.Namespace) -> None:
    """Write a task file."""
    known = None
    if args.example and (known := _known_task(args.example)) is not None:
        names, dims, definitions = list(known.names), known.dims, dict(known.definitions)
        if args.dims not in (None, dims):
            raise TaskError("--dims", [f"{args.example} is in {dims}D"])
    elif args.example:
        names, dims = _example(args.example)
        definitions = {}
    else:
        (names, definitions), dims = _read_names(Path(args.names)), 3
    scale = _scale(args)
    pictures = _pictures(Path(args.pictures), names) if args.pictures else {}
    task = LandmarkTask(args.name, tuple(names), args.dims or dims, definitions, scale=scale, pictures=pictures)
    if known is not None:
        task = replace(known, name=args.name, scale=scale or known.scale, pictures={**known.pictures, **pictures})
    _write(task, args.out)


def _known_task(example: str) -> LandmarkTask | None:
    """The task of a study, in a task file or shipped under a name; None for files with points."""
    path = Path(example)
    if is_study_folder(path):
        return resolve_study_task(None, example)
    if path.is_file():
        return LandmarkTask.load(path) if FORMAT.encode() in path.read_bytes() else None
    return None if path.suffix else resolve_task(example)


def _scale(args: argparse.Namespace) -> ScaleRule | PixelSize | None:
    if args.pixel_size is not None:
        return PixelSize(args.pixel_size)
    if not args.scale:
        return None
    try:
        return ScaleRule(args.scale[0], args.scale[1], float(args.scale[2]))
    except ValueError:
        raise TaskError("--scale", [f"{args.scale[2]!r} is not a number of millimetres"]) from None


def _write(task: LandmarkTask, out: str) -> None:
    _check_out(Path(out), task)
    write_json(out, task.to_json())
    shown = f", {len(task.pictures)} with a picture" if task.pictures else ""
    scale = f"; scale: {task.scale.text}" if task.scale else ""
    print(f"{out}: task {task.name!r} with {len(task)} landmarks in {task.dims}D{shown}{scale}")


def show_task(args: argparse.Namespace) -> None:
    """Print a task: what its landmarks and measurements are called, as tables and files have to call them."""
    place = Path(args.task)
    task = resolve_study_task(None, place) if is_study_folder(place) else resolve_task(args.task)
    print(f"{task.name}: {len(task)} landmarks in {task.dims}D")
    wide = max(map(len, task.names))
    for name in task.names:
        print(f"  {name:{wide}}  {task.definitions.get(name, '')}".rstrip())
    if task.scale:
        print(f"scale: {task.scale.text}")
    if task.measurements:
        print(f"{len(task.measurements)} measurements")
    wide = max((len(m.name) for m in task.measurements), default=0)
    for m in task.measurements:
        print(f"  {m.name:{wide}}  {'; '.join(filter(None, (_made_of(m), m.definition.rstrip('.'))))}{_usual(m)}")


def _made_of(m: Measurement) -> str:
    """Its kind, and the landmarks or measurements that it takes, in the order of the task file."""
    points = [point[0] if len(point) == 1 else f"middle of {' and '.join(point)}" for point in m.points]
    weights = [f"{weight:+g} {name}" for weight, name in zip(m.weights, m.of, strict=True)] if m.weights else list(m.of)
    towards = [f"{'negative' if m.away else 'positive'} towards {' and '.join(m.towards)}"] if m.towards else []
    return f"{m.kind} of {', '.join([*points, *weights, *towards])}"


def _usual(measurement: Measurement) -> str:
    norm = measurement.norm
    if norm is None:
        return ""
    return f"; usual {norm.mean:g}" + (f" (standard deviation {norm.sd:g})" if norm.sd else "") + f", {norm.source}"


def _check_out(out: Path, task: LandmarkTask) -> None:
    """Another task's file is not written over. Raises TaskError."""
    if not out.exists():
        return
    try:
        there = LandmarkTask.load(out)
    except (LandmarkLabelError, OSError):
        raise TaskError("--out", [f"{out} is there already and is no task: give another file"]) from None
    if there != task:
        fault = f"{out} has another task, {there.name!r} with {len(there)} landmarks: give another file, or remove that one"
        raise TaskError("--out", [fault])


def _pictures(folder: Path, names: list[str]) -> dict[str, str]:
    """Pictures that are called as landmarks are. Raises TaskError naming those that are not, and what cannot be used."""
    if not folder.is_dir():
        raise TaskError("--pictures", [f"{folder} is no folder"])
    found, faults = {}, []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg")):
        if path.stem not in names:
            faults.append(f"{path.name} is called as no landmark is")
            continue
        try:
            found[path.stem] = data_uri(path)
        except ValueError as error:
            faults.append(f"{path.name} {error}")
    if faults:
        raise TaskError("--pictures", faults)
    return found


def _example(path: str) -> tuple[list[str], int]:
    """Landmarks of a Slicer markups file or of a long table, in their order, and the dimensions that it shows."""
    if not path.lower().endswith((".csv", ".tsv", ".txt")):
        return list(read_markups(path).task.names), 3
    return labels_of(path), 3 if "z" in map(str.lower, first_row(path)) else 2


def _read_names(path: Path) -> tuple[list[str], dict[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise TaskError(str(path), [f"cannot be read as a list of names ({error})"]) from None
    rows = [line.partition("\t") for line in lines if line.strip()]
    return [name.strip() for name, _, _ in rows], {name.strip(): text.strip() for name, _, text in rows if text.strip()}
