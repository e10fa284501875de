"""3D Slicer's landmark files (.mrk.json and .fcsv): a strict reader and a writer of what Slicer itself would write.

Slicer reads almost anything (an unknown coordinate system flips x and y, a duplicate label stays), so this reader is
the only guard: it refuses whatever it cannot be sure of and lists every fault at once.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from landmarklabel.errors import LandmarkFileError
from landmarklabel.geometry import SlicePlane
from landmarklabel.io.control_points import ControlPoint, landmark_set
from landmarklabel.io.covariances import covariance_measurements, covariances_of, factor_measurements, factors_of
from landmarklabel.io.files import FCSV_SUFFIX, MARKUPS_SUFFIX, atomic_write
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.tables import coordinate_faults, decode, number_or_text, read_limited, shown
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
)
EXPECTED_ERROR, RADIUS95 = "expected_error_mm", "radius95_mm"  # names of the measurements that carry them
UNKNOWN_ERROR = -1.0  # "not known" in a file: Slicer keeps it; it stops reading the list at a null, and NaN is no JSON
_FLIP = {"LPS": 1.0, "1": 1.0, "RAS": -1.0, "0": -1.0}  # factor of x and y to LPS; the digits are Slicer 4's spelling
_UNITS = ("mm", ["mm", "UCUM", "millimeter"])  # both spellings of the schema
_JSON_STATUS = ("undefined", "preview", "defined", "missing")  # in the order of Slicer's numbers, as .fcsv has them
_DESCRIPTION = {s: "" if s is Status.UNSET else s.value for s in Status}
_WRITTEN = {Status.UNSET: "undefined", Status.ABSENT: "missing"}
_FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_FCSV_HEADER = re.compile(r"#\s*(Markups fiducial file version|CoordinateSystem|columns)\s*=\s*(.*)")


def read_markups(path: str | Path, task: LandmarkTask | None = None, plane: SlicePlane | None = None) -> LandmarkSet:
    """The landmarks of a .mrk.json or .fcsv file (LPS mm); without a task, the file's own labels are the task.

    ``plane`` is that of a 2D task's image that is one slice of a volume: the file's points must lie on it. Without one, the
    points of a 2D task must all have the same z.

    Raises:
        LandmarkFileError: listing every fault of the file.
    """
    parsers = {MARKUPS_SUFFIX: parse_markups, FCSV_SUFFIX: parse_fcsv}
    parse = next((p for suffix, p in parsers.items() if Path(path).name.lower().endswith(suffix)), None)
    if parse is None:
        raise LandmarkFileError(str(path), [f"a landmark file must end in {' or '.join(parsers)}"])
    return parse(read_limited(path), task, str(path), plane)


def write_markups(path: str | Path, landmarks: LandmarkSet, model: str = "", plane: SlicePlane | None = None) -> None:
    """Write a .mrk.json file atomically. Raises as dump_markups."""
    atomic_write(path, dump_markups(landmarks, model, plane))


def parse_markups(content: str | bytes, task: LandmarkTask | None, what: str, plane: SlicePlane | None = None) -> LandmarkSet:
    """The landmarks in the text of a .mrk.json file; ``what`` names it in errors (and names a task made from it).

    A missing "coordinateSystem" means LPS, as in Slicer; RAS is converted. A landmark that the file does not have is
    unset. Status: "missing" is absent, "undefined" is unset; a "preview" point with a position counts as defined,
    because other programs write so what they found; a defined point has the status its description names (predicted,
    placed, accepted), otherwise it is accepted if locked and placed if not.

    Raises:
        LandmarkFileError: listing every fault.
    """
    document, faults = _load_json(_text(content, what, ",[{"), what)
    markup = _markup_with_points(document, what, faults)
    points = markup["controlPoints"]
    if len(points) > LIMITS.points:
        raise LandmarkFileError(what, [*faults, f"{len(points)} control points; allowed are 1 to {LIMITS.points}"])
    flip = _flip_to_lps(markup, faults)
    lengths = zip(*(_measured(markup, name, len(points), faults) for name in (EXPECTED_ERROR, RADIUS95)), strict=True)
    spread = covariances_of(markup.get("measurements"), len(points), faults)
    values = [(*v, c) for v, c in zip(lengths, spread, strict=True)]
    rows = [_json_point(p, i, flip, v, faults) for i, (p, v) in enumerate(zip(points, values, strict=True), 1)]
    factors = factors_of(markup.get("measurements"), faults)
    return replace(landmark_set([r for r in rows if r], task, what, faults, plane), interval_factors=factors)


def _text(content: str | bytes, what: str, separators: str) -> str:
    text = decode(content, what)
    if sum(text.count(c) for c in separators) > LIMITS.json_values:
        raise LandmarkFileError(what, [f"more than {LIMITS.json_values} values"])
    return text


def _load_json(text: str, what: str) -> tuple[object, list[str]]:
    faults: dict[str, None] = {}

    def constant(literal: str) -> float:
        faults[f"{literal} is not a JSON number"] = None
        return float(literal.replace("Infinity", "inf"))

    def unique(pairs: list) -> dict:
        content = dict(pairs)
        if len(content) != len(pairs):  # Slicer would take the first value, Python the last
            often = Counter(key for key, _ in pairs).most_common(20)
            faults.update({f"key {shown(k)} appears {n} times in one object": None for k, n in often if n > 1})
        return content

    try:
        return json.loads(text, parse_constant=constant, object_pairs_hook=unique), list(faults)
    except RecursionError:
        raise LandmarkFileError(what, ["not readable: brackets are nested too deep"]) from None
    except ValueError as error:
        raise LandmarkFileError(what, [f"not JSON ({error})"]) from None


def _markup_with_points(document: object, what: str, faults: list[str]) -> dict:
    """The one Fiducial list that holds points."""
    markups = document.get("markups") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(markups, list):
        raise LandmarkFileError(what, [*faults, 'no "markups" list: not a 3D Slicer markups file'])
    schema = document.get("@schema", SCHEMA)
    if not isinstance(schema, str) or not re.search(r"/markups-(schema-)?v1\.[^/]*$", schema, re.IGNORECASE):
        faults.append(f'"@schema" {shown(schema)} is not a 3D Slicer markups schema of version 1')
    holders = []
    for number, markup in enumerate(markups, 1):
        points = markup.get("controlPoints", []) if isinstance(markup, dict) else None
        if not isinstance(points, list):
            faults.append(f"markups list {number} is {shown(markup)}: it has no list of controlPoints")
        elif points:
            holders.append(markup)
            if markup.get("type") != "Fiducial":
                kind = shown(markup.get("type"))
                faults.append(f"markups list {number} is of type {kind}; only Fiducial (a point list) can be read")
    if len(holders) > 1:
        faults.append(f"{len(holders)} markups lists hold points; save the one with the landmarks in its own file")
    if not holders:
        raise LandmarkFileError(what, [*faults, "no control points in the file"])
    made: dict = holders[0]
    return made


def _flip_to_lps(markup: dict, faults: list[str]) -> float:
    """The factor that takes x and y to LPS."""
    frame, units = markup.get("coordinateSystem", "LPS"), markup.get("coordinateUnits", "mm")
    if not isinstance(frame, str) or frame not in _FLIP:
        faults.append(f"coordinateSystem {shown(frame)} is unknown; allowed are LPS and RAS")
    if units not in _UNITS:
        faults.append(f'coordinateUnits {shown(units)} are not supported; only "mm" is')
    return _FLIP.get(frame, 1.0) if isinstance(frame, str) else 1.0


def _measured(markup: dict, name: str, n: int, faults: list[str]) -> list[float]:
    """A measurement of every control point in mm, NaN where the file knows none (a negative value)."""
    measurements = markup.get("measurements", [])
    if not isinstance(measurements, list) or not all(isinstance(m, dict) for m in measurements):
        fault = f'"measurements" {shown(measurements)} must be a list of objects'
        faults += [] if fault in faults else [fault]
        return [math.nan] * n
    ours = [m.get("controlPointValues", []) for m in measurements if m.get("name") == name]
    if len(ours) > 1:
        faults.append(f"{len(ours)} measurements are called {name}")
    values = ours[0] if ours else []
    if not isinstance(values, list) or len(values) not in (0, n):
        faults.append(f"{name} {shown(values)} must be a list of {n} numbers, one per control point")
        return [math.nan] * n
    bad = [v for v in values if isinstance(v, bool) or not isinstance(v, (int, float)) or v > LIMITS.coordinate_mm]
    faults += [f"{name} {shown(v)} is not a distance in mm" for v in bad]
    return [math.nan] * n if bad or not values else [float(v) if v >= 0 else math.nan for v in values]


def _json_point(raw: object, number: int, flip: float, measured: tuple, faults: list[str]) -> ControlPoint | None:
    if not isinstance(raw, dict):
        faults.append(f"point {number} is {shown(raw)}, not an object")
        return None
    where = f"point {number} ({shown(raw.get('label'))})"
    locked, description = raw.get("locked", False), raw.get("description", "")
    if not isinstance(locked, bool):
        faults.append(f"{where}: locked {shown(locked)} must be true or false")
    position_status = raw.get("positionStatus", "defined")
    if position_status not in _JSON_STATUS:
        faults.append(f"{where}: positionStatus {shown(position_status)} is none of {', '.join(_JSON_STATUS)}")
        return ControlPoint(where, raw.get("label"), None, Status.UNSET)
    if position_status == "preview" and _is_position(raw.get("position")):
        position_status = "defined"
    status = _status(position_status, locked, description)
    position = None
    if status.has_position:  # an undefined point may carry stale coordinates
        position = _lps_position(raw.get("position"), flip, where, faults)
    return ControlPoint(where, raw.get("label"), position, status, *measured)


def _is_position(raw: object) -> bool:
    return isinstance(raw, list) and len(raw) == 3 and not coordinate_faults(raw)


def _status(position_status: str, locked: object, description: object) -> Status:
    if position_status != "defined":
        return Status.ABSENT if position_status == "missing" else Status.UNSET
    if description in ("predicted", "placed", "accepted"):
        return Status(description)
    return Status.ACCEPTED if locked is True else Status.PLACED


def _lps_position(raw: object, flip: float, where: str, faults: list[str]) -> tuple[float, ...] | None:
    if raw is None or raw in ("", []):
        faults.append(f"{where}: the point is defined but has no position")
    elif not isinstance(raw, list) or len(raw) != 3:
        faults.append(f"{where}: position {shown(raw)} must be three numbers")
    else:
        wrong = coordinate_faults(raw)
        faults += [f"{where}: {fault}" for fault in wrong]
        return None if wrong else (flip * raw[0], flip * raw[1], float(raw[2]))
    return None


def parse_fcsv(content: str | bytes, task: LandmarkTask | None, what: str, plane: SlicePlane | None = None) -> LandmarkSet:
    """The landmarks in the text of a .fcsv file of Slicer 4.6 or newer; statuses as in parse_markups.

    The format has no expected errors, and a file cut off at the end of a line cannot be told from a whole one.

    Raises:
        LandmarkFileError: listing every fault.
    """
    lines = io.StringIO(_text(content, what, ",\n"), newline="")
    header, first = _fcsv_header(lines)
    faults: list[str] = []
    version = header.get("version", "not given")
    numbers = re.search(r"(\d{1,9})\.(\d{1,9})", version, re.ASCII)
    if not numbers or (int(numbers[1]), int(numbers[2])) < (4, 6):
        faults.append(f"version {shown(version)}: not of Slicer 4.6 or newer; save the file as .mrk.json in Slicer")
    frame = header.get("CoordinateSystem", "not given")
    if frame not in _FLIP:
        faults.append(f"CoordinateSystem {shown(frame)}: the header needs a line '# CoordinateSystem = LPS' (or RAS)")
    columns = header.get("columns", "").split(",")
    lacking = [c for c in ("x", "y", "z", "label") if columns.count(c) != 1]
    if lacking:
        faults.append(f"the '# columns = …' line of the header must name {', '.join(lacking)} once")
        raise LandmarkFileError(what, faults)
    try:
        rows = list(islice((r for r in csv.reader(chain([first], lines), strict=True) if r), LIMITS.points + 1))
    except csv.Error as error:
        raise LandmarkFileError(what, [*faults, f"not a table ({error})"]) from None
    if not 1 <= len(rows) <= LIMITS.points:
        faults.append(f"{'too many' if rows else 'no'} control points; allowed are 1 to {LIMITS.points}")
        raise LandmarkFileError(what, faults)
    points = [_fcsv_point(row, i, columns, _FLIP.get(frame, 1.0), faults) for i, row in enumerate(rows, 1)]
    return landmark_set([p for p in points if p], task, what, faults, plane)


def _fcsv_header(lines: Iterable[str]) -> tuple[dict[str, str], str]:
    """What the leading comment lines say, and the first line after them. A line given twice says both: not allowed."""
    header: dict[str, str] = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            return header, line
        if match := _FCSV_HEADER.fullmatch(line.strip()):
            key, value = match[1].split()[-1], match[2]
            header[key] = f"{header[key]} and {value}" if key in header else value
    return header, ""


def _fcsv_point(row: list[str], number: int, columns: list[str], flip: float, faults: list[str]) -> ControlPoint | None:
    if "status" not in columns and len(row) == len(columns) + 2:
        columns = [*columns, "status", "autocreated"]  # Slicer writes these two without naming them
    if len(row) != len(columns):
        faults.append(f"point {number}: {len(row)} cells, the columns line names {len(columns)}")
        return None
    cells = dict(zip(columns, row, strict=True))
    where = f"point {number} ({shown(cells['label'])})"
    lock, code = cells.get("lock", "0"), cells.get("status", "2")
    if lock not in ("0", "1"):
        faults.append(f"{where}: lock {shown(lock)} must be 0 or 1")
    if code not in ("0", "1", "2", "3"):
        faults.append(f"{where}: status {shown(code)} is unknown; 0 is undefined, 1 preview, 2 defined, 3 missing")
        return ControlPoint(where, cells["label"], None, Status.UNSET)
    values = [number_or_text(cells[axis].strip()) for axis in "xyz"]
    position_status = "defined" if code == "1" and _is_position(values) else _JSON_STATUS[int(code)]
    status = _status(position_status, lock == "1", cells.get("desc", ""))
    position = _lps_position(values, flip, where, faults) if status.has_position else None
    return ControlPoint(where, cells["label"], position, status)


def dump_markups(landmarks: LandmarkSet, model: str = "", plane: SlicePlane | None = None) -> str:
    """The text of a .mrk.json file: one Fiducial list in LPS mm with all of the task's landmarks in its order.

    Points of a 2D task lie on ``plane``, where the image is one slice of a volume, or else at z = 0.

    Expected errors, radii of 95 % regions and covariances are measurements with one value per control point, -1 where not known;
    ``model`` is their description, the only free text that Slicer writes back when it saves the file again.

    Raises:
        LandmarkFileError: a coordinate that the reader would refuse.
    """
    measurements = [_measurement(EXPECTED_ERROR, landmarks.expected_error_mm, model)]
    if landmarks.radius95_mm is not None:
        measurements.append(_measurement(RADIUS95, landmarks.radius95_mm, model))
    measurements = [m for m in measurements if model or max(m["controlPointValues"]) > UNKNOWN_ERROR]
    measurements += covariance_measurements(landmarks.covariance_mm2, model)
    measurements += factor_measurements(landmarks.interval_factors, model)
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": False}
    markup |= {"fixedNumberOfControlPoints": True, "labelFormat": "%N-%d"}
    markup["lastUsedControlPointNumber"] = len(landmarks.task)
    markup["controlPoints"] = [_control_point(*row) for row in _rows(landmarks, plane)]
    markup["measurements"] = measurements
    content = {"@schema": SCHEMA, "markups": [markup]}
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _measurement(name: str, values_mm: np.ndarray, description: str) -> dict:
    known = np.isfinite(values_mm) & (values_mm >= 0) & (values_mm <= LIMITS.coordinate_mm)
    values = [float(v) if k else UNKNOWN_ERROR for v, k in zip(values_mm, known, strict=True)]
    return {"name": name, "units": "mm", "description": description, "controlPointValues": values}


def dump_fcsv(landmarks: LandmarkSet) -> str:
    """The text of a .fcsv file (LPS mm); the format has no place for expected errors. Raises as dump_markups."""
    out = io.StringIO()
    out.write(f"# Markups fiducial file version = 5.10\n# CoordinateSystem = LPS\n# columns = {_FCSV_COLUMNS}\n")
    writer = csv.writer(out, lineterminator="\n")
    for number, name, position, status in _rows(landmarks):
        code, locked = _JSON_STATUS.index(_WRITTEN.get(status, "defined")), int(status is Status.ACCEPTED)
        xyz, orientation = position or (0.0, 0.0, 0.0), (0, 0, 0, 1)
        writer.writerow([number, *xyz, *orientation, 1, 1, locked, name, _DESCRIPTION[status], "", code, 0])
    return out.getvalue()


def _rows(landmarks: LandmarkSet, plane: SlicePlane | None = None) -> list[tuple[int, str, list[float] | None, Status]]:
    """(number from 1, name, [x, y, z] or None, status) of every landmark."""
    rows, faults = [], []
    for i, (name, status) in enumerate(zip(landmarks.task.names, landmarks.status, strict=True)):
        position = _lifted(landmarks.positions_mm[i], plane) if status.has_position else None
        faults += [f"landmark {name!r}: {fault}" for fault in coordinate_faults(position or [])]
        rows.append((i + 1, name, position, status))
    if faults:
        raise LandmarkFileError("landmarks to write", faults)
    return rows


def _lifted(position_mm: np.ndarray, plane: SlicePlane | None) -> list[float]:
    if plane is not None and len(position_mm) == 2:
        made: list[float] = plane.lift(position_mm).tolist()
        return made
    return [*position_mm.tolist(), 0.0][:3]


def _control_point(number: int, name: str, position: list[float] | None, status: Status) -> dict:
    return {
        **{"id": str(number), "label": name, "description": _DESCRIPTION[status], "associatedNodeID": ""},
        "position": position or "",
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        **{"selected": True, "locked": status is Status.ACCEPTED, "visibility": True},
        "positionStatus": _WRITTEN.get(status, "defined"),
    }
