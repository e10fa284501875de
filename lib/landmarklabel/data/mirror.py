"""Left and right: which landmarks swap when a symmetric body is mirrored, found from the mean shape or named by the task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from landmarklabel.configuration import Configuration, number
from landmarklabel.landmarks import LandmarkTask


@dataclass(frozen=True)
class MirrorConfig(Configuration):
    """When a shape counts as symmetric. Chosen on the mouse skulls (symmetric) and the hand radiographs (not)."""

    max_asymmetry: float = number(0.06, 0)  # mean distance of mirrored partners, in units of the shape's size
    max_partner_distance: float = number(4.0, 1)  # times the median one, beyond which a landmark has no partner


@dataclass(frozen=True)
class Mirror:
    """The plane of symmetry of a study's mean shape.

    Args:
        order: (n,) int: the landmark that takes each place after mirroring; -1 for one without partner.
        normal: (d,) unit vector across the plane, in the frame of the mean shape.
    """

    order: np.ndarray
    normal: np.ndarray

    @property
    def reflection(self) -> np.ndarray:
        """(d, d) matrix that mirrors across the plane."""
        return np.eye(len(self.normal)) - 2 * np.outer(self.normal, self.normal)


def find_mirror(mean: np.ndarray, task: LandmarkTask | None = None, config: MirrorConfig | None = None) -> Mirror | None:
    """The mirror of a mean shape, or None where the shape has no symmetry.

    Reflects the shape across many planes, matches points one to one, and moves the plane to where the matched pairs agree.

    Args:
        mean: (n, d) mm; NaN rows take no part.
        task: whose mirror pairs, if it names any, are taken instead of the matched ones.
        config: the defaults when None.
    """
    config = config or MirrorConfig()
    known = np.flatnonzero(np.isfinite(mean).all(1))
    d = mean.shape[1]
    if len(known) < 2 * d + 2:
        return None
    points = mean[known] - mean[known].mean(0)
    size = np.sqrt((points**2).sum(1).mean())
    normals = np.vstack([np.linalg.svd(points, full_matrices=False)[2], np.random.default_rng(0).normal(size=(40, d))])
    tried = [_fit_plane(points, v / np.linalg.norm(v)) for v in normals]
    distance, partner, normal = min(tried, key=lambda found: found[0].mean())
    if distance.mean() > config.max_asymmetry * size or not (partner[partner] == np.arange(len(known))).all():
        return None
    unpaired = distance > config.max_partner_distance * np.median(distance)
    order = np.full(len(mean), -1)
    order[known] = np.where(unpaired, -1, known[partner])
    if task is not None and task.mirror_pairs:
        order = task.mirror_permutation()
    return Mirror(order, normal)


def _fit_plane(points: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances of mirrored partners, the partners and the normal, after moving the plane until the matching stays."""
    partner = np.full(len(points), -1)
    for _ in range(50):
        mirrored = points - 2 * np.outer(points @ normal, normal)
        before, partner = partner, linear_sum_assignment(cdist(mirrored, points))[1]
        if (before == partner).all():
            break
        # least squares over pairs (p, q) around their common centre: the normal n that minimises n' (pq' + qp') n
        normal = np.linalg.eigh(points.T @ points[partner] + points[partner].T @ points)[1][:, 0]
    mirrored = points - 2 * np.outer(points @ normal, normal)
    return np.linalg.norm(mirrored - points[partner], axis=1), partner, normal
