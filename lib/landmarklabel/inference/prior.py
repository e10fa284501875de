"""What the labelled cases say about a configuration of landmarks: its shape, how it varies, and how cases lie.

A case is ``pose(mean + deformation)``: the pose a similarity, the deformation Gaussian in the frame of the mean shape. Given
some observed points, pose and deformation are estimated together, so one point already moves all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist, squareform
from scipy.spatial.transform import Rotation

from landmarklabel.data.mirror import Mirror, find_mirror
from landmarklabel.data.pose import ShapePose, Similarity, fit_similarity, learn_pose
from landmarklabel.geometry import ImageGeometry
from landmarklabel.landmarks import LandmarkSet

GENERIC_CASES = 16.0  # labelled cases that the generic, smooth deformation counts as
GENERIC_LENGTH = 0.7  # over which it is correlated, in units of the shape's size
GENERIC_SIZE = 0.06  # its standard deviation while no case is known, likewise
GENERIC_JITTER = 0.02  # of single landmarks, likewise
LEAST_POSE = (0.06, 0.08, 0.08)  # standard deviations of centre (of the field of view), log scale, rotation (radians) …
FIRST_POSE = (0.15, 0.25, 0.3)  # … with many cases, and what is added with one


@dataclass(frozen=True)
class PosePrior:
    """Where a configuration is expected in an image.

    Args:
        expected: the similarity that lays the mean shape; may hold a reflection.
        spread: standard deviations of translation (mm), log scale, and rotation (radians about each axis).
    """

    expected: Similarity
    spread: tuple[float, float, float]


@dataclass(frozen=True)
class UsualPose:
    """Where cases lie in their field of view.

    Args:
        centre: (d,) of the shape, as a fraction of the field of view.
        log_scale: of the shape, in mm or (``by_field``) in units of the field's mean side.
        spread: as ``PosePrior``, but translation as a fraction of the field's mean side.
    """

    centre: np.ndarray
    log_scale: float
    by_field: bool
    spread: tuple[float, float, float]

    def in_image(self, geometry: ImageGeometry) -> PosePrior:
        """The pose expected in an image."""
        low, high = geometry.bounds_mm
        side = float((high - low).mean())
        scale = np.exp(self.log_scale) * (side if self.by_field else 1.0)
        expected = Similarity(scale * np.eye(len(low)), low + self.centre * (high - low))
        return PosePrior(expected, (self.spread[0] * side, self.spread[1], self.spread[2]))


@dataclass(frozen=True)
class ShapePrior:
    """Learned by ``learn_prior``.

    Args:
        pose: mean shape, and whether cases come in any orientation.
        covariance: (n * d, n * d) mm^2 of the deformation, in the frame and size of the mean shape.
        usual: where cases lie.
        cases: how many it rests on.
        symmetric: the mean shape is its own mirror image, so that no case can be told to be mirrored.
    """

    pose: ShapePose
    covariance: np.ndarray
    usual: UsualPose
    cases: int
    symmetric: bool = False

    @property
    def known(self) -> np.ndarray:
        """(n,) bool: landmarks that some case has."""
        return np.isfinite(self.pose.mean).all(1)

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """Sets of landmarks that move together, as a tree: from pairs to half of all."""
        d, n = self.pose.mean.shape[1], len(self.pose.mean)
        together = np.einsum("iaja->ij", self.covariance.reshape(n, d, n, d))
        size = np.sqrt(np.diag(together))
        apart = 1 - together / np.outer(size, size)
        members: list[list[int]] = [[i] for i in range(n)]
        if n < 4:
            return []
        for a, b, *_ in linkage(squareform(np.maximum(apart, 0), checks=False), "average"):
            members.append(members[int(a)] + members[int(b)])
        return [np.array(sorted(group)) for group in members[n:] if len(group) <= n / 2]

    @property
    def blocks(self) -> np.ndarray:
        """(n, d, d) covariance of each landmark alone."""
        return blocks_of(self.covariance, self.pose.mean.shape[1])


def learn_prior(labelled: Sequence[tuple[ImageGeometry, LandmarkSet]]) -> ShapePrior | None:
    """The prior of labelled cases; None where no case has enough points to tell a pose.

    The sample covariance is shrunk towards a generic one, in which neighbouring landmarks move together, so that even one
    case gives a usable prior; with more cases the sample takes over. Where the mean shape is symmetric, every case counts
    mirrored as well.

    Args:
        labelled: geometry and landmarks of each case; absent and unset landmarks take no part.
    """
    sets = [s for _, s in labelled]
    pose = learn_pose(sets) if sets else None
    if pose is None or not pose.usable:
        return None
    fits = [(g, *_laid_back(pose, s)) for g, s in labelled]
    fits = [(g, fit, deviation) for g, fit, deviation in fits if fit is not None]
    deviations = np.stack([d for _, _, d in fits])
    mirror = find_mirror(pose.mean, sets[0].task)
    if mirror is not None:
        deviations = np.concatenate([deviations, _mirrored(deviations, mirror)])
    covariance = _covariance(pose, deviations, len(fits))
    return ShapePrior(pose, covariance, _usual([(g, fit) for g, fit, _ in fits]), len(fits), mirror is not None)


def _laid_back(pose: ShapePose, landmarks: LandmarkSet) -> tuple[Similarity | None, np.ndarray | None]:
    """The similarity that lays the mean on a case, and the case's deviation (n, d) from the mean in its frame."""
    points = landmarks.positions_mm
    both = np.isfinite(points).all(1) & np.isfinite(pose.mean).all(1)
    if both.sum() <= points.shape[1]:
        return None, None
    weights = np.ones(int(both.sum()))
    back = fit_similarity(points[both], pose.mean[both], weights)
    return fit_similarity(pose.mean[both], points[both], weights), back.apply(points) - pose.mean


