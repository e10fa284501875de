"""A cohort's folder: what shall be predicted by which model, and a result for every case, once, whatever ends when.

``run.json``, ``manifest.jsonl`` and ``model/`` are written by ``cohort plan`` and not changed afterwards. ``results/`` has a file
of JSON lines for every process that ran a part; a line is a case's result and never changed. A line that is not whole, as of a
process that was killed, does not count. Where a case has several, one that succeeded counts before one that failed, then the
newest.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import Timeout

from landmarklabel import __version__
from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.manifest import CohortCase, Shard, read_manifest, write_manifest
from landmarklabel.errors import StudyError
from landmarklabel.inference.model_card import CARD
from landmarklabel.inference.model_record import RECORD, WEIGHTS, ModelRecord, read_record
from landmarklabel.io.checkpoints import read_weights
from landmarklabel.io.files import check_empty, write_json
from landmarklabel.io.locks import file_lock, take
from landmarklabel.io.tables import table_text
from landmarklabel.landmarks import LandmarkTask, Status
from landmarklabel.portability import sync_file

RUN, MANIFEST, LEFT_OUT = "run.json", "manifest.jsonl", "left_out.csv"
FORMAT, VERSION = "landmarklabel-cohort", 1
OK, FAILED = "ok", "failed"
Row = dict[str, Any]
_STATUSES = frozenset(status.value for status in Status)


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
        except (ValueError, RecursionError):
            raise StudyError(f"{folder}: {RUN} is damaged; plan the cohort anew") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("version"), int):
            raise StudyError(f"{folder}: {RUN} is not a cohort's of this program")
        if content["version"] > VERSION:
            raise StudyError(f"{folder}: planned by a newer version of this program; update it")
        self.content = content
        self.record = read_record(self.model)
        check_model(self.model, self.model_sha256)
        self.task: LandmarkTask = ModelRecord.of(self.record, self.model).task

    @property
    def model(self) -> Path:
        """The folder of the model: a copy, which is the same as long as the cohort is."""
        return self.folder / "model"

    @property
    def model_sha256(self) -> str:
        """Of the record of the model that the cohort was planned with, in which is that of its weights."""
        return str(self.content.get("model_sha256"))

    @property
    def results(self) -> Path:
        """The folder of the results."""
        return self.folder / "results"

    def cases(self, shard: Shard | None = None) -> list[CohortCase]:
        """Of the cohort, or of a part of it, sorted by id."""
        cases = read_manifest(self.folder / MANIFEST, str(self.content.get("manifest_sha256")))
        return cases if shard is None else [case for case in cases if shard.holds(case)]

    def places(self) -> dict[str, _Place]:
        """Of every case that has a result, where the one is that counts."""
        places: dict[str, _Place] = {}
        for file in sorted(path for path in self.results.glob("*.jsonl") if path.is_file()):
            for offset, row in self._lines(file):
                failed = row["state"] != OK
                place = _Place((not failed, float(row["time"])), file, offset, failed)
                known = places.get(row["id"])
                if known is None or place.rank > known.rank:
                    places[row["id"]] = place
        return places

    def _lines(self, file: Path) -> Iterator[tuple[int, Row]]:
        """The whole lines of a file of results that are results, and where they begin."""
        offset = 0
        with file.open("rb") as content:
            for line in content:
                if line.endswith(b"\n"):
                    with suppress(ValueError, RecursionError):
                        row = json.loads(line)
                        if _is_result(row, self.task):
                            yield offset, row
                offset += len(line)

    def succeeded(self) -> dict[str, bool]:
        """Of every case that has a result, whether one succeeded. Less memory than ``places`` takes."""
        known: dict[str, bool] = {}
        for file in (path for path in self.results.glob("*.jsonl") if path.is_file()):
            for _, row in self._lines(file):
                known[row["id"]] = known.get(row["id"], False) or row["state"] == OK
        return known

    def rows(self) -> Iterator[tuple[CohortCase, Row | None]]:
        """Every case by id, and the result that counts, None where there is none. Never all of them in memory."""
        places = self.places()
        files: dict[Path, Any] = {}  # those that were read last are last
        try:
            for case in self.cases():
                place = places.get(case.id)
                if place is None:
                    yield case, None
                    continue
                file = files.pop(place.file, None) or place.file.open("rb")
                files[place.file] = file
                if len(files) > CONFIG.open_files:
                    files.pop(next(iter(files))).close()
                file.seek(place.offset)
                yield case, json.loads(file.readline())
        finally:
            for file in files.values():
                file.close()


def _is_result(row: Any, task: LandmarkTask) -> bool:
    """Whether a line holds a result as ``Predictor`` makes it."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not _is_number(row.get("time")):
        return False
    if not all(_is_number(row.get(key, 0.0)) for key in ("read_s", "predict_s")):
        return False
    if row.get("state") == FAILED:
        return isinstance(row.get("reason"), str)
    n, points, flagged = len(task), row.get("positions"), row.get("flagged")
    return (
        row.get("state") == OK
        and isinstance(points, list)
        and len(points) == n
        and all(isinstance(p, list) and len(p) == task.dims and all(x is None or _is_number(x) for x in p) for p in points)
        and _all(row.get("status"), n, lambda s: isinstance(s, str) and s in _STATUSES)
        and _all(row.get("expected_error"), n, lambda x: x is None or _is_number(x))
        and isinstance(flagged, list)
        and all(isinstance(i, int) and 0 <= i < n for i in flagged)
        and isinstance(row.get("unit"), str)
        and isinstance(row.get("pixels"), str)
        and isinstance(row.get("trained_on"), bool)
    )


