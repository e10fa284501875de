"""Shapes from a known Gaussian model, laid in an image, and the exact prior of that model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.mean_shape import MeanShape
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.evidence import Candidates
from landmarklabel.inference.shape_prior import PoseDistribution, ShapePrior
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

SIDE = 400
SPREAD = (0.03, 0.08, 0.12)  # of the centre (of the field of view), log scale, rotation (radians)


def geometry(dims: int) -> ImageGeometry:
    """An image whose field of view is 400 mm a side."""
    return ImageGeometry.identity((SIDE // 2,) * dims, 2.0)


def limbs(dims: int) -> np.ndarray:
    """A hand of five fingers with four points each, or five limbs of three points in space; around 0, about 60 mm large."""
    rng = np.random.default_rng(7)
    if dims == 2:
        fingers = zip(np.radians([-62, -18, -4, 9, 27]), (70, 95, 102, 95, 76), (-32, -22, -4, 13, 30), strict=True)
        ways = [(root, long * np.array([np.sin(angle), -np.cos(angle)])) for angle, long, root in fingers]
        points = [s * way + (root, 0) for root, way in ways for s in (0.25, 0.55, 0.8, 1.0)]
    else:
        ways = [random_rotation(rng, 3, None)[0] for _ in range(5)]
        points = [s * way + rng.normal(0, 4, 3) for way in ways for s in (25, 55, 85)]
    points = np.array(points) + rng.normal(0, 2, (len(points), dims))
    return points - points.mean(0)


@dataclass(frozen=True)
class ShapeModel:
    """``mean`` (n, d) mm plus a deformation of smooth, of few random, and of independent parts."""

    mean: np.ndarray
    smooth: float = 0.025  # standard deviations, in units of the shape's size
    modes: float = 0.05
    jitter: float = 0.006

    @cached_property
    def size(self) -> float:
        return float(np.sqrt((self.mean**2).sum(1).mean()))

    @cached_property
    def covariance(self) -> np.ndarray:
        """(n * d, n * d) mm^2."""
        n, d = self.mean.shape
        near = np.exp(-0.5 * (cdist(self.mean, self.mean) / (0.5 * self.size)) ** 2)
        modes = np.random.default_rng(11).normal(0, self.modes / np.sqrt(3), (n * d, 3))
        return self.size**2 * (np.kron(self.smooth**2 * near + self.jitter**2 * np.eye(n), np.eye(d)) + modes @ modes.T)

    @property
    def task(self) -> LandmarkTask:
        return LandmarkTask("shapes", tuple(f"p{i}" for i in range(len(self.mean))), self.mean.shape[1])

    def draw(self, rng: np.random.Generator, turn: np.ndarray | None = None) -> np.ndarray:
        """(n, d) mm: a shape near its usual pose in ``geometry``, or turned or mirrored further by ``turn`` (d, d)."""
        n, d = self.mean.shape
        shape = self.mean + rng.multivariate_normal(np.zeros(n * d), self.covariance, method="cholesky").reshape(n, d)
        angles = [0.0, 0.0, rng.normal(0, SPREAD[2])] if d == 2 else rng.normal(0, SPREAD[2], 3)
        matrix = Rotation.from_rotvec(angles).as_matrix()[:d, :d] * np.exp(rng.normal(0, SPREAD[1]))
        matrix = matrix if turn is None else matrix @ turn
        return shape @ matrix.T + SIDE / 2 + rng.normal(0, SPREAD[0] * SIDE, d)

    def cases(self, count: int, seed: int) -> list[tuple[ImageGeometry, LandmarkSet]]:
        """Labelled cases, as ``learn_prior`` takes them."""
        rng, where = np.random.default_rng(seed), geometry(self.mean.shape[1])
        return [(where, LandmarkSet.of_positions(self.task, self.draw(rng))) for _ in range(count)]

    def prior(self, symmetric: bool = False) -> ShapePrior:
        """The prior that knows the model exactly."""
        d = self.mean.shape[1]
        expected_pose = PoseDistribution(np.full(d, 0.5), 0.0, False, SPREAD)
        return ShapePrior(MeanShape(self.mean, False), self.covariance, expected_pose, 100, symmetric)


def half_turn(dims: int) -> np.ndarray:
    """(d, d): 180 degrees about the last axis, or in the plane."""
    return np.diag([-1.0, -1.0, 1.0][:dims])


def mirror(dims: int) -> np.ndarray:
    """(d, d): left and right exchanged."""
    return np.diag([-1.0, 1.0, 1.0][:dims])


def candidates(rng: np.random.Generator, *places: np.ndarray, noise: float = 0.5) -> Candidates:
    """Candidates at (n, d) places, the first the likeliest, each a little off."""
    at = np.stack(places, axis=1)
    n, k, d = at.shape
    weight = np.array([0.8, 0.15, 0.05][:k])
    return Candidates(at + rng.normal(0, noise, at.shape), np.tile(weight, (n, 1)), np.tile(noise**2 * np.eye(d), (n, k, 1, 1)))
