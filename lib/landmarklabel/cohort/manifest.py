"""The cases of a cohort: found in folders, by patterns and in tables, each with an id that stays its own."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from tarfile import TarError
from typing import Any
from zipfile import BadZipFile

from landmarklabel.errors import StudyError, UsageError, listed
from landmarklabel.io.files import (
    DICOM_SUFFIXES,
    check_id,
    image_id_of,
    image_suffix,
    is_dicom_folder,
    is_surface,
    looks_like_dicom,
)
from landmarklabel.io.folders import NOT_WORTH_A_WORD, find_images

_TABLES = (".csv", ".tsv")
_REMOTE = "://"
_NUMBER = re.compile(r"[0-9]{1,6}")
_NO_IMAGE = "no image format that is read"


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
        if not (_NUMBER.fullmatch(number) and _NUMBER.fullmatch(count)):
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
        The cases, sorted by id, and why files and folders were left out, by path.

    Raises:
        StudyError: nothing there, a table that is none, or two images of one id. UsageError: an id of a table that cannot be one.
    """
    places, found, left_out = list(places), dict[str, str](), dict[str, str]()
    for place in places:
        for case in _cases_of(place, left_out):
            if not _is_text(case.path):
                left_out[case.path] = "its name is no text in UTF-8; rename it"
                continue
            try:
                _check_id(case)
            except UsageError as error:
                left_out[case.path] = f"{error}; or give it an id in a table"
                continue
            if is_surface(case.path):
                left_out[case.path] = "a surface; landmarklabel predict takes them, and asks for their unit"
                continue
            known = found.setdefault(case.id, case.path)
            if known != case.path:
                raise StudyError(
                    f"{known} and {case.path} would both be case {case.id!r}; every case needs an id of its own in a table"
                )
    if not found:
        raise StudyError(f"no images in {listed(places)}" + (f"; left out: {_first(left_out)}" if left_out else ""))
    named = {_as_text(path): _as_text(why) for path, why in left_out.items()}
    return [CohortCase(i, path) for i, path in sorted(found.items())], named


def _check_id(case: CohortCase) -> None:
    """Raise UsageError where it has a part that cannot name a file."""
    for part in case.id.split("/"):
        check_id(part, "case id")


def _is_text(path: str) -> bool:
    """Whether a path can be written down: names of files are bytes, of any encoding."""
    return _as_text(path) == path


def _as_text(path: str) -> str:
    return path.encode(errors="surrogateescape").decode(errors="replace")


def _first(left_out: dict[str, str]) -> str:
    path, why = next(iter(left_out.items()))
    return f"{path} ({why})"


def _cases_of(place: str, left_out: dict[str, str]) -> Iterator[CohortCase]:
    if not place:
        raise StudyError("an empty name of a folder or file, as of a variable that is not set")
    if _REMOTE in place:
        yield from _remote_cases(place, left_out)
    elif Path(place).is_dir():
        yield from _below(Path(os.path.abspath(place)), left_out)
    elif place.lower().endswith(_TABLES):
        yield from _table_cases(Path(place))
    elif has_magic(place) and not os.path.lexists(place):
        yield from _matching(place, left_out)
    elif os.path.lexists(place):
        path = Path(os.path.abspath(place))
        yield from _file(path, path.parent, left_out)
    else:
        raise StudyError(f"{place}: no such file or folder")


def _file(path: Path, base: Path, left_out: dict[str, str]) -> Iterator[CohortCase]:
    if image_suffix(path) or looks_like_dicom(path):
        yield CohortCase(_id_below(base, path), str(path.absolute()))
    else:
        left_out[str(path)] = _NO_IMAGE


def _matching(pattern: str, left_out: dict[str, str]) -> Iterator[CohortCase]:
    """What a pattern matches: folders only where they are a DICOM series, and the series of slices that match themselves."""
    pattern = os.path.abspath(pattern)
    base, is_series = _plain_part(Path(pattern)), cache(_is_series)  # once for all slices of a folder
    _note_unreadable(Path(pattern), left_out)
    for path in _once_each(sorted(map(Path, glob(pattern, recursive=True))), "**" in pattern, left_out):
        if path.name.lower() in NOT_WORTH_A_WORD and not path.is_dir():
            continue
        if path.is_dir():
            if is_series(path):
                yield CohortCase(_id_below(base, path), str(path.absolute()))
        elif looks_like_dicom(path) and is_series(path.parent):
            yield CohortCase(_id_below(base, path.parent), str(path.parent.absolute()))
        else:
            yield from _file(path, base, left_out)


def _note_unreadable(pattern: Path, left_out: dict[str, str]) -> None:
    """The folders that a pattern would look into and may not: ``glob`` passes them over."""
    parts = pattern.parts
    for count in range(len(_plain_part(pattern).parts), len(parts)):
        for folder in glob(os.path.join(*parts[:count], ""), recursive=True):
            if not os.access(folder, os.R_OK | os.X_OK):
                left_out[os.path.normpath(folder)] = "cannot be read (Permission denied)"


