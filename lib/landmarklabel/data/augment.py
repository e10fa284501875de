"""One random draw that moves image and points together: affine, smooth elastic, mirror; and grey-value changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landmarklabel.geometry import ImageGeometry


@dataclass(frozen=True)
class AugmentRange:
    """How far a draw may go. Lengths are fractions of the field's shortest side, so one range fits every task."""

    rotation: float = 0.35  # radians; in 3D about a random axis
    scale: float = 0.16  # log scale, both ways
    shear: float = 0.08
    shift: float = 0.07
    elastic: float = 0.03  # of a control point, standard deviation
    elastic_nodes: int = 5
    mirror: float = 0.0  # probability; needs the task's mirror pairs to make sense
    all_rotations: bool = False  # any orientation whatsoever
    cut: float = 0.0  # probability, twice, that what lies beyond a random plane is not in view
    gamma: float = 0.4  # log
    contrast: float = 0.25
    brightness: float = 0.15
    noise: float = 0.06


@dataclass(frozen=True)
class Warp:
    """Where each point of the output field is looked up in the source image; all in LPS mm.

    ``source = centre + matrix (out + elastic(out) - centre) + shift``: the elastic part is a cubic B-spline over the field
    with analytic values, so the transform of a point is exact and has an inverse.

    Args:
        centre, shift: (d,) mm.
        matrix: (d, d).
        low, high: (d,) mm bounds of the field, which the spline's nodes span.
        nodes: (k, …, k, d) mm displacements, k control points per axis.
        mirrored: the matrix has a reflection: names swap.
    """

    centre: np.ndarray
    shift: np.ndarray
    matrix: np.ndarray
    low: np.ndarray
    high: np.ndarray
    nodes: np.ndarray
    mirrored: bool = False

    @staticmethod
    def identity(field: ImageGeometry) -> Warp:
        """The transform that moves nothing."""
        low, high = field.bounds_mm
        d = field.dims
        return Warp((low + high) / 2, np.zeros(d), np.eye(d), low, high, np.zeros((5,) * d + (d,)))

    def apply(self, out_mm: np.ndarray) -> np.ndarray:
        """(n, d) output points to (n, d) source points."""
        moved = out_mm + self._elastic(out_mm)
        made: np.ndarray = (moved - self.centre) @ self.matrix.T + self.centre + self.shift
        return made

    def inverse(self, source_mm: np.ndarray) -> np.ndarray:
        """(n, d) source points to (n, d) output points, by fixed-point iteration to 1e-9 of the field; NaN stays NaN."""
        target = (source_mm - self.centre - self.shift) @ np.linalg.inv(self.matrix).T + self.centre
        out: np.ndarray = target.copy()
        for _ in range(60):
            moved = target - self._elastic(out)
            change = np.nanmax(np.abs(moved - out), initial=0.0)
            out = moved
            if change < 1e-9 * float(np.max(self.high - self.low)):
                break
        return out

    def on_grid(self, grid: ImageGeometry) -> np.ndarray:
        """Source positions (*array shape of the grid, d) float32 of all samples of an axis-aligned grid.

        The elastic part is contracted one axis at a time and the affine part is a sum of one profile per axis.
        """
        d = grid.dims
        axes = [grid.origin[a] + grid.spacing[a] * np.arange(grid.size[a]) for a in range(d)]
        moved = (self.nodes @ self.matrix.T).astype(np.float32)  # the matrix applied to the displacements
        for a in range(d):
            weights = self._weights(axes[a], a).astype(np.float32)
            moved = np.moveaxis(np.tensordot(weights, moved, axes=(1, a)), 0, a)
        source = np.empty((*reversed(grid.size), d), np.float32)
        for i in range(d):
            part = moved[..., i].transpose(*reversed(range(d)))
            for a in range(d):
                profile = self.matrix[i, a] * (axes[a] - self.centre[a])
                profile += self.centre[i] + self.shift[i] if a == 0 else 0.0
                part = part + profile.astype(np.float32).reshape(-1, *(1,) * a)
            source[..., i] = part
        return source

    def _weights(self, positions: np.ndarray, axis: int) -> np.ndarray:
        """(n, k) cubic B-spline weights of positions along one axis."""
        k = self.nodes.shape[axis]
        span = self.high[axis] - self.low[axis]
        u = (positions - self.low[axis]) / span * (k - 1)
        t = np.abs(np.clip(u, -2.0, k + 1.0)[:, None] - np.arange(k))
        return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))

    def _elastic(self, points: np.ndarray) -> np.ndarray:
        known = np.where(np.isfinite(points), points, self.low)
        letters = "abc"[: points.shape[1]]
        weights = [self._weights(known[:, a], a) for a in range(points.shape[1])]
        made: np.ndarray = np.einsum(",".join(f"n{x}" for x in letters) + f",{letters}d->nd", *weights, self.nodes)
        return made


