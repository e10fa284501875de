"""Landmark tables (CSV), lists of image ids, and the checks that every text format of landmarks shares."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from landmarklabel.errors import LandmarkFileError, UsageError
from landmarklabel.io.files import check_id, image_id_of
from landmarklabel.io.limits import LIMITS
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

ID_COLUMNS = ("id", "image", "image_id", "case", "file", "filename", "specimen")
_UNSET_CELLS = {"", "nan", "na"}
_ABSENT_CELLS, _AXES = {"absent"}, "xyz"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", re.ASCII)
_QUOTED = re.compile(r'"[^"]*"')
_INDEXED = re.compile(r"[xyz](0|[1-9]\d{0,5})", re.ASCII)
# What a spreadsheet runs: cells that begin like this; in many countries a cell also begins after ;
_CELL_START, _FORMULA = r"(?:^|(?<=[;\t\r\n]))", r"[\s']*[=+\-@\t\r＝＋－＠]"
_TO_GUARD = re.compile(f"{_CELL_START}(?={_FORMULA})")
_GUARDED = re.compile(f"{_CELL_START}'(?={_FORMULA})")
_repr = reprlib.Repr()
_repr.maxstring, _repr.maxother, _repr.maxlevel, _repr.maxlist, _repr.maxdict = 60, 60, 2, 5, 2
shown = _repr.repr  # a value from a file as it may appear in a message: never long, never too deep


def read_limited(path: str | Path, max_bytes: int = LIMITS.label_bytes) -> bytes:
    """The bytes of a regular file, at most ``max_bytes`` + 1 of them. Raises LandmarkFileError if it cannot be read."""
    path = Path(path)
    try:
        if not path.is_file():
            raise LandmarkFileError(str(path), ["not a regular file" if path.exists() else "no such file"])
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise LandmarkFileError(str(path), [f"not readable ({error})"]) from None


def decode(content: str | bytes, what: str, max_bytes: int = LIMITS.label_bytes) -> str:
    """UTF-8 text without a byte order mark. Raises LandmarkFileError if it is too long or not UTF-8."""
    if len(content) > max_bytes:
        raise LandmarkFileError(what, [f"larger than {max_bytes / 1e6:g} MB"])
    if isinstance(content, bytes):
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise LandmarkFileError(what, ["text in UTF-16; save it as UTF-8"])
        try:
            content = content.decode("utf-8")
        except UnicodeDecodeError as error:
            bad = f"byte 0x{content[error.start]:02x} at position {error.start}"
            raise LandmarkFileError(what, [f"not UTF-8 text ({bad})"]) from None
    return content.removeprefix("\ufeff")


def number_or_text(text: str) -> float | str:
    """The number a cell holds (nan and inf count as numbers), or the cell itself where it holds none."""
    return float(text) if _NUMBER.fullmatch(text) else text


def coordinate_faults(values: Sequence[object]) -> list[str]:
    """What is wrong with a point's coordinates (mm): not numbers, not finite, or beyond any scanner."""
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return [f"position {shown(list(values))} is not made of numbers"]
    if any(isinstance(v, float) and not math.isfinite(v) for v in numbers):
        return [f"position {shown(list(values))} is not finite"]
    if any(abs(v) > LIMITS.coordinate_mm for v in numbers):
        return [f"position {shown(list(values))} is more than {LIMITS.coordinate_mm:g} mm from the origin"]
    return []