def _mirrored(deviations: np.ndarray, mirror: Mirror) -> np.ndarray:
    out = deviations[:, mirror.order] @ mirror.reflection.T
    out[:, mirror.order < 0] = np.nan
    return out


def _covariance(pose: ShapePose, deviations: np.ndarray, cases: int) -> np.ndarray:
    generic = _generic(pose)
    flat = deviations.reshape(len(deviations), -1)
    known = np.isfinite(flat).any(0)
    freedom = max(cases - 1, 0)
    weight = GENERIC_CASES / (freedom + GENERIC_CASES)
    filled, hidden, covariance = np.nan_to_num(flat), np.zeros_like(generic), generic
    for _ in range(5 if np.isnan(flat).any() else 1):  # expectation maximization
        sample = (filled.T @ filled + hidden) / len(filled) * (cases / max(freedom, 1))
        seen = np.diag(sample)[known].mean() / np.diag(generic)[known].mean() if freedom else 1.0
        covariance = (1 - weight) * sample + weight * max(float(seen), 0.05) * generic
        rows, spreads = zip(*(_filled(row, covariance) for row in flat), strict=True)
        filled, hidden = np.stack(rows), np.sum(spreads, axis=0)
    return covariance


def _generic(pose: ShapePose) -> np.ndarray:
    mean = np.nan_to_num(pose.mean)
    near = np.exp(-0.5 * (cdist(mean, mean) / (GENERIC_LENGTH * pose.size)) ** 2)
    one = GENERIC_SIZE**2 * near + GENERIC_JITTER**2 * np.eye(len(mean))
    return np.kron(one, np.eye(mean.shape[1])) * pose.size**2


