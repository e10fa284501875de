"""One correction moves the rest: fixed points, what the network saw and the shape prior, brought into agreement.

No network runs here. Every landmark has candidates (peaks of its map). The pose and the deformation that explain the fixed
points and as many candidates as possible are found robustly; then every landmark takes the candidate that agrees with all
others, or, where none does, the place the others point to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from landmarklabel.data.pose import Similarity
from landmarklabel.inference.evidence import Candidates
from landmarklabel.inference.prior import PosePrior, Posterior, ShapePrior, blocks_of, condition

FIXED_NOISE = 0.004  # standard deviation of a person's point, in units of the shape's size
FREEDOM = 4.0  # degrees of freedom of the deformation's distribution, besides one a labelled case
CONFUSED = 0.02  # share of detections that are somewhere else entirely
TOGETHER = 0.5  # probability that a landmark is confused with its group
WILD_COST = -3.0  # added to minus the log density of a point that is anywhere: confusions come in groups, so they are cheap
ROUNDS = 10  # of choosing candidates
SAMPLES = 800  # minimal samples a pose search draws, for either handedness
STARTS = 6  # distinct poses that are followed up, likewise
MIRROR_COST = 6.0  # of an image whose handedness is not that of the study
DOUBTFUL = 0.2  # share of detections that agree with nothing, beyond which another pose is looked for
CONVINCING = 0.12, 2.0  # at most: the same share, and misfit
MISFIT = 4.0  # mean squared distance of fixed points from the shape, in standard deviations, likewise
FOUND, FREE, FIXED, ABSENT = 0, -1, -2, -3


@dataclass(frozen=True)
class Explained:
    """Everything in agreement.

    Args:
        positions_mm: (n, d); NaN for absent ones.
        covariance_mm2: (n, d, d) of what is known about each.
        chosen: (n,) number of the candidate taken, or FREE (none agrees), FIXED, ABSENT.
        distance: (n,) squared distance of the network's first candidate from what the others say, in standard deviations.
        others_mm, others_mm2: (n, d) and (n, d, d) what all others say about each landmark.
        posterior: of pose and shape.
        cost: minus log plausibility.
    """

    positions_mm: np.ndarray
    covariance_mm2: np.ndarray
    chosen: np.ndarray
    distance: np.ndarray
    others_mm: np.ndarray
    others_mm2: np.ndarray
    posterior: Posterior
    cost: float

    @property
    def lost(self) -> float:
        """Share of the detections that agree with nothing."""
        asked = (self.chosen >= FREE) & np.isfinite(self.distance)
        return float((self.chosen[asked] == FREE).mean()) if asked.any() else 0.0

    @property
    def doubtful(self) -> bool:
        """Many detections, or the fixed points, contradict the shape: other poses are to be tried."""
        asked = (self.chosen >= FREE) & np.isfinite(self.distance)
        return self.lost > DOUBTFUL if asked.any() else self.posterior.misfit > MISFIT

    @property
    def convincing(self) -> bool:
        """So good that nothing better is to be expected from another side of the image."""
        return self.lost <= CONVINCING[0] and self.posterior.misfit <= CONVINCING[1]


def explain(
    prior: ShapePrior,
    usual: PosePrior,
    candidates: Candidates | None,
    fixed: Mapping[int, np.ndarray],
    absent: Sequence[int] = (),
    start: Similarity | None = None,
    seed: int = 0,
) -> Explained:
    """The most plausible configuration.

    Args:
        prior: shape.
        usual: pose expected in this image.
        candidates: of the network, or None while there is none.
        fixed: positions a person gave, by landmark number; they come back unchanged.
        absent: landmarks a person called absent.
        start: pose of an earlier explanation of the same image, tried first.
        seed: of the pose search.
    """
    explained = []
    for where in _starts(prior, usual, candidates, fixed, absent, start, seed):
        explained.append(_from_one_start(prior, usual, where, candidates, fixed, absent))
        accepted = start is not None and start.mirrored  # a mirrored image has been found out before
        if not explained[-1].doubtful and (accepted or not explained[-1].posterior.pose.mirrored):
            return explained[-1]
    return min(explained, key=lambda e: e.cost)


def _starts(prior, usual, candidates, fixed, absent, start, seed) -> Iterator[PosePrior]:
    """Poses to try, the likeliest first; the search only happens when those before it explain too little."""
    unit = prior.pose.size * usual.expected.scale
    free = (0.3 * unit, 0.1, 0.25)
    if start is not None:
        yield PosePrior(start, free)
    if candidates is None:
        yield usual
        points, weight = np.full(prior.pose.mean.shape, np.nan), np.full(len(prior.pose.mean), 1e-3)
    else:
        points, weight = candidates.positions_mm[:, 0].copy(), np.maximum(candidates.weight[:, 0], 1e-3)
    points[list(absent)] = np.nan
    for i, p in fixed.items():
        points[i], weight[i] = p, 1.0
    rng = np.random.default_rng(seed)
    for mirrored in (False,) if prior.symmetric else (False, True):
        for pose, _ in _search(prior, points, weight, list(fixed), mirrored, usual.expected.scale, rng):
            yield PosePrior(pose, free)
    if candidates is not None:
        yield usual


def next_landmark(explained: Explained, free: Sequence[int]) -> int | None:
    """The landmark whose position would reduce the total variance of all landmarks most; None when none is left.

    Source: greedy minimum of the posterior trace, as for any Gaussian.
    """
    covariance, d = explained.posterior.covariance, explained.positions_mm.shape[1]
    n = len(covariance) // d
    rows = covariance.reshape(n, d, n * d)
    best, most = None, -1.0
    for i in free:
        own = rows[i].reshape(d, n, d)[:, i] + 1e-6 * np.trace(rows[i].reshape(d, n, d)[:, i]) * np.eye(d)
        gain = float(np.trace(np.linalg.solve(own, rows[i] @ rows[i].T)))
        if gain > most:
            best, most = i, gain
    return best


def rough_pose(prior: ShapePrior, usual: PosePrior, candidates: Candidates, mirrored: bool) -> tuple[Similarity | None, float]:
    """The pose most of the network's first candidates agree with, and how much they do."""
    weight, rng = np.maximum(candidates.weight[:, 0], 1e-3), np.random.default_rng(0)
    found = _search(prior, candidates.positions_mm[:, 0], weight, [], mirrored, usual.expected.scale, rng, count=1)
    return found[0] if found else (None, -np.inf)