def _all(values: Any, count: int, test: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and len(values) == count and all(test(value) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < sys.float_info.max


def check_model(folder: str | Path, sha256: str) -> None:
    """Raise StudyError where a folder has another model than the cohort was planned with."""
    if _sha256(Path(folder) / RECORD) != sha256:
        raise StudyError(f"{folder}: not the model that the cohort was planned with; plan it anew, into another folder")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plan(folder: str | Path, model: str | Path, cases: list[CohortCase], left_out: Mapping[str, str] | None = None) -> CohortRun:
    """Make a cohort's folder, whole or not at all.

    Args:
        folder: to be made.
        model: a folder of a model, of which a copy is kept.
        cases: of the cohort.
        left_out: files that are not in it, and why; kept as ``left_out.csv``.

    Raises:
        ModelError, StudyError: no model, or nowhere to write. UsageError: there is something in the folder already.
    """
    folder, model = Path(folder), Path(model)
    record = read_record(model)
    read_weights(model / WEIGHTS, ModelRecord.of(record, model).weights_sha256)
    check_empty(folder, "--out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".plan-", dir=folder) as place:
            made = Path(place)
            for part in ("results", "model"):
                (made / part).mkdir(parents=True)
            for name in (RECORD, WEIGHTS, CARD):
                if name != CARD or (model / name).is_file():
                    shutil.copyfile(model / name, made / "model" / name)
            if left_out:
                (made / LEFT_OUT).write_bytes(table_text([("path", "why"), *left_out.items()]).encode("utf-8", "surrogateescape"))
            hashes = {"manifest_sha256": write_manifest(made / MANIFEST, cases), "model_sha256": _sha256(made / "model" / RECORD)}
            about = {"format": FORMAT, "version": VERSION, "program": __version__, "preset": record.get("preset")}
            write_json(made / RUN, {**about, "cases": len(cases), "planned": time.time(), **hashes})
            for path in sorted(made.iterdir(), key=lambda path: path.name == RUN):  # with that, and not before, it is a cohort
                path.rename(folder / path.name)
    except OSError as error:
        where = error.filename2 or error.filename or folder
        raise StudyError(f"{folder}: the cohort could not be written ({where}: {error.strerror})") from None
    return CohortRun(folder)


def _refuse_other_divisions(run: CohortRun, shard: Shard) -> None:
    for path in run.results.glob(".*-of-*.lock"):
        if path.stem.rpartition("-")[2] == str(shard.count):
            continue
        try:
            lock = file_lock(path, lock_mode())
            if take(lock):
                lock.release()
        except Timeout:
            part = path.stem[1:].replace("-of-", "/")
            raise StudyError(f"{run.folder}: another process predicts part {part}, which has cases of part {shard} too") from None


def lock_mode() -> int:
    """Of a lock's file, for FileLock, which itself does not ask for the umask: what people who share the folder are allowed."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def not_writable(folder: Path, error: OSError) -> StudyError:
    """What to say where something in a cohort's folder cannot be written."""
    advice = f"; people who share a cohort need to write in all of it: umask 002, and once chmod -R g+rwX {folder}"
    return StudyError(f"{error.filename or folder}: {error.strerror}" + (advice if isinstance(error, PermissionError) else ""))


class Results:
    """The results of one part, while a process predicts it (a context manager).

    Args:
        run: of the cohort.
        shard: the part, which no other process of this computer predicts meanwhile.

    ``is_locked`` is False where the file system keeps no locks: two processes may predict the same cases, and one result counts.

    Raises:
        StudyError: another one does, or predicts a part of another division, which would have cases of this one.
    """

    def __init__(self, run: CohortRun, shard: Shard):
        name = f"{shard.number}-of-{shard.count}"
        self._lock = file_lock(run.results / f".{name}.lock", lock_mode())
        try:
            run.results.mkdir(exist_ok=True)
            _refuse_other_divisions(run, shard)
            self.is_locked = take(self._lock)
        except Timeout:
            raise StudyError(f"{run.folder}: another process predicts part {shard} of it; wait for its end") from None
        except OSError as error:
            raise not_writable(run.folder, error) from None
        self._path = run.results / f"{name}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._file: Any = None
        self._synced = time.monotonic()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a full disk, which was said
                sync_file(self._file.fileno())
                self._file.close()
        self._lock.release()

    def add(self, row: Row) -> None:
        """Keep a case's result: it outlives this process, and within seconds a power failure."""
        try:
            if self._file is None:  # a part that is done leaves no empty file
                self._file = self._path.open("xb")
            self._file.write(json.dumps({**row, "time": time.time()}, separators=(",", ":"), allow_nan=False).encode() + b"\n")
            self._file.flush()
            if time.monotonic() - self._synced > CONFIG.sync_s:
                sync_file(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise StudyError(f"{self._path}: {error.strerror}; run goes on from there when it is called again") from None
