"""Similarity transforms between configurations of landmarks: the least-squares fit, and a robust one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landmarklabel.configuration import Configuration, number, numbers


@dataclass(frozen=True)
class Similarity:
    """``target = source @ matrix.T + offset``; ``matrix`` (d, d): rotation (or reflection) times scale."""

    matrix: np.ndarray
    offset: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Transform points: (n, d) to (n, d)."""
        moved: np.ndarray = points @ self.matrix.T + self.offset
        return moved

    def after(self, first: Similarity) -> Similarity:
        """The similarity that does ``first`` and then this one."""
        return Similarity(self.matrix @ first.matrix, self.apply(first.offset))

    def inverse(self) -> Similarity:
        """The inverse similarity."""
        matrix = np.linalg.inv(self.matrix)
        return Similarity(matrix, -matrix @ self.offset)

    @property
    def mirrored(self) -> bool:
        """Whether the similarity contains a reflection."""
        return bool(np.linalg.det(self.matrix) < 0)

    @property
    def scale(self) -> float:
        """Isotropic scale factor."""
        return float(np.abs(np.linalg.det(self.matrix)) ** (1 / len(self.matrix)))

    @property
    def rotation(self) -> np.ndarray:
        """(d, d) the matrix without its scale; a reflection too where it is mirrored."""
        rotation: np.ndarray = self.matrix / self.scale
        return rotation


@dataclass(frozen=True)
class RobustFitConfig(Configuration):
    """How a mean shape is aligned with detections of which some are wrong."""

    samples: int = number(300, 1, 10_000)  # minimal samples
    tolerance: float = number(0.15, 0)  # residual, in units of the shape's size, beyond which a detection counts as wrong
    scale_range: tuple[float, float] = numbers((0.4, 2.5), 0)  # of a sample's size change that is believed
    reweightings: int = number(15, 0, 1000)  # reweighted fits afterwards


_SCALES = 10.0  # between the usual scale and any: least squares would shrink a mirrored configuration to a point


