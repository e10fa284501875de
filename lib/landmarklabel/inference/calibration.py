"""How far off a predicted point may be, learned from validation residuals; silent where they are too few.

Regions are conformal: their size is a quantile of what was seen on validation cases, so they hold what they promise for new
cases of the same kind, whatever the network does. Source: Vovk 2005, section 2.2 (split conformal prediction).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import gammaincinv

from landmarklabel.agreement import difference
from landmarklabel.errors import UsageError
from landmarklabel.inference.configuration import CalibrationConfig
from landmarklabel.inference.evidence import Evidence, blend_presence
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.measurements import NORMAL_95, Measured, measure

_LEAST_SCALE = 1e-3  # of intervals: errors so small are none


@dataclass(frozen=True)
class Calibration:
    """Turns evidence into an expected error and a decision about presence.

    ``log error = intercept + slope log spread + offset[landmark]`` fitted to validation residuals; offsets are shrunk
    towards zero so that a landmark seen in few cases borrows from the others.

    Args:
        slope, intercept: of the fit, or None when there were too few residuals.
        offsets: n numbers.
        presence_threshold: below it a landmark is predicted absent.
        fine_presence_weight: of the fine network's presence, beside the coarse network's.
        cases: how many validation cases this rests on.
        quantiles: n numbers: the size of each landmark's region, in units of its expected error; 0 where too few cases
            were seen to support one, empty where there is none at all.
        prior_inflation: how much wider than it seems (in variance) what the other landmarks say is taken to be, when it is
            weighed against the fine map of a landmark.
        log_spread_range: log spreads of the validation cases; beyond them nothing is known, so spreads are cut off there.
        case_factor: what all regions have to be scaled by to hold all landmarks of a case at once, or None.
        level: of the regions.
        interval_factors: by name of a measurement, what its first-order 95 % interval has to be multiplied by.
    """

    intercept: float | None = None
    slope: float = 0.0
    offsets: tuple[float, ...] = field(default=())
    presence_threshold: float = 0.5
    cases: int = 0
    quantiles: tuple[float, ...] = field(default=())
    case_factor: float | None = None
    prior_inflation: float = 8.0
    log_spread_range: tuple[float, float] = (-99.0, 99.0)
    fine_presence_weight: float = 0.5
    level: float = 0.95
    interval_factors: Mapping[str, float] = field(default_factory=dict)

    def predicted_absent(self, evidence: Evidence) -> np.ndarray:
        """(n,) bool: the networks say that the landmark is not in the image."""
        return evidence.presence < self.presence_threshold

    def region(self, evidence: Evidence, expected_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The prediction regions of all landmarks.

        Returns:
            (n, d, d) covariance of which each region is the ellipse at ``level``, and (n,) its longest half axis in mm; the
            map's own covariance and NaN where no region can be stated.
        """
        if not self.quantiles:
            return evidence.covariance_mm2.copy(), np.full(len(evidence.peak_mass), np.nan)
        shape = _scaled_covariance(evidence, expected_mm)
        size = np.array(self.quantiles)
        known = (size > 0) & np.isfinite(expected_mm)
        half = size * np.sqrt(np.linalg.eigvalsh(np.where(known[:, None, None], shape, 0.0))[:, -1])
        chi2 = 2 * gammaincinv(shape.shape[-1] / 2, self.level)  # its quantile; scipy.stats takes a second to import
        scaled = shape * (size**2 / chi2)[:, None, None]
        return np.where(known[:, None, None], scaled, evidence.covariance_mm2), np.where(known, half, np.nan)

    def expected_error_mm(self, evidence: Evidence) -> np.ndarray:
        """(n,) expected error in mm, NaN without calibration."""
        if self.intercept is None:
            return np.full(len(evidence.peak_mass), np.nan)
        log_spread = np.clip(_log_spread(evidence), *self.log_spread_range)
        expected: np.ndarray = np.exp(self.intercept + self.slope * log_spread + np.array(self.offsets))
        return expected


def _log_spread(evidence: Evidence) -> np.ndarray:
    """(n,) log of a spread in mm that grows with the map's width and with the mass that lies elsewhere."""
    width = np.sqrt(np.trace(evidence.covariance_mm2, axis1=1, axis2=2))
    log_spread: np.ndarray = np.log(width / np.clip(evidence.peak_mass, 0.05, 1.0))  # less mass than 0.05 is noise
    return log_spread


def _scaled_covariance(evidence: Evidence, expected_mm: np.ndarray) -> np.ndarray:
    """(n, d, d) the map's covariance, scaled to the expected error."""
    size = np.trace(evidence.covariance_mm2, axis1=1, axis2=2)
    made: np.ndarray = evidence.covariance_mm2 * (expected_mm**2 / np.maximum(size, 1e-12))[:, None, None]
    return made


