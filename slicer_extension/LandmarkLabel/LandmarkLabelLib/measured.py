"""What a task measures between its landmarks, and what the server says it is. The JSON of both, checked at the door."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DRAWN = {"distance": 2, "angle": 3}  # kinds that are a line, or an angle, between so many points
MOST = 1000  # measurements of a task


@dataclass(frozen=True)
class Measurement:
    """One measurement of a task.

    Args:
        name: of it.
        definition: a sentence.
        kind: a key of ``DRAWN``, or empty for what is no single line or angle.
        points: of such a kind; each a landmark's name, or several, whose mean is meant.
    """

    name: str
    definition: str = ""
    kind: str = ""
    points: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Measured:
    """One measurement of one image; numbers are None where they are not known.

    Args:
        name: of the measurement.
        value: in ``unit``.
        unit: mm, px, °, % or empty.
        low, high: ends of the 95 % interval.
        reason: why there is no value.
        interval_reason: why there is no interval, or what has to be known of it.
        usual: mean of what is usual.
        usual_sd: its standard deviation.
        source: who says so.
    """

    name: str
    value: float | None = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    reason: str = ""
    interval_reason: str = ""
    usual: float | None = None
    usual_sd: float | None = None
    source: str = ""


def parse_measurements(rows: object, names: Sequence[str]) -> tuple[Measurement, ...]:
    """``measurements`` of a task, as far as they can be read: without them the rest of the task is as good."""
    found: dict[str, Measurement] = {}
    for row in rows[:MOST] if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            points = _points(row, names)
            kind = str(row["kind"]) if points else ""
            found[row["name"]] = Measurement(row["name"], str(row.get("definition") or ""), kind, points)
    return tuple(found.values())


def _points(row: dict, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Of a line or an angle; none for anything else."""
    kind, points = row.get("kind"), row.get("points")
    if not isinstance(kind, str) or not isinstance(points, list) or len(points) != DRAWN.get(kind):
        return ()
    means = [point if isinstance(point, list) else [point] for point in points]
    return tuple(map(tuple, means)) if all(mean and all(name in names for name in mean) for mean in means) else ()


def parse_measured(rows: object, measurements: Sequence[Measurement]) -> tuple[Measured, ...]:
    """``measurements`` of an answer, in the task's order; what it leaves out has no value. Raises ValueError."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("the answer has no list of measurements")
    found = {str(row.get("name")): _measured(row) for row in rows}
    return tuple(found.get(m.name, Measured(m.name)) for m in measurements)


def _measured(row: dict) -> Measured:
    norm = row.get("norm")
    norm = norm if isinstance(norm, dict) else {}
    value, low, high = (_number(row.get(key)) for key in ("value", "low", "high"))
    text = {key: str(row.get(key) or "") for key in ("name", "unit", "reason", "interval_reason")}
    usual, sd = _number(norm.get("mean")), _number(norm.get("sd"))
    both = low is not None and high is not None
    return Measured(
        text["name"],
        value,
        text["unit"],
        low if both else None,
        high if both else None,
        text["reason"],
        text["interval_reason"],
        usual,
        sd,
        str(norm.get("source") or ""),
    )


def _number(value: object) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def places_of(
    measurement: Measurement, positions: dict[str, tuple[float, float, float] | None]
) -> list[tuple[float, float, float]]:
    """Where the points of a line or an angle are; none where one of them has no position, or it is neither."""
    found = []
    for mean in measurement.points:
        places = [positions.get(name) for name in mean]
        if None in places:
            return []
        found.append(tuple(sum(axis) / len(places) for axis in zip(*places)))
    return found
