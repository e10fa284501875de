"""Sides to look at an image from, where it may be turned or mirrored against the study's other images."""

from __future__ import annotations

import numpy as np

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.pose import Similarity
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.prior import PosePrior

TURNS = 12
CLOSER = (1.0, 0.72)
UNUSUAL = (0.45, 0.4)  # radians and log scale from the usual pose that a network trained on upright images still copes with


def about_the_middle(geometry: ImageGeometry, matrix: np.ndarray) -> Similarity:
    """Turn (and mirror) about the middle of an image."""
    middle = np.mean(geometry.bounds_mm, axis=0)
    return Similarity(matrix, middle - matrix @ middle)


def sides(geometry: ImageGeometry) -> list[Similarity]:
    """Views of an image from ``TURNS`` directions, each also in the mirror, and in 2D from closer: turned images have margins."""
    d = geometry.dims
    rng, angles = np.random.default_rng(0), 2 * np.pi / TURNS * np.arange(TURNS)
    if d == 2:
        turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    else:
        turns = [np.eye(3), *(random_rotation(rng, 3, None) for _ in angles[1:])]
    mirror = np.diag([-1.0] + [1.0] * (d - 1))
    scales = CLOSER if d == 2 else (1.0,)
    return [about_the_middle(geometry, s * m) for turn in turns for m in (turn, turn @ mirror) for s in scales]


def is_unusual(pose: Similarity, usual: PosePrior) -> bool:
    """Whether a pose is mirrored, turned or scaled so far from the usual one that networks should look in it."""
    change = pose.after(usual.expected.inverse())
    if change.mirrored:
        return True
    cosine = (np.trace(change.rotation) - (len(pose.offset) - 2)) / 2  # of the angle, in 2D and 3D
    return bool(np.arccos(np.clip(cosine, -1, 1)) > UNUSUAL[0] or abs(np.log(change.scale)) > UNUSUAL[1])