def cases_needed(level: float) -> int:
    """The fewest calibration cases that can support a region of this level."""
    return int(np.ceil(level / (1 - level) - 1e-9))


ENOUGH_CASES = cases_needed(CalibrationConfig().level)  # for regions and intervals, by the default level


def conformal_quantile(scores: np.ndarray, level: float) -> float:
    """The value that the score of a new case stays below with probability ``level``; interpolated between order statistics.

    Raises UsageError where there are too few scores for the level.
    """
    scores = np.sort(scores[np.isfinite(scores)])
    if len(scores) < cases_needed(level):
        raise UsageError(
            f"a {100 * level:g} % region needs at least {cases_needed(level)} calibration cases, there are {len(scores)}"
        )
    rank = level * (len(scores) + 1)  # counted from 1
    low = int(rank + 1e-9)
    return float(np.interp(rank, [low, low + 1], [scores[low - 1], scores[min(low, len(scores) - 1)]]))


def fit_regions(calibration: Calibration, evidence: Sequence[Evidence], truth_mm: Sequence[np.ndarray]) -> Calibration:
    """Add the sizes of the regions, from the same kind of cases as ``fit_calibration``; arguments as there."""
    level = calibration.level
    if calibration.intercept is None or len(evidence) < cases_needed(level):
        return calibration
    scores = np.stack([_scores(calibration, e, t) for e, t in zip(evidence, truth_mm, strict=True)])
    enough = np.isfinite(scores).sum(axis=0) >= cases_needed(level)
    if not enough.any():
        return calibration
    sizes = np.array([conformal_quantile(column, level) if e else 0.0 for column, e in zip(scores.T, enough, strict=True)])
    worst = [_largest_score(scores[:, enough], case, level) for case in range(len(scores))]
    return replace(calibration, quantiles=tuple(sizes.tolist()), case_factor=conformal_quantile(np.array(worst), level))


def _largest_score(scores: np.ndarray, case: int, level: float) -> float:
    """The largest score of a case, each in units of its landmark's quantile over the other cases."""
    others = np.delete(scores, case, axis=0)
    enough = np.isfinite(others).sum(axis=0) >= cases_needed(level)
    columns = zip(others.T, enough, strict=True)
    sizes = np.array([conformal_quantile(c, level) if e else np.nanmax(c) for c, e in columns])
    return float(np.nanmax(np.append(scores[case] / np.maximum(sizes, 1e-9), 0.0)))


def _scores(calibration: Calibration, evidence: Evidence, truth_mm: np.ndarray) -> np.ndarray:
    """(n,) Mahalanobis distances of the truth, the covariance scaled to the expected error."""
    offset = np.nan_to_num(truth_mm - evidence.positions_mm)
    shape = _scaled_covariance(evidence, calibration.expected_error_mm(evidence))
    squared = np.einsum("ni,ni->n", offset, np.linalg.solve(shape, offset[..., None])[..., 0])
    return np.where(np.isfinite(truth_mm).all(1), np.sqrt(np.maximum(squared, 0)), np.nan)


def fit_interval_factors(predicted: Sequence[LandmarkSet], truth: Sequence[LandmarkSet], level: float) -> dict[str, float]:
    """What first-order intervals of measurements have to be multiplied by to hold the truth at ``level``.

    Each measurement has a scale, the root mean square of its errors in units of its intervals, shrunk towards that of all by how
    much the scales differ beyond chance (empirical Bayes: Efron and Morris 1973). How far into the tail the level reaches is a
    quantile of all errors in units of these scales. A quantile of each measurement by itself would be the second largest of some
    thirty errors, and intervals would hold between 89 and 100 of 100 cases.

    Args:
        predicted: of validation cases, without factors.
        truth: of the same.
        level: of the intervals.

    Returns:
        by name of those measurements that enough cases have.
    """
    pairs = [(measure(p), measure(t, with_intervals=False)) for p, t in zip(predicted, truth, strict=True)]
    names = [m.name for m in pairs[0][0]] if pairs else []
    off = np.array([[_in_half_widths(p, t) for p, t in zip(*pair, strict=True)] for pair in pairs]).reshape(len(pairs), -1)
    enough = np.isfinite(off).sum(0) >= cases_needed(level)
    if not enough.any():
        return {}
    off, names = off[:, enough], [name for name, e in zip(names, enough, strict=True) if e]
    scale = np.log(np.maximum(np.sqrt(np.nanmean(off**2, axis=0)), _LEAST_SCALE))
    by_chance = 1 / (2 * np.isfinite(off).sum(0))  # variance of the logarithm of a standard deviation
    between = max(float(np.var(scale, ddof=1) - by_chance.mean()), 0.0) if len(scale) > 1 else 0.0
    scale = np.exp(scale.mean() + between / (between + by_chance) * (scale - scale.mean()))
    factors = scale * conformal_quantile((off / scale).ravel(), level)
    return dict(zip(names, factors.tolist(), strict=True))


