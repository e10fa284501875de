"""What the networks found in an image, before any decision is made."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from landmarklabel.data.procrustes import Similarity


@dataclass(frozen=True)
class Candidates:
    """Places where each landmark may be, the likeliest first.

    Args:
        positions_mm: (n, k, d) LPS mm, NaN where there are fewer.
        weight: (n, k) share of the map.
        covariance_mm2: (n, k, d, d).
    """

    positions_mm: np.ndarray
    weight: np.ndarray
    covariance_mm2: np.ndarray

    def followed_by(self, more: Candidates) -> Candidates:
        """These candidates followed by others."""
        pairs = [(getattr(self, f.name), getattr(more, f.name)) for f in fields(self)]
        return Candidates(*(np.concatenate(pair, axis=1) for pair in pairs))

    def first(self, count: int) -> Candidates:
        """The first ``count`` of each landmark."""
        return Candidates(*(getattr(self, f.name)[:, :count] for f in fields(self)))

    def without(self, landmarks: np.ndarray) -> Candidates:
        """The candidates without those of the given landmarks, (n,) bool."""
        return Candidates(np.where(landmarks[:, None, None], np.nan, self.positions_mm), self.weight, self.covariance_mm2)


@dataclass(frozen=True)
class FineMaps:
    """The fine network's map around the first candidate of each landmark.

    Args:
        logits: (n, p) float32.
        places_mm: (n, p, d) LPS mm.
    """

    logits: np.ndarray
    places_mm: np.ndarray


@dataclass
class Evidence:
    """What the networks found in one image; landmarks in the task's order.

    Args:
        positions_mm: (n, d) LPS mm.
        covariance_mm2: (n, d, d) of the map around the position.
        presence: (n,) probability that the landmark is in the image.
        peak_mass: (n,) share of the map that agrees with the position.
        coarse_mm: (n, d) the coarse network's positions, before refinement.
        candidates: the first of each landmark is ``positions_mm``.
        maps: of the fine network, or None without one.
        sampling_transform: moves the frame in which the image was sampled to the world; None where it is the same.
        presence_by_stage: (2, n) presence by the coarse and by the fine network, blended into ``presence``; None with one.
    """

    positions_mm: np.ndarray
    covariance_mm2: np.ndarray
    presence: np.ndarray
    peak_mass: np.ndarray
    coarse_mm: np.ndarray
    candidates: Candidates
    maps: FineMaps | None = None
    sampling_transform: Similarity | None = None
    presence_by_stage: np.ndarray | None = None

    def best_only(self) -> Evidence:
        """The evidence with only the first candidate of each landmark."""
        return replace(self, candidates=self.candidates.first(1))


def blend_presence(presence_by_stage: np.ndarray, fine_presence_weight: float) -> np.ndarray:
    """(n,) probabilities between those of the coarse and of the fine network, (2, n), on the scale of log odds."""
    p = np.clip(presence_by_stage, 1e-6, 1 - 1e-6)
    coarse, fine = np.log(p / (1 - p))
    blended: np.ndarray = 1 / (1 + np.exp(-((1 - fine_presence_weight) * coarse + fine_presence_weight * fine)))
    return blended
