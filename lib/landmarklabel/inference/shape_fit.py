"""One correction moves the other points: clicked points, candidates of the networks and the shape prior in agreement.

No network runs here. Every landmark has candidates (peaks of its map). The pose and the deformation that explain the clicked
points and as many candidates as possible are found robustly; then every landmark takes the candidate that agrees with all
others, or, where none does, the place the others point to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from landmarklabel.data.procrustes import Similarity
from landmarklabel.inference.configuration import ShapeModelConfig
from landmarklabel.inference.evidence import Candidates
from landmarklabel.inference.pose_sampling import sample_poses
from landmarklabel.inference.posterior import Posterior, condition
from landmarklabel.inference.shape_prior import PosePrior, ShapePrior, diagonal_blocks


class Assignment(IntEnum):
    """What a landmark's position in a shape fit comes from; further candidates have their own number, from 1."""

    FIRST_CANDIDATE = 0
    UNASSIGNED = -1  # no candidate agrees with the others
    FIXED = -2  # a person placed it
    ABSENT = -3


@dataclass(frozen=True)
class ShapeFit:
    """Clicked points, candidates and shape in agreement.

    Args:
        positions_mm: (n, d) LPS mm; NaN for absent ones.
        covariance_mm2: (n, d, d) of what is known about each.
        assignment: (n,) number of the candidate taken, or an ``Assignment``.
        first_distance2: (n,) squared standardized distance of the networks' first candidate from what the others say.
        loo_mean_mm, loo_covariance_mm2: (n, d) and (n, d, d) leave-one-out: what all other landmarks say about each.
        posterior: of pose and shape.
        cost: minus log plausibility.
        config: thresholds of the properties.
    """

    positions_mm: np.ndarray
    covariance_mm2: np.ndarray
    assignment: np.ndarray
    first_distance2: np.ndarray
    loo_mean_mm: np.ndarray
    loo_covariance_mm2: np.ndarray
    posterior: Posterior
    cost: float
    config: ShapeModelConfig

    @property
    def _detected(self) -> np.ndarray:
        made: np.ndarray = (self.assignment >= Assignment.UNASSIGNED) & np.isfinite(self.first_distance2)
        return made

    @property
    def unassigned_fraction(self) -> float:
        """Share of the detections that agree with nothing."""
        detected = self._detected
        return float((self.assignment[detected] == Assignment.UNASSIGNED).mean()) if detected.any() else 0.0

    @property
    def needs_pose_search(self) -> bool:
        """Whether other poses should be tried, because many detections or the clicked points contradict the shape."""
        if self._detected.any():
            return self.unassigned_fraction > self.config.max_unassigned
        return self.posterior.misfit > self.config.max_misfit

    @property
    def needs_no_other_orientation(self) -> bool:
        """Whether the fit is so good that no other orientation of the image needs to be tried."""
        few = self.unassigned_fraction <= self.config.plausible_unassigned
        return few and self.posterior.misfit <= self.config.plausible_misfit


def fit_shape_to_candidates(
    prior: ShapePrior,
    expected_pose: PosePrior,
    candidates: Candidates | None,
    fixed: Mapping[int, np.ndarray],
    absent: Sequence[int] | np.ndarray = (),
    start: Similarity | None = None,
    seed: int = 0,
) -> ShapeFit:
    """Find the most plausible configuration.

    Args:
        prior: shape.
        expected_pose: in this image.
        candidates: of the networks, or None while there is no model.
        fixed: positions a person gave, by landmark number; they come back unchanged.
        absent: landmarks that are not in the image.
        start: pose of an earlier fit to the same image, tried first.
        seed: of the pose search.
    """
    fits = []
    for pose in _starts(prior, expected_pose, candidates, fixed, absent, start, seed):
        fits.append(_fit_from(prior, expected_pose, pose, candidates, fixed, absent))
        mirrored_before = start is not None and start.mirrored  # a mirrored image has been found out before
        if not fits[-1].needs_pose_search and (mirrored_before or not fits[-1].posterior.pose.mirrored):
            return fits[-1]
    return min(fits, key=lambda fit: fit.cost)


