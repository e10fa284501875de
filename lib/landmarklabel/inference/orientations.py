"""Orientations an image is looked at from, where it may be turned or mirrored against the study's other images."""

from __future__ import annotations

import numpy as np

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.procrustes import Similarity
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import OrientationSearchConfig
from landmarklabel.inference.shape_prior import PosePrior


def about_image_centre(geometry: ImageGeometry, matrix: np.ndarray) -> Similarity:
    """Turn (and mirror) about the centre of an image."""
    centre = np.mean(geometry.bounds_mm, axis=0)
    return Similarity(matrix, centre - matrix @ centre)


def candidate_orientations(geometry: ImageGeometry, config: OrientationSearchConfig) -> list[Similarity]:
    """Sampling transforms from several directions, each also mirrored, and in 2D from closer: turned images have margins."""
    d = geometry.dims
    rng, angles = np.random.default_rng(0), 2 * np.pi / config.directions * np.arange(config.directions)
    if d == 2:
        rotations = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    else:
        rotations = [np.eye(3), *(random_rotation(rng, 3, None) for _ in angles[1:])]
    mirror = np.diag([-1.0] + [1.0] * (d - 1))
    scales = (1.0, config.zoomed_in) if d == 2 else (1.0,)
    return [about_image_centre(geometry, s * m) for r in rotations for m in (r, r @ mirror) for s in scales]


def is_far_from_expected(pose: Similarity, expected_pose: PosePrior, config: OrientationSearchConfig) -> bool:
    """Whether a pose is mirrored, turned or scaled so far from the expected one that networks should look in it."""
    change = pose.after(expected_pose.mean.inverse())
    if change.mirrored:
        return True
    cosine = (np.trace(change.rotation) - (len(pose.offset) - 2)) / 2  # of the angle, in 2D and 3D
    return bool(np.arccos(np.clip(cosine, -1, 1)) > config.max_rotation or abs(np.log(change.scale)) > config.max_log_scale)