def optimal_rotation(cross: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rotations (no reflection) that maximise ``trace(R' cross)``, for cross-covariances (…, d, d) of target and source.

    Returns:
        ``left`` and ``right``, (…, d, d), whose product is the rotation, and the maximum, (…,).

    Source: Kabsch 1976; Umeyama 1991, Eq. 40-43.
    """
    u, singular, vt = np.linalg.svd(cross)
    signs = np.ones(singular.shape)
    signs[..., -1] = np.sign(np.linalg.det(u @ vt))
    return u * signs[..., None, :], vt, (singular * signs).sum(-1)


def fit_similarity(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> Similarity:
    """Weighted least-squares similarity (no reflection) of (n, d) points. Source: Umeyama 1991, Eq. 39-43."""
    w = weights / weights.sum()
    a, b = w @ source, w @ target
    x, y = source - a, target - b
    left, right, trace = optimal_rotation((y * w[:, None]).T @ x)
    scale = trace / max((w * (x**2).sum(1)).sum(), 1e-12)
    matrix = scale * left @ right
    return Similarity(matrix, b - matrix @ a)


def fit_stack(points: np.ndarray, mean: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The similarities that move (m, n, d) configurations onto one (n, d), each by weighted least squares, all at once.

    Args:
        points, mean: mm; NaN rows take no part.
        weights: (m, n) of the points; equal when None.

    Returns:
        (m, d, d) matrices and (m, d) offsets: ``target = source @ matrix.T + offset``.

    Source: Umeyama 1991, as ``fit_similarity``.
    """
    both = np.isfinite(points).all(2) & np.isfinite(mean).all(1)
    weight = both * (1.0 if weights is None else weights)
    weight = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
    target = np.nan_to_num(mean)
    centre, own_centre = weight @ target, (weight[:, None] @ np.nan_to_num(points))[:, 0]
    x = np.where(both[..., None], points - own_centre[:, None], 0.0)
    y = np.where(both[..., None], target - centre[:, None], 0.0)
    left, right, trace = optimal_rotation(np.einsum("mn,mni,mnj->mij", weight, y, x))
    own_size, size = np.einsum("mn,mnd,mnd->m", weight, x, x), np.einsum("mn,mnd,mnd->m", weight, y, y)
    own_size = np.maximum(own_size, 1e-12)
    usual = max(float(np.median(np.sqrt(size / own_size))), 1e-12) if len(own_size) else 1.0
    scale = np.clip(trace / own_size, usual / _SCALES, usual * _SCALES)
    matrix = scale[:, None, None] * left @ right
    return matrix, centre - np.einsum("mij,mj->mi", matrix, own_centre)


def align_stack(points: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(m, n, d) configurations, each moved onto one (n, d) as ``fit_stack`` says; what takes no part is NaN."""
    matrix, offset = fit_stack(points, mean)
    moved: np.ndarray = points @ np.swapaxes(matrix, 1, 2) + offset[:, None]
    moved[~(np.isfinite(points).all(2) & np.isfinite(mean).all(1))] = np.nan
    return moved


def agreeing_points(points: np.ndarray, mean: np.ndarray, config: RobustFitConfig | None = None, seed: int = 0) -> np.ndarray:
    """(m, n) whether a point of (m, n, d) configurations agrees with most others of its own on where the (n, d) mean lies.

    As ``fit_robustly``, the other way round and all at once. Minimal samples are tried only for configurations that least
    squares leaves with a point beyond the tolerance.

    Source: Fischler 1981.
    """
    config = config or RobustFitConfig()
    tolerance = config.tolerance * rms_size(mean)
    residual = _residuals(points, mean, fit_stack(points, mean))
    doubtful = (residual > tolerance).any(1)
    residual[doubtful] = _by_stack_samples(points[doubtful], mean, tolerance, config.samples, np.random.default_rng(seed))
    agreeing: np.ndarray = residual <= tolerance
    return agreeing


def _residuals(points: np.ndarray, mean: np.ndarray, fit: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    matrix, offset = fit
    residual: np.ndarray = np.linalg.norm(points @ np.swapaxes(matrix, 1, 2) + offset[:, None] - mean, axis=2)
    return residual


def _by_stack_samples(
    points: np.ndarray, mean: np.ndarray, tolerance: float, samples: int, rng: np.random.Generator
) -> np.ndarray:
    """(m, n) residuals of the minimal sample's fit that most points of a configuration agree with."""
    best = _residuals(points, mean, fit_stack(points, mean))
    cost, known = _cost(best, tolerance), np.flatnonzero(np.isfinite(mean).all(1))
    for _ in range(samples if len(points) else 0):
        pick = rng.choice(known, mean.shape[1], replace=False)
        residual = _residuals(points, mean, fit_stack(points[:, pick], mean[pick]))
        now = _cost(residual, tolerance)
        better = (now < cost) & np.isfinite(points[:, pick]).all((1, 2))
        best[better], cost[better] = residual[better], now[better]
    return best


def _cost(residual: np.ndarray, tolerance: float) -> np.ndarray:
    cost: np.ndarray = np.nansum(np.minimum((residual / tolerance) ** 2, 1), axis=1)
    return cost


def fit_robustly(
    mean: np.ndarray, detected: np.ndarray, weights: np.ndarray, config: RobustFitConfig | None = None, seed: int = 0
) -> tuple[Similarity, np.ndarray]:
    """Align a mean shape with detections of which some are wrong.

    Random minimal samples find the pose most detections agree with; iterated reweighting then refines it.

    Args:
        mean, detected: (n, d) mm; NaN rows take no part.
        weights: (n,) of each detection.
        config: of the search; the defaults when None.
        seed: of the samples.

    Returns:
        The similarity, and (n,) distances in mm of the detections from the aligned shape (NaN where unknown).

    Source: Fischler 1981 for the samples, Holland 1977 for the reweighting, Geman 1987 for the weights.
    """
    config = config or RobustFitConfig()
    known = np.isfinite(detected).all(1) & np.isfinite(mean).all(1)
    source, target, weight = mean[known], detected[known], np.maximum(weights[known], 1e-3)
    size = np.sqrt(((source - source.mean(0)) ** 2).sum(1).mean())
    best = _by_samples(source, target, weight, config.tolerance * size, config, np.random.default_rng(seed))
    for _ in range(config.reweightings):
        residual = np.linalg.norm(best.apply(source) - target, axis=1)
        width = max(2.0 * np.median(residual), 0.01 * size)
        best = fit_similarity(source, target, weight / (1 + (residual / width) ** 2) ** 2)
    return best, np.linalg.norm(best.apply(mean) - detected, axis=1)


def _by_samples(
    source: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    tolerance: float,
    config: RobustFitConfig,
    rng: np.random.Generator,
) -> Similarity:
    n, d = source.shape
    best, best_cost = fit_similarity(source, target, weight), np.inf
    if n <= d:
        return best
    low, high = config.scale_range
    for _ in range(config.samples):
        pick = rng.choice(n, d, replace=False, p=weight / weight.sum())
        ratio = _extent(target[pick]) / max(_extent(source[pick]), 1e-9)
        if not low < ratio < high:
            continue
        candidate = fit_similarity(source[pick], target[pick], np.ones(d))
        residual = np.linalg.norm(candidate.apply(source) - target, axis=1)
        cost = (weight * np.minimum((residual / tolerance) ** 2, 1)).sum()
        if cost < best_cost:
            best, best_cost = candidate, cost
    return best


def _extent(points: np.ndarray) -> float:
    return float(np.sqrt(((points - points.mean(0)) ** 2).sum()))


def rms_size(shape: np.ndarray) -> float:
    """Root mean square distance of the known landmarks of (n, d) from their centre; 1 where fewer than two are known."""
    known = shape[np.isfinite(shape).all(1)]
    return float(np.sqrt(((known - known.mean(0)) ** 2).sum(1).mean())) if len(known) > 1 else 1.0


def rotation_angle(rotation: np.ndarray) -> float:
    """Radians, not negative, of a rotation matrix in 2D or 3D."""
    return float(rotation_angles(rotation))


def rotation_angles(rotations: np.ndarray) -> np.ndarray:
    """Radians, not negative, of (…, d, d) rotation matrices in 2D or 3D."""
    if rotations.shape[-1] == 2:
        flat: np.ndarray = np.abs(np.arctan2(rotations[..., 1, 0], rotations[..., 0, 0]))
        return flat
    angles: np.ndarray = np.arccos(np.clip((np.trace(rotations, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    return angles