def _starts(
    prior: ShapePrior,
    expected_pose: PosePrior,
    candidates: Candidates | None,
    fixed: Mapping[int, np.ndarray],
    absent: Sequence[int] | np.ndarray,
    start: Similarity | None,
    seed: int,
) -> Iterator[PosePrior]:
    """Poses to try, the likeliest first; the search only happens when those before it explain too little."""
    translation, scale, rotation = prior.config.start_sd
    sd = (translation * _unit_mm(prior, expected_pose), scale, rotation)
    if start is not None:
        yield PosePrior(start, sd)
    if candidates is None:
        yield expected_pose
        points, weight = np.full(prior.mean_shape.points.shape, np.nan), np.full(len(prior.mean_shape.points), 1e-3)
    else:
        points, weight = candidates.positions_mm[:, 0].copy(), np.maximum(candidates.weight[:, 0], 1e-3)
    points[list(absent)] = np.nan
    for i, p in fixed.items():
        points[i], weight[i] = p, 1.0
    rng = np.random.default_rng(seed)
    for mirrored in (False,) if prior.symmetric else (False, True):
        for pose, _ in sample_poses(prior, points, weight, list(fixed), mirrored, expected_pose.mean.scale, rng):
            yield PosePrior(pose, sd)
    if candidates is not None:
        yield expected_pose


def next_landmark(shape_fit: ShapeFit, free: Sequence[int] | np.ndarray) -> int | None:
    """The landmark whose position would reduce the total variance of all landmarks most; None when none is left.

    Source: greedy minimum of the posterior trace (A-optimal design), as for any Gaussian.
    """
    covariance, d = shape_fit.posterior.covariance, shape_fit.positions_mm.shape[1]
    n = len(covariance) // d
    rows = covariance.reshape(n, d, n * d)
    best, most = None, -1.0
    for i in free:
        own = rows[i].reshape(d, n, d)[:, i]
        own = own + 1e-6 * np.trace(own) * np.eye(d)
        gain = float(np.trace(np.linalg.solve(own, rows[i] @ rows[i].T)))
        if gain > most:
            best, most = int(i), gain
    return best


def _fit_from(
    prior: ShapePrior,
    expected_pose: PosePrior,
    start: PosePrior,
    candidates: Candidates | None,
    fixed: Mapping[int, np.ndarray],
    absent: Sequence[int] | np.ndarray,
) -> ShapeFit:
    """Start from a pose, and alternate between choosing candidates and fitting the shape until nothing changes."""
    config, unit_mm = prior.config, _unit_mm(prior, expected_pose)
    n, d = prior.mean_shape.points.shape
    click_covariance = np.eye(d) * (config.clicked_sd * unit_mm) ** 2
    points, noise = np.full((n, d), np.nan), np.tile(click_covariance, (n, 1, 1))
    given = np.full(n, int(Assignment.UNASSIGNED))
    for i, p in fixed.items():
        points[i], given[i] = p, Assignment.FIXED
    given[list(absent)] = Assignment.ABSENT
    assignment, distance2 = given, np.full(n, np.nan)
    if candidates is not None:
        assignment, distance2 = _first_assignment(prior, start, candidates, points, noise, given, unit_mm)
    confused = np.zeros(n, bool)  # whose first candidate is part of a confused group
    for last in [False] * (config.rounds - 1) + [True]:
        observed, spread = points.copy(), noise.copy()
        taken = np.flatnonzero(assignment >= Assignment.FIRST_CANDIDATE)
        if candidates is not None and len(taken):
            observed[taken] = candidates.positions_mm[taken, assignment[taken]]
            spread[taken] = candidates.covariance_mm2[taken, assignment[taken]] + click_covariance
        posterior = condition(prior, start, observed, spread)
        loo_mean, loo_covariance = _leave_one_out(posterior, observed, spread)
        if candidates is None:
            break
        again, distance2 = _assign(prior, candidates, loo_mean, loo_covariance, given, unit_mm)
        again[confused & (again == Assignment.FIRST_CANDIDATE)] = Assignment.UNASSIGNED
        if (again == assignment).all():
            first = assignment == Assignment.FIRST_CANDIDATE
            group = _confused_group(prior, posterior, np.isfinite(observed).all(1) & prior.known, first, unit_mm)
            confused[group], again[group] = True, Assignment.UNASSIGNED
        too_few = (again >= Assignment.FIRST_CANDIDATE).sum() + len(fixed) <= d
        if last or (again == assignment).all() or too_few:
            break
        assignment, start = again, PosePrior(posterior.pose, start.sd)
    used = np.isfinite(observed).all(1)
    positions = posterior.mean.copy()
    taken_mask = used & (assignment >= Assignment.FIRST_CANDIDATE)
    positions[taken_mask] = observed[taken_mask]
    for i, p in fixed.items():
        positions[i] = p
    positions[list(absent)] = np.nan
    unassigned = int(((given == Assignment.UNASSIGNED) & prior.known & ~used).sum())
    cost = _cost(prior, expected_pose, posterior, int(used.sum()), unassigned, unit_mm)
    covariance = diagonal_blocks(posterior.covariance, d)
    return ShapeFit(positions, covariance, assignment, distance2, loo_mean, loo_covariance, posterior, cost, config)