def read_table(path: str | Path, task: LandmarkTask) -> dict[str, LandmarkSet]:
    """Image id to landmarks (status placed, LPS mm) from a table with one row per image.

    Cells are separated by comma, semicolon or tab. With a header, coordinate columns are called ``x0, y0[, z0], x1, …``
    or ``<landmark>_x, <landmark>_y[, <landmark>_z]``, the id is in the column ``id`` (or ``image``, ``file`` …; otherwise the
    first), ``<landmark>_status`` may say that a point is ``predicted`` or ``absent``, and other columns are ignored. Without
    one, a row is the id and the coordinates in the task's order. A landmark whose cells are all empty, ``nan`` or ``NA`` is
    unset; one whose cells are all ``absent`` is absent. The apostrophe that ``table_text`` puts before a formula is taken away
    again.

    Raises:
        LandmarkFileError: listing the faults (the first 20), with row numbers that count the lines of the file.
    """
    what = str(path)
    rows = rows_of(decode(read_limited(path, LIMITS.table_bytes), what, LIMITS.table_bytes), what)
    faults: list[str] = []
    start, first = next(rows, (0, []))
    header = first if _is_header(first, task) else None
    width = len(header) if header else 1 + len(task) * task.dims
    columns = _header_columns(header, task, faults) if header else list(range(width))
    raise_capped(what, faults)
    place = {cell: i for i, cell in enumerate(header or ())}
    stated_in = [place.get(f"{name}_status") for name in task.names]
    sets: dict[str, LandmarkSet] = {}
    for line, row in rows if header or not first else chain([(start, first)], rows):
        if len(row) != width:
            faults.append(f"row {line}: {len(row)} cells, expected are {width}{'' if header else _layout(task)}")
            continue
        cells = [row[c] for c in columns]
        image_id = _image_id(cells[0], sets, f"row {line}", faults)
        stated = [row[c] if c is not None else "" for c in stated_in]
        landmarks = _landmarks(cells[1:], stated, task, f"row {line}", faults)
        if image_id is not None:
            sets[image_id] = landmarks
    if not sets and not faults:
        faults.append("no rows with landmarks")
    raise_capped(what, faults)
    return sets


def first_row(path: str | Path) -> list[str]:
    """The first row of a table that is not blank. Raises LandmarkFileError."""
    what = str(path)
    return next(rows_of(decode(read_limited(path, LIMITS.table_bytes), what, LIMITS.table_bytes), what), (0, []))[1]


