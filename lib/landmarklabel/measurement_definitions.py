"""Which lengths, angles and indices a task takes from its landmarks: their definitions, as task files have them.

Decision: what a definition needs of itself is checked when a ``Measurement`` is made; what it needs of the task's landmarks and
of the other measurements is checked with the task (``task_measurements``), so that a task lists all faults at once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from landmarklabel.errors import TaskError
from landmarklabel.task_limits import LIMITS

Point = tuple[str, ...]  # one landmark's name, or several: the mean of their positions is meant


@dataclass(frozen=True)
class Kind:
    """How a kind of measurement is written and what it gives.

    Args:
        layout: the keys that hold its points, each with how many: one number per list, so (2, 2) is two lists of two points,
            (2,) one list of two, and () a single point.
        dimension: ``length``, ``angle``, or "" where it depends on the measurements it is made of.
        dims: numbers of dimensions in which it is defined.
        signed_in: those of them in which ``positive_towards`` or ``negative_towards`` may give it a sign.
    """

    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()
    dimension: str = ""
    dims: tuple[int, ...] = (2, 3)
    signed_in: tuple[int, ...] = ()

    @property
    def lists(self) -> list[int]:
        """Sizes of the consecutive groups of points, each of which has to be of different points."""
        return [n for _, counts in self.layout for n in (counts or (1,))]


KINDS = {
    "distance": Kind((("points", (2,)),), "length"),
    "angle": Kind((("points", (3,)),), "angle"),
    "line_angle": Kind((("lines", (2, 2)),), "angle", signed_in=(2,)),
    "plane_angle": Kind((("line", (2,)), ("plane", (3,))), "angle", dims=(3,)),
    "distance_to_line": Kind((("point", ()), ("line", (2,))), "length", signed_in=(2,)),
    "distance_to_plane": Kind((("point", ()), ("plane", (3,))), "length", dims=(3,), signed_in=(3,)),
    "projection": Kind((("points", (2,)), ("line", (2,))), "length"),
    "ratio": Kind(),
    "sum": Kind(),
}


def with_article(kind: str) -> str:
    """``an angle``, ``a distance``."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


@dataclass(frozen=True)
class Norm:
    """What is usual, in the measurement's own unit (lengths in mm), with its standard deviation and where that is stated."""

    mean: float
    source: str
    sd: float | None = None


@dataclass(frozen=True)
class Measurement:
    """One measurement of a task.

    Args:
        name: unique among the task's measurements.
        kind: a key of ``KINDS``.
        points: in the order of the kind's layout; empty for a ratio or a sum.
        towards: point on the side where the value is positive (``positive_towards`` in files); None for no sign.
        away: it is negative there instead (``negative_towards``), for what has landmarks on its other side only.
        of: names of the measurements that a ratio or a sum is made of.
        weights: one for each of ``of``; of a sum only.
        percent: a ratio times 100.
        definition: a sentence.
        norm: what is usual.

    Raises:
        TaskError: listing every fault that shows without the task.
    """

    name: str
    kind: str
    points: tuple[Point, ...] = ()
    towards: Point | None = None
    away: bool = False
    of: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    percent: bool = False
    definition: str = ""
    norm: Norm | None = None

    def __post_init__(self) -> None:
        faults = [*_text_faults("name", self.name, LIMITS.name_characters), *_content_faults(self)]
        if faults:
            raise TaskError(called(self.name), faults)
        object.__setattr__(self, "name", composed(self.name))
        object.__setattr__(self, "points", tuple(tuple(map(composed, point)) for point in self.points))
        object.__setattr__(self, "of", tuple(map(composed, self.of)))
        object.__setattr__(self, "weights", tuple(map(float, self.weights)))
        if self.towards is not None:
            object.__setattr__(self, "towards", tuple(map(composed, self.towards)))
        if faults := _repetitions(self):
            raise TaskError(called(self.name), faults)

    @property
    def landmarks(self) -> tuple[str, ...]:
        """Names of the landmarks that it names itself, each once."""
        return tuple(dict.fromkeys(name for point in (*self.points, self.towards or ()) for name in point))

    def renamed(self, name: Callable[[str], str]) -> Measurement:
        """The same measurement where each landmark is called what ``name`` gives for its name."""
        points = tuple(tuple(map(name, point)) for point in self.points)
        return replace(self, points=points, towards=None if self.towards is None else tuple(map(name, self.towards)))

    def to_json(self) -> dict[str, Any]:
        """As an entry of a task file's ``measurements``."""
        out: dict[str, Any] = {"name": self.name, "kind": self.kind}
        rest = [_written(point) for point in self.points]
        for key, counts in KINDS[self.kind].layout:
            lists = [[rest.pop(0) for _ in range(n)] for n in counts or (1,)]
            out[key] = lists if len(counts) > 1 else lists[0] if counts else lists[0][0]
        if self.towards is not None:
            out[_SIDES[self.away]] = _written(self.towards)
        if self.of:
            out["of"] = dict(zip(self.of, self.weights, strict=True)) if self.kind == "sum" else list(self.of)
        out |= {key: value for key in ("percent", "definition") if (value := getattr(self, key))}
        if self.norm is not None:
            sd = {} if self.norm.sd is None else {"sd": self.norm.sd}
            out["norm"] = {"mean": self.norm.mean, **sd, "source": self.norm.source}
        return out

    @staticmethod
    def from_json(content: object) -> Measurement:
        """Parse an entry of a task file. Raises TaskError: every fault that shows without the task."""
        if not isinstance(content, dict):
            raise TaskError("measurement", ['must be {"name": …, "kind": …, …}'])
        name: Any = content.get("name")  # whatever they are: the measurement itself says what is wrong with them
        kind: Any = content.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            return Measurement(name, kind)
        known = [*_KEYS, *(key for key, _ in KINDS[kind].layout), *_MORE_KEYS.get(kind, ())]
        faults = [f"unknown key {shown(key)}; known: {', '.join(sorted(known))}" for key in content if key not in known]
        points: list[Point] = []
        for key, counts in KINDS[kind].layout:
            points += _read_points(content.get(key), counts, key, faults)
        sides = [side for side in _SIDES if side in content and side in known]
        if len(sides) > 1:
            faults.append(f"{_SIDES[0]!r} and {_SIDES[1]!r} exclude each other")
        towards = [point for side in sides for point in _read_points(content[side], (), side, faults)]
        of, weights = _read_of(content.get("of"), kind, faults)
        norm = _read_norm(content["norm"], faults) if "norm" in content else None
        percent, definition = content.get("percent", False), content.get("definition", "")
        if faults:
            raise TaskError(called(name), [*_text_faults("name", name, LIMITS.name_characters), *faults])
        towards_one, away = next(iter(towards), None), _SIDES[1] in sides
        return Measurement(name, kind, tuple(points), towards_one, away, of, weights, percent, definition, norm)


