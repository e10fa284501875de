"""Landmarks of many images by one model, into a folder that a later call goes on with; and a folder for SlicerMorph's GPA.

No Qt, no MRML: ``predict_files`` blocks, so it belongs on the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .batch_folder import (
    COLUMNS,
    FAILURES,
    SUFFIX,
    TABLE,
    Folder,
    markups_text,
    numbered,
    reason_of,
    safe_name,
    same_name,
    stamp_of,
    table_row,
    table_text,
    write_file,
)
from .client import Client, Refused, Unreachable
from .options import IMAGE_SUFFIXES
from .wire import ACCEPTED, PLACED, PREDICTED, UNSET, Point, Task, WireError, is_position

AGAIN_AFTER_S = 2.0  # until a server that did not answer is asked once more


@dataclass
class Summary:
    """What became of a batch; files are meant by the names of their results, without the suffix.

    ``predicted``: asked for now; ``kept``: there before, and not asked again; ``template``: of these, placed by the shape of the
    labelled cases alone, because the model is not trained; ``failed``: with reasons; ``left``: not come to, because a person
    stopped it; ``ended_by``: why it ended before its time, empty otherwise; ``trouble``: of writing the tables.
    """

    total: int
    folder: Path
    predicted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    template: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    stopped: bool = False
    ended_by: str = ""
    trouble: list[str] = field(default_factory=list)


def images_in(folder: str | Path) -> list[tuple[str, Path]]:
    """(name, file) of the images right in a folder, by name; no hidden files and no segmentations of Slicer's.

    Raises:
        ValueError: the folder cannot be read.
    """
    try:
        paths = sorted(p for p in Path(folder).iterdir() if p.is_file())
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({reason_of(error)})") from None
    found = []
    for path in paths:
        name = path.name.lower()
        suffix = next((s for s in IMAGE_SUFFIXES if name.endswith(s) and len(name) > len(s)), None)
        if suffix and not name.startswith(".") and not name.endswith(f".seg{suffix}"):
            found.append((path.name[: -len(suffix)], path))
    return found


def predict_files(
    client: Client,
    model: str,
    task: Task,
    files: Sequence[tuple[str, str | Path]],
    out: str | Path,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Predict images one after another; each result is in ``out`` as soon as it is there, as NAME.mrk.json.

    A file that fails does not stop the others; a server that is gone does. The tables are written at the end, whatever ends it.
    An image that has not changed since this version of the model predicted it is not asked for again, and a file in ``out``
    that a person made or changed is never written over: its image gets a further name.

    Args:
        files: (name, file) of each image; names need not be file names, nor differ.
        out: made if needed.
        progress: called before each file and at the end with how many are done, how many there are, and the file's name.
        should_stop: asked before each file.

    Raises:
        ValueError: ``out`` is in use for something else.
        OSError: ``out`` cannot be written.
        Refused: there is no such model, or as all calls of ``client``; so Unreachable and WireError, before the first file.
    """
    described = client.info()["models"].get(model)
    if described is None:
        raise Refused(f"the server has no model {model!r}")
    version = described.get("version") if isinstance(described, dict) else None
    wanted = list(dict.fromkeys((name, Path(path).absolute()) for name, path in files))
    folder = Folder(Path(out), task, model, version)
    batch = _Batch(client, model, task, folder, Summary(len(wanted), folder.path))
    try:
        for number, (name, path) in enumerate(wanted):
            if should_stop():
                batch.summary.stopped = True
                batch.summary.left = [folder.take(*rest) for rest in wanted[number:]]
                break
            progress(number, len(wanted), name)
            batch.do(name, path)
            if batch.summary.ended_by:
                for rest in wanted[number + 1 :]:
                    batch.fail(folder.take(*rest), rest[1], f"not asked for: {batch.summary.ended_by}")
                break
        else:
            progress(len(wanted), len(wanted), "")
    finally:
        batch.write_tables()
    return batch.summary