def _search(prior, points, weight, fixed, mirrored, scale, rng, count=STARTS) -> list[tuple[Similarity, float]]:
    """Distinct poses from random minimal samples with the trust in the points that lie near, the best first."""
    mean = np.nan_to_num(prior.pose.mean)
    n, d = mean.shape
    flip = np.diag([-1.0 if mirrored else 1.0] + [1.0] * (d - 1))
    known = np.flatnonzero(np.isfinite(points).all(1) & prior.known)
    if len(known) <= d:
        return []
    order = np.log(weight[known]) + rng.gumbel(size=(SAMPLES, len(known)))  # draws without replacement, all at once
    picks = known[np.argsort(-order, axis=1)[:, :d]]
    fixed = [i for i in fixed if i in known]
    for row, given in zip(picks, rng.integers(0, min(len(fixed), d) + 1, SAMPLES), strict=True):
        row[:given] = rng.permutation(fixed)[:given]
    picks = picks[[len(set(row)) == d for row in picks.tolist()]]
    a, b = (mean @ flip)[picks], points[picks]
    x, y = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    lengths = [np.sqrt((v**2).sum((1, 2))) for v in (x, y)]
    ratio = lengths[1] / np.maximum(lengths[0], 1e-9)
    u, _, vt = np.linalg.svd(np.einsum("kni,knj->kij", y, x))
    u[:, :, -1] *= np.sign(np.linalg.det(u @ vt))[:, None]
    turn = ratio[:, None, None] * (u @ vt)
    offset = b.mean(1) - np.einsum("kij,kj->ki", turn, a.mean(1))
    good = (lengths[0] > 0.15 * prior.pose.size) & (np.abs(np.log(np.maximum(ratio, 1e-9) / scale)) < 0.7)
    matrix, offset, ratio = (turn @ flip)[good], offset[good], ratio[good]
    laid = np.einsum("kij,nj->kni", matrix, mean) + offset[:, None]
    usual = np.einsum("nii->n", prior.blocks) / d + (0.03 * prior.pose.size) ** 2
    far = ((laid - points) ** 2).sum(-1) / (d * usual * ratio[:, None] ** 2)
    near = np.where(np.isfinite(far), np.maximum(9.0 - far, 0.0), 0.0)
    trust = weight.copy()
    trust[fixed] *= 4
    score = (near * trust).sum(1)
    chosen: list[int] = []
    for k in np.argsort(-score)[:200]:
        apart = [np.median(np.linalg.norm(laid[k] - laid[j], axis=1)) for j in chosen]
        if min(apart, default=np.inf) > 0.1 * prior.pose.size * ratio[k]:
            chosen.append(int(k))
        if len(chosen) == count:
            break
    return [(Similarity(matrix[k], offset[k]), float(score[k])) for k in chosen]


