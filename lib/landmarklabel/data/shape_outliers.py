"""Points that do not lie where the other points of their case put them: slips of the mouse, swapped names, other frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from landmarklabel.configuration import Configuration, number
from landmarklabel.data.mean_shape import learn_mean_shape
from landmarklabel.data.procrustes import agreeing_points, fit_stack, rms_size
from landmarklabel.landmarks import LandmarkSet


@dataclass(frozen=True)
class OutlierConfig(Configuration):
    """When a point counts as lying in the wrong place. Chosen on ISBI 2015, the wings and the head circumferences."""

    min_cases: int = number(8, 2)  # with fewer there is no typical place
    clip: float = number(4.0, 1)  # robust standard deviations beyond which a point says no more about how points vary together
    passes: int = number(2, 1)  # what the first finds wrong, the second neither aligns by nor believes
    sweeps: int = number(5, 1)  # over the points that a case lacks, each put where the others expect it
    folds: int = number(10, 2)  # what is expected of a case is learned from those of the other folds
    precision: float = number(1e-3, 0)  # of the shape's size: nobody places points more exactly, however alike the cases are
    least_median: float = number(0.1, 0)  # of the distances: that of a normal distribution is above 1
    factor: float = number(8.0, 1)  # times as improbable as in half of the cases
    min_share: float = number(0.05, 0)  # of the shape's size: what is nearer is no slip, however exact the other cases are


@dataclass(frozen=True)
class Outlier:
    """A point far from where its case's others expect it: which, how far (mm or px), and how far it is in half of the cases."""

    image_id: str
    name: str
    off_mm: float
    typical_mm: float


@dataclass(frozen=True)
class ShapeScores:
    """How far every point of n cases lies from where the case's other points expect it; NaN where a case lacks the point.

    Args:
        image_ids: of the n cases.
        names: of the k landmarks.
        typical: (k, d) mm, the medians of the cases laid over one another.
        aligned: (n, k, d) mm, the cases laid over one another.
        expected: (n, k, d) mm, there too: where the others expect each point.
        score: (n, k) Mahalanobis distance from there, in units of its median over the cases.
        off_mm: (n, k) mm from there.
        size_mm: (n,) root mean square distance of a case's points from their centre.
    """

    image_ids: tuple[str, ...]
    names: tuple[str, ...]
    typical: np.ndarray
    aligned: np.ndarray
    expected: np.ndarray
    score: np.ndarray
    off_mm: np.ndarray
    size_mm: np.ndarray


def score_shapes(labelled: Mapping[str, LandmarkSet], config: OutlierConfig | None = None) -> ShapeScores | None:
    """How far each point lies from where the other points of its case expect it, given how the points vary together.

    Every case is laid over the mean shape by a fit that outliers do not pull. What remains is taken as normally distributed;
    a point's distribution given the others is read off the inverse covariance.

    Args:
        labelled: image id to landmarks of one task.
        config: the defaults when None.

    Returns:
        None where there are too few cases, or too few landmarks for an orientation.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, equations 2.73 and 2.75, for the conditional distribution.
    """
    config = config or OutlierConfig()
    sets = {i: x for i, x in labelled.items() if x.defined.sum() > x.task.dims + 1}
    if len(sets) < config.min_cases:
        return None
    shape = learn_mean_shape(list(sets.values()))
    if not shape.usable or not shape.size > 0:
        return None
    points = np.stack([x.positions_mm for x in sets.values()])
    counts, used = agreeing_points(points, shape.points), np.isfinite(points).all(2).any(0)
    wrong = np.zeros(counts.shape, bool)
    off, score = np.full(points.shape, np.nan), np.full(counts.shape, np.nan)
    for _ in range(config.passes):
        matrix, offset = fit_stack(points, shape.points, counts)
        aligned = points @ np.swapaxes(matrix, 1, 2) + offset[:, None]
        off[:, used], score[:, used] = _given_the_others(aligned[:, used], wrong[:, used], config)
        wrong = score > config.factor
        counts = np.where(wrong.all(1, keepdims=True), counts, ~wrong)
    back = np.linalg.inv(matrix)
    off_here = off @ np.swapaxes(back, 1, 2)
    size = shape.size * np.abs(np.linalg.det(back)) ** (1 / aligned.shape[2])
    first = next(iter(sets.values()))
    return ShapeScores(
        tuple(sets), first.task.names, _medians(aligned), aligned, aligned - off,
        score, np.linalg.norm(off_here, axis=2), size,
    )  # fmt: skip


def shape_outliers(labelled: Mapping[str, LandmarkSet], config: OutlierConfig | None = None) -> list[Outlier]:
    """The points that lie far from where the other points of their case expect them; the most improbable first.

    Args:
        labelled: image id to landmarks of one task.
        config: the defaults when None.
    """
    config = config or OutlierConfig()
    scores = score_shapes(labelled, config)
    if scores is None:
        return []
    typical = _medians(scores.off_mm / scores.size_mm[:, None])
    far = (scores.score > config.factor) & (scores.off_mm > config.min_share * scores.size_mm[:, None])
    return [
        Outlier(scores.image_ids[i], scores.names[k], float(scores.off_mm[i, k]), float(typical[k] * scores.size_mm[i]))
        for i, k in worst_first(scores.score)
        if far[i, k]
    ]


