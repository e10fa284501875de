"""What the labelled cases say about a configuration of landmarks: its shape, how it varies, and how cases lie.

A case is ``pose(mean + deformation)``: the pose a similarity, the deformation Gaussian in the frame of the mean shape. Given
some observed points, pose and deformation are estimated together (``posterior``), so one point already moves all others.

Source: Cootes 1995, section 3 (point distribution model); Lüthi 2018 (sample covariance combined
with a smooth kernel).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import cdist, squareform

from landmarklabel.data.mean_shape import MeanShape, learn_mean_shape
from landmarklabel.data.mirror import Mirror, find_mirror
from landmarklabel.data.procrustes import Similarity, fit_similarity, rotation_angle
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import InferenceConfig, ShapeModelConfig
from landmarklabel.landmarks import LandmarkSet


@dataclass(frozen=True)
class PosePrior:
    """Where a configuration is expected in an image.

    Args:
        mean: the similarity that places the mean shape; may hold a reflection.
        sd: standard deviations of translation (mm), log scale, and rotation (radians about each axis).
    """

    mean: Similarity
    sd: tuple[float, ...]


@dataclass(frozen=True)
class PoseDistribution:
    """Where cases lie in their field of view.

    Args:
        centre: (d,) of the shape, as a fraction of the field of view.
        log_scale: of the shape, in mm or (``by_field``) in units of the field's mean side.
        by_field: whether sizes go with the field of view.
        sd: as ``PosePrior``, but translation as a fraction of the field's mean side.
    """

    centre: np.ndarray
    log_scale: float
    by_field: bool
    sd: tuple[float, ...]

    def in_image(self, geometry: ImageGeometry) -> PosePrior:
        """The pose expected in an image."""
        low, high = geometry.bounds_mm
        side = float((high - low).mean())
        scale = np.exp(self.log_scale) * (side if self.by_field else 1.0)
        mean = Similarity(scale * np.eye(len(low)), low + self.centre * (high - low))
        return PosePrior(mean, (self.sd[0] * side, self.sd[1], self.sd[2]))


@dataclass(frozen=True)
class ShapePrior:
    """The shape prior, as ``learn_prior`` learns it.

    Args:
        mean_shape: mean shape, and whether cases come in any orientation.
        covariance: (n * d, n * d) mm^2 of the deformation, in the frame and size of the mean shape.
        pose_distribution: where cases lie.
        cases: how many it rests on.
        symmetric: the mean shape is its own mirror image, so that no case can be told to be mirrored.
        config: how it is fitted.
    """

    mean_shape: MeanShape
    covariance: np.ndarray
    pose_distribution: PoseDistribution
    cases: int
    symmetric: bool = False
    config: ShapeModelConfig = field(default_factory=ShapeModelConfig)

    @property
    def dims(self) -> int:
        """Number of dimensions, 2 or 3."""
        return int(self.mean_shape.points.shape[1])

    @property
    def dof(self) -> float:
        """Degrees of freedom of the deformation's Student distribution: with few cases the covariance is itself uncertain."""
        return self.cases + self.config.extra_dof

    @property
    def known(self) -> np.ndarray:
        """(n,) bool: landmarks that some case has."""
        made: np.ndarray = np.isfinite(self.mean_shape.points).all(1)
        return made

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """Sets of landmarks that move together, as a tree: from pairs to half of all."""
        d, n = self.dims, len(self.mean_shape.points)
        if n < 4:
            return []
        covariance = np.einsum("iaja->ij", self.covariance.reshape(n, d, n, d))
        sd = np.sqrt(np.diag(covariance))
        distance = 1 - covariance / np.outer(sd, sd)
        members: list[list[int]] = [[i] for i in range(n)]
        for a, b, *_ in linkage(squareform(np.maximum(distance, 0), checks=False), "average"):
            members.append(members[int(a)] + members[int(b)])
        return [np.array(sorted(group)) for group in members[n:] if len(group) <= n / 2]

    @property
    def blocks(self) -> np.ndarray:
        """(n, d, d) covariance of each landmark alone."""
        return diagonal_blocks(self.covariance, self.dims)


def learn_prior(
    labelled: Sequence[tuple[ImageGeometry, LandmarkSet]], config: InferenceConfig | None = None
) -> ShapePrior | None:
    """The prior of labelled cases; None where no case has enough points to tell a pose.

    The sample covariance is shrunk towards a generic one, in which neighbouring landmarks move together, so that even one
    case gives a usable prior; with more cases the sample takes over. Where the mean shape is symmetric, every case counts
    mirrored as well.

    Args:
        labelled: geometry and landmarks of each case; absent and unset landmarks take no part.
        config: the defaults when None.
    """
    config = config or InferenceConfig()
    sets = [s for _, s in labelled]
    shape = learn_mean_shape(sets, config.mean_shape) if sets else None
    if shape is None or not shape.usable:
        return None
    poses, rows = [], []
    for geometry, landmarks in labelled:
        if (aligned := _align(shape, landmarks)) is not None:
            poses.append((geometry, aligned[0]))
            rows.append(aligned[1])
    deviations = np.stack(rows)
    mirror = find_mirror(shape.points, sets[0].task, config.mirror)
    if mirror is not None:
        deviations = np.concatenate([deviations, _mirrored(deviations, mirror)])
    covariance = _covariance(shape, deviations, len(poses), config.shape)
    distribution = _pose_distribution(poses, config.shape)
    return ShapePrior(shape, covariance, distribution, len(poses), mirror is not None, config.shape)


