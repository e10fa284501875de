"""What is known of the images a strategy chooses from: how they look, and what the live model makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from landmarklabel.active.configuration import PoolConfig, StrategyConfig
from landmarklabel.data.cases import Case
from landmarklabel.data.grids import centred_grid, small_copy
from landmarklabel.data.procrustes import align_stack
from landmarklabel.landmarks import LandmarkSet

if TYPE_CHECKING:
    from landmarklabel.inference.localizer import Localizer

_CONFIG = PoolConfig()


@dataclass(frozen=True)
class ImageAssessment:
    """What the live model makes of an image nobody has labelled.

    Args:
        expected_error: mean over the landmarks, in hundredths of the shape's size.
        disagreement: share of the landmarks whose detection contradicts the others or is torn between places.
        worst: the landmark with the largest expected error.
        positions_mm: (n, d) what it would propose, LPS; to be compared with what a person will say. None where nothing.
    """

    expected_error: float
    disagreement: float
    worst: str
    positions_mm: tuple[tuple[float | None, ...], ...] = ()

    @property
    def points(self) -> np.ndarray | None:
        """(n, d) ``positions_mm``, NaN where there are none."""
        return np.array(self.positions_mm, float) if len(self.positions_mm) else None

    @property
    def uncertainty(self) -> float:
        """The expected error, raised by disagreement; the larger, the more it is worth to label the image."""
        return self.expected_error * (1 + _CONFIG.disagreement_weight * self.disagreement)

    def to_json(self) -> dict[str, Any]:
        """As it is kept in files, where ``disagreement`` is called ``doubt``."""
        content = dict(vars(self))
        return {"doubt" if key == "disagreement" else key: value for key, value in content.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ImageAssessment:
        """The reverse of ``to_json``. Raises TypeError for other fields."""
        return cls(**{"disagreement" if key == "doubt" else key: value for key, value in content.items()})


@dataclass(frozen=True)
class UnlabelledPool:
    """Everything a strategy may look at.

    Args:
        unlabelled: ids it chooses from.
        labelled: ids that people have labelled.
        thumbnails: (f,) by id, of both; those of unreadable images are missing.
        assessments: by id of unlabelled images; empty without a model, incomplete while it is still at it.
        error_correlation: rank correlation of what the model expected and what people corrected, of the cases labelled so far.
        validation: ids of unlabelled images kept for validation, from which some are drawn at random.
        labelled_positions: (n, d) by id of labelled images, mm, NaN where there are none.
        config: of the strategies.
    """

    unlabelled: Sequence[str]
    labelled: Sequence[str] = ()
    thumbnails: Mapping[str, np.ndarray] = field(default_factory=dict)
    assessments: Mapping[str, ImageAssessment] = field(default_factory=dict)
    error_correlation: float = 0.5
    validation: frozenset[str] = frozenset()
    labelled_positions: Mapping[str, np.ndarray] = field(default_factory=dict)
    config: StrategyConfig = field(default_factory=StrategyConfig)


def thumbnail(case: Case) -> np.ndarray:
    """(f,) the image on a coarse grid around the middle of its field of view, without its mean brightness and contrast."""
    geometry = case.image.geometry
    low, high = geometry.bounds_mm
    edge = _CONFIG.thumbnail_edge_2d if geometry.dims == 2 else _CONFIG.thumbnail_edge_3d
    spacing = float((high - low).max()) / edge
    dark, bright = case.window
    beyond = (bright - dark) / 2  # as far beyond the window as networks see
    grey = small_copy(case, centred_grid(geometry, spacing, (edge,) * geometry.dims)).ravel().clip(dark - beyond, bright + beyond)
    normalized: np.ndarray = ((grey - grey.mean()) / max(float(grey.std()), 1e-6)).astype(np.float32)
    return normalized


def assess_image(model: Localizer, case: Case) -> ImageAssessment:
    """One pass of the networks, and what the shape prior makes of it."""
    evidence = model.detect(case)
    suggestion = model.suggest(evidence, case.image.geometry)
    landmarks, task = suggestion.landmarks, model.task
    shown, there = landmarks.positions_mm[landmarks.defined], landmarks.defined
    size = float(np.sqrt(((shown - shown.mean(0)) ** 2).sum(1).mean())) if len(shown) > 1 else 0.0
    size = size or float(np.subtract(*case.image.geometry.bounds_mm[::-1]).max())
    covariance = np.zeros((len(task), task.dims, task.dims)) if landmarks.covariance_mm2 is None else landmarks.covariance_mm2
    spread = np.sqrt(np.trace(np.nan_to_num(covariance), axis1=1, axis2=2))  # where nothing is calibrated
    error = np.where(np.isfinite(landmarks.expected_error_mm), landmarks.expected_error_mm, spread) / size * 100
    torn = (evidence.peak_mass < _CONFIG.min_peak_mass) & there
    return ImageAssessment(
        expected_error=float(error[there].mean()) if len(shown) else 100.0,
        disagreement=float((suggestion.flagged | torn).mean()),
        worst=task.names[int(np.argmax(np.where(there, error, -1.0)))],
        positions_mm=tuple(tuple(float(v) if np.isfinite(v) else None for v in p) for p in landmarks.positions_mm),
    )


def prediction_error(assessment: ImageAssessment, landmarks: LandmarkSet) -> np.ndarray:
    """(n,) how far off the model was where a person placed the landmark since, in the task's mm; NaN where not known."""
    points = assessment.points
    if points is None:
        return np.full(len(landmarks.task), np.nan)
    distance: np.ndarray = np.linalg.norm(points - landmarks.positions_mm, axis=1) * (landmarks.scaled_to_mm() or 1.0)
    return distance


