"""The mean shape of a study, and whether its cases come in any orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landmarklabel.configuration import Configuration, number
from landmarklabel.data.procrustes import RobustFitConfig, Similarity, fit_robustly, fit_stack, rms_size, rotation_angles
from landmarklabel.landmarks import LandmarkSet

_COMPARED = 300  # cases among which the central orientation is looked for: every pair is compared


@dataclass(frozen=True)
class MeanShapeConfig(Configuration):
    """When a study counts as one whose cases come in any orientation. Chosen on the mouse skulls and the hand radiographs."""

    max_angle: float = number(0.6, 0, 3.2)  # radians from the mean orientation that an upright case keeps within
    min_share_beyond: float = number(0.2, 0, 1)  # of the cases beyond it: then no orientation is expected
    min_cases: int = number(3, 1)  # whose orientations are compared
    max_spread: float = number(0.12, 0)  # of cases around the mean shape, for their orientation to mean anything
    min_spread: float = number(0.03, 0)  # stated where few cases are known
    min_cases_for_spread: int = number(5, 1)
    min_landmarks: float = number(0.6, 0, 1)  # share of the study's landmarks that a case needs to tell an orientation
    iterations: int = number(10, 1, 1000)


@dataclass(frozen=True)
class MeanShape:
    """The mean shape of a study and what is known of its orientation.

    Args:
        points: (n, d) mm around 0, in the mean size and orientation; NaN for a landmark nobody placed.
        arbitrary_orientation: cases come in any orientation.
        spread: how far cases are from the aligned mean shape (95th percentile of their medians), in units of its size.
    """

    points: np.ndarray
    arbitrary_orientation: bool
    spread: float = MeanShapeConfig().min_spread

    @property
    def size(self) -> float:
        """Root mean square distance of the landmarks from their centre, in mm."""
        return rms_size(self.points)

    @property
    def usable(self) -> bool:
        """Enough landmarks to tell a pose."""
        return int(np.isfinite(self.points).all(1).sum()) >= self.points.shape[1] + 2

    def align_to(
        self, landmarks: np.ndarray, weights: np.ndarray | None = None, config: RobustFitConfig | None = None
    ) -> tuple[Similarity, np.ndarray]:
        """The robust fit on (n, d) positions; see ``procrustes.fit_robustly``."""
        weights = np.ones(len(landmarks)) if weights is None else weights
        return fit_robustly(self.points, landmarks, weights, config)


def learn_mean_shape(labelled: Sequence[LandmarkSet], config: MeanShapeConfig | None = None) -> MeanShape:
    """Mean shape by generalised Procrustes analysis, and the spread of orientations.

    Source: Gower 1975, section 4, for the iteration.
    """
    config = config or MeanShapeConfig()
    shapes = _complete_enough(np.stack([s.positions_mm for s in labelled]), config.min_landmarks)
    counts = np.isfinite(shapes[..., 0]).sum(axis=1)
    mean = shapes[int(np.argmax(counts))]
    if counts.max() <= mean.shape[1]:
        return MeanShape(mean, arbitrary_orientation=False)  # too few landmarks for an orientation
    mean = mean - np.nanmean(mean, axis=0)
    size = np.nanmedian([rms_size(s) for s in shapes])
    for _ in range(config.iterations):
        aligned, rotations = _align_all(shapes, mean)
        known = np.isfinite(aligned[..., 0]).sum(0)
        mean = np.nansum(aligned, axis=0) / np.where(known > 0, known, np.nan)[:, None]
        mean = (mean - np.nanmean(mean, axis=0)) * (size / rms_size(mean))
    central = _central_rotation(rotations, config)
    mean, aligned = mean @ central.T, aligned @ central.T
    angles = rotation_angles(rotations @ central.T)
    beyond = len(angles) >= config.min_cases and (angles > config.max_angle).mean() >= config.min_share_beyond
    medians = [np.nanmedian(np.linalg.norm(x - mean, axis=1)) / size for x in aligned if np.isfinite(x).any()]
    spread = float(np.percentile(medians, 95)) if len(medians) >= config.min_cases_for_spread else 0.0
    return MeanShape(mean, bool(beyond) and spread <= config.max_spread, max(spread, config.min_spread))


def _align_all(shapes: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, n, d) shapes moved onto the mean, and the rotations of those that have enough landmarks for one."""
    enough = (np.isfinite(shapes).all(2) & np.isfinite(mean).all(1)).sum(1) > mean.shape[1]
    aligned = np.full_like(shapes, np.nan)
    matrix, offset = fit_stack(shapes[enough], mean)
    aligned[enough] = shapes[enough] @ np.swapaxes(matrix, 1, 2) + offset[:, None]
    scale = np.abs(np.linalg.det(matrix)) ** (1 / mean.shape[1])
    return aligned, np.swapaxes(matrix, 1, 2) / scale[:, None, None]


def _central_rotation(rotations: np.ndarray, config: MeanShapeConfig) -> np.ndarray:
    """The rotation nearest to all others: which case the alignment started from must not matter."""
    if len(rotations) < config.min_cases:
        return np.eye(rotations.shape[1]) if len(rotations) else np.eye(0)
    some = rotations[:: -(-len(rotations) // _COMPARED)]
    angles = rotation_angles(np.einsum("aij,bkj->abik", some, some))
    near = some[angles[int(np.argmin(np.median(angles, axis=1)))] <= config.max_angle]
    u, _, vt = np.linalg.svd(near.sum(0))
    central: np.ndarray = u @ vt
    return central


def _complete_enough(shapes: np.ndarray, share: float) -> np.ndarray:
    """The cases with most of the study's landmarks: a few points do not tell an orientation."""
    have = np.isfinite(shapes).all(2)
    enough = have.sum(1) >= share * have.any(0).sum()
    return shapes[enough] if enough.sum() >= 3 else shapes