class _Batch:
    """The work on one file after the other."""

    def __init__(self, client: Client, model: str, task: Task, folder: Folder, summary: Summary):
        self.client, self.model, self.task, self.folder, self.summary = client, model, task, folder, summary
        self._failures: list[tuple[str, str, str]] = []

    def do(self, name: str, path: Path) -> None:
        result = self.folder.take(name, path)
        if self.folder.is_done(result, name, path):
            self._came(result, self.summary.kept)
            return
        try:
            stamp = stamp_of(path)
            answer = self._ask(path)
        except OSError as error:
            self.fail(result, path, f"the file cannot be read ({reason_of(error)})")
        except (Refused, Unreachable) as error:
            said = f"{error} (tried twice)" if isinstance(error, Unreachable) else str(error)
            self.fail(result, path, said)
            self.summary.ended_by = self._what_ails_the_server()
        except WireError as error:
            self.fail(result, path, str(error))
        else:
            self._keep(result, name, path, stamp, answer)

    def _ask(self, path: Path) -> dict:
        try:
            return self.client.predict_file(self.model, path, self.task)
        except Unreachable:
            time.sleep(AGAIN_AFTER_S)
            return self.client.predict_file(self.model, path, self.task)

    def _what_ails_the_server(self) -> str:
        """Empty where it answers: then it was the file."""
        try:
            self.client.info()
        except (Refused, Unreachable, WireError) as error:
            return str(error)
        return ""

    def _keep(self, result: str, name: str, path: Path, stamp: dict, answer: dict) -> None:
        if all(p.state == UNSET for p in answer["points"]):
            self.fail(result, path, f"the model {self.model!r} says nothing yet: train it first")
            return
        try:
            self.folder.keep(result, name, path, stamp, answer)
        except OSError as error:
            reason = f"{self.folder.path / (result + SUFFIX)} cannot be written ({reason_of(error)})"
            self.fail(result, path, reason)
            self.summary.ended_by = reason
            return
        self._came(result, self.summary.predicted)

    def _came(self, result: str, to: list[str]) -> None:
        to.append(result)
        if self.folder.cases[result]["origin"] == "template":
            self.summary.template.append(result)

    def fail(self, result: str, path: Path, reason: str) -> None:
        self.summary.failed.append((result, reason))
        self._failures.append((result, str(path), reason))

    def write_tables(self) -> None:
        """Of all results in the folder that are this model's, and of what failed now. A table open elsewhere is no fault here."""
        rows = [list(COLUMNS)]
        for result, case, points in self.folder.read(self.fail):
            rows += [table_row(result, point, case) for point in points]
        for name, table in ((TABLE, rows), (FAILURES, [("image", "file", "reason"), *self._failures])):
            try:
                self.folder.write(name, table_text(table))
            except OSError as error:
                self.summary.trouble.append(f"{self.folder.path / name} cannot be written ({reason_of(error)})")


def export_gpa(
    cases: Sequence[tuple[str, Sequence[Point]]],
    task: Task,
    out: str | Path,
    leave_out: Sequence[str] = (),
    predicted: bool = False,
) -> list[str]:
    """A folder for SlicerMorph's GPA module: a file for each specimen, all with the same landmarks in the task's order.

    GPA matches landmarks by their number alone, takes coordinates as they stand in the files, and no specimen that lacks one.

    Args:
        cases: (name, points) of each specimen.
        out: made if needed; may not have landmark files, which GPA would take for specimens too.
        leave_out: names of landmarks that no file gets.
        predicted: also take points that no person has looked at.

    Returns:
        a line for each specimen that was not written: its name and what it lacks.

    Raises:
        ValueError: a landmark to leave out that the task has not, none left, or ``out`` has landmark files.
        OSError: ``out`` cannot be written.
    """
    unknown = [name for name in leave_out if name not in task.names]
    if unknown:
        raise ValueError(f"the task {task.name!r} has no landmark {unknown[0]!r} to leave out")
    names = [name for name in task.names if name not in leave_out]
    if not names:
        raise ValueError("all landmarks are left out: nothing to compare is left")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(p.name for p in folder.iterdir() if p.name.lower().endswith((".json", ".fcsv")))
    if there:
        raise ValueError(f"{folder} has {there[0]}, which GPA would take for a specimen: choose an empty folder")
    allowed = (PREDICTED, PLACED, ACCEPTED) if predicted else (PLACED, ACCEPTED)
    faults, taken = [], set()
    for name, points in cases:
        found = {p.name: p for p in points}
        chosen = [found.get(n, Point(n)) for n in names]
        lacking = [_lack(p, allowed) for p in chosen if _lack(p, allowed)]
        if lacking:
            faults.append(f"{name}: {', '.join(lacking)}")
            continue
        result = next(r for r in numbered(safe_name(name)) if same_name(r) not in taken)
        taken.add(same_name(result))
        write_file(folder / (result + SUFFIX), markups_text(chosen, errors=False))
    return faults


def _lack(point: Point, allowed: Sequence[str]) -> str:
    """Why GPA cannot use a point; empty where it can."""
    if point.state in allowed:
        return "" if is_position(point.position, 3) else f"{point.name} has no position"
    return f"{point.name} is only predicted" if point.state == PREDICTED else f"{point.name} is {point.state}"
