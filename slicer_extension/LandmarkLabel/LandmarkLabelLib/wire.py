"""The JSON that travels between server and extension, checked at the door. Positions are LPS millimetres.

Contract version 1, shared with the server by golden files, not by code.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .measured import Measurement, parse_measurements

EXPECTED_ERROR, UNKNOWN_ERROR = "expected_error_mm", -1.0  # of a list in Markups: its measurement, and where none is stated
_SHA256 = re.compile("[0-9a-f]{64}")
MOST_PICTURE_CHARACTERS = 2**20  # of a landmark, in base64
UNSET, PREDICTED, PLACED, ACCEPTED, ABSENT = "unset", "predicted", "placed", "accepted", "absent"
STATES = (UNSET, PREDICTED, PLACED, ACCEPTED, ABSENT)
WITH_POSITION = (PREDICTED, PLACED, ACCEPTED)
BY_PERSON = (PLACED, ACCEPTED, ABSENT)


class WireError(ValueError):
    """An answer that is not what the contract says; the text names what was wrong."""


class RevisionNumber(int):
    """The number of a revision. Its ``sha256`` (empty where it is not known) tells it from another with the same number, as there
    may be once a study was restored from an older copy."""

    sha256 = ""

    @classmethod
    def of(cls, number: int, sha256: object) -> RevisionNumber:
        """With what the server, or a file of ours, says of its hash."""
        made = cls(number)
        made.sha256 = sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else ""
        return made

    def overtakes(self, base: int) -> bool:
        """Whether this is a newer revision than the one an edit started from, or another with its number."""
        seen = sha256_of(base)
        return self > base or (self == base and bool(seen and self.sha256) and seen != self.sha256)


def sha256_of(revision: int) -> str:
    """Empty where only the number is known."""
    return getattr(revision, "sha256", "")


@dataclass(frozen=True)
class Point:
    """One landmark: ``position`` (x, y, z) LPS mm or None, ``expected_error_mm`` or None; ``unit``: mm, or px without spacing.

    ``covariance``: of a proposal, in squares of the unit, as the server has sent it.
    """

    name: str
    state: str = UNSET
    position: tuple[float, float, float] | None = None
    expected_error_mm: float | None = None
    flagged: bool = False
    unit: str = "mm"
    covariance: tuple[tuple[float, ...], ...] | None = None

    @property
    def by_person(self) -> bool:
        """Placed, accepted or called absent by a person: no prediction may change it."""
        return self.state in BY_PERSON


@dataclass(frozen=True)
class Task:
    """What is to be found: names in order, definitions, pairs of left and right; ``pictures``: name to (type, content);
    ``measurements``: what is measured between the landmarks."""

    name: str
    names: tuple[str, ...]
    dims: int
    definitions: dict
    mirror_pairs: tuple[tuple[str, str], ...]
    pictures: dict = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()


def parse_task(content: object) -> Task:
    """The answer of ``GET /landmarks/task``. Raises WireError."""
    try:
        landmarks = content["landmarks"]
        names = tuple(str(x["name"]) for x in landmarks)
        definitions = {str(x["name"]): str(x.get("definition", "")) for x in landmarks}
        pictures = {str(x["name"]): picture for x in landmarks if (picture := _picture(x.get("image"))) is not None}
        pairs = tuple((str(a), str(b)) for a, b in content.get("mirror_pairs", []))
        dims = int(content["dims"])
        name, measurements = str(content["name"]), parse_measurements(content.get("measurements"), names)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WireError(f"the server's task cannot be read ({error!r}): is it a LandmarkLabel server?") from None
    if not names or len(set(names)) != len(names) or dims not in (2, 3):
        raise WireError(f"the server's task {name!r} has {len(names)} names in {dims} dimensions, which is no task")
    return Task(name, names, dims, definitions, pairs, pictures, measurements)


def _picture(uri: object) -> tuple[str, bytes] | None:
    """Type and content of a picture that the task brings with it; None for anything else."""
    kind, found, content = uri.partition(";base64,") if isinstance(uri, str) else ("", "", "")
    if not found or kind not in ("data:image/png", "data:image/jpeg") or len(content) > MOST_PICTURE_CHARACTERS:
        return None
    try:
        return kind[len("data:") :], base64.b64decode(content, validate=True)
    except ValueError:
        return None


def parse_points(rows: object, task: Task, unit: object = "mm") -> list[Point]:
    """The ``landmarks`` of an answer in the task's order; those left out are unset. Raises WireError."""
    if not isinstance(rows, list):
        raise WireError("the answer has no list of landmarks")
    found: dict[str, Point] = {}
    for row in rows:
        point = _point(row, task, "px" if unit == "px" else "mm")
        if point.name in found:
            raise WireError(f"the answer names {point.name!r} twice")
        found[point.name] = point
    return [found.get(name, Point(name)) for name in task.names]