def rows_of(text: str, what: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, stripped cells, in Unicode's composed form) of every row that is not blank.

    Where tabs or semicolons separate the cells, a comma in a number is a decimal one and becomes a point.
    """
    first = _QUOTED.sub("", next((line for line in io.StringIO(text) if line.strip()), ""))
    delimiter = max("\t;,", key=first.count)  # the first of equals: every number beside an id may have a decimal comma
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    commas, points = "", ""  # the first number with each
    try:
        for row in reader:
            cells = [unicodedata.normalize("NFC", _GUARDED.sub("", cell.strip()).strip()) for cell in row]
            if delimiter != ",":
                commas = commas or next((cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)), "")
                points = points or next((cell for cell in cells if _DECIMAL_POINT.fullmatch(cell)), "")
                if commas and points:
                    fault = f"row {reader.line_num}: {commas[:40]!r} beside {points[:40]!r}: which is a decimal mark?"
                    raise LandmarkFileError(what, [fault])
                cells = [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise LandmarkFileError(what, [f"row {reader.line_num}: not a table ({error})"]) from None


def _is_header(cells: list[str], task: LandmarkTask) -> bool:
    """Whether a first row names columns: one has a coordinate's name, or there is text and not a single number."""
    named = set(_column_names(task, _AXES))
    if any(cell in named or _INDEXED.fullmatch(cell.lower()) for cell in cells):
        return True
    words = [c for c in cells[1:] if c.lower() not in _UNSET_CELLS | _ABSENT_CELLS]
    return bool(words) and all(isinstance(number_or_text(c), str) for c in words)


def is_named(first: list[str], dims: int) -> bool:
    """Whether a table's first row names columns by landmarks: ``nasion_x``, ``nasion_y`` …"""
    return all(any(cell.endswith(f"_{axis}") for cell in first) for axis in _AXES[:dims])


def _header_columns(header: list[str], task: LandmarkTask, faults: list[str]) -> list[int]:
    """Index of the id's column, then of every coordinate's in the task's order."""
    axes = _AXES[: task.dims]
    lower = [c.lower() for c in header]
    by_name = _column_names(task, axes)
    by_index = [f"{axis}{i}" for i in range(len(task)) for axis in axes]
    indexed = [c for c in lower if _INDEXED.fullmatch(c)]
    wanted, present = (by_index, lower) if indexed else (by_name, header)
    counts, needed = Counter(present), set(wanted)
    if not needed & set(present):
        faults.append(f"no coordinate columns in the header{_layout(task)}")
        return []
    faults += _missing([c for c in wanted if not counts[c]], [] if indexed else header, task)
    faults += [f"column {c!r} appears {counts[c]} times" for c in wanted if counts[c] > 1]
    excess = f"the task has {len(task)} landmarks, 0 to {len(task) - 1}, in {task.dims}D"
    faults += [f"column {c!r} is too many: {excess}" for c in indexed if c not in needed]
    key = next((lower.index(name) for name in ID_COLUMNS if name in lower), 0)
    faults += [f"no column with the image id: the first is {header[key]!r}"] if present[key] in needed else []
    place = {c: i for i, c in enumerate(present)}
    return [] if faults else [key, *(place[c] for c in wanted)]


def _missing(columns: list[str], header: list[str], task: LandmarkTask) -> list[str]:
    """A fault for each missing column, with a guess where a column that is named by a landmark is called much like it."""
    if task.dims == 3 and columns == [f"z{i}" for i in range(len(task))]:
        return [f"no columns z0 to z{len(task) - 1}: task {task.name!r} is 3D (landmarklabel task new --dims 2 makes one in 2D)"]
    taken = {f"{name}_{axis}" for name in task.names for axis in _AXES}  # those are other landmarks'
    lower, faults = {c.lower(): c for c in header if c not in taken}, []
    for i, column in enumerate(columns):
        near = difflib.get_close_matches(column.lower()[:100], lower, n=1) if i < LIMITS.hints else []
        faults.append(f"column {column!r} is missing" + (f"; did you mean {lower[near[0]]!r}?" if near else ""))
    return faults


def _column_names(task: LandmarkTask, axes: str) -> list[str]:
    return [f"{name}_{axis}".lstrip() for name in task.names for axis in axes]


def _layout(task: LandmarkTask) -> str:
    first, last = (",".join(f"{a}{i}" for a in _AXES[: task.dims]) for i in (0, len(task) - 1))
    return f" (the task needs id,{first},…,{last})"


def image_id_of_cell(cell: str, where: str, faults: list[str]) -> str | None:
    """The image id in a cell, which may be a file name; None and a fault where it is none."""
    try:
        return check_id(image_id_of(cell))
    except UsageError as error:
        faults.append(f"{where}: {error}")
        return None


def _image_id(cell: str, taken: Mapping[str, object], where: str, faults: list[str]) -> str | None:
    image_id = image_id_of_cell(cell, where, faults)
    if image_id in taken:
        faults.append(f"{where}: image id {image_id!r} was already given")
        return None
    return image_id


def _landmarks(cells: list[str], stated: list[str], task: LandmarkTask, where: str, faults: list[str]) -> LandmarkSet:
    positions = np.full((len(task), task.dims), np.nan)
    statuses = [Status.UNSET] * len(task)
    for i, name in enumerate(task.names):
        own = cells[i * task.dims : (i + 1) * task.dims]
        statuses[i], positions[i] = cells_of_point(own, f"{where}, landmark {name!r}", faults, stated[i])
    return LandmarkSet(task, positions, tuple(statuses))


def cells_of_point(cells: list[str], where: str, faults: list[str], stated: str = "") -> tuple[Status, list[float]]:
    """Status and position that the cells of one point hold; ``stated`` is its cell in a column of statuses.

    A point that is ``predicted`` is a model's and stays one; one that is ``absent`` or ``unset`` has no position, whatever the
    cells say. Any other status is a person's point.
    """
    kinds, nowhere, stated = {c.lower() for c in cells}, [math.nan] * len(cells), stated.lower()
    if stated in (Status.ABSENT.value, Status.UNSET.value):
        return Status(stated), nowhere
    if kinds <= _UNSET_CELLS:
        return Status.UNSET, nowhere
    if kinds <= _ABSENT_CELLS:
        return Status.ABSENT, nowhere
    if kinds & (_UNSET_CELLS | _ABSENT_CELLS):
        faults.append(f"{where}: {shown(cells)} is only partly given")
        return Status.UNSET, nowhere
    values = [number_or_text(c) for c in cells]
    wrong = coordinate_faults(values)
    faults += [f"{where}: {fault}" for fault in wrong]
    found = Status.PREDICTED if stated == Status.PREDICTED.value else Status.PLACED
    return (Status.UNSET, nowhere) if wrong else (found, [float(v) for v in values])


def raise_capped(what: str, faults: list[str]) -> None:
    """Raise LandmarkFileError if there are faults, naming the first 20."""
    if len(faults) > LIMITS.shown_faults:
        faults = [*faults[: LIMITS.shown_faults], f"and {len(faults) - LIMITS.shown_faults} more"]
    if faults:
        raise LandmarkFileError(what, faults)


def table_text(rows: Iterable[Sequence[object]]) -> str:
    """The text of a CSV table that a spreadsheet shows and does not run.

    Text that begins with = + - @ tab or carriage return (also after spaces, apostrophes or a ``;``, which separates cells in many
    countries) gets a leading apostrophe there, the spreadsheets' own mark for text; ``read_table`` takes it away. Numbers stay
    numbers: -1.5 is written as -1.5, NaN as an empty cell.
    """
    out = io.StringIO()
    for row in rows:
        cells = [_cell(value) for value in row]
        broken = any(
            isinstance(cell, str) and "\r" in cell for cell in cells
        )  # Python's writer leaves \r bare: a new row for others
        csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL).writerow(cells)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str):
        return _TO_GUARD.sub("'", value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def predictions_text(rows: Mapping[str, LandmarkSet]) -> str:
    """The text of predictions.csv: a row per image with position, status and expected error of every landmark.

    Positions are LPS mm (pixels for pictures), to 0.001 or finer where the expected error is small. All sets must be of one
    task; what is not known is an empty cell. Names that a spreadsheet would run
    begin with an apostrophe (see ``table_text``).

    Raises:
        UsageError: an id that cannot be one, or sets of different tasks.
    """
    tasks = {landmarks.task.hash: landmarks.task for landmarks in rows.values()}
    if len(tasks) > 1:
        names = ", ".join(repr(task.name) for task in tasks.values())
        raise UsageError(f"predictions of different tasks ({names}) cannot share one table")
    table: list[list[object]] = []
    for task in tasks.values():
        parts = [*_AXES[: task.dims], "status", "expected_error_mm"]
        table.append(["id", *(f"{name}_{part}" for name in task.names for part in parts)])
    for image_id, landmarks in rows.items():
        cells = [[*position, status, error] for position, status, error in _rounded(landmarks)]
        table.append([check_id(image_id), *(cell for part in cells for cell in part)])
    return table_text(table) or "id\n"


def long_text(rows: Mapping[str, LandmarkSet]) -> str:
    """The text of predictions_long.csv: a row per point, ``id,landmark,x,y,z,status,expected_error``; z is empty in 2D.

    Rounded and written as in ``predictions_text``.
    """
    table = [["id", "landmark", *_AXES, "status", "expected_error"]]
    for image_id, landmarks in rows.items():
        for name, (position, status, error) in zip(landmarks.task.names, _rounded(landmarks), strict=True):
            table.append([check_id(image_id), name, *position, *[math.nan] * (3 - len(position)), status, error])
    return table_text(table)


def _rounded(landmarks: LandmarkSet) -> Iterator[tuple[list[float], str, float]]:
    """Position, status and expected error of every landmark, to a hundredth of the expected error, at most to 0.001."""
    known = zip(landmarks.positions_mm.tolist(), landmarks.status, landmarks.expected_error_mm.tolist(), strict=True)
    for position, status, error in known:
        digits = max(3, 2 - math.floor(math.log10(error))) if math.isfinite(error) and error > 0 else 3
        yield [round(x, digits) for x in position], status.value, round(error, digits)


def read_ids(path: str | Path) -> list[str]:
    """Image ids, one per line, in the file's order without repeats.

    Image file names stand for their ids; # starts a comment.

    Raises:
        LandmarkFileError: listing the lines that hold no id, or if there is none at all.
    """
    what = str(path)
    faults: list[str] = []
    ids: dict[str, None] = {}
    for number, line in enumerate(decode(read_limited(path), what).splitlines(), 1):
        text = line.partition("#")[0].strip()
        image_id = _image_id(text, {}, f"line {number}", faults) if text else None
        if image_id is not None:
            ids[image_id] = None
    if not ids and not faults:
        faults.append("no image ids in the file")
    raise_capped(what, faults)
    return list(ids)