def _cost(prior: ShapePrior, expected_pose: PosePrior, posterior: Posterior, used: int, unassigned: int, unit_mm: float) -> float:
    """Minus log plausibility: of the observed points, of the mirror, of each unassigned detection, and of the scale."""
    config, d = prior.config, prior.dims
    cost = posterior.energy + 0.5 * d * used * np.log(2 * np.pi) + config.mirror_cost * posterior.pose.mirrored
    cost += (d * np.log(config.anywhere_extent * unit_mm) + config.unassigned_bonus) * unassigned
    log_scale = np.log(posterior.pose.scale / expected_pose.mean.scale)
    return float(cost + 0.5 * (log_scale / max(expected_pose.sd[1], 0.1)) ** 2)


def _first_assignment(
    prior: ShapePrior,
    start: PosePrior,
    candidates: Candidates,
    points: np.ndarray,
    noise: np.ndarray,
    given: np.ndarray,
    unit_mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates near where the shape lies in the first pose; where too few are, with wider tails."""
    d, fixed = prior.dims, np.isfinite(points).all(1)
    mean = start.mean.apply(np.nan_to_num(prior.mean_shape.points))
    mean = condition(prior, start, points, noise).mean if fixed.any() else mean
    matrix = start.mean.matrix
    covariance = matrix @ prior.blocks @ matrix.T + np.eye(d) * (prior.config.min_detection_sd * unit_mm) ** 2
    for tail_scale in (1.0, prior.config.wide_tail_scale):
        assignment, distance2 = _assign(prior, candidates, mean, covariance, given, unit_mm, tail_scale)
        if (assignment >= Assignment.FIRST_CANDIDATE).sum() + fixed.sum() > d:
            break
    return assignment, distance2


def _assign(
    prior: ShapePrior,
    candidates: Candidates,
    mean: np.ndarray,
    covariance: np.ndarray,
    given: np.ndarray,
    unit_mm: float,
    tail_scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose for each free landmark its likeliest candidate, if that is likelier than a confusion of the network.

    A candidate's distance from what the others say has a Student distribution: with few labelled cases the covariance is
    itself uncertain. A confused network may point anywhere.

    Returns:
        The assignment, and (n,) the squared standardized distance of the network's own first candidate.
    """
    total = covariance[:, None] + candidates.covariance_mm2
    likelihood, distance2 = _log_density(prior, candidates.positions_mm - mean[:, None], total, tail_scale)
    likelihood += np.log(np.maximum(candidates.weight, 1e-6))
    best = np.argmax(likelihood, axis=1)
    free = (given == Assignment.UNASSIGNED) & prior.known
    agrees = free & (likelihood[np.arange(len(best)), best] > _log_density_anywhere(prior, unit_mm))
    return np.where(agrees, best, given), distance2[:, 0]


def _log_density(
    prior: ShapePrior, offset: np.ndarray, covariance: np.ndarray, tail_scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Log density of points (…, d) off from where the others have them, and the squared distance; -inf, inf where NaN.

    Source: the multivariate Student distribution, without its normalizing constant (Lange 1989).
    """
    known, d = np.isfinite(offset).all(-1), offset.shape[-1]
    offset = np.where(known[..., None], offset, 0.0)
    distance2 = np.einsum("...i,...i->...", offset, np.linalg.solve(covariance, offset[..., None])[..., 0])
    distance2 = np.where(known, distance2, np.inf)
    tail = -0.5 * (prior.dof + d) * np.log1p(distance2 / (tail_scale * prior.dof))
    return tail - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1], distance2


def _log_density_anywhere(prior: ShapePrior, unit_mm: float) -> float:
    """Log density of a point that has nothing to do with the others."""
    return float(np.log(prior.config.confusion_rate) - prior.dims * np.log(prior.config.anywhere_extent * unit_mm))


def _unit_mm(prior: ShapePrior, expected_pose: PosePrior) -> float:
    """The size of the shape as it is expected in the image."""
    return prior.mean_shape.size * expected_pose.mean.scale


def most_contradicted(
    prior: ShapePrior, expected_pose: PosePrior, shape_fit: ShapeFit, fixed: Mapping[int, np.ndarray]
) -> int | None:
    """The clicked point that is likelier a slip than a landmark of this shape, and of several the unlikeliest; else None.

    Args:
        prior, expected_pose: of the study and the image.
        shape_fit: what came out with these points fixed.
        fixed: (d,) LPS mm by number.
    """
    which = [i for i in fixed if prior.known[i]]
    if not which:
        return None
    offset = np.stack([fixed[i] for i in which]) - shape_fit.loo_mean_mm[which]
    likelihood, _ = _log_density(prior, offset, shape_fit.loo_covariance_mm2[which])
    worst = int(np.argmin(likelihood))
    return which[worst] if likelihood[worst] < _log_density_anywhere(prior, _unit_mm(prior, expected_pose)) else None


def _confused_group(
    prior: ShapePrior, posterior: Posterior, observed: np.ndarray, first: np.ndarray, unit_mm: float
) -> np.ndarray:
    """The group of landmarks that is likeliest to be confused together, given all others; empty where none is.

    A finger that is found on its neighbour agrees with itself: only as a whole does it contradict the rest.
    """
    config, d = prior.config, prior.dims
    row = np.full(len(observed), -1)
    row[observed] = np.arange(observed.sum())
    best, most = np.empty(0, int), 0.0
    for group in prior.groups:
        members = group[first[group]]
        k = len(members)
        if k < 2 or k > first.sum() / 2:
            continue
        rows = (row[members][:, None] * d + np.arange(d)).ravel()
        precision, residual = posterior.precision[np.ix_(rows, rows)], posterior.weighted_residual[rows]
        distance2 = float(residual @ np.linalg.solve(precision, residual))
        agree = -0.5 * (prior.dof + k * d) * np.log1p(distance2 / prior.dof)
        agree += 0.5 * np.linalg.slogdet(precision / (2 * np.pi))[1]
        confused = np.log(config.confusion_rate) + (k - 1) * np.log(config.group_confusion_rate)
        gain = confused - k * d * np.log(config.anywhere_extent * unit_mm) - agree
        if gain > most:
            best, most = members, gain
    return best


def _leave_one_out(posterior: Posterior, points: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) and (n, d, d): what all others say about each landmark, its own observation taken out of the posterior."""
    d = points.shape[1]
    mean, blocks = posterior.mean.copy(), diagonal_blocks(posterior.covariance, d).copy()
    observed = np.isfinite(points).all(1)
    total = np.linalg.inv(blocks[observed] + 1e-9 * np.einsum("nii->n", noise[observed])[:, None, None] * np.eye(d))
    own = np.linalg.inv(noise[observed])
    values, vectors = np.linalg.eigh(total - own)
    values = np.maximum(values, 1e-6 * np.einsum("nii->n", own)[:, None])
    blocks[observed] = np.einsum("nij,nj,nkj->nik", vectors, 1 / values, vectors)
    pull = np.einsum("nij,nj->ni", total, mean[observed]) - np.einsum("nij,nj->ni", own, points[observed])
    mean[observed] = np.einsum("nij,nj->ni", blocks[observed], pull)
    return mean, blocks