def _point(row: object, task: Task, unit: str) -> Point:
    if not isinstance(row, dict) or row.get("name") not in task.names:
        named = isinstance(row, dict) and isinstance(row.get("name"), str)
        raise WireError(f"{repr(row['name'] if named else row)[:80]} is no landmark of task {task.name!r}")
    name, state = row["name"], row.get("status")
    if state not in STATES:
        raise WireError(f"{name!r} has the unknown state {str(state)[:40]!r}")
    position = row.get("position")
    if state not in WITH_POSITION:
        return Point(name, state)
    if not is_position(position, task.dims):
        raise WireError(f"{name!r} is {state} at {str(position)[:80]}, which is no position in {task.dims}D")
    error = _number(row.get("expected_error_mm"))
    covariance = covariance_of(row.get("covariance"), (task.dims,)) if state == PREDICTED else None
    return Point(name, state, lifted(position), error, bool(row.get("flagged", False)), unit, covariance)


def covariance_of(value: object, sizes: Sequence[int] = (2, 3)) -> tuple[tuple[float, ...], ...] | None:
    """Rows of finite numbers, as many as columns, in one of these sizes; None for anything else."""
    n = len(value) if isinstance(value, (list, tuple)) else 0
    if n not in sizes or not all(isinstance(row, (list, tuple)) and len(row) == n for row in value):
        return None
    if not all(type(v) in (int, float) and math.isfinite(v) for row in value for v in row):
        return None
    return tuple(tuple(float(v) for v in row) for row in value)


def is_position(value: object, dims: int) -> bool:
    """A list of ``dims`` (or three) finite numbers below 10^6."""
    if not isinstance(value, (list, tuple)) or len(value) not in (dims, 3):
        return False
    good = (isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    return all(good) and all(math.isfinite(v) and abs(v) < 1e6 for v in value)


def lifted(position: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers: z is 0 in 2D."""
    x, y, *z = (float(v) for v in position)
    return (x, y, z[0] if z else 0.0)


def _number(value: object) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if good else None


def to_rows(points: Sequence[Point]) -> list[dict]:
    """``landmarks`` of a submission. Three numbers in 2D too: an image may be a slice of a volume, on which its points lie."""
    return [{"name": p.name, "status": p.state, "position": list(p.position) if p.position else None} for p in points]


def to_measured_rows(points: Sequence[Point]) -> list[dict]:
    """``landmarks`` of a question for measurements: how far off a point may be is only known of proposals."""
    known = [p.covariance if p.state == PREDICTED else None for p in points]
    return [row if c is None else {**row, "covariance": [list(r) for r in c]} for row, c in zip(to_rows(points), known)]


def given(points: Sequence[Point]) -> dict:
    """What a person said, as ``/infer`` and ``update`` take it."""
    fixed = {p.name: list(p.position) for p in points if p.state in (PLACED, ACCEPTED)}
    return {"fixed": fixed, "absent": [p.name for p in points if p.state == ABSENT]}


def says_the_same(one: Sequence[Point], other: Sequence[Point]) -> bool:
    """Whether a person has spoken of the same points in both; where they are may differ."""
    a, b = given(one), given(other)
    return (list(a["fixed"]), a["absent"]) == (list(b["fixed"]), b["absent"])


def merged(points: Sequence[Point], proposed: Sequence[Point]) -> list[Point]:
    """Proposals put in, except where a person has spoken: those points never change, but may be flagged."""
    return [_doubted(old, new) if old.by_person else replace(new) for old, new in zip(points, proposed)]


def _doubted(old: Point, new: Point) -> Point:
    same = old.state == PLACED and new.state == PLACED and old.position == new.position
    return replace(old, flagged=new.flagged) if same else old