def _from_one_start(prior, usual, where, candidates, fixed, absent) -> Explained:
    n, d = prior.pose.mean.shape
    unit = prior.pose.size * usual.expected.scale
    exact = np.eye(d) * (FIXED_NOISE * unit) ** 2
    points, noise = np.full((n, d), np.nan), np.tile(exact, (n, 1, 1))
    state = np.full(n, FREE)
    for i, p in fixed.items():
        points[i], state[i] = p, FIXED
    state[list(absent)] = ABSENT
    free = (state == FREE) & prior.known
    chosen, distance = state, np.full(n, np.nan)
    if candidates is not None:
        start = condition(prior, where, points, noise) if fixed else None
        guess = where.expected.apply(np.nan_to_num(prior.pose.mean)) if start is None else start.mean
        matrix = where.expected.matrix
        loose = matrix @ prior.blocks @ matrix.T + np.eye(d) * (0.03 * unit) ** 2
        for eager in (1.0, 9.0):
            chosen, distance = _choose(prior, candidates, guess, loose, free, state, unit, eager)
            if (chosen >= FOUND).sum() + len(fixed) > d:
                break
    barred = np.zeros(n, bool)  # whose first candidate is part of a confused group
    for last in [False] * (ROUNDS - 1) + [True]:
        used, spread = points.copy(), noise.copy()
        taken = np.flatnonzero(chosen >= FOUND)
        used[taken] = candidates.positions_mm[taken, chosen[taken]] if len(taken) else used[taken]
        spread[taken] = candidates.covariance_mm2[taken, chosen[taken]] + exact if len(taken) else spread[taken]
        posterior = condition(prior, where, used, spread)
        guess, others = _without_each(posterior, used, spread)
        if candidates is None:
            break
        again, distance = _choose(prior, candidates, guess, others, free, state, unit)
        again[barred & (again == FOUND)] = FREE
        if (again == chosen).all():
            group = _confused_group(prior, posterior, np.isfinite(used).all(1) & prior.known, chosen == FOUND, unit)
            barred[group], again[group] = True, FREE
        if last or (again == chosen).all() or (again >= FOUND).sum() + len(fixed) <= d:
            break
        chosen, where = again, PosePrior(posterior.pose, where.spread)
    seen = np.isfinite(used).all(1)
    cost = posterior.energy + 0.5 * d * int(seen.sum()) * np.log(2 * np.pi) + MIRROR_COST * posterior.pose.mirrored
    cost += (d * np.log(3.0 * unit) + WILD_COST) * int((free & ~seen).sum())
    cost += 0.5 * (np.log(posterior.pose.scale / usual.expected.scale) / max(usual.spread[1], 0.1)) ** 2
    positions = posterior.mean.copy()
    positions[seen & (chosen >= FOUND)] = used[seen & (chosen >= FOUND)]
    for i, p in fixed.items():
        positions[i] = p
    positions[list(absent)] = np.nan
    return Explained(positions, blocks_of(posterior.covariance, d), chosen, distance, guess, others, posterior, float(cost))


def _choose(prior, candidates, guess, spread, free, state, unit, eager=1.0) -> tuple[np.ndarray, np.ndarray]:
    """For each free landmark the likeliest candidate, if it is likelier than that the network is confused.

    A candidate's distance from what the others say has a Student distribution: with few labelled cases the covariance is
    itself uncertain. A confused network may point anywhere.

    Returns:
        The choice, and (n,) the squared distance of the network's own first candidate.
    """
    total = spread[:, None] + candidates.covariance_mm2
    likely, distance = _likely(prior, candidates.positions_mm - guess[:, None], total, eager)
    likely += np.log(np.maximum(candidates.weight, 1e-6))
    best = np.argmax(likely, axis=1)
    rows = np.arange(len(best))
    agrees = free & (likely[rows, best] > _anywhere(guess.shape[1], unit))
    return np.where(agrees, best, state), distance[:, 0]


