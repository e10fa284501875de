"""What is known of the images a strategy chooses from: how they look, and what the live model makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from landmarklabel.data.batches import centred_grid, grid_points
from landmarklabel.data.cases import Case
from landmarklabel.inference.localizer import Localizer
from landmarklabel.landmarks import LandmarkSet

FEW = 5  # cases of which nothing is concluded
EDGE = {2: 16, 3: 8}  # samples a side of a thumbnail
MOST = 1000  # images compared with each other; of more, the newest labelled ones and some evenly spread unlabelled ones
BY_LOOKS = 0.3  # of how different two images are, beside their shapes


@dataclass(frozen=True)
class Seen:
    """What the live model makes of an image nobody has labelled.

    Args:
        expected_error: mean over the landmarks, in hundredths of the shape's size.
        doubt: share of the landmarks whose detection contradicts the others or is torn between places.
        worst: the landmark with the largest expected error.
        positions_mm: (n, d) what it would propose, LPS; to be compared with what a person will say. None where nothing.
    """

    expected_error: float
    doubt: float
    worst: str
    positions_mm: tuple[tuple[float | None, ...], ...] = ()

    @property
    def points(self) -> np.ndarray | None:
        """(n, d) ``positions_mm``, NaN where there are none."""
        return np.array(self.positions_mm, float) if len(self.positions_mm) else None

    @property
    def uncertainty(self) -> float:
        """One number: the larger, the more a person's look is worth."""
        return self.expected_error * (1 + 3 * self.doubt)


@dataclass(frozen=True)
class Pool:
    """Everything a strategy may look at.

    Args:
        unlabelled: ids it chooses from.
        labelled: ids that people have labelled.
        looks: (f,) thumbnails by id, of both; those of unreadable images are missing.
        seen: by id of unlabelled images; empty without a model, incomplete while it is still looking.
        trust: rank correlation of what the model expected and what people corrected, of the cases labelled so far.
        calibration: ids of unlabelled images kept for validation, from which a stream is drawn at random.
        placed: (n, d) positions by id of labelled images, mm, NaN where there are none.
    """

    unlabelled: Sequence[str]
    labelled: Sequence[str] = ()
    looks: Mapping[str, np.ndarray] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    trust: float = 0.5
    calibration: frozenset[str] = frozenset()
    placed: Mapping[str, np.ndarray] = field(default_factory=dict)


def thumbnail(case: Case) -> np.ndarray:
    """(f,) the image on a coarse grid around the middle of its field of view, without its mean brightness and contrast."""
    geometry = case.image.geometry
    low, high = geometry.bounds_mm
    edge = EDGE[geometry.dims]
    spacing = float((high - low).max()) / edge
    grey = case.sample(grid_points(centred_grid(geometry, spacing, (edge,) * geometry.dims)), spacing).ravel()
    return ((grey - grey.mean()) / max(float(grey.std()), 1e-6)).astype(np.float32)


def look_over(model: Localizer, case: Case) -> Seen:
    """One pass of the networks, and what the shape prior makes of it."""
    evidence = model.detect(case)
    suggestion = model.suggest(evidence, case.image.geometry)
    landmarks, task = suggestion.landmarks, model.task
    shown, there = landmarks.positions_mm[landmarks.defined], landmarks.defined
    size = float(np.sqrt(((shown - shown.mean(0)) ** 2).sum(1).mean())) if len(shown) > 1 else 0.0
    size = size or float(np.subtract(*case.image.geometry.bounds_mm[::-1]).max())
    spread = np.sqrt(np.trace(np.nan_to_num(landmarks.covariance_mm2), axis1=1, axis2=2))  # where nothing is calibrated
    error = np.where(np.isfinite(landmarks.expected_error_mm), landmarks.expected_error_mm, spread) / size * 100
    torn = (evidence.mass < 0.5) & there
    return Seen(
        expected_error=float(error[there].mean()) if len(shown) else 100.0,
        doubt=float((suggestion.flagged | torn).mean()),
        worst=task.names[int(np.argmax(np.where(there, error, -1.0)))],
        positions_mm=tuple(tuple(float(v) if np.isfinite(v) else None for v in p) for p in landmarks.positions_mm),
    )


