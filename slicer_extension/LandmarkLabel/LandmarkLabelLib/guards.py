"""Checks before points leave: left taken for right, a point far from where the others say, stale coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .shape import propagate
from .wire import ABSENT, PREDICTED, WITH_POSITION, Point, Task

OUTLIER = 4.0  # times the median deviation from what the others say


def swapped_sides(points: Sequence[Point], task: Task) -> list[tuple[str, str]]:
    """Pairs whose left and right lie on the wrong sides of each other: R is towards negative x in LPS (radiological right).

    With three or more pairs the majority tells which side is which (an image may be mirrored); with fewer the name does, where it
    says left or right.
    """
    position = {p.name: p.position for p in points if p.position}
    pairs = [(a, b) for a, b in task.mirror_pairs if a in position and b in position]
    across = {pair: position[pair[0]][0] - position[pair[1]][0] for pair in pairs}
    if len(pairs) >= 3:
        usual = np.sign(np.median(list(across.values())))
        return [pair for pair, x in across.items() if usual and np.sign(x) == -usual]
    return [pair for pair, x in across.items() if (side := _side(pair)) and np.sign(x) == -side]


def _side(pair: tuple[str, str]) -> int:
    """+1 when the first of a pair is the left one (positive x in LPS), -1 when it is the right one, 0 when no name says so."""
    first, second = (name.lower() for name in pair)
    for left, right in (("left", "right"), ("_l", "_r"), ("-l", "-r"), (" l", " r")):
        if first.endswith(left) and second.endswith(right) or left in first and right in second and len(left) > 2:
            return 1
        if first.endswith(right) and second.endswith(left) or right in first and left in second and len(left) > 2:
            return -1
    return 0


def outliers(points: Sequence[Point], template: Sequence[Point]) -> list[str]:
    """Names of points that lie far from where the template, laid on all other points, has them."""
    names, off = [], []
    for i, point in enumerate(points):
        if point.position is None or template[i].position is None:
            continue
        others = [p if j != i else Point(p.name, PREDICTED, template[i].position) for j, p in enumerate(points)]
        others = [_stated(p) if j != i else p for j, p in enumerate(others)]
        moved = propagate(template, others)[i]
        names.append(point.name)
        off.append(float(np.linalg.norm(np.subtract(point.position, moved.position))))
    if len(off) < 5:
        return []
    usual = max(float(np.median(off)), 1e-6)
    return [name for name, distance in zip(names, off, strict=True) if distance > OUTLIER * usual and distance > 1.0]


def _stated(point: Point) -> Point:
    return Point(point.name, "placed", point.position) if point.position else point


def refuse_stale(points: Sequence[Point]) -> None:
    """ValueError if a point without a position carries one, or the other way round."""
    for p in points:
        if (p.position is not None) != (p.state in WITH_POSITION):
            why = "is absent" if p.state == ABSENT else f"is {p.state}"
            raise ValueError(f"{p.name} {why}, but {'has' if p.position else 'has no'} position")