def _align(shape: MeanShape, landmarks: LandmarkSet) -> tuple[Similarity, np.ndarray] | None:
    """The similarity that places the mean on a case, and the case's deviation (n, d) from the mean in its frame."""
    points = landmarks.positions_mm
    both = np.isfinite(points).all(1) & np.isfinite(shape.points).all(1)
    if both.sum() <= points.shape[1]:
        return None
    weights = np.ones(int(both.sum()))
    back = fit_similarity(points[both], shape.points[both], weights)
    return fit_similarity(shape.points[both], points[both], weights), back.apply(points) - shape.points


def _mirrored(deviations: np.ndarray, mirror: Mirror) -> np.ndarray:
    mirrored: np.ndarray = deviations[:, mirror.order] @ mirror.reflection.T
    mirrored[:, mirror.order < 0] = np.nan
    return mirrored


def _covariance(shape: MeanShape, deviations: np.ndarray, cases: int, config: ShapeModelConfig) -> np.ndarray:
    """Sample covariance, shrunk towards the generic one; unknown coordinates by expectation maximization (Dempster 1977)."""
    generic = _generic_covariance(shape, config)
    flat = deviations.reshape(len(deviations), -1)
    known = np.isfinite(flat).any(0)
    dof = max(cases - 1, 0)
    weight = config.generic_cases / (dof + config.generic_cases)
    imputed, missing, covariance = np.nan_to_num(flat), np.zeros_like(generic), generic
    for _ in range(config.imputation_rounds if np.isnan(flat).any() else 1):
        sample = (imputed.T @ imputed + missing) / len(imputed) * (cases / max(dof, 1))
        size = np.diag(sample)[known].mean() / np.diag(generic)[known].mean() if dof else 1.0
        covariance = (1 - weight) * sample + weight * max(float(size), config.min_generic_share) * generic
        rows, spreads = zip(*(_impute(row, covariance) for row in flat), strict=True)
        imputed, missing = np.stack(rows), np.sum(spreads, axis=0)
    return covariance


def _generic_covariance(shape: MeanShape, config: ShapeModelConfig) -> np.ndarray:
    mean = np.nan_to_num(shape.points)
    near = np.exp(-0.5 * (cdist(mean, mean) / (config.generic_length * shape.size)) ** 2)
    one_axis = config.generic_sd**2 * near + config.generic_jitter_sd**2 * np.eye(len(mean))
    generic: np.ndarray = np.kron(one_axis, np.eye(mean.shape[1])) * shape.size**2
    return generic


def _impute(row: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unknown coordinates as their mean given the known ones, and their covariance, zero for known ones."""
    have = np.isfinite(row)
    spread = np.zeros_like(covariance)
    if have.all():
        return row, spread
    ridge = 1e-6 * np.trace(covariance) / len(covariance) * np.eye(int(have.sum()))
    gain = np.linalg.solve(covariance[np.ix_(have, have)] + ridge, covariance[np.ix_(have, ~have)]).T
    out = row.copy()
    out[~have] = gain @ row[have]
    spread[np.ix_(~have, ~have)] = covariance[np.ix_(~have, ~have)] - gain @ covariance[np.ix_(have, ~have)]
    return out, spread


def _pose_distribution(poses: Sequence[tuple[ImageGeometry, Similarity]], config: ShapeModelConfig) -> PoseDistribution:
    low = np.stack([g.bounds_mm[0] for g, _ in poses])
    extent = np.stack([g.bounds_mm[1] for g, _ in poses]) - low
    side = extent.mean(1)
    centres = (np.stack([p.offset for _, p in poses]) - low) / extent
    scales = np.log([p.scale for _, p in poses])
    if len(poses) > 1:
        by_field = bool(np.std(scales - np.log(side)) < np.std(scales))
    else:  # without a spacing, "mm" are pixels and say nothing
        by_field = all(g.dims == 2 and bool((g.spacing == 1).all()) for g, _ in poses)
    scales = scales - np.log(side) if by_field else scales
    angles = np.array([rotation_angle(p.rotation) for _, p in poses])
    observed = (float(np.std(centres, axis=0).max()), float(np.std(scales)), float(np.sqrt((angles**2).mean())))
    n = len(poses)
    sd = tuple(
        float(np.sqrt(s**2 * (n + 1) / n + least**2 + first**2 / n**2))
        for s, least, first in zip(observed, config.pose_sd, config.first_pose_sd, strict=True)
    )
    return PoseDistribution(centres.mean(0), float(scales.mean()), by_field, sd)


def diagonal_blocks(covariance: np.ndarray, d: int) -> np.ndarray:
    """(n, d, d) diagonal blocks of (n * d, n * d)."""
    n = len(covariance) // d
    return covariance.reshape(n, d, n, d)[np.arange(n), :, np.arange(n), :]
