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
    """

    unlabelled: Sequence[str]
    labelled: Sequence[str] = ()
    looks: Mapping[str, np.ndarray] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    trust: float = 0.5
    calibration: frozenset[str] = frozenset()


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
    proposed = np.array(seen.positions_mm, float).reshape(len(landmarks.task), landmarks.task.dims)
    return np.linalg.norm(proposed - landmarks.positions_mm, axis=1) * (landmarks.scaled_to_mm() or 1.0)


def trust(observed: Iterable[tuple[Seen, np.ndarray]]) -> float:
    """Rank correlation between what a model expected and how far off it was; one half while that is known of few cases."""
    pairs = [(seen.uncertainty, float(np.nanmean(off))) for seen, off in observed if np.isfinite(off).any()]
    if len(pairs) < FEW:
        return 0.5
    ranks = np.argsort(np.argsort(np.array(pairs), axis=0), axis=0).astype(float)
    return float(np.corrcoef(ranks.T)[0, 1]) if ranks.std(0).all() else 0.0


def distances(pool: Pool) -> tuple[list[str], np.ndarray]:
    """Ids of all images with a thumbnail, and (n, n) how different they look."""
    ids = [i for i in (*pool.labelled, *pool.unlabelled) if i in pool.looks]
    if not ids:
        return [], np.zeros((0, 0))
    looks = np.stack([pool.looks[i] for i in ids])
    squares = (looks**2).sum(1)
    return ids, np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * looks @ looks.T, 0.0))