def off_by(seen: Seen, landmarks: LandmarkSet) -> np.ndarray:
    """(n,) how far off the model was where a person placed the landmark since, in the task's mm; NaN where not known."""
    if seen.points is None:
        return np.full(len(landmarks.task), np.nan)
    return np.linalg.norm(seen.points - landmarks.positions_mm, axis=1) * (landmarks.scaled_to_mm() or 1.0)


def trust(observed: Iterable[tuple[Seen, np.ndarray]]) -> float:
    """Rank correlation between what a model expected and how far off it was; one half while that is known of few cases."""
    pairs = [(seen.uncertainty, float(np.nanmean(off))) for seen, off in observed if np.isfinite(off).any()]
    if len(pairs) < FEW:
        return 0.5
    ranks = np.argsort(np.argsort(np.array(pairs), axis=0), axis=0).astype(float)
    return float(np.corrcoef(ranks.T)[0, 1]) if ranks.std(0).all() else 0.0


def distances(pool: Pool, shapes: bool = False) -> tuple[list[str], np.ndarray]:
    """Ids of the images with a thumbnail, and (n, n) how different they look; with ``shapes`` mostly how different their shapes
    are, where those are known."""
    ids = [i for i in pool.labelled if i in pool.looks][-MOST // 2 :]
    left = [i for i in pool.unlabelled if i in pool.looks]
    ids += left[:: -(-len(left) // (MOST - len(ids))) or 1]
    if not ids:
        return [], np.zeros((0, 0))
    looks = _apart(np.stack([pool.looks[i] for i in ids]))
    points = [pool.placed[i] if i in pool.placed else pool.seen[i].points if i in pool.seen else None for i in ids]
    known = np.array([p is not None and np.isfinite(p).all(1).sum() > p.shape[1] for p in points])
    if not shapes or known.sum() <= FEW:
        return ids, looks
    apart = looks / _middle(looks)  # where a shape is unknown, looks stand for it
    laid = _apart(_laid_on_mean(np.stack([p for p, k in zip(points, known, strict=True) if k])))
    both = np.ix_(known, known)
    apart[both] = BY_LOOKS * apart[both] + (1 - BY_LOOKS) * laid / _middle(laid)
    return ids, apart


def _middle(apart: np.ndarray) -> float:
    return float(np.median(apart[apart > 0])) if apart.any() else 1.0


def _apart(rows: np.ndarray) -> np.ndarray:
    """(m, f) to their (m, m) Euclidean distances."""
    squares = (rows**2).sum(1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0))


def _laid_on_mean(points: np.ndarray) -> np.ndarray:
    """(m, n, d) configurations, each laid on the mean of all by a similarity: (m, n * d) what is left, 0 where NaN.

    As ``data.pose.learn_pose``, but all at once: a thousand images one by one would keep an annotator waiting.
    Source: Gower 1975 (generalised Procrustes analysis), with Umeyama 1991 for each fit.
    """
    known = np.isfinite(points).all(2)
    mean = points[known.sum(1).argmax()]
    for _ in range(3):
        both = known & np.isfinite(mean).all(1)
        weight = both / np.maximum(both.sum(1, keepdims=True), 1)
        middle = weight @ np.nan_to_num(mean)
        x = np.where(both[..., None], points - (weight[:, None] @ np.nan_to_num(points)), 0.0)
        y = np.where(both[..., None], mean - middle[:, None], 0.0)
        u, singular, vt = np.linalg.svd(np.einsum("mni,mnj->mij", y, x))
        signs = np.ones(singular.shape)
        signs[:, -1] = np.sign(np.linalg.det(u @ vt))
        scale = (singular * signs).sum(1) / np.maximum((x**2).sum((1, 2)), 1e-12)
        laid = scale[:, None, None] * x @ np.swapaxes((u * signs[:, None]) @ vt, 1, 2) + middle[:, None]
        laid[~both] = np.nan
        seen = np.isfinite(laid[..., 0]).sum(0)
        mean = np.nansum(laid, axis=0) / np.where(seen > 0, seen, np.nan)[:, None]
    return np.nan_to_num(laid - mean).reshape(len(points), -1)