def worst_first(score: np.ndarray) -> Sequence[tuple[int, int]]:
    """Case and landmark of every known score, the highest first."""
    order = np.argsort(-np.where(np.isfinite(score), score, -1), axis=None, kind="stable")[: int(np.isfinite(score).sum())]
    cases, landmarks = np.unravel_index(order, score.shape)
    return list(zip(cases.tolist(), landmarks.tolist(), strict=True))


def _given_the_others(aligned: np.ndarray, wrong: np.ndarray, config: OutlierConfig) -> tuple[np.ndarray, np.ndarray]:
    """How far every point lies from where its case's others expect it; NaN where there is none.

    Args:
        aligned: (n, k, d) cases laid over one another.
        wrong: (n, k) points that say nothing of others; they, and those that lack, count as lying where they are expected.

    Returns:
        (n, k, d), and (n, k) as a Mahalanobis distance, in units of its median over the cases.
    """
    cases, landmarks, _ = aligned.shape
    typical = np.nanmedian(aligned, axis=0)
    rest, poses, floor = aligned - typical, _poses(typical), (config.precision * rms_size(typical)) ** 2
    robust = 1.4826 * np.nanmedian(np.abs(rest), axis=0)  # the standard deviation of a normal distribution with this median
    bound = config.clip * np.maximum(robust, np.median(robust))
    out = wrong | ~np.isfinite(rest).all(2)
    believed = np.where(out[..., None], 0.0, np.clip(rest, -bound, bound))
    for _ in range(config.sweeps if out.any() else 0):
        precision = _precision(believed.reshape(cases, -1), poses, floor)
        for k in np.flatnonzero(out.any(0)):
            off, _ = _off(believed[:, k], believed, precision, k)
            believed[out[:, k], k] -= off[out[:, k]]
    off, distance = np.empty(rest.shape), np.empty(rest.shape[:2])
    for fold in np.array_split(np.arange(cases), min(config.folds, cases)):
        precision = _precision(np.delete(believed, fold, axis=0).reshape(cases - len(fold), -1), poses, floor)
        for k in range(landmarks):
            off[fold, k], distance[fold, k] = _off(rest[fold, k], believed[fold], precision, k)
    return off, distance / np.maximum(np.nanmedian(distance, axis=0), config.least_median)


def _off(own: np.ndarray, believed: np.ndarray, precision: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of landmark k, which lies at ``own``: (n, d) from its mean given where the others are, (n,) how improbable that is."""
    cases, _, dims = believed.shape
    mine = slice(k * dims, (k + 1) * dims)
    pull = believed.reshape(cases, -1) @ precision[:, mine] + (own - believed[:, k]) @ precision[mine, mine]
    off = pull @ np.linalg.inv(precision[mine, mine])
    return off, np.sqrt(np.einsum("nd,nd->n", pull, off))


def _precision(rows: np.ndarray, poses: np.ndarray, floor: float) -> np.ndarray:
    """(p, p) inverse covariance of (n, p) rows about 0; changes of pose count as equally probable, however large.

    The covariance is drawn towards equal variances, as there may be fewer rows than columns; no variance is below ``floor``.
    Without the poses a point would be expected where it lies: a case that was aligned by least squares tells each of its points
    from the others.

    Source: Ledoit 2004, A well-conditioned estimator for large-dimensional covariance matrices, section 3.3, for the covariance.
    """
    n, p = rows.shape
    rows = rows - rows.mean(0)
    covariance = rows.T @ rows / n
    mean = np.trace(covariance) / p
    apart = ((covariance - mean * np.eye(p)) ** 2).sum() / p
    noise = (((rows**2).sum(1) ** 2).mean() - (covariance**2).sum()) / (n * p)
    share = min(noise / apart, 1.0) if apart > 0 else 1.0
    inverse = np.linalg.inv((share * mean + floor) * np.eye(p) + (1 - share) * covariance)
    along = inverse @ poses
    precision: np.ndarray = inverse - along @ np.linalg.solve(poses.T @ along, along.T)
    return precision


def _poses(typical: np.ndarray) -> np.ndarray:
    """(k * d, m) how all coordinates of a (k, d) shape change with its place, size and orientation, to first order."""
    landmarks, dims = typical.shape
    centred = typical - typical.mean(0)
    moves = [np.tile(axis, (landmarks, 1)) for axis in np.eye(dims)] + [centred]
    for a, b in combinations(range(dims), 2):
        turn = np.zeros_like(centred)
        turn[:, a], turn[:, b] = -centred[:, b], centred[:, a]
        moves.append(turn)
    return np.linalg.qr(np.stack([move.ravel() for move in moves], axis=1))[0]


def _medians(values: np.ndarray) -> np.ndarray:
    """Medians over the cases that have the landmark; NaN for one that nobody has."""
    known = np.isfinite(values).reshape(len(values), values.shape[1], -1).any((0, 2))
    medians = np.full(values.shape[1:], np.nan)
    medians[known] = np.nanmedian(values[:, known], axis=0)
    return medians
