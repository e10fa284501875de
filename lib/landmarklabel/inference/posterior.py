"""Pose and shape of a case given some observed points: the shape prior, conditioned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.transform import Rotation

from landmarklabel.data.procrustes import Similarity
from landmarklabel.inference.shape_prior import PosePrior, ShapePrior


@dataclass(frozen=True)
class Posterior:
    """Pose and shape distribution of a case given observed points.

    Args:
        mean: (n, d) LPS mm.
        covariance: (n * d, n * d) mm^2.
        pose: the similarity that places the mean shape in the image.
        energy: minus the log likelihood of the observed points, without the constant of the Gaussian.
        misfit: mean squared distance of the observed coordinates from the prior, in standard deviations.
        precision, weighted_residual: (m, m) inverse covariance of the m observed coordinates before they were observed, and it
            times their deviation; empty when nothing was observed.
    """

    mean: np.ndarray
    covariance: np.ndarray
    pose: Similarity
    energy: float
    misfit: float
    precision: np.ndarray
    weighted_residual: np.ndarray


def condition(
    prior: ShapePrior, expected_pose: PosePrior, points: np.ndarray, noise: np.ndarray, iterations: int = 4
) -> Posterior:
    """Pose and shape given observed points, by Gauss-Newton on the pose.

    Args:
        prior, expected_pose: what is known beforehand.
        points: (n, d) LPS mm; NaN where nothing was observed.
        noise: (n, d, d) mm^2 of the observed ones.
        iterations: of Gauss-Newton, at most.
    """
    mean, d = np.nan_to_num(prior.mean_shape.points), prior.mean_shape.points.shape[1]
    observed = np.isfinite(points).all(1) & prior.known
    rows = np.repeat(observed, d)
    observed_noise = _block_diagonal(noise[observed])
    pose, variance = expected_pose.mean, _variance(expected_pose, d)
    offset = np.zeros_like(variance)  # of the expected pose from the current one
    for last in [False] * (iterations - 1) + [True]:
        shape, jacobian = _transformed_covariance(prior.covariance, pose.matrix), _jacobian(pose, mean)
        total = shape + (jacobian * variance) @ jacobian.T
        start = pose.apply(mean).ravel() + jacobian @ offset
        if not observed.any():
            return Posterior(start.reshape(mean.shape), total, pose, 0.0, 0.0, np.empty((0, 0)), np.empty(0))
        factor = cho_factor(total[np.ix_(rows, rows)] + observed_noise, lower=True)
        residual = points[observed].ravel() - start[rows]
        weighted_residual = cho_solve(factor, residual)
        step = offset + variance * (jacobian[rows].T @ weighted_residual)
        if last or np.abs(jacobian @ step).max() < 1e-3 * prior.mean_shape.size * pose.scale:
            break
        pose, offset = _downhill(
            pose, offset, step, variance, shape[np.ix_(rows, rows)] + observed_noise, mean[observed], points[observed]
        )
    mean_mm = start + total[:, rows] @ weighted_residual
    precision = cho_solve(factor, np.eye(len(residual)))
    covariance = total - total[:, rows] @ precision @ total[rows]
    distance = float(residual @ weighted_residual)
    energy = 0.5 * distance + float(np.log(np.diag(factor[0])).sum())
    return Posterior(
        mean_mm.reshape(mean.shape), covariance, pose, energy, distance / len(residual), precision, weighted_residual
    )


def _downhill(
    pose: Similarity,
    offset: np.ndarray,
    step: np.ndarray,
    variance: np.ndarray,
    covariance: np.ndarray,
    mean: np.ndarray,
    points: np.ndarray,
) -> tuple[Similarity, np.ndarray]:
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


def _transformed_covariance(covariance: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Covariance of deformations in the frame of the mean shape, after a linear map of each point."""
    d = len(matrix)
    n = len(covariance) // d
    out = covariance.reshape(n, d, n, d)
    made: np.ndarray = np.einsum("ai,minj,bj->manb", matrix, out, matrix, optimize=True).reshape(n * d, n * d)
    return made


def _variance(expected_pose: PosePrior, d: int) -> np.ndarray:
    translation, scale, rotation = expected_pose.sd
    return np.array([translation] * d + [scale] + [rotation] * (1 if d == 2 else 3)) ** 2


def _jacobian(pose: Similarity, mean: np.ndarray) -> np.ndarray:
    """(n * d, parameters): derivative of the placed mean shape by translation, log scale and rotation about its centre."""
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
