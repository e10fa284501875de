"""Points that do not lie where the other points of their case put them: slips of the mouse, swapped names, other frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    passes: int = number(4, 1)  # each finds one more point of a case wrong, which the next neither aligns by nor believes
    sweeps: int = number(5, 1)  # over the points that a case lacks, each put where the others expect it
    folds: int = number(10, 2)  # what is expected of a case is learned from those of the other folds
    precision: float = number(1e-3, 0)  # of the shape's size: nobody places points more exactly, however alike the cases are
    least_median: float = number(0.1, 0)  # of the distances: that of a normal distribution is above 1
    factor: float = number(8.0, 1)  # times as far off as in half of the cases, given how points vary together
    swap_score: float = number(3.0, 1)  # times the median, from which a point may be one of two swapped ones
    swap_share: float = number(0.35, 0, 1)  # of how far it is off, within which each of the two lies at the other's place
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
    """How far every point of n cases lies from where the case's other points expect it; NaN where nothing can be said.

    Args:
        image_ids: of the n cases.
        names: of the k landmarks.
        typical: (k, d) mm, the medians of the cases laid over one another.
        aligned: (n, k, d) mm, the cases laid over one another.
        expected: (n, k, d) mm, there too: where the others expect each point.
        score: (n, k) Mahalanobis distance from there, in units of its median over the cases.
        off_mm: (n, k) mm from there.
        size_mm: (n,) the mean shape's size in the scale of each case.
        expected_mm: (n, k, d) mm, as ``expected`` in each case's own frame.
    """

    image_ids: tuple[str, ...]
    names: tuple[str, ...]
    typical: np.ndarray
    aligned: np.ndarray
    expected: np.ndarray
    score: np.ndarray
    off_mm: np.ndarray
    size_mm: np.ndarray
    expected_mm: np.ndarray


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
    known = np.isfinite(points).all(2)
    counts, used = agreeing_points(points, shape.points), known.sum(0) >= config.min_cases
    if used.sum() < shape.points.shape[1] + 2:
        return None
    wrong = np.zeros(counts.shape, bool)
    off, score = np.full(points.shape, np.nan), np.full(counts.shape, np.nan)
    for _ in range(config.passes):
        matrix, offset = fit_stack(points, shape.points, counts)
        aligned = points @ np.swapaxes(matrix, 1, 2) + offset[:, None]
        off[:, used], score[:, used] = _given_the_others(aligned[:, used], wrong[:, used], config)
        more = _worst_of_each(np.where(wrong, np.nan, score), config.factor)
        more[(known & used & ~wrong).sum(1) <= shape.points.shape[1] + 1] = False  # the rest has to tell where the case lies
        if not more.any():
            break
        wrong |= more
        left = counts & ~wrong
        counts = np.where((left.sum(1) > shape.points.shape[1])[:, None], left, counts)
    back = np.linalg.inv(matrix)
    off_here = off @ np.swapaxes(back, 1, 2)
    size = shape.size * np.abs(np.linalg.det(back)) ** (1 / aligned.shape[2])
    first = next(iter(sets.values()))
    return ShapeScores(
        tuple(sets), first.task.names, _medians(aligned), aligned, aligned - off,
        score, np.linalg.norm(off_here, axis=2), size, points - off_here,
    )  # fmt: skip


def _worst_of_each(score: np.ndarray, factor: float) -> np.ndarray:
    """(n, k) the highest score of each case, where it is above the factor: the others may only look wrong because of it."""
    score = np.where(np.isfinite(score), score, 0.0)
    found: np.ndarray = (score > factor) & (np.arange(score.shape[1]) == score.argmax(1)[:, None])
    return found


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


def swapped_with(scores: ShapeScores, case: int, landmark: int, config: OutlierConfig | None = None) -> int | None:
    """The landmark whose place a point lies at while that one lies at its place, or None: two names were swapped."""
    config = config or OutlierConfig()
    here, wanted = scores.aligned[case], scores.expected[case]
    apart = np.linalg.norm(here[landmark] - wanted[landmark])
    if not scores.score[case, landmark] > config.swap_score:
        return None
    near = config.swap_share * apart
    to_other, from_other = np.linalg.norm(here[landmark] - wanted, axis=1), np.linalg.norm(here - wanted[landmark], axis=1)
    both = np.where((to_other < near) & (from_other < near), to_other + from_other, np.inf)
    both[landmark] = np.inf
    other = int(np.argmin(both))
    return other if np.isfinite(both[other]) else None


def _given_the_others(aligned: np.ndarray, wrong: np.ndarray, config: OutlierConfig) -> tuple[np.ndarray, np.ndarray]:
    """How far every point lies from where its case's others expect it; NaN where a case lacks it.

    Args:
        aligned: (n, k, d) cases laid over one another.
        wrong: (n, k) points that say nothing of others.

    Returns:
        (n, k, d), and (n, k) as a Mahalanobis distance, in units of its median over the cases.
    """
    cases, _, _ = aligned.shape
    typical = np.nanmedian(aligned, axis=0)
    rest, poses = aligned - typical, _poses(typical)
    robust = 1.4826 * np.nanmedian(np.abs(rest), axis=0)  # the standard deviation of a normal distribution with this median
    bound = config.clip * np.maximum(robust, np.median(robust))
    present = np.isfinite(rest).all(2)
    believed = _Believed(np.clip(rest, -bound, bound), present & ~wrong, (config.precision * rms_size(typical)) ** 2)
    believed.fill_in(config.sweeps)
    off, distance = np.full(rest.shape, np.nan), np.full(rest.shape[:2], np.nan)
    for fold in np.array_split(np.arange(cases), min(config.folds, cases)):
        covariance = believed.covariance(np.setdiff1d(np.arange(cases), fold))
        for members, known in believed.patterns(fold):
            for asked in [None, *np.flatnonzero(~known)]:  # those that are believed, then each that is there and is not
                some = members if asked is None else members[present[members, asked]]
                use = known if asked is None else known | (np.arange(len(known)) == asked)
                if len(some) and known.sum() > aligned.shape[2]:
                    wanted = np.flatnonzero(use) if asked is None else [asked]
                    flat = np.repeat(use, aligned.shape[2])
                    precision = _precision(covariance[np.ix_(flat, flat)], poses[flat])
                    values = np.where(known[:, None], believed.values[some], rest[some])[:, use]
                    for k in wanted:
                        place = int(use[:k].sum())
                        off[some, k], distance[some, k] = _off(rest[some, k], values, precision, place)
    return off, distance / np.maximum(np.nanmedian(distance, axis=0), config.least_median)


class _Believed:
    """What is believed of cases laid over one another, as deviations from the medians; what is not known follows the others.

    Args:
        values: (n, k, d).
        known: (n, k) which of them are believed.
        floor: the least variance of a coordinate.

    Source: Dempster 1977, for the covariance with values that are not known.
    """

    def __init__(self, values: np.ndarray, known: np.ndarray, floor: float):
        self.values, self.known, self.floor = np.where(known[..., None], values, 0.0), known, floor
        self._unsure: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # cases, coordinates, and the covariance of these

    def patterns(self, cases: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The cases, grouped by which of their points are believed: (m,) cases, (k,) which."""
        patterns, of = np.unique(self.known[cases], axis=0, return_inverse=True)
        for group, pattern in enumerate(patterns):
            yield cases[of.ravel() == group], pattern

    def fill_in(self, sweeps: int) -> None:
        """Put what is not believed where the rest of its case expects it."""
        cases, _, dims = self.values.shape
        everybody = np.arange(cases)
        for _ in range(sweeps if not self.known.all() else 0):
            covariance, unsure = self.covariance(everybody), []
            flat = self.values.reshape(cases, -1).copy()
            for members, pattern in self.patterns(everybody):
                seen = np.repeat(pattern, dims)
                if seen.any() and not seen.all():
                    gain = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, ~seen)])
                    flat[np.ix_(members, ~seen)] = flat[np.ix_(members, seen)] @ gain
                    rest = covariance[np.ix_(~seen, ~seen)] - covariance[np.ix_(~seen, seen)] @ gain
                    unsure.append((members, ~seen, rest))
            self.values, self._unsure = flat.reshape(self.values.shape), unsure

    def covariance(self, cases: np.ndarray) -> np.ndarray:
        """(p, p) covariance about the medians, drawn towards equal variances: there may be fewer cases than coordinates.

        Source: Ledoit 2004, A well-conditioned estimator for large-dimensional covariance matrices, section 3.3.
        """
        rows = self.values[cases].reshape(len(cases), -1)
        n, p = rows.shape
        covariance = rows.T @ rows
        for members, coordinates, rest in self._unsure:
            covariance[np.ix_(coordinates, coordinates)] += np.isin(members, cases).sum() * rest
        covariance /= n
        mean = np.trace(covariance) / p
        apart = ((covariance - mean * np.eye(p)) ** 2).sum() / p
        noise = max(((rows**2).sum(1) ** 2).mean() - (covariance**2).sum(), 0.0) / (n * p)
        share = min(noise / apart, 1.0) if apart > 0 else 1.0
        out: np.ndarray = (share * mean + self.floor) * np.eye(p) + (1 - share) * covariance
        return out


def _off(own: np.ndarray, values: np.ndarray, precision: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of landmark k, which lies at ``own``: (n, d) from its mean given where the others are, (n,) how improbable that is."""
    cases, _, dims = values.shape
    mine = slice(k * dims, (k + 1) * dims)
    pull = values.reshape(cases, -1) @ precision[:, mine] + (own - values[:, k]) @ precision[mine, mine]
    off = pull @ np.linalg.inv(precision[mine, mine])
    return off, np.sqrt(np.maximum(np.einsum("nd,nd->n", pull, off), 0.0))


def _precision(covariance: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """The inverse of a (p, p) covariance for which changes of pose are equally probable, however large.

    Without them a point would be expected where it lies: a case that was aligned by least squares tells each of its points
    from the others.
    """
    inverse = np.linalg.inv(covariance)
    along = inverse @ poses
    precision: np.ndarray = inverse - along @ np.linalg.lstsq(poses.T @ along, along.T, rcond=None)[0]
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
