"""Checks before points leave: left taken for right, a point far from where the others say, stale coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .shape import propagate
from .wire import ABSENT, PLACED, PREDICTED, WITH_POSITION, Point, Task

OUTLIER = 4.0  # times the median deviation from what the others say


def swapped_sides(points: Sequence[Point], task: Task) -> list[tuple[str, str]]:
    """Pairs whose left and right lie on the wrong sides of each other: R is towards negative x in LPS (radiological right).

    With three or more pairs the majority tells which side is which (an image may be mirrored); with fewer the name does, where it
    says left or right, in 3D: a projection may show either side.
    """
    position = {p.name: p.position for p in points if p.position}
    pairs = [(a, b) for a, b in task.mirror_pairs if a in position and b in position]
    across = {pair: position[pair[0]][0] - position[pair[1]][0] for pair in pairs}
    if len(pairs) >= 3:
        usual = np.sign(np.median(list(across.values())))
        return [pair for pair, x in across.items() if usual and np.sign(x) == -usual]
    sides = {pair: _side(pair) if task.dims == 3 else 0 for pair in across}
    return [pair for pair, x in across.items() if sides[pair] and np.sign(x) == -sides[pair]]


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
    """Names of points that lie far from where the template, laid on all other points, has them; the worst first."""
    left = [i for i, p in enumerate(points) if p.position is not None and template[i].position is not None]
    out: list[str] = []
    while len(left) >= 5:
        off = {i: _off(points, template, i, left) for i in left}
        worst = max(off, key=off.get)
        left = [i for i in left if i != worst]
        usual = float(np.median([_off(points, template, i, left) for i in left]))  # without the worst, which spoils the others
        if off[worst] <= max(OUTLIER * usual, 1.0):
            break
        out.append(points[worst].name)
    return out


def _off(points: Sequence[Point], template: Sequence[Point], which: int, known: Sequence[int]) -> float:
    """Distance in mm of a point from where the template, laid on the other known points, has it."""
    stated = [Point(p.name, PLACED, p.position) if j in known and j != which else Point(p.name) for j, p in enumerate(points)]
    stated[which] = Point(points[which].name, PREDICTED, template[which].position)
    return float(np.linalg.norm(np.subtract(points[which].position, propagate(template, stated)[which].position)))


def refuse_stale(points: Sequence[Point]) -> None:
    """ValueError if a point without a position carries one, or the other way round."""
    for p in points:
        if (p.position is not None) != (p.state in WITH_POSITION):
            why = "is absent" if p.state == ABSENT else f"is {p.state}"
            raise ValueError(f"{p.name} {why}, but {'has' if p.position else 'has no'} position")