def _filled(row: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _usual(fits: Sequence[tuple[ImageGeometry, Similarity]]) -> UsualPose:
    low = np.stack([g.bounds_mm[0] for g, _ in fits])
    extent = np.stack([g.bounds_mm[1] for g, _ in fits]) - low
    side = extent.mean(1)
    centres = (np.stack([f.offset for _, f in fits]) - low) / extent
    scales = np.log([f.scale for _, f in fits])
    if len(fits) > 1:
        by_field = bool(np.std(scales - np.log(side)) < np.std(scales))
    else:  # without a spacing, "mm" are pixels and say nothing
        by_field = all(g.dims == 2 and bool((g.spacing == 1).all()) for g, _ in fits)
    scales = scales - np.log(side) if by_field else scales
    angles = np.array([_angle(f.rotation) for _, f in fits])
    seen = (float(np.std(centres, axis=0).max()), float(np.std(scales)), float(np.sqrt((angles**2).mean())))
    n = len(fits)
    spread = tuple(
        float(np.sqrt(s**2 * (n + 1) / n + least**2 + first**2 / n**2))
        for s, least, first in zip(seen, LEAST_POSE, FIRST_POSE, strict=True)
    )
    return UsualPose(centres.mean(0), float(scales.mean()), by_field, spread)


def _angle(rotation: np.ndarray) -> float:
    if len(rotation) == 2:
        return float(np.arctan2(rotation[1, 0], rotation[0, 0]))
    return float(np.linalg.norm(Rotation.from_matrix(rotation).as_rotvec()))


@dataclass(frozen=True)
class Posterior:
    """Of a case given some points.

    Args:
        mean: (n, d) LPS mm.
        covariance: (n * d, n * d) mm^2.
        pose: the similarity that lays the mean shape.
        energy: minus the log likelihood of the observed points, without the constant of the Gaussian.
        misfit: mean squared distance of the observed coordinates from the prior, in standard deviations.
        precision, weighed: (m, m) inverse covariance of the m observed coordinates before they were seen, and it times their
            deviation; empty when nothing was observed.
    """

    mean: np.ndarray
    covariance: np.ndarray
    pose: Similarity
    energy: float
    misfit: float
    precision: np.ndarray
    weighed: np.ndarray


def condition(prior: ShapePrior, where: PosePrior, points: np.ndarray, noise: np.ndarray, rounds: int = 4) -> Posterior:
    """Pose and shape given observed points, by Gauss-Newton on the pose.

    Args:
        prior, where: what is known beforehand.
        points: (n, d) LPS mm; NaN where nothing was observed.
        noise: (n, d, d) mm^2 of the observed ones.
        rounds: of linearisation.
    """
    mean, d = np.nan_to_num(prior.pose.mean), prior.pose.mean.shape[1]
    seen = np.isfinite(points).all(1) & prior.known
    rows = np.repeat(seen, d)
    observed_noise = _block_diagonal(noise[seen])
    pose, variance = where.expected, _variance(where, d)
    offset = np.zeros_like(variance)  # of the expected pose from the current one
    for last in [False] * (rounds - 1) + [True]:
        shape, jacobian = _turned(prior.covariance, pose.matrix), _jacobian(pose, mean)
        total = shape + (jacobian * variance) @ jacobian.T
        start = pose.apply(mean).ravel() + jacobian @ offset
        if not seen.any():
            return Posterior(start.reshape(mean.shape), total, pose, 0.0, 0.0, np.empty((0, 0)), np.empty(0))
        factor = cho_factor(total[np.ix_(rows, rows)] + observed_noise, lower=True)
        residual = points[seen].ravel() - start[rows]
        weighed = cho_solve(factor, residual)
        step = offset + variance * (jacobian[rows].T @ weighed)
        if last or np.abs(jacobian @ step).max() < 1e-3 * prior.pose.size * pose.scale:
            break
        pose, offset = _downhill(
            pose, offset, step, variance, shape[np.ix_(rows, rows)] + observed_noise, mean[seen], points[seen]
        )
    found = start + total[:, rows] @ weighed
    precision = cho_solve(factor, np.eye(len(residual)))
    covariance = total - total[:, rows] @ precision @ total[rows]
    distance = float(residual @ weighed)
    energy = 0.5 * distance + float(np.log(np.diag(factor[0])).sum())
    return Posterior(found.reshape(mean.shape), covariance, pose, energy, distance / len(residual), precision, weighed)


def _downhill(pose, offset, step, variance, covariance, mean, points) -> tuple[Similarity, np.ndarray]:
    """The pose after a step, halved until it explains the points better: rotations are not linear."""
    factor = cho_factor(covariance, lower=True)

    def cost(pose: Similarity, offset: np.ndarray) -> float:
        residual = (points - pose.apply(mean)).ravel()
        return float(residual @ cho_solve(factor, residual) + (offset**2 / variance).sum())

    before = cost(pose, offset)
    for _ in range(5):
        moved = _moved(pose, step), offset - step
        if cost(*moved) <= before:
            return moved
        step = step / 2
    return pose, offset


def blocks_of(covariance: np.ndarray, d: int) -> np.ndarray:
    """(n, d, d) diagonal blocks of (n * d, n * d)."""
    n = len(covariance) // d
    return covariance.reshape(n, d, n, d)[np.arange(n), :, np.arange(n), :]


def _turned(covariance: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Covariance of deformations in the frame of the mean shape, after a linear map of each point."""
    d = len(matrix)
    n = len(covariance) // d
    out = covariance.reshape(n, d, n, d)
    return np.einsum("ai,minj,bj->manb", matrix, out, matrix, optimize=True).reshape(n * d, n * d)


def _variance(where: PosePrior, d: int) -> np.ndarray:
    translation, scale, rotation = where.spread
    return np.array([translation] * d + [scale] + [rotation] * (1 if d == 2 else 3)) ** 2


def _jacobian(pose: Similarity, mean: np.ndarray) -> np.ndarray:
    """(n * d, parameters): how the laid mean shape moves with translation, log scale and rotation about its centre."""
    n, d = mean.shape
    arm = mean @ pose.matrix.T
    out = np.zeros((n, d, d + (2 if d == 2 else 4)))
    out[:, :, :d] = np.eye(d)
    out[:, :, d] = arm
    if d == 2:
        out[:, 0, 3], out[:, 1, 3] = -arm[:, 1], arm[:, 0]
    else:
        for axis in range(3):
            out[:, :, 4 + axis] = np.cross(np.eye(3)[axis], arm)
    return out.reshape(n * d, -1)


def _moved(pose: Similarity, step: np.ndarray) -> Similarity:
    d = len(pose.offset)
    scale, turn = np.exp(np.clip(step[d], -0.5, 0.5)), step[d + 1 :]
    if d == 2:
        c, s = np.cos(turn[0]), np.sin(turn[0])
        rotation = np.array([[c, -s], [s, c]])
    else:
        rotation = Rotation.from_rotvec(turn).as_matrix()
    return Similarity(scale * rotation @ pose.matrix, pose.offset + step[:d])


def _block_diagonal(matrices: np.ndarray) -> np.ndarray:
    k, d = matrices.shape[:2]
    out = np.zeros((k, d, k, d))
    out[np.arange(k), :, np.arange(k), :] = matrices
    return out.reshape(k * d, k * d)
