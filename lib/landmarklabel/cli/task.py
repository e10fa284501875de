"""``task new``."""

from __future__ import annotations

import argparse
from pathlib import Path

from landmarklabel.errors import TaskError
from landmarklabel.io.files import write_json
from landmarklabel.io.long_tables import labels_of
from landmarklabel.io.markups import read_markups
from landmarklabel.io.tables import first_row
from landmarklabel.landmarks import LandmarkTask, ScaleRule


def new_task(args: argparse.Namespace) -> None:
    """Write a task file."""
    if args.example:
        names, dims = _example(args.example)
        definitions: dict[str, str] = {}
    else:
        (names, definitions), dims = _read_names(Path(args.names)), 3
    scale = None
    if args.scale:
        try:
            scale = ScaleRule(args.scale[0], args.scale[1], float(args.scale[2]))
        except ValueError:
            raise TaskError("--scale", [f"{args.scale[2]!r} is not a number of millimetres"]) from None
    task = LandmarkTask(args.name, tuple(names), args.dims or dims, definitions, scale=scale)
    write_json(args.out, task.to_json())
    print(f"{args.out}: task {task.name!r} with {len(task)} landmarks in {task.dims}D")


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
