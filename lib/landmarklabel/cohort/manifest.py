"""The cases of a cohort: found in folders, by patterns and in tables, each with an id that stays its own."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any

from landmarklabel.errors import StudyError, UsageError, listed
from landmarklabel.io.files import atomic_write, check_id, image_id_of, image_suffix, is_dicom_folder
from landmarklabel.io.folders import find_images

_TABLES = (".csv", ".tsv")
_REMOTE = "://"


@dataclass(frozen=True)
class CohortCase:
    """A case: ``id``, and the ``path`` of its image file or DICOM folder, or an address that fsspec reads."""

    id: str
    path: str


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``count`` parts of a cohort, from 1: by a hash of the id, so the same on every computer."""

    number: int = 1
    count: int = 1

    @classmethod
    def of(cls, text: str) -> Shard:
        """``i/N``. Raises UsageError."""
        number, _, count = text.partition("/")
        if not (number.isascii() and number.isdecimal() and count.isascii() and count.isdecimal()):
            raise UsageError(f"--shard {text[:40]!r} must be i/N, for example 3/16: the third of sixteen parts")
        shard = cls(int(number), int(count))
        if not 1 <= shard.number <= shard.count:
            raise UsageError(f"--shard {text[:40]!r}: parts are counted from 1 to {shard.count}")
        return shard

    def holds(self, case: CohortCase) -> bool:
        """Whether a case is of this part."""
        return self.count == 1 or int.from_bytes(hashlib.sha256(case.id.encode()).digest()[:8]) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def find_cases(places: Iterable[str]) -> tuple[list[CohortCase], dict[str, str]]:
    """The cases of folders (with all that lies below them), files, patterns with ``*``, addresses, and tables.

    An id is the path below the folder, or below the part of a pattern that has no ``*``, without the ending of the file. A table
    (CSV or TSV) has a column ``path``, relative to the table, and may have a column ``id``.

    Returns:
        The cases, sorted by id, and why files were left out, by path.

    Raises:
        StudyError: nothing there, or two images of one id. UsageError: an id that cannot be one.
    """
    found: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for place in places:
        for case in _cases_of(place, left_out):
            known = found.setdefault(_checked(case.id), case.path)
            if known != case.path:
                raise StudyError(f"{known} and {case.path} would both be case {case.id!r}; give ids in a table with id and path")
    if not found:
        raise StudyError(f"no images in {listed(list(places))}")
    return [CohortCase(i, path) for i, path in sorted(found.items())], left_out


def _cases_of(place: str, left_out: dict[str, str]) -> Iterator[CohortCase]:
    if _REMOTE in place:
        yield from _remote_cases(place)
    elif Path(place).is_dir():
        yield from _below(Path(place), left_out)
    elif place.lower().endswith(_TABLES):
        yield from _table_cases(Path(place))
    elif has_magic(place) and not os.path.lexists(place):
        base = _plain_part(Path(place))
        for path in sorted(map(Path, glob(place, recursive=True))):
            if path.is_dir() and not is_dicom_folder(path):
                continue  # what is in it has to match itself
            yield CohortCase(_id_below(base, path), str(path.absolute()))
    elif os.path.lexists(place):
        yield CohortCase(image_id_of(place), str(Path(place).absolute()))
    else:
        raise StudyError(f"{place}: no such file or folder")


def _below(top: Path, left_out: dict[str, str]) -> Iterator[CohortCase]:
    for folder, inside, _ in os.walk(top):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        place = Path(folder)
        try:
            found = find_images([place])
        except StudyError as error:  # of one folder among many
            left_out[folder] = str(error)
            continue
        for path in found.paths.values():
            yield CohortCase(_id_below(top, path) if path != top else image_id_of(top), str(path.absolute()))
        series = {path.name for path in found.paths.values() if path.is_dir()}
        for name, why in found.left_out.items():
            if not (place / name).is_dir():
                left_out[str(place / name)] = why
        inside[:] = [] if place in found.paths.values() else [name for name in inside if name not in series]


def _id_below(base: Path, path: Path) -> str:
    relative = path.relative_to(base)
    return (PurePosixPath(*relative.parent.parts) / image_id_of(path)).as_posix()


def _plain_part(pattern: Path) -> Path:
    """The folders of a pattern before the first that has a ``*``."""
    parts = []
    for part in pattern.parts[:-1]:
        if has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _table_cases(path: Path) -> Iterator[CohortCase]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path}: no text in UTF-8; save the table as CSV in UTF-8") from None
    rows = csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    if "path" not in (rows.fieldnames or ()):
        raise StudyError(f"{path}: a table of images needs a column 'path', and may have a column 'id'")
    for number, row in enumerate(rows, 2):
        place = (row["path"] or "").strip()
        if not place:
            raise StudyError(f"{path}: line {number} has no path")
        image = place if _REMOTE in place else str((path.parent / place).absolute())
        yield CohortCase((row.get("id") or "").strip() or image_id_of(place.replace("\\", "/")), image)


def _remote_cases(place: str) -> Iterator[CohortCase]:
    files, inside = filesystem(place)
    pattern = inside if has_magic(inside) else f"{inside.rstrip('/')}/**"
    base = PurePosixPath(_plain_part(Path(pattern)).as_posix())
    paths = [inside] if files.isfile(inside) else sorted(p for p in files.glob(pattern) if image_suffix(p) and files.isfile(p))
    for path in paths:
        name = PurePosixPath(path)
        relative = PurePosixPath(name.name) if path == inside else name.relative_to(base)
        yield CohortCase((relative.parent / image_id_of(name.name)).as_posix(), files.unstrip_protocol(path))


def filesystem(address: str) -> tuple[Any, str]:
    """The file system of an address such as ``s3://bucket/scans``, and the path in it. Raises StudyError."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise StudyError(f"{address}: addresses are read by the package fsspec, which the extra [cohort] installs") from None
    try:
        files, inside = url_to_fs(address)
    except (ImportError, ValueError, OSError) as error:
        raise StudyError(f"{address}: {error}") from None
    return files, inside


def _checked(case_id: str) -> str:
    for part in case_id.split("/"):
        check_id(part, "case id")
    return case_id


def write_manifest(path: Path, cases: Iterable[CohortCase]) -> None:
    """``id,path``, a line a case; atomic."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("id", "path"))
    rows.writerows((case.id, case.path) for case in cases)
    atomic_write(path, text.getvalue())


def read_manifest(path: Path) -> list[CohortCase]:
    """The cases in their order. Raises StudyError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            next(rows)
            return [CohortCase(*row) for row in rows]
    except (OSError, StopIteration, TypeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: no manifest that cohort plan wrote ({type(error).__name__})") from None
