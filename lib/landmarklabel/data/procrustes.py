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


def align_stack(points: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(m, n, d) configurations, each moved onto one (n, d) by its own least-squares similarity; NaN rows take no part.

    Source: Umeyama 1991, as ``fit_similarity``, all at once.
    """
    both = np.isfinite(points).all(2) & np.isfinite(mean).all(1)
    weight = both / np.maximum(both.sum(1, keepdims=True), 1)
    centre = weight @ np.nan_to_num(mean)
    x = np.where(both[..., None], points - (weight[:, None] @ np.nan_to_num(points)), 0.0)
    y = np.where(both[..., None], mean - centre[:, None], 0.0)
    left, right, trace = optimal_rotation(np.einsum("mni,mnj->mij", y, x))
    scale = trace / np.maximum((x**2).sum((1, 2)), 1e-12)
    moved: np.ndarray = scale[:, None, None] * x @ np.swapaxes(left @ right, 1, 2) + centre[:, None]
    moved[~both] = np.nan
    return moved


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
    if len(rotation) == 2:
        return float(abs(np.arctan2(rotation[1, 0], rotation[0, 0])))
    return float(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