def _once_each(paths: Iterable[Path], follows_links: bool, left_out: dict[str, str]) -> Iterator[Path]:
    """A pattern with ``**`` follows links, also those that lead back: each file once, under its own name if it can be."""
    known: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (os.path.realpath(path) != str(path), path)) if follows_links else paths:
        first = known.setdefault(os.path.realpath(path), path) if follows_links else path
        if first == path:
            yield path
        elif path.is_file():
            left_out[str(path)] = f"the same file as {first}"


def _is_series(folder: Path) -> bool:
    """Whether the DICOM files of a folder are the slices of one image."""
    try:
        return is_dicom_folder(folder) and list(find_images([folder], files_only=True).paths.values()) == [folder]
    except (StudyError, OSError):
        return False


def _below(top: Path, left_out: dict[str, str]) -> Iterator[CohortCase]:
    def unreadable(error: OSError) -> None:
        left_out[str(error.filename)] = f"cannot be read ({error.strerror})"

    seen: dict[str, str] = {}  # links may lead back
    for folder, inside, _ in os.walk(top, onerror=unreadable, followlinks=True):
        place, first = Path(folder), seen.setdefault(os.path.realpath(folder), folder)
        if first != folder:
            left_out[folder] = f"the same folder as {first}"
            inside[:] = []
            continue
        inside[:] = sorted((n for n in inside if not n.startswith(".")), key=lambda n: ((place / n).is_symlink(), n))
        try:
            found = find_images([place], files_only=True)
        except OSError as error:
            unreadable(error)
            continue
        except StudyError as error:
            yield from _one_by_one(place, top, str(error), left_out)
            continue
        for path in found.paths.values():
            yield CohortCase(_id_below(top, path), str(path))
        for name, why in found.left_out.items():
            left_out[str(place / name)] = why


def _one_by_one(folder: Path, top: Path, fault: str, left_out: dict[str, str]) -> Iterator[CohortCase]:
    """The images of a folder of which some cannot be told apart: those are left out."""
    by_id: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            if image_suffix(path) and image_suffix(path) not in DICOM_SUFFIXES:
                by_id.setdefault(image_id_of(path), []).append(path)
            elif looks_like_dicom(path):
                left_out[str(path)] = fault
    for paths in by_id.values():
        if len(paths) == 1:
            yield CohortCase(_id_below(top, paths[0]), str(paths[0].absolute()))
            continue
        for path in paths:
            left_out[str(path)] = f"{listed([p.name for p in paths])} would be one case; give them ids in a table"


def _id_below(base: Path, path: Path) -> str:
    if path == base:
        return image_id_of(path)
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
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        names = [name.strip().lower() for name in next(rows, [])]
        if "path" not in names:
            raise StudyError(
                f"{path}: a table of images needs a column 'path', and may have a column 'id'; it has {listed(names)}"
            )
        for number, row in enumerate(rows, 2):
            cells = dict(zip(names, map(str.strip, row), strict=False))
            if not any(cells.values()):
                continue
            place = cells.get("path", "")
            if not place:
                raise StudyError(f"{path}: line {number} has no path")
            image = place if _REMOTE in place else str((path.parent / place).absolute())
            case = CohortCase(cells.get("id") or image_id_of(place.replace("\\", "/")), image)
            try:
                _check_id(case)
            except UsageError as error:
                raise StudyError(f"{path}: line {number}: {error}") from None
            yield case
    except csv.Error as error:
        raise StudyError(f"{path}: line {rows.line_num}: {error}; is there a quotation mark that has no second one?") from None


def _remote_cases(place: str, left_out: dict[str, str]) -> Iterator[CohortCase]:
    files, inside = filesystem(place)
    _, chained, archive = place.partition("::")
    pattern = inside if has_magic(inside) else f"{inside.rstrip('/')}/**"
    base = PurePosixPath("/", _plain_part(Path(pattern)).as_posix())
    paths = [inside] if files.isfile(inside) else sorted(p for p in files.glob(pattern) if files.isfile(p))
    for path in paths:
        name, address = PurePosixPath("/", path), files.unstrip_protocol(path) + chained + archive
        suffix = image_suffix(name.name)
        if suffix is None or suffix in DICOM_SUFFIXES:
            left_out[address] = f"{_NO_IMAGE}; name the folder of a DICOM series in a table"
            continue
        relative = PurePosixPath(name.name) if path == inside else name.relative_to(base)
        yield CohortCase((relative.parent / image_id_of(name.name)).as_posix(), address)


def filesystem(address: str) -> tuple[Any, str]:
    """The file system of an address such as ``s3://bucket/scans``, and the path in it. Raises StudyError."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise StudyError(f"{address}: addresses are read by the package fsspec, which the extra [cohort] installs") from None
    try:
        files, inside = url_to_fs(address)
    except (ImportError, ValueError, OSError, BadZipFile, TarError) as error:
        raise StudyError(f"{address}: {error}") from None
    return files, inside


def write_manifest(path: Path, cases: Iterable[CohortCase]) -> str:
    """A line of JSON a case; the SHA-256 of the file."""
    content = "".join(json.dumps(vars(case)) + "\n" for case in cases).encode()
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_manifest(path: Path, sha256: str) -> list[CohortCase]:
    """The cases in their order. Raises StudyError for a file that is not the one that was written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StudyError(f"{path}: changed or damaged since the cohort was planned; plan it anew, into another folder")
    return [CohortCase(**json.loads(line)) for line in content.splitlines()]