def _likely(prior: ShapePrior, off: np.ndarray, spread: np.ndarray, eager: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Log density of points (…, d) off from where the others have them, and the squared distance; -inf, inf where NaN."""
    known, d = np.isfinite(off).all(-1), off.shape[-1]
    off = np.where(known[..., None], off, 0.0)
    distance = np.einsum("...i,...i->...", off, np.linalg.solve(spread, off[..., None])[..., 0])
    distance = np.where(known, distance, np.inf)
    freedom = prior.cases + FREEDOM
    tail = -0.5 * (freedom + d) * np.log1p(distance / (eager * freedom))
    return tail - 0.5 * np.linalg.slogdet(2 * np.pi * spread)[1], distance


def _anywhere(d: int, unit: float) -> float:
    """Log density of a point that has nothing to do with the others."""
    return np.log(CONFUSED) - d * np.log(3.0 * unit)


def most_contradicted(prior: ShapePrior, usual: PosePrior, explained: Explained, fixed: Mapping[int, np.ndarray]) -> int | None:
    """The fixed point that is likelier a slip than a landmark of this shape, and of several the unlikeliest; else None.

    Args:
        prior, usual: of the study and the image.
        explained: what came out with these points fixed.
        fixed: (d,) LPS mm by number.
    """
    which = [i for i in fixed if prior.known[i]]
    if not which:
        return None
    off = np.stack([fixed[i] for i in which]) - explained.others_mm[which]
    likely, _ = _likely(prior, off, explained.others_mm2[which])
    worst = int(np.argmin(likely))
    return which[worst] if likely[worst] < _anywhere(off.shape[-1], prior.pose.size * usual.expected.scale) else None


def _confused_group(prior, posterior: Posterior, seen: np.ndarray, own: np.ndarray, unit: float) -> np.ndarray:
    """The group of landmarks that is likeliest to be confused together, given all others; empty where none is.

    A finger that is found on its neighbour agrees with itself: only as a whole does it contradict the rest.
    """
    d, freedom = len(posterior.pose.offset), prior.cases + FREEDOM
    row = np.full(len(seen), -1)
    row[seen] = np.arange(seen.sum())
    best, most = np.empty(0, int), 0.0
    for group in prior.groups:
        members = group[own[group]]
        k = len(members)
        if k < 2 or k > own.sum() / 2:
            continue
        rows = (row[members][:, None] * d + np.arange(d)).ravel()
        precision, weighed = posterior.precision[np.ix_(rows, rows)], posterior.weighed[rows]
        far = float(weighed @ np.linalg.solve(precision, weighed))
        likely = -0.5 * (freedom + k * d) * np.log1p(far / freedom) + 0.5 * np.linalg.slogdet(precision / (2 * np.pi))[1]
        gain = np.log(CONFUSED) + (k - 1) * np.log(TOGETHER) - k * d * np.log(3.0 * unit) - likely
        if gain > most:
            best, most = members, gain
    return best


def _without_each(posterior: Posterior, points: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) and (n, d, d): what all others say about each landmark, its own observation taken out of the posterior."""
    d = points.shape[1]
    mean, blocks = posterior.mean.copy(), blocks_of(posterior.covariance, d).copy()
    seen = np.isfinite(points).all(1)
    inside = np.linalg.inv(blocks[seen] + 1e-9 * np.einsum("nii->n", noise[seen])[:, None, None] * np.eye(d))
    own = np.linalg.inv(noise[seen])
    values, vectors = np.linalg.eigh(inside - own)
    values = np.maximum(values, 1e-6 * np.einsum("nii->n", own)[:, None])
    blocks[seen] = np.einsum("nij,nj,nkj->nik", vectors, 1 / values, vectors)
    pull = np.einsum("nij,nj->ni", inside, mean[seen]) - np.einsum("nij,nj->ni", own, points[seen])
    mean[seen] = np.einsum("nij,nj->ni", blocks[seen], pull)
    return mean, blocks