def _in_half_widths(predicted: Measured, truth: Measured) -> float:
    """How far off a measurement is, in units of half its interval's width; NaN where there is none."""
    if not predicted.sd > 0:
        return float("nan")
    return float(abs(difference(predicted.value, truth.value, predicted.unit)) / (NORMAL_95 * predicted.sd))


def fit_calibration(
    evidence: Sequence[Evidence],
    truth_mm: Sequence[np.ndarray],
    present: Sequence[np.ndarray],
    config: CalibrationConfig | None = None,
) -> Calibration:
    """Fit the calibration on validation cases.

    Args:
        evidence: one per case.
        truth_mm: (n, d) per case, NaN where unknown or absent.
        present: (n,) per case: 1 present, 0 absent, -1 unknown.
        config: the defaults when None.
    """
    config = config or CalibrationConfig()
    plain = Calibration(presence_threshold=presence_threshold(evidence, present, config), cases=len(evidence), level=config.level)
    errors = np.stack([np.linalg.norm(e.positions_mm - t, axis=1) for e, t in zip(evidence, truth_mm, strict=True)])
    spread = np.stack([_log_spread(e) for e in evidence])
    known = np.isfinite(errors)
    if known.sum() < config.min_points:
        return plain
    low, high = np.percentile(spread[known], config.spread_percentiles).tolist()
    spread = np.clip(spread, low, high)
    y, x = np.log(np.maximum(errors[known], 1e-3)), spread[known]
    # An error that shrinks as the spread grows, or grows much faster than it, is chance: errors go at most with its power 1.5.
    slope = float(np.clip(np.cov(x, y)[0, 1] / max(np.var(x), 1e-6), 0.0, 1.5))
    raw = np.where(known, np.maximum(errors, 1e-3) / np.exp(slope * spread), np.nan)
    overall = float(np.nanmean(raw))
    counts = known.sum(axis=0)
    means = np.nansum(raw, axis=0) / np.maximum(counts, 1)
    shrunk = (counts * means + config.shrinkage_points * overall) / (counts + config.shrinkage_points)
    offsets = tuple(float(v) for v in np.log(shrunk / overall))
    return replace(plain, intercept=float(np.log(overall)), slope=slope, offsets=offsets, log_spread_range=(low, high))


def choose_fine_presence_weight(
    evidence: Sequence[Evidence], present: Sequence[np.ndarray], config: CalibrationConfig | None = None
) -> float:
    """How much the fine network's presence counts: the weight with the largest likelihood on validation cases, or one half
    with too few of them."""
    config = config or CalibrationConfig()
    state = np.concatenate(list(present)) if present else np.zeros(0)
    by_stage = [e.presence_by_stage for e in evidence if e.presence_by_stage is not None]
    few = min((state == 0).sum(), (state == 1).sum()) < config.min_presence_cases
    if few or len(by_stage) < len(evidence):
        return 0.5
    known, both = state >= 0, np.concatenate(by_stage, axis=1)

    def cross_entropy(weight: float) -> float:
        p = np.clip(blend_presence(both, weight), 1e-6, 1 - 1e-6)[known]
        return float(-np.where(state[known] == 1, np.log(p), np.log(1 - p)).mean())

    return min(config.fine_presence_weights, key=cross_entropy)


def presence_threshold(
    evidence: Sequence[Evidence], present: Sequence[np.ndarray], config: CalibrationConfig | None = None
) -> float:
    """The threshold with the best F1 on validation; low where nobody has called a landmark absent, one half with too few."""
    config = config or CalibrationConfig()
    p = np.concatenate([e.presence for e in evidence]) if evidence else np.zeros(0)
    state = np.concatenate(list(present)) if present else np.zeros(0)
    if (state == 1).any() and not (state == 0).any():
        return config.never_absent_threshold
    if min((state == 0).sum(), (state == 1).sum()) < config.min_presence_cases:
        return 0.5
    thresholds = np.linspace(0.05, 0.95, 37)
    said = p[None] >= thresholds[:, None]
    hits = (said & (state == 1)).sum(1)
    wrong = (said & (state == 0)).sum(1) + (~said & (state == 1)).sum(1)
    f1 = 2 * hits / np.maximum(2 * hits + wrong, 1)
    best = np.flatnonzero(f1 >= f1.max() - 1e-9)
    return float(thresholds[best[len(best) // 2]])