def error_correlation(observed: Iterable[tuple[ImageAssessment, np.ndarray]]) -> float:
    """Rank correlation between what a model expected and how far off it was; one half while that is known of few cases.

    Source: Spearman 1904.
    """
    pairs = [(one.uncertainty, float(np.nanmean(off))) for one, off in observed if np.isfinite(off).any()]
    if len(pairs) < _CONFIG.min_observed:
        return 0.5
    ranks = np.argsort(np.argsort(np.array(pairs), axis=0), axis=0).astype(float)
    return float(np.corrcoef(ranks.T)[0, 1]) if ranks.std(0).all() else 0.0


def image_distances(pool: UnlabelledPool, shapes: bool = False) -> tuple[list[str], np.ndarray]:
    """Ids of the images with a thumbnail, and (n, n) how different they look; with ``shapes`` mostly how different their shapes
    are, where those are known."""
    most = _CONFIG.max_compared
    ids = [i for i in pool.labelled if i in pool.thumbnails][-most // 2 :]
    left = [i for i in pool.unlabelled if i in pool.thumbnails]
    ids += left[:: -(-len(left) // (most - len(ids))) or 1]
    if not ids:
        return [], np.zeros((0, 0))
    looks = _pairwise_distance(np.stack([pool.thumbnails[i] for i in ids]))
    points = [_known_points(pool, i) for i in ids]
    known = np.array([p is not None and np.isfinite(p).all(1).sum() > p.shape[1] for p in points])
    if not shapes or known.sum() <= _CONFIG.min_observed:
        return ids, looks
    distance = looks / _median_distance(looks)  # where a shape is unknown, looks stand for it
    residuals = _shape_residuals(np.stack([p for p, k in zip(points, known, strict=True) if k and p is not None]))
    by_shape = _pairwise_distance(residuals)
    both = np.ix_(known, known)
    share = _CONFIG.looks_share
    distance[both] = share * distance[both] + (1 - share) * by_shape / _median_distance(by_shape)
    return ids, distance


def _known_points(pool: UnlabelledPool, image_id: str) -> np.ndarray | None:
    """(n, d) positions that a person placed, or else those that the model proposes."""
    if image_id in pool.labelled_positions:
        return pool.labelled_positions[image_id]
    return pool.assessments[image_id].points if image_id in pool.assessments else None


def _median_distance(distance: np.ndarray) -> float:
    return float(np.median(distance[distance > 0])) if distance.any() else 1.0


def _pairwise_distance(rows: np.ndarray) -> np.ndarray:
    """(m, f) to their (m, m) Euclidean distances."""
    squares = (rows**2).sum(1)
    distance: np.ndarray = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0))
    return distance


def _shape_residuals(points: np.ndarray) -> np.ndarray:
    """(m, n, d) configurations, each moved onto the mean of all by a similarity: (m, n * d) what is left, 0 where NaN.

    As ``data.mean_shape.learn_mean_shape``, but all at once: a thousand images one by one would keep an annotator waiting.
    Source: Gower 1975, section 4.
    """
    mean = points[np.isfinite(points).all(2).sum(1).argmax()]
    for _ in range(3):
        moved = align_stack(points, mean)
        known = np.isfinite(moved[..., 0]).sum(0)
        mean = np.nansum(moved, axis=0) / np.where(known > 0, known, np.nan)[:, None]
    return np.nan_to_num(moved - mean).reshape(len(points), -1)