def random_rotation(rng: np.random.Generator, d: int, angle: float | None) -> np.ndarray:
    """A rotation matrix: by up to ``angle`` radians about a random axis, or uniform over all rotations for None."""
    if d == 2:
        a = rng.uniform(-np.pi, np.pi) if angle is None else rng.uniform(-angle, angle)
        return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    if angle is None:
        q, r = np.linalg.qr(rng.normal(size=(3, 3)))
        q = q * np.sign(np.diag(r))
        made: np.ndarray = q * np.sign(np.linalg.det(q))
        return made
    axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    a = rng.uniform(-angle, angle)
    turned: np.ndarray = np.eye(3) + np.sin(a) * cross + (1 - np.cos(a)) * cross @ cross
    return turned


def draw_warp(rng: np.random.Generator, field: ImageGeometry, ranges: AugmentRange) -> Warp:
    """Draw one transform for a field of view."""
    d = field.dims
    low, high = field.bounds_mm
    side = float((high - low).min())
    matrix = random_rotation(rng, d, None if ranges.all_rotations else ranges.rotation)
    matrix = matrix @ (np.eye(d) + rng.uniform(-ranges.shear, ranges.shear, (d, d)) * (1 - np.eye(d)))
    matrix = matrix * np.exp(rng.uniform(-ranges.scale, ranges.scale))
    mirrored = bool(rng.random() < ranges.mirror)
    if mirrored:
        matrix = matrix @ np.diag([-1.0] + [1.0] * (d - 1))
    nodes = rng.normal(size=(ranges.elastic_nodes,) * d + (d,)) * ranges.elastic * side
    shift = rng.uniform(-ranges.shift, ranges.shift, d) * side
    return Warp((low + high) / 2, shift, matrix, low, high, np.clip(nodes, -0.08 * side, 0.08 * side), mirrored)


def draw_cuts(rng: np.random.Generator, field: ImageGeometry, ranges: AugmentRange) -> list[tuple[np.ndarray, float]]:
    """Planes (unit normal, offset): points with ``normal @ p > offset`` are not in view. LPS mm."""
    low, high = field.bounds_mm
    planes = []
    for _ in range(2):
        normal = rng.normal(size=field.dims)
        normal /= np.linalg.norm(normal)
        distance = rng.uniform(0.15, 0.5) * float((high - low).min())
        if rng.random() < ranges.cut:
            planes.append((normal, float(normal @ (low + high) / 2 + distance)))
    return planes


@dataclass(frozen=True)
class GreyChange:
    """A drawn change of grey values; images are about 0..1 before and after."""

    gamma: float = 1.0
    gain: float = 1.0
    offset: float = 0.0
    noise: float = 0.0
    seed: int = 0

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Same shape, float32."""
        if self.gamma != 1.0:
            image = np.clip(image, 0, None) ** np.float32(self.gamma)
        image = image * np.float32(self.gain) + np.float32(self.offset)
        if self.noise > 0:
            rng = np.random.default_rng(self.seed)
            image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(self.noise)
        return image


def draw_grey(rng: np.random.Generator, ranges: AugmentRange) -> GreyChange:
    """Draw one change of grey values."""
    return GreyChange(
        gamma=float(np.exp(rng.uniform(-ranges.gamma, ranges.gamma))),
        gain=float(np.exp(rng.uniform(-ranges.contrast, ranges.contrast))),
        offset=float(rng.uniform(-ranges.brightness, ranges.brightness)),
        noise=float(rng.uniform(0, ranges.noise)),
        seed=int(rng.integers(2**31)),
    )
