"""The folder of a batch: results as Slicer reads them, the table, and notes by which a later call goes on."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
import os
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .wire import (
    ABSENT,
    ACCEPTED,
    EXPECTED_ERROR,
    PLACED,
    PREDICTED,
    UNKNOWN_ERROR,
    UNSET,
    WITH_POSITION,
    Point,
    Task,
    is_position,
)

SUFFIX, NOTES, TABLE, FAILURES = ".mrk.json", "batch.json", "predictions.csv", "failures.csv"
MADE_BY = "LandmarkLabel batch 1"
MOST_NAME_BYTES = 180  # of the 255 a file name may have: the rest is for a number and the suffix
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
)
COLUMNS = ("image", "landmark", "status", "x", "y", "z", "unit", "expected_error", "flagged")
_WRITTEN = {UNSET: "undefined", ABSENT: "missing"}
_UNSAFE = re.compile(r"[^\w .\-+@()\[\],&=~!]")
_OF_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)  # devices, whatever their suffix
# A cell that a spreadsheet would run; in many countries one also begins after a semicolon
_TO_GUARD = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[\s']*[=+\-@\t\r＝＋－＠])")


class Folder:
    """Results, and in ``batch.json`` of which file and model each is and what was written: what differs from that is a person's.

    A note is on disk before the result it is about, so that a stop between the two leaves nothing that looks like a person's.
    """

    def __init__(self, path: Path, task: Task, model: str, version: object):
        self.path, self.task, self.model, self.versions = path, task, model, [version]
        path.mkdir(parents=True, exist_ok=True)
        self.cases = self._load()
        self._taken: set[str] = set()
        self._save()

    def _load(self) -> dict[str, dict]:
        if not os.path.lexists(self.path / NOTES):
            found = next((n for n in (TABLE, FAILURES) if os.path.lexists(self.path / n)), None)
            if found:
                raise ValueError(f"{self.path} has a {found} of something else: choose another folder")
            return {}
        try:
            content = json.loads((self.path / NOTES).read_text(encoding="utf-8"))
            ours, landmarks, cases = content["made_by"] == MADE_BY, content["landmarks"], content["cases"]
        except (OSError, ValueError, KeyError, TypeError):
            ours, landmarks, cases = False, [], {}
        if not ours or not isinstance(cases, dict) or not all(_is_case(n, c) for n, c in cases.items()):
            raise ValueError(f"{self.path / NOTES} is not as a batch leaves it: choose another folder")
        if landmarks != list(self.task.names):
            raise ValueError(f"{self.path} has results of other landmarks: choose another folder")
        return cases

    def _save(self) -> None:
        content = {"made_by": MADE_BY, "task": self.task.name, "landmarks": list(self.task.names), "cases": self.cases}
        write_file(self.path / NOTES, json.dumps(content, indent=1) + "\n")

    def write(self, name: str, text: str) -> None:
        """A file beside the results. OSError: it cannot be written."""
        write_file(self.path / name, text)

    def take(self, name: str, path: Path) -> str:
        """The name of a file's result: no other file of this call gets it, and nobody's work is written over."""
        known = [r for r, c in self.cases.items() if (c["name"], c["file"]) == (name, str(path))]
        known.sort(key=lambda r: not self.is_done(r, name, path))
        for result in itertools.chain(known, numbered(safe_name(name))):
            if same_name(result) not in self._taken and self._is_free(result, name, path):
                self._taken.add(same_name(result))
                return result
        raise AssertionError("numbers do not end")

    def _is_free(self, result: str, name: str, path: Path) -> bool:
        if any(same_name(r) == same_name(result) and r != result for r in self.cases):
            return False
        case = self.cases.get(result)
        if case is None:
            return not os.path.lexists(self.path / (result + SUFFIX))
        there = self._content(result)
        as_written = there is None or there in case["written"]
        if (case["name"], case["file"]) == (name, str(path)):
            return as_written or self.is_done(result, name, path)
        return as_written and case["name"] == name and not os.path.exists(case["file"])  # was of a temporary file

    def is_done(self, result: str, name: str, path: Path) -> bool:
        """Whether the result is there and this version of the model would say the same again."""
        case, there = self.cases.get(result), self._content(result)
        if case is None or there is None or there in case["written"][1:] or not self._is_current(case):
            return False
        try:
            stamp = stamp_of(path)
        except OSError:
            return False
        return stamp.items() <= case.items() and (case["name"], case["file"]) == (name, str(path))

    def _is_current(self, case: dict) -> bool:
        return case["model"] == self.model and case["version"] in self.versions

    def keep(self, result: str, name: str, path: Path, stamp: dict, answer: dict) -> None:
        """Write a result. Raises OSError."""
        points, version = answer["points"], answer["version"]
        text = markups_text(points, f"{self.model} version {version}")
        before = self.cases.get(result, {}).get("written", [])
        written = [hash_of(text), *(w for w in before if w != hash_of(text))][:2]
        self.versions += [version] if version not in self.versions else []
        self.cases[result] = {
            **{"name": name, "file": str(path), **stamp, "model": self.model, "version": version, "origin": answer["origin"]},
            **{"unit": next((p.unit for p in points if p.position), "mm"), "flagged": [p.name for p in points if p.flagged]},
            "written": written,
        }
        self._save()
        write_file(self.path / (result + SUFFIX), text)

    def read(self, fail: Callable[[str, Path, str], None]) -> Iterator[tuple[str, dict, list[Point]]]:
        """(name, note, points) of every result that is there, as a person may have changed it since."""
        for result, case in self.cases.items():
            there = self._content(result)
            if there is None or there in case["written"][1:] or not self._is_current(case):
                continue
            path = self.path / (result + SUFFIX)
            try:
                yield result, case, _read_markups(path, self.task)
            except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
                fail(result, Path(case["file"]), f"{path} was changed by hand and cannot be read ({error!r})")

    def _content(self, result: str) -> str | None:
        """Hash of a result's file; None where there is none, "" for what is no text."""
        try:
            return hash_of((self.path / (result + SUFFIX)).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return ""


def markups_text(points: Sequence[Point], description: str = "", errors: bool = True) -> str:
    """A .mrk.json file in LPS: all points in order, unset ones undefined and absent ones missing, as Slicer writes them.

    ``description``: of the expected errors, which are a measurement with -1 where they are not known.
    """
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": False}
    markup.update({"fixedNumberOfControlPoints": True, "labelFormat": "%N-%d", "lastUsedControlPointNumber": len(points)})
    markup["controlPoints"] = [_control_point(i, p) for i, p in enumerate(points, 1)]
    values = [UNKNOWN_ERROR if p.expected_error_mm is None else p.expected_error_mm for p in points]
    measured = {"name": EXPECTED_ERROR, "units": "mm", "description": description, "controlPointValues": values}
    markup["measurements"] = [measured] if errors else []
    return json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _control_point(number: int, point: Point) -> dict:
    return {
        **{"id": str(number), "label": point.name, "description": "" if point.state == UNSET else point.state},
        **{"associatedNodeID": "", "position": list(point.position) if point.position else ""},
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        **{"selected": True, "locked": point.state == ACCEPTED, "visibility": True},
        "positionStatus": _WRITTEN.get(point.state, "defined"),
    }


def _read_markups(path: Path, task: Task) -> list[Point]:
    """A file of ours, or what Slicer made of one. Raises ValueError, KeyError …: it is none."""
    markup = json.loads(path.read_text(encoding="utf-8"))["markups"][0]
    flip = -1.0 if str(markup.get("coordinateSystem", "LPS")) in ("RAS", "0") else 1.0
    measured = [m["controlPointValues"] for m in markup.get("measurements", []) if m.get("name") == EXPECTED_ERROR]
    rows, found = markup["controlPoints"], {}
    for index, row in enumerate(rows):
        point, name = _point_of(row, flip), row["label"]
        if name not in task.names or name in found:
            raise ValueError(f"the landmark {str(name)[:80]!r} is unknown or there twice")
        error = measured[0][index] if measured and len(measured[0]) == len(rows) and point.position else UNKNOWN_ERROR
        found[name] = replace(point, expected_error_mm=float(error)) if error >= 0 else point
    return [found.get(name, Point(name)) for name in task.names]


def _point_of(row: dict, flip: float) -> Point:
    status, position, said = row.get("positionStatus", "defined"), row.get("position"), row.get("description")
    if status != "defined":
        return Point(row["label"], ABSENT if status == "missing" else UNSET)
    if not is_position(position, 3):
        raise ValueError(f"{row['label']!r} is defined at {str(position)[:80]}, which is no position")
    state = said if said in WITH_POSITION else ACCEPTED if row.get("locked") is True else PLACED
    return Point(row["label"], state, (flip * position[0], flip * position[1], float(position[2])))


def safe_name(name: str) -> str:
    """A name that no system takes for a path, a hidden file or a device; one that already is such stays as it is."""
    made = _UNSAFE.sub("_", unicodedata.normalize("NFC", str(name)))
    made = re.sub(r"\.{2,}", "_", made).strip(" .")
    made = made.encode()[:MOST_NAME_BYTES].decode(errors="ignore").rstrip(" .")
    return made if re.match(r"\w", made) and not _OF_WINDOWS.fullmatch(made.split(".")[0].strip()) else f"_{made}"


def numbered(name: str) -> Iterator[str]:
    return (name if i == 1 else f"{name}_{i}" for i in itertools.count(1))


def same_name(name: str) -> str:
    """Equal for names that one file answers to on some systems."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_case(result: str, case: object) -> bool:
    """Whether a note is one of ours: its name becomes part of a path."""
    texts, others = ("name", "file", "model", "origin", "unit"), ("version", "size", "mtime_ns")
    return (
        re.match(r"\w", result) is not None
        and not (_UNSAFE.search(result) or ".." in result)
        and isinstance(case, dict)
        and all(isinstance(case.get(k), str) for k in texts)
        and all(k in case for k in others)
        and all(isinstance(case.get(k), list) for k in ("flagged", "written"))
    )


def table_row(result: str, point: Point, case: dict) -> list[object]:
    error = point.expected_error_mm
    digits = max(3, 2 - math.floor(math.log10(error))) if error else 3
    place = [round(v, digits) for v in point.position] if point.position else [""] * 3
    said = "" if error is None else round(error, digits)
    flagged = point.state == PREDICTED and point.name in case["flagged"]
    return [result, point.name, point.state, *place, case["unit"], said, "true" if flagged else "false"]


def table_text(rows: Sequence[Sequence[object]]) -> str:
    """CSV that a spreadsheet shows and does not run: text that begins like a formula gets an apostrophe before it."""
    out = io.StringIO()
    for row in rows:
        cells = [_TO_GUARD.sub("'", c.encode(errors="replace").decode()) if isinstance(c, str) else c for c in row]
        broken = any(isinstance(c, str) and "\r" in c for c in cells)  # which Python's writer leaves bare: a new row for others
        csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL).writerow(cells)
    return out.getvalue()


def stamp_of(path: Path) -> dict[str, int]:
    """By which a change of a file is seen. Raises OSError."""
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def reason_of(error: OSError) -> str:
    return error.strerror or type(error).__name__


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_file(path: Path, text: str) -> None:
    """Through another file and a rename, synced; others may read it as far as the person's other files."""
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