_KEYS = ("name", "kind", "definition", "norm")
_SIDES = ("positive_towards", "negative_towards")
_SIGNED = {name: _SIDES for name, kind in KINDS.items() if kind.signed_in}
_MORE_KEYS = {"ratio": ("of", "percent"), "sum": ("of",), **_SIGNED}


def composed(name: Any) -> Any:
    """A name with its accents as single characters: ü is one character or two; for people it is one name."""
    return unicodedata.normalize("NFC", name) if isinstance(name, str) else name


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_points(content: object, counts: tuple[int, ...], key: str, faults: list[str]) -> list[Point]:
    """The points of one key, flat; none where a fault is added."""
    if len(counts) > 1:
        if isinstance(content, list) and len(content) == len(counts):
            return [point for part, n in zip(content, counts, strict=True) for point in _read_points(part, (n,), key, faults)]
        faults.append(f"{key!r} must be a list of {len(counts)} lists of {counts[0]} points")
        return []
    parts: list[Any] = [content] if not counts else content if isinstance(content, list) else []
    points = [(part,) if isinstance(part, str) else tuple(part) if isinstance(part, list) else () for part in parts]
    if len(points) != (counts or (1,))[0] or not all(map(_is_point, points)):
        wanted = f"a list of {counts[0]} points" if counts else "one point"
        faults.append(f"{key!r} must be {wanted}, each {_POINT}")
        return []
    return points


