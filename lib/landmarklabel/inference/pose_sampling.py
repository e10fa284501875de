"""Poses that many detections agree with, found from random minimal samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landmarklabel.data.procrustes import Similarity, optimal_rotation
from landmarklabel.inference.evidence import Candidates
from landmarklabel.inference.shape_prior import PosePrior, ShapePrior


def rough_pose(
    prior: ShapePrior, expected_pose: PosePrior, candidates: Candidates, mirrored: bool
) -> tuple[Similarity | None, float]:
    """The pose most of the networks' first candidates agree with, and how much they do; None, -inf where there is none."""
    weight, rng = np.maximum(candidates.weight[:, 0], 1e-3), np.random.default_rng(0)
    scale = expected_pose.mean.scale
    found = sample_poses(prior, candidates.positions_mm[:, 0], weight, [], mirrored, scale, rng, count=1)
    return found[0] if found else (None, -np.inf)


def sample_poses(
    prior: ShapePrior,
    points: np.ndarray,
    weight: np.ndarray,
    fixed: Sequence[int],
    mirrored: bool,
    scale: float,
    rng: np.random.Generator,
    count: int | None = None,
) -> list[tuple[Similarity, float]]:
    """Distinct poses from random minimal samples, each with the weight of the points that lie near, the best first.

    Args:
        prior: shape.
        points: (n, d) LPS mm, NaN where nothing was detected.
        weight: (n,) of the detections.
        fixed: landmarks a person placed: they are in most samples, and count four times.
        mirrored: look for poses of the mirrored shape.
        scale: expected; poses far from it are not believed.
        rng: of the samples.
        count: how many poses; ``config.starts`` when None.

    Source: Fischler 1981, with samples drawn by weight (Gumbel top-k).
    """
    config, count = prior.config, count or prior.config.starts
    mean = np.nan_to_num(prior.mean_shape.points)
    n, d = mean.shape
    flip = np.diag([-1.0 if mirrored else 1.0] + [1.0] * (d - 1))
    known = np.flatnonzero(np.isfinite(points).all(1) & prior.known)
    if len(known) <= d:
        return []
    fixed = [i for i in fixed if i in known]
    picks = _draw_samples(known, weight, fixed, d, config.samples, rng)
    # By judgement: points that lie close together, 0.15 of the size as the root of their summed squares, tell little of a pose;
    # poses within 0.1 of the size are the same one.
    matrix, offset, ratio = _fit_samples((mean @ flip)[picks], points[picks], scale, 0.15 * prior.mean_shape.size)
    matrix = matrix @ flip
    placed = np.einsum("kij,nj->kni", matrix, mean) + offset[:, None]
    variance = np.einsum("nii->n", prior.blocks) / d + (config.min_detection_sd * prior.mean_shape.size) ** 2
    distance = ((placed - points) ** 2).sum(-1) / (d * variance * ratio[:, None] ** 2)
    support = np.where(np.isfinite(distance), np.maximum(9.0 - distance, 0.0), 0.0)  # none beyond three standard deviations
    weight = weight.copy()
    weight[fixed] *= 4  # by judgement: a person's point counts as much as several detections
    score = (support * weight).sum(1)
    chosen = _distinct(placed, score, 0.1 * prior.mean_shape.size * ratio, count)
    return [(Similarity(matrix[k], offset[k]), float(score[k])) for k in chosen]


def _draw_samples(
    known: np.ndarray, weight: np.ndarray, fixed: Sequence[int], d: int, samples: int, rng: np.random.Generator
) -> np.ndarray:
    """(k, d) landmarks, drawn without replacement; a random number of the fixed ones is in each."""
    order = np.log(weight[known]) + rng.gumbel(size=(samples, len(known)))
    picks = known[np.argsort(-order, axis=1)[:, :d]]
    for row, given in zip(picks, rng.integers(0, min(len(fixed), d) + 1, samples), strict=True):
        row[:given] = rng.permutation(fixed)[:given]
    made: np.ndarray = picks[[len(set(row)) == d for row in picks.tolist()]]
    return made


def _fit_samples(
    source: np.ndarray, target: np.ndarray, scale: float, min_extent: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices (k, d, d), offsets (k, d) and scales (k,) of the poses of (k, d, d) samples that can be believed."""
    x, y = source - source.mean(1, keepdims=True), target - target.mean(1, keepdims=True)
    extents = [np.sqrt((v**2).sum((1, 2))) for v in (x, y)]
    ratio = extents[1] / np.maximum(extents[0], 1e-9)
    left, right, _ = optimal_rotation(np.einsum("kni,knj->kij", y, x))
    matrix = ratio[:, None, None] * (left @ right)
    offset = target.mean(1) - np.einsum("kij,kj->ki", matrix, source.mean(1))
    # Within a factor of two of the expected size (exp 0.7).
    good = (extents[0] > min_extent) & (np.abs(np.log(np.maximum(ratio, 1e-9) / scale)) < 0.7)
    return matrix[good], offset[good], ratio[good]


def _distinct(placed: np.ndarray, score: np.ndarray, min_distance: np.ndarray, count: int, tried: int = 200) -> list[int]:
    """The best poses that place the landmarks in different places."""
    left, chosen = np.argsort(-score)[:tried], list[int]()
    while len(left) and len(chosen) < count:
        best = left[0]
        chosen.append(int(best))
        distance = np.median(np.linalg.norm(placed[left] - placed[best], axis=2), axis=1)
        left = left[distance > min_distance[left]]
    return chosen
