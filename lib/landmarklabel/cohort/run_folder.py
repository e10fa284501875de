"""A cohort's folder: what shall be predicted by which model, and a result for every case, once, whatever ends when.

``run.json``, ``manifest.csv`` and ``model/`` are written by ``cohort plan`` and not changed afterwards. ``results/`` has a file
of JSON lines for every process that ran a part; a line is a case's result and never changed. A line that is not whole, as of a
process that was killed, does not count. Where a case has several, one that succeeded counts before one that failed, then the
newest.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from landmarklabel import __version__
from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.manifest import CohortCase, Shard, read_manifest, write_manifest
from landmarklabel.errors import StudyError
from landmarklabel.inference.model_record import WEIGHTS, ModelRecord, read_record
from landmarklabel.io.files import check_empty, write_json
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.portability import sync_file

RUN, MANIFEST = "run.json", "manifest.csv"
FORMAT, VERSION = "landmarklabel-cohort", 1
OK, FAILED = "ok", "failed"
Row = dict[str, Any]


@dataclass(frozen=True)
class _Place:
    """Where the result of a case is, and what decides whether it counts."""

    rank: tuple[bool, float]
    file: Path
    offset: int
    failed: bool


class CohortRun:
    """The folder of a cohort. Raises StudyError for a folder that ``cohort plan`` has not finished."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            content = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        except OSError:
            raise StudyError(f"{folder}: no cohort is planned there; begin with cohort plan") from None
        except ValueError:
            raise StudyError(f"{folder}: {RUN} is damaged; plan the cohort anew") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("version"), int):
            raise StudyError(f"{folder}: {RUN} is not a cohort's of this program")
        if content["version"] > VERSION:
            raise StudyError(f"{folder}: planned by a newer version of this program; update it")
        self.content = content
        self.record = read_record(self.model)
        self.task: LandmarkTask = ModelRecord.of(self.record, self.model).task

    @property
    def model(self) -> Path:
        """The folder of the model: a copy, which is the same as long as the cohort is."""
        return self.folder / "model"

    @property
    def results(self) -> Path:
        """The folder of the results."""
        return self.folder / "results"

    def cases(self, shard: Shard | None = None) -> list[CohortCase]:
        """Of the cohort, or of a part of it, sorted by id."""
        cases = read_manifest(self.folder / MANIFEST)
        return cases if shard is None else [case for case in cases if shard.holds(case)]

    def places(self) -> dict[str, _Place]:
        """Of every case that has a result, where the one is that counts."""
        places: dict[str, _Place] = {}
        for file in sorted(self.results.glob("*.jsonl")):
            for offset, row in _lines(file):
                failed = row["state"] != OK
                place = _Place((not failed, float(row["time"])), file, offset, failed)
                known = places.get(row["id"])
                if known is None or place.rank > known.rank:
                    places[row["id"]] = place
        return places

    def left(self, shard: Shard, again: bool) -> list[CohortCase]:
        """The cases of a part that have no result; ``again``: also those that have failed."""
        places = self.places()
        done = {i for i, place in places.items() if not (again and place.failed)}
        return [case for case in self.cases(shard) if case.id not in done]

    def rows(self) -> Iterator[tuple[CohortCase, Row | None]]:
        """Every case by id, and the result that counts, None where there is none. Never all of them in memory."""
        places = self.places()
        files: dict[Path, Any] = {}
        try:
            for case in self.cases():
                place = places.get(case.id)
                if place is None:
                    yield case, None
                    continue
                if place.file not in files:
                    files[place.file] = place.file.open("rb")
                files[place.file].seek(place.offset)
                yield case, json.loads(files[place.file].readline())
        finally:
            for file in files.values():
                file.close()


def _lines(file: Path) -> Iterator[tuple[int, Row]]:
    """The whole lines of a file of results that are results, and where they begin."""
    offset = 0
    with file.open("rb") as content:
        for line in content:
            if line.endswith(b"\n"):
                with suppress(ValueError):
                    row = json.loads(line)
                    if isinstance(row, dict) and row.get("state") in (OK, FAILED) and isinstance(row.get("time"), int | float):
                        yield offset, row
            offset += len(line)


def plan(folder: str | Path, model: str | Path, cases: list[CohortCase]) -> CohortRun:
    """Make a cohort's folder. Raises ModelError; UsageError where there is anything in the folder."""
    folder, model = Path(folder), Path(model)
    record = read_record(model)
    ModelRecord.of(record, model)
    if not (model / WEIGHTS).is_file():
        raise StudyError(f"{model}: {WEIGHTS} is missing")
    check_empty(folder, "--out")
    (folder / "results").mkdir(parents=True, exist_ok=True)
    shutil.copytree(model, folder / "model", ignore=shutil.ignore_patterns("state"))
    write_manifest(folder / MANIFEST, cases)
    content = {"format": FORMAT, "version": VERSION, "program": __version__, "cases": len(cases), "planned": time.time()}
    write_json(folder / RUN, content)  # last: without it the folder is of no cohort
    return CohortRun(folder)


class Results:
    """The results of one part, while a process predicts it (a context manager).

    Args:
        run: of the cohort.
        shard: the part, which no other process of this computer predicts meanwhile.

    Raises:
        StudyError: another one does.
    """

    def __init__(self, run: CohortRun, shard: Shard):
        run.results.mkdir(exist_ok=True)
        name = f"{shard.number}-of-{shard.count}"
        self._lock = FileLock(run.results / f".{name}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StudyError(f"{run.folder}: another process predicts part {shard} of it; wait for its end") from None
        self._path = run.results / f"{name}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._file: Any = None
        self._synced = time.monotonic()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            sync_file(self._file.fileno())
            self._file.close()
        self._lock.release()

    def add(self, row: Row) -> None:
        """Keep a case's result: it outlives this process, and within seconds a power failure."""
        if self._file is None:  # a part that is done leaves no empty file
            self._file = self._path.open("xb")
        self._file.write(json.dumps({**row, "time": time.time()}, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced > CONFIG.sync_s:
            sync_file(self._file.fileno())
            self._synced = time.monotonic()
