"""How measurements are calculated: a task's definitions as arrays of indices, all of one kind together, with derivatives.

Points that are means are weighted sums of landmarks, so a program has one matrix that makes all points from the landmarks, one
formula for each kind, and a list of ratios and sums in the order in which they can be calculated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from landmarklabel.measurement_definitions import Measurement, Point
from landmarklabel.measurement_precision import PRECISION
from landmarklabel.scale_rules import PixelSize, ScaleRule
from landmarklabel.task_measurements import dimensions, in_order

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_NEAR_END = 10 * PRECISION.step  # radians, or lengths of the line, from the end of a range: differences find no slope there
_WHOLE_TURN, _HALF_TURN, _QUARTER_TURN = 360.0, 180.0, 90.0  # degrees
_PERCENT = 100.0

# Which of a kind's points are the ends of its lines and the corners of its plane.
_LINES = {
    "angle": ((1, 0), (1, 2)),
    "line_angle": ((0, 1), (2, 3)),
    "plane_angle": ((0, 1),),
    "distance_to_line": ((1, 2),),
    "projection": ((2, 3),),
}
_PLANE = {"plane_angle": (2, 3, 4), "distance_to_plane": (1, 2, 3)}
_SIDE_OF = {"line_angle": (0, 1), "distance_to_line": (1, 2), "distance_to_plane": (1, 2, 3)}
_ANY = (-np.inf, np.inf)
_RANGES = {
    "distance": (0.0, np.inf),
    "angle": (0.0, _HALF_TURN),
    "line_angle": (0.0, _HALF_TURN),
    "plane_angle": (0.0, _QUARTER_TURN),
    "distance_to_line": (0.0, np.inf),
    "distance_to_plane": (0.0, np.inf),
}


@dataclass(frozen=True)
class _Group:
    """Measurements of one kind: ``points`` (m, k) rows of the program's points, ``at`` (m,) places among the values.

    Where ``signed``, the last of the points is the one on the side that ``sides`` (m,) says: 1 the positive, -1 the negative.
    """

    kind: str
    signed: bool
    points: IntArray
    at: IntArray
    sides: FloatArray


@dataclass(frozen=True)
class Program:
    """Measurements as arrays.

    Args:
        measurements: m of them; the place of their values.
        order: places so that each comes after those it is made of.
        used: (u,) indices of the landmarks that take part.
        weights: (r, u) of the landmarks in each point.
        groups: what is calculated from points.
        parts: places that each ratio or sum is made of.
        uses: (m, u) whether a measurement depends on a landmark, by the scale rule too.
        dimensions: ``length``, ``angle``, ``ratio`` or ``percentage`` of each.
        ranges: least and largest value of each.
        lengths: (m,) whether each is a length.
        scale: place (behind the measurements) of the distance that is ``scale_mm`` long; None without such a rule.
        scale_mm: length of that distance, or of an image's unit where there is none.
    """

    measurements: tuple[Measurement, ...]
    order: tuple[int, ...]
    used: IntArray
    weights: FloatArray
    groups: tuple[_Group, ...]
    parts: dict[int, list[int]]
    uses: BoolArray
    dimensions: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    lengths: BoolArray
    scale: int | None
    scale_mm: float


@dataclass(frozen=True)
class Evaluation:
    """Values of a program.

    Args:
        values: (…, m) in mm (or the image's unit) and degrees; NaN where not available.
        derivatives: (m, u, d) of the values by the positions; None where not asked for.
        in_image_units: (…, m or m + 1) before the scale rule, with the distance that this takes.
        points: (…, r, d).
    """

    values: FloatArray
    derivatives: FloatArray | None
    in_image_units: FloatArray
    points: FloatArray


@lru_cache(maxsize=32)  # of the tasks and single measurements that a server is asked for again and again
def compiled(
    names: tuple[str, ...], measurements: tuple[Measurement, ...], scale: ScaleRule | PixelSize | None = None
) -> Program:
    """The program of measurements between landmarks of these names; ``scale``: the rule that gives their lengths in mm."""
    index = {name: i for i, name in enumerate(names)}
    ends = () if scale is None else scale.landmarks
    hidden = (Measurement("scale", "distance", tuple((end,) for end in ends)),) if ends else ()
    every, ordered = (*measurements, *hidden), in_order(measurements)[0]
    place = {m.name: i for i, m in enumerate(measurements)}
    points = {p: i for i, p in enumerate(dict.fromkeys(p for m in every for p in _points(m)))}
    used = sorted({index[name] for point in points for name in point})
    column = {i: c for c, i in enumerate(used)}
    weights = np.zeros((len(points), len(used)))
    for point, row in points.items():
        weights[row, [column[index[name]] for name in point]] = 1 / len(point)
    members: dict[tuple[str, bool], list[int]] = {}
    uses = np.zeros((len(every), len(used)), bool)
    for i, m in enumerate(every):
        uses[i, [column[index[name]] for name in m.landmarks]] = True
        if m.points:
            members.setdefault((m.kind, m.towards is not None), []).append(i)
    groups = [
        _Group(
            kind,
            signed,
            points=np.array([[points[p] for p in _points(every[i])] for i in at]),
            at=np.array(at),
            sides=np.array([-1.0 if every[i].away else 1.0 for i in at]),
        )
        for (kind, signed), at in members.items()
    ]
    parts = {place[m.name]: [place[name] for name in m.of] for m in ordered if m.of}
    for whole, of in parts.items():
        uses[whole] = uses[of].any(0)
    of_name = dimensions(ordered)
    dimension = tuple(of_name[m.name] for m in measurements)
    lengths = np.array([d == "length" for d in dimension], bool)
    if ends:
        uses[:-1][lengths] |= uses[-1]
    return Program(
        measurements=measurements,
        order=tuple(place[m.name] for m in ordered),
        used=np.array(used, np.int64),
        weights=weights,
        groups=tuple(groups),
        parts=parts,
        uses=uses[: len(measurements)],
        dimensions=dimension,
        ranges=tuple(_ANY if m.towards is not None else _RANGES.get(m.kind, _ANY) for m in measurements),
        lengths=lengths,
        scale=len(measurements) if ends else None,
        scale_mm=1.0 if scale is None else scale.mm,
    )


def _points(m: Measurement) -> tuple[Point, ...]:
    return m.points if m.towards is None else (*m.points, m.towards)


def evaluated(
    program: Program, positions: FloatArray, with_derivatives: bool = False, around: FloatArray | None = None
) -> Evaluation:
    """The values of a program.

    Args:
        program: with u landmarks.
        positions: (…, u, d) of the landmarks that it uses; NaN rows are missing. With derivatives, (u, d).
        with_derivatives: whether they are calculated.
        around: values (``in_image_units``) to whose side of ±180 angles with a sign are turned.
    """
    known = np.isfinite(positions).all(-1)
    finite = np.where(known[..., None], positions, 0.0)
    with np.errstate(all="ignore"):  # what cannot be calculated is NaN
        points = program.weights @ finite
        points[((~known)[..., None, :] & (program.weights > 0)).any(-1)] = np.nan
        shape = (len(program.measurements) + (program.scale is not None),)
        out = np.full((*positions.shape[:-2], *shape), np.nan)
        slopes = np.zeros((*shape, *positions.shape[-2:])) if with_derivatives else None
        for group in program.groups:
            p = points[..., group.points, :]
            value, sign = _signed(group, p)
            if group.signed and group.kind == "line_angle" and around is not None:
                value = around[group.at] + _turned(value - around[group.at])
            out[..., group.at] = value
            if slopes is not None:
                by_point = sign[:, None, None] * _slopes(group.kind, p)
                slopes[group.at] = np.einsum("mkd,mku->mud", by_point, program.weights[group.points])
        _combine(program, out, slopes, np.abs(finite).max((-1, -2)))
        values, derivatives = _scaled(program, out, slopes)
    return Evaluation(np.where(np.isfinite(values), values, np.nan), derivatives, out, points)


def _signed(group: _Group, p: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Values (…, m), NaN where not available, and the signs that they got, from points (…, m, k, d)."""
    raw = _raw(group.kind, p)
    if group.signed:
        sign = group.sides * np.sign(_offset(p[..., _SIDE_OF[group.kind], :], p[..., -1, :]))
    elif group.kind == "projection":
        sign = np.ones_like(raw)
    else:
        sign = np.where(raw < 0, -1.0, 1.0)
    vanishing = _vanishing(p, _needed(group.kind, group.signed, p))
    return np.where(vanishing.any(-1), np.nan, raw * sign), sign


def _combine(program: Program, out: FloatArray, slopes: FloatArray | None, largest: FloatArray) -> None:
    """Ratios and sums, into the values and derivatives; ``largest`` (…): coordinate of each configuration."""
    for i, parts in program.parts.items():
        m = program.measurements[i]
        if m.kind == "sum":
            out[..., i] = out[..., parts] @ np.array(m.weights)
            if slopes is not None:
                slopes[i] = np.tensordot(m.weights, slopes[parts], 1)
            continue
        above, below = parts
        size = largest if program.lengths[below] else _HALF_TURN
        factor = np.where(np.abs(out[..., below]) > PRECISION.relative_tolerance * size, _PERCENT if m.percent else 1.0, np.nan)
        out[..., i] = factor * out[..., above] / out[..., below]
        if slopes is not None:
            slopes[i] = (factor * slopes[above] - out[i] * slopes[below]) / out[below]


def _scaled(program: Program, out: FloatArray, slopes: FloatArray | None) -> tuple[FloatArray, FloatArray | None]:
    """Values (…, m) and derivatives (m, u, d) after the scale rule."""
    m = len(program.measurements)
    values, derivatives = out[..., :m], None if slopes is None else slopes[:m]
    if program.scale is None:
        factors = np.where(program.lengths, program.scale_mm, 1.0)
        return values * factors, None if derivatives is None else derivatives * factors[:, None, None]
    distance = out[..., program.scale]
    mm = np.where(distance > 0, program.scale_mm / distance, np.nan)
    scaled = np.where(program.lengths, values * mm[..., None], values)
    if slopes is not None and derivatives is not None:
        change = values[:, None, None] / distance * slopes[program.scale]
        derivatives = np.where(program.lengths[:, None, None], mm * (derivatives - change), derivatives)
    return scaled, derivatives


# --- formulae, each of points (…, k, d) ------------------------------------------------------------------------------


def _raw(kind: str, p: FloatArray) -> FloatArray:
    """(…) mm or degrees; with a sign wherever that exists, so that there is a derivative at 0."""
    at = [p[..., i, :] for i in range(p.shape[-2])]
    if kind == "distance":
        return _norm(at[1] - at[0])
    if kind == "angle":
        return _angle(at[0] - at[1], at[2] - at[1])
    if kind == "line_angle":
        return _angle(at[1] - at[0], at[3] - at[2])
    if kind == "plane_angle":
        direction, normal = at[1] - at[0], _normal(p[..., _PLANE[kind], :])
        return _degrees(_dot(direction, normal), _norm(_cross(direction, normal)))
    if kind == "projection":
        direction = at[3] - at[2]
        return _dot(at[1] - at[0], direction) / _norm(direction)
    if kind == "distance_to_line" and p.shape[-1] == 3:
        direction = at[2] - at[1]
        return _norm(_cross(direction, at[0] - at[1])) / _norm(direction)
    return _offset(p[..., _SIDE_OF[kind], :], at[0])


def _slopes(kind: str, p: FloatArray) -> FloatArray:
    """Derivatives (m, k, d) of ``_raw`` by the points (m, k, d), by central differences; NaN where there is none."""
    m, k, d = p.shape
    raw = _raw(kind, p)
    lengths = raw[:, None] if kind == "distance" else _needed(kind, False, p)
    step = PRECISION.step * lengths.min(-1)
    moves = step[:, None, None] * np.eye(k * d).reshape(k * d, 1, k, d)
    ahead, behind = _raw(kind, np.stack([p + moves, p - moves]))
    change = _turned(ahead - behind) if kind in ("angle", "line_angle") else ahead - behind
    slopes: FloatArray = (change / (2 * step)).T.reshape(m, k, d)
    slopes[_at_end(kind, d, raw, lengths)] = np.nan
    return slopes


def _at_end(kind: str, dims: int, raw: FloatArray, lengths: FloatArray) -> BoolArray:
    """(m,) whether a value is so near to the end of its range that it has no derivative."""
    end = np.zeros(len(raw), bool)
    if kind == "distance":
        end = raw <= 0
    elif kind == "plane_angle":
        end = np.radians(_QUARTER_TURN - np.abs(raw)) < _NEAR_END
    elif dims == 3 and kind in ("angle", "line_angle"):
        end = np.radians(np.minimum(raw, _HALF_TURN - raw)) < _NEAR_END
    elif dims == 3 and kind == "distance_to_line":
        end = raw < _NEAR_END * lengths[:, 0]
    return end


def _needed(kind: str, signed: bool, p: FloatArray) -> FloatArray:
    """(…, c) lengths that must not be zero, in the order of ``degenerate``'s reasons."""
    found = [_norm(p[..., b, :] - p[..., a, :]) for a, b in _LINES.get(kind, ())]
    if kind in _PLANE:
        corners = p[..., _PLANE[kind], :]
        sides = _norm(corners - np.roll(corners, 1, -2)).max(-1)
        found.append(np.where(sides > 0, _norm(_normal(corners)) / sides, 0.0))  # the height over the longest side
    if signed:
        found.append(np.abs(_offset(p[..., _SIDE_OF[kind], :], p[..., -1, :])))
    return np.stack(found, -1) if found else np.ones((*p.shape[:-2], 0))


def _vanishing(p: FloatArray, lengths: FloatArray) -> BoolArray:
    """(…, c) which of the lengths between points (…, k, d) are zero, as far as coordinates tell."""
    return np.asarray(lengths <= PRECISION.relative_tolerance * np.abs(p).max((-1, -2))[..., None])


def degenerate(program: Program, i: int, found: Evaluation) -> str:
    """Why measurement ``i`` has no value although all that it is made of is there."""
    m = program.measurements[i]
    if m.kind == "ratio" and not np.isfinite(found.in_image_units[i]):
        return f"{m.of[1]} is 0"
    texts = _reasons_of(m)
    for group in program.groups if texts else ():
        for points in group.points[group.at == i]:
            p = found.points[points]
            with np.errstate(all="ignore"):
                vanishing = _vanishing(p, _needed(group.kind, group.signed, p))
            if vanishing.any():
                return texts[int(vanishing.argmax())]
    if program.lengths[i] and program.scale is not None and not found.in_image_units[program.scale] > 0:
        return "the scale rule has no length: both its landmarks are at one place"
    return "the positions are too large to calculate with"


def _reasons_of(m: Measurement) -> list[str]:
    names = [_called(point) for point in _points(m)]
    texts = []
    for a, b in _LINES.get(m.kind, ()):
        texts.append(f"the line through {names[a]} and {names[b]} has no direction: both are at one place")
    if m.kind in _PLANE:
        one, two, three = (names[k] for k in _PLANE[m.kind])
        texts.append(f"{one}, {two} and {three} lie on one line, so there is no plane through them")
    if m.towards is not None:
        what = "plane" if len(_SIDE_OF[m.kind]) == 3 else "line"
        through = ", ".join(names[k] for k in _SIDE_OF[m.kind])
        texts.append(f"{names[-1]} lies on the {what} through {through}, so it has no side")
    return texts


def _called(point: Point) -> str:
    return point[0] if len(point) == 1 else f"the mean of {', '.join(point)}"


def _offset(reference: FloatArray, point: FloatArray) -> FloatArray:
    """Distance of a point (…, d) from a line in 2D (two points) or a plane (three), positive on one side."""
    normal = _normal(reference) if reference.shape[-2] == 3 else _perpendicular(reference[..., 1, :] - reference[..., 0, :])
    return _dot(normal, point - reference[..., 0, :]) / _norm(normal)


def _normal(corners: FloatArray) -> FloatArray:
    return _cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])


def _perpendicular(u: FloatArray) -> FloatArray:
    return np.stack([-u[..., 1], u[..., 0]], -1)


def _angle(u: FloatArray, v: FloatArray) -> FloatArray:
    """Degrees from ``u`` to ``v``: -180 to 180 in 2D, 0 to 180 in 3D."""
    return _degrees(_dot(_perpendicular(u), v) if u.shape[-1] == 2 else _norm(_cross(u, v)), _dot(u, v))


def _degrees(y: FloatArray, x: FloatArray) -> FloatArray:
    degrees: FloatArray = np.degrees(np.arctan2(y, x))
    return degrees


def _turned(degrees: FloatArray) -> FloatArray:
    return (degrees + _HALF_TURN) % _WHOLE_TURN - _HALF_TURN


def _dot(u: FloatArray, v: FloatArray) -> FloatArray:
    product: FloatArray = (u * v).sum(-1)
    return product


def _norm(u: FloatArray) -> FloatArray:
    return np.sqrt(_dot(u, u))


def _cross(u: FloatArray, v: FloatArray) -> FloatArray:
    """As ``np.cross`` of (…, 3), several times as fast for few vectors."""
    a, b, c = u[..., 0], u[..., 1], u[..., 2]
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], -1)
