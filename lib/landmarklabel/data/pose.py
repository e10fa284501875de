"""Where a configuration of landmarks lies: mean shape, similarity fits, and whether a study's cases come in any orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landmarklabel.landmarks import LandmarkSet

WILD_ANGLE = 0.6  # radians from the mean orientation
WILD_SHARE = 0.2  # of the cases beyond it: then no orientation is usual
MOST_SPREAD = 0.12  # of cases around the mean shape, for their orientation to mean anything
LEAST_SPREAD = 0.03  # of cases around the mean shape, where few are known


@dataclass(frozen=True)
class Similarity:
    """``target = source @ matrix.T + offset``; ``matrix`` (d, d): rotation (or reflection) times scale."""

    matrix: np.ndarray
    offset: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """(n, d) to (n, d)."""
        return points @ self.matrix.T + self.offset

    def after(self, first: Similarity) -> Similarity:
        """The similarity that does ``first`` and then this one."""
        return Similarity(self.matrix @ first.matrix, self.apply(first.offset))

    def inverse(self) -> Similarity:
        """The way back."""
        matrix = np.linalg.inv(self.matrix)
        return Similarity(matrix, -matrix @ self.offset)

    @property
    def mirrored(self) -> bool:
        """It turns left into right."""
        return bool(np.linalg.det(self.matrix) < 0)

    @property
    def scale(self) -> float:
        return float(np.abs(np.linalg.det(self.matrix)) ** (1 / len(self.matrix)))

    @property
    def rotation(self) -> np.ndarray:
        return self.matrix / self.scale


def fit_similarity(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> Similarity:
    """Weighted least-squares similarity (no reflection) of (n, d) points. Source: Umeyama 1991."""
    w = weights / weights.sum()
    a, b = w @ source, w @ target
    x, y = source - a, target - b
    u, singular, vt = np.linalg.svd((y * w[:, None]).T @ x)
    signs = np.ones(len(a))
    signs[-1] = np.sign(np.linalg.det(u @ vt))
    scale = (singular * signs).sum() / max((w * (x**2).sum(1)).sum(), 1e-12)
    matrix = scale * (u * signs) @ vt
    return Similarity(matrix, b - matrix @ a)


def fit_robustly(
    mean: np.ndarray, detected: np.ndarray, weights: np.ndarray, rounds: int = 300, seed: int = 0
) -> tuple[Similarity, np.ndarray]:
    """Lay a mean shape on detections of which some are wild.

    Random minimal samples find the pose most detections agree with; iterated reweighting (Cauchy) makes it exact.

    Args:
        mean, detected: (n, d) mm; NaN rows take no part.
        weights: (n,) trust in each detection.

    Returns:
        The similarity, and (n,) distances in mm of the detections from the laid shape (NaN where unknown).
    """
    known = np.isfinite(detected).all(1) & np.isfinite(mean).all(1)
    source, target, trust = mean[known], detected[known], np.maximum(weights[known], 1e-3)
    size = np.sqrt(((source - source.mean(0)) ** 2).sum(1).mean())
    best = _by_samples(source, target, trust, 0.15 * size, rounds, np.random.default_rng(seed))
    for _ in range(15):
        residual = np.linalg.norm(best.apply(source) - target, axis=1)
        width = max(2.0 * np.median(residual), 0.01 * size)
        best = fit_similarity(source, target, trust / (1 + (residual / width) ** 2) ** 2)
    return best, np.linalg.norm(best.apply(mean) - detected, axis=1)


def _by_samples(source, target, trust, tolerance: float, rounds: int, rng: np.random.Generator) -> Similarity:
    n, d = source.shape
    best, best_cost = fit_similarity(source, target, trust), np.inf
    if n <= d:
        return best
    scale_of = lambda points: np.sqrt(((points - points.mean(0)) ** 2).sum())  # noqa: E731
    for _ in range(rounds):
        pick = rng.choice(n, d, replace=False, p=trust / trust.sum())
        ratio = scale_of(target[pick]) / max(scale_of(source[pick]), 1e-9)
        if not 0.4 < ratio < 2.5:
            continue
        candidate = fit_similarity(source[pick], target[pick], np.ones(d))
        residual = np.linalg.norm(candidate.apply(source) - target, axis=1)
        cost = (trust * np.minimum((residual / tolerance) ** 2, 1)).sum()
        if cost < best_cost:
            best, best_cost = candidate, cost
    return best


@dataclass(frozen=True)
class ShapePose:
    """The mean shape of a study and what is known of its orientation.

    Args:
        mean: (n, d) mm around 0, in the mean size and orientation; NaN for a landmark nobody placed.
        wild: cases come in any orientation.
        spread: how far cases are from the laid mean shape (95th percentile of their medians), in units of its size.
    """

    mean: np.ndarray
    wild: bool
    spread: float = LEAST_SPREAD

    @property
    def size(self) -> float:
        """Root mean square distance of the landmarks from their centre, in mm."""
        return _size(self.mean)

    @property
    def usable(self) -> bool:
        """Enough landmarks to tell a pose."""
        return int(np.isfinite(self.mean).all(1).sum()) >= self.mean.shape[1] + 2

    def lay(self, landmarks: np.ndarray, weights: np.ndarray | None = None) -> tuple[Similarity, np.ndarray]:
        """The robust fit on (n, d) positions; see ``fit_robustly``."""
        return fit_robustly(self.mean, landmarks, np.ones(len(landmarks)) if weights is None else weights)


def learn_pose(labelled: Sequence[LandmarkSet]) -> ShapePose:
    """Mean shape by generalised Procrustes analysis, and the spread of orientations.

    Source: Gower 1975 for the iteration.
    """
    shapes = _complete_enough(np.stack([s.positions_mm for s in labelled]))
    counts = np.isfinite(shapes[..., 0]).sum(axis=1)
    mean = shapes[int(np.argmax(counts))]
    if counts.max() <= mean.shape[1]:
        return ShapePose(mean, wild=False)  # too few landmarks for an orientation
    mean = mean - np.nanmean(mean, axis=0)
    size = np.nanmedian([_size(s) for s in shapes])
    for _ in range(10):
        laid, fits = zip(*(_lay_back(s, mean) for s in shapes), strict=True)
        seen = np.isfinite(np.stack(laid)[..., 0]).sum(0)
        mean = np.nansum(np.stack(laid), axis=0) / np.where(seen > 0, seen, np.nan)[:, None]
        mean = (mean - np.nanmean(mean, axis=0)) * (size / _size(mean))
    turns = [f.rotation for f in fits if f is not None]
    usual = _middle(turns)
    mean, laid = mean @ usual.T, [x @ usual.T for x in laid]
    angles = np.array([_angle(turn @ usual.T) for turn in turns])
    wild = bool(len(angles) >= 3 and (angles > WILD_ANGLE).mean() >= WILD_SHARE)
    medians = [np.nanmedian(np.linalg.norm(x - mean, axis=1)) / size for x in laid if np.isfinite(x).any()]
    spread = float(np.percentile(medians, 95)) if len(medians) >= 5 else 0.0
    return ShapePose(mean, wild and spread <= MOST_SPREAD, max(spread, LEAST_SPREAD))


def _middle(turns: Sequence[np.ndarray]) -> np.ndarray:
    """The rotation nearest to all others: which case the alignment started from must not matter."""
    if len(turns) < 3:
        return np.eye(len(turns[0])) if turns else np.eye(0)
    apart = [np.median([_angle(a @ b.T) for b in turns]) for a in turns]
    near = [b for b in turns if _angle(turns[int(np.argmin(apart))] @ b.T) <= WILD_ANGLE]
    u, _, vt = np.linalg.svd(np.sum(near, axis=0))
    return u @ vt


def _complete_enough(shapes: np.ndarray) -> np.ndarray:
    """The cases with most of the study's landmarks: a few points do not tell an orientation."""
    have = np.isfinite(shapes).all(2)
    counts = have.sum(1)
    enough = counts >= 0.6 * have.any(0).sum()
    return shapes[enough] if enough.sum() >= 3 else shapes


def _lay_back(shape: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, Similarity | None]:
    """A shape moved onto the mean, and how the mean lies on it."""
    both = np.isfinite(shape).all(1) & np.isfinite(mean).all(1)
    if both.sum() <= shape.shape[1]:
        return np.full_like(shape, np.nan), None
    weights = np.ones(int(both.sum()))
    return fit_similarity(shape[both], mean[both], weights).apply(shape), fit_similarity(mean[both], shape[both], weights)


def _size(shape: np.ndarray) -> float:
    known = shape[np.isfinite(shape).all(1)]
    return float(np.sqrt(((known - known.mean(0)) ** 2).sum(1).mean())) if len(known) > 1 else 1.0


def _angle(rotation: np.ndarray) -> float:
    """Radians of a rotation matrix."""
    if len(rotation) == 2:
        return float(abs(np.arctan2(rotation[1, 0], rotation[0, 0])))
    return float(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
