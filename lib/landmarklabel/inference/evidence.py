"""What the networks saw in an image, before any decision."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from landmarklabel.data.pose import Similarity


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

    def and_then(self, more: Candidates) -> Candidates:
        """Those and more."""
        pairs = [(getattr(self, f.name), getattr(more, f.name)) for f in fields(self)]
        return Candidates(*(np.concatenate(pair, axis=1) for pair in pairs))

    def first(self, count: int) -> Candidates:
        """The first ``count`` of each landmark."""
        return Candidates(*(getattr(self, f.name)[:, :count] for f in fields(self)))

    def without(self, landmarks: np.ndarray) -> Candidates:
        """None left for some landmarks, (n,) bool."""
        return Candidates(np.where(landmarks[:, None, None], np.nan, self.positions_mm), self.weight, self.covariance_mm2)


@dataclass(frozen=True)
class LocalMaps:
    """What the local stage said of each place around its first candidate.

    Args:
        logits: (n, p) float32.
        places_mm: (n, p, d) LPS mm.
    """

    logits: np.ndarray
    places_mm: np.ndarray


@dataclass
class Evidence:
    """All in the task's order.

    Args:
        positions_mm: (n, d) LPS mm.
        covariance_mm2: (n, d, d) of the map around the position.
        presence: (n,) probability that the landmark is in the image.
        opinions: (2, n) the same of the whole-image network and of the local stage, which ``presence`` mixes; None with one.
        mass: (n,) share of the map that agrees with the position.
        first_mm: (n, d) the whole-image network's positions, before refinement.
        candidates: the first of each landmark is ``positions_mm``.
        maps: of the local stage, or None without one.
        view: moves the world as the networks saw it to the world; None where that is the same.
    """

    positions_mm: np.ndarray
    covariance_mm2: np.ndarray
    presence: np.ndarray
    mass: np.ndarray
    first_mm: np.ndarray
    candidates: Candidates
    maps: LocalMaps | None = None
    view: Similarity | None = None
    opinions: np.ndarray | None = None

    def best_only(self) -> Evidence:
        """With one candidate a landmark."""
        return replace(self, candidates=self.candidates.first(1))


def mixed(opinions: np.ndarray, local_share: float) -> np.ndarray:
    """(n,) probabilities between those of the whole-image network and of the local stage, (2, n), on the scale of log odds."""
    p = np.clip(opinions, 1e-6, 1 - 1e-6)
    first, local = np.log(p / (1 - p))
    return 1 / (1 + np.exp(-((1 - local_share) * first + local_share * local)))