def _read_of(content: object, kind: str, faults: list[str]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    if kind == "sum" and isinstance(content, dict):
        return tuple(content), tuple(content.values())
    if kind == "ratio" and isinstance(content, list):
        return tuple(content), ()
    if kind in ("sum", "ratio"):
        faults.append("'of' must be " + ("{measurement: weight, …}" if kind == "sum" else "a list of two measurements"))
    return (), ()


def _read_norm(content: object, faults: list[str]) -> Norm | None:
    if isinstance(content, dict) and {"mean", "source"} <= content.keys() <= {"mean", "sd", "source"}:
        return Norm(content["mean"], content["source"], content.get("sd"))
    faults.append('"norm" must be {"mean": number, "sd": number, "source": text}, "sd" may be left out')
    return None


def _written(point: Point) -> str | list[str]:
    return point[0] if len(point) == 1 else list(point)


# --- faults ----------------------------------------------------------------------------------------------------------

_POINT = f"a landmark's name or a list of 1 to {LIMITS.landmarks_in_mean} different names"


def _content_faults(m: Measurement) -> list[str]:
    """What is wrong with the fields of a measurement other than its name, whatever was put into them."""
    if not isinstance(m.kind, str) or m.kind not in KINDS:
        return [f"kind {shown(m.kind)} must be one of {', '.join(KINDS)}"]
    kind, faults = KINDS[m.kind], _text_faults("definition", m.definition, LIMITS.text_characters, empty=True)
    if not isinstance(m.points, tuple) or len(m.points) != sum(kind.lists) or not all(map(_is_point, m.points)):
        faults.append(f"{with_article(m.kind)} has {sum(kind.lists)} points, each {_POINT}")
    if m.towards is not None and not (kind.signed_in and _is_point(m.towards)):
        faults.append(
            f"'positive_towards' must be {_POINT}" if kind.signed_in else f"{with_article(m.kind)} has no 'positive_towards'"
        )
    if not isinstance(m.away, bool) or (m.away and m.towards is None):
        faults.append(f"'away' {shown(m.away)} must be true or false, and needs a point")
    if not isinstance(m.percent, bool) or (m.percent and m.kind != "ratio"):
        faults.append(f"'percent' {shown(m.percent)} must be true or false, and is of a ratio only")
    faults += _of_faults(m)
    if m.norm is not None:
        faults += _norm_faults(m.norm)
    return faults


def _of_faults(m: Measurement) -> list[str]:
    if not isinstance(m.of, tuple) or not isinstance(m.weights, tuple) or not all(isinstance(name, str) for name in m.of):
        return ["'of' must be names of measurements"]
    least, most = {"ratio": (2, 2), "sum": (1, LIMITS.measurements)}.get(m.kind, (0, 0))
    if not least <= len(m.of) <= most or len(set(map(composed, m.of))) < len(m.of):
        return [f"'of' names {len(m.of)} measurements; {with_article(m.kind)} is of {least} to {most} different ones"]
    if len(m.weights) != (len(m.of) if m.kind == "sum" else 0):
        return [f"{len(m.weights)} weights for {len(m.of)} measurements of {with_article(m.kind)}"]
    bad = [w for w in m.weights if not _is_number(w)]
    return [f"weight {shown(w)} must be a number of at most {LIMITS.weight:g}" for w in bad]


def _norm_faults(norm: Any) -> list[str]:
    if not isinstance(norm, Norm):
        return ["'norm' must be a Norm"]
    faults = _text_faults("source of the norm", norm.source, LIMITS.text_characters)
    if not _is_number(norm.mean):
        faults.append(f"mean {shown(norm.mean)} of the norm must be a number of at most {LIMITS.weight:g}")
    if norm.sd is not None and not (_is_number(norm.sd) and norm.sd > 0):
        faults.append(f"sd {shown(norm.sd)} of the norm must be a positive number of at most {LIMITS.weight:g}")
    return faults


def _text_faults(what: str, text: Any, longest: int, empty: bool = False) -> list[str]:
    fine = isinstance(text, str) and len(text) <= longest and text.isprintable() and (empty or text.strip())
    return [] if fine else [f"{what} {shown(text)} must be printable text of {0 if empty else 1} to {longest} characters"]


def _repetitions(m: Measurement) -> list[str]:
    """Points that are given twice: what is measured between them is the same in every image."""
    faults, rest = [], [frozenset(point) for point in m.points]
    for size in KINDS[m.kind].lists:
        group, rest = rest[:size], rest[size:]
        if len(set(group)) < len(group):
            faults.append("two points that must differ are the same")
    reference = _reference_of_side(m)
    if m.towards is not None and frozenset(m.towards) in map(frozenset, reference):
        faults.append("the point that gives the sign lies on what it is to be beside")
    return faults


def _reference_of_side(m: Measurement) -> tuple[Point, ...]:
    """The points of the line or plane that ``positive_towards`` is a side of."""
    return m.points[:2] if m.kind == "line_angle" else m.points[1:]


def _is_point(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and 1 <= len(value) <= LIMITS.landmarks_in_mean
        and all(isinstance(name, str) for name in value)
        and len(set(map(composed, value))) == len(value)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LIMITS.weight


def called(name: object) -> str:
    """A measurement as a message calls it."""
    return f"measurement {shown(name)}"


def shown(value: object) -> str:
    """A value for a message: short, and without going into what is nested, which may be deeper than Python can follow."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LIMITS.weight:
        return "a large number"
    return repr(value[:80] if isinstance(value, str) else value) if isinstance(value, _PLAIN) else f"({type(value).__name__})"


_PLAIN = (str, bool, int, float, type(None))
