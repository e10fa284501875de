"""How far off a predicted point may be, learned from validation residuals; silent where they are too few.

Regions are conformal: their size is a quantile of what was seen on validation cases, so they hold what they promise for new
cases of the same kind, whatever the network does. Source: Vovk 2005 (split conformal prediction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import chi2

from landmarklabel.errors import UsageError
from landmarklabel.inference.evidence import Evidence, mixed

MIN_POINTS = 30
LEVEL = 0.95  # of the regions
SPAN = (0.5, 99.5)  # percentiles of the spreads that are believed
SHARES, HALF = (0.0, 0.25, 0.5, 0.75, 1.0), 0.5  # of the local stage's opinion on presence
NEVER_ABSENT = 0.2  # presence below which a landmark is called absent in a study where nobody ever did


@dataclass(frozen=True)
class Calibration:
    """Turns evidence into an expected error and a decision about presence.

    ``log error = intercept + slope log spread + offset[landmark]`` fitted to validation residuals; offsets are shrunk
    towards zero so that a landmark seen in few cases borrows from the others.

    Args:
        slope, intercept: of the fit, or None when there were fewer than 30 residuals.
        offsets: n numbers.
        presence_threshold: below it a landmark is said to be absent.
        local_share: of the local stage's opinion on presence, beside the whole-image network's.
        cases: how many validation cases this rests on.
        quantiles: n numbers: the size of each landmark's region, in units of its expected error; 0 where too few cases
            were seen to support one, empty where there is none at all.
        loose: how much wider than it seems (in variance) what the other landmarks say is taken to be, when it is weighed
            against the network's map of a landmark.
        span: log spreads of the validation cases; beyond them nothing is known, so spreads are cut off there.
        case_factor: what all regions have to be scaled by to hold all landmarks of a case at once, or None.
    """

    intercept: float | None = None
    slope: float = 0.0
    offsets: tuple[float, ...] = field(default=())
    presence_threshold: float = 0.5
    cases: int = 0
    quantiles: tuple[float, ...] = field(default=())
    case_factor: float | None = None
    loose: float = 8.0
    span: tuple[float, float] = (-99.0, 99.0)
    local_share: float = HALF

    def region(self, evidence: Evidence, expected_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % regions.

        Returns:
            (n, d, d) covariance of which each region is the 95 % ellipse, and (n,) its longest half axis in mm; the map's own
            covariance and NaN where no region can be stated.
        """
        if not self.quantiles:
            return evidence.covariance_mm2.copy(), np.full(len(evidence.mass), np.nan)
        shape = _shape(evidence, expected_mm)
        size = np.array(self.quantiles)
        known = (size > 0) & np.isfinite(expected_mm)
        half = size * np.sqrt(np.linalg.eigvalsh(np.where(known[:, None, None], shape, 0.0))[:, -1])
        scaled = shape * (size**2 / chi2.ppf(LEVEL, shape.shape[-1]))[:, None, None]
        return np.where(known[:, None, None], scaled, evidence.covariance_mm2), np.where(known, half, np.nan)

    def expected_error_mm(self, evidence: Evidence) -> np.ndarray:
        """(n,) expected error in mm, NaN without calibration."""
        if self.intercept is None:
            return np.full(len(evidence.mass), np.nan)
        return np.exp(self.intercept + self.slope * np.clip(_log_spread(evidence), *self.span) + np.array(self.offsets))


def _log_spread(evidence: Evidence) -> np.ndarray:
    """(n,) log of a spread in mm that grows with the map's width and with the mass that lies elsewhere."""
    width = np.sqrt(np.trace(evidence.covariance_mm2, axis1=1, axis2=2))
    return np.log(width / np.clip(evidence.mass, 0.05, 1.0))


def _shape(evidence: Evidence, expected_mm: np.ndarray) -> np.ndarray:
    """(n, d, d) the map's covariance, scaled to the expected error."""
    size = np.trace(evidence.covariance_mm2, axis1=1, axis2=2)
    return evidence.covariance_mm2 * (expected_mm**2 / np.maximum(size, 1e-12))[:, None, None]


def cases_needed(level: float) -> int:
    """The fewest calibration cases that can support a region of this level."""
    return int(np.ceil(level / (1 - level) - 1e-9))


def conformal_quantile(scores: np.ndarray, level: float = LEVEL) -> float:
    """The score that a new case's stays below with probability ``level``.

    Between order statistics it is interpolated. Raises UsageError where there are too few scores for the level.
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
    if calibration.intercept is None or len(evidence) < cases_needed(LEVEL):
        return calibration
    scores = np.stack([_scores(calibration, e, t) for e, t in zip(evidence, truth_mm, strict=True)])
    enough = np.isfinite(scores).sum(axis=0) >= cases_needed(LEVEL)
    if not enough.any():
        return calibration
    sizes = np.array([conformal_quantile(column) if e else 0.0 for column, e in zip(scores.T, enough, strict=True)])
    worst = [_worst(scores[:, enough], case) for case in range(len(scores))]
    return replace(calibration, quantiles=tuple(sizes.tolist()), case_factor=conformal_quantile(np.array(worst)))


def _worst(scores: np.ndarray, case: int) -> float:
    """The largest score of a case, each in units of its landmark's quantile over the other cases."""
    others = np.delete(scores, case, axis=0)
    enough = np.isfinite(others).sum(axis=0) >= cases_needed(LEVEL)
    sizes = np.array([conformal_quantile(c) if e else np.nanmax(c) for c, e in zip(others.T, enough, strict=True)])
    return float(np.nanmax(np.append(scores[case] / np.maximum(sizes, 1e-9), 0.0)))


def _scores(calibration: Calibration, evidence: Evidence, truth_mm: np.ndarray) -> np.ndarray:
    """(n,) Mahalanobis distances of the truth, the covariance scaled to the expected error."""
    off = np.nan_to_num(truth_mm - evidence.positions_mm)
    shape = _shape(evidence, calibration.expected_error_mm(evidence))
    squared = np.einsum("ni,ni->n", off, np.linalg.solve(shape, off[..., None])[..., 0])
    return np.where(np.isfinite(truth_mm).all(1), np.sqrt(np.maximum(squared, 0)), np.nan)


def fit_calibration(evidence: Sequence[Evidence], truth_mm: Sequence[np.ndarray], present: Sequence[np.ndarray]):
    """Fit on validation cases.

    Args:
        evidence: one a case.
        truth_mm: (n, d) a case, NaN where unknown or absent.
        present: (n,) a case: 1 present, 0 absent, -1 unknown.
    """
    threshold = presence_threshold(evidence, present)
    errors = np.stack([np.linalg.norm(e.positions_mm - t, axis=1) for e, t in zip(evidence, truth_mm, strict=True)])
    spread = np.stack([_log_spread(e) for e in evidence])
    known = np.isfinite(errors)
    if known.sum() < MIN_POINTS:
        return Calibration(presence_threshold=threshold, cases=len(evidence))
    y, x = np.log(np.maximum(errors[known], 1e-3)), spread[known]
    span = tuple(np.percentile(x, SPAN).tolist())
    spread = np.clip(spread, *span)
    x = spread[known]
    slope = float(np.clip(np.cov(x, y)[0, 1] / max(np.var(x), 1e-6), 0.0, 1.5))
    raw = np.where(known, np.maximum(errors, 1e-3) / np.exp(slope * spread), np.nan)
    overall = float(np.nanmean(raw))
    counts = known.sum(axis=0)
    means = np.nansum(raw, axis=0) / np.maximum(counts, 1)
    shrunk = (counts * means + 5 * overall) / (counts + 5)
    offsets = tuple(float(v) for v in np.log(shrunk / overall))
    return Calibration(float(np.log(overall)), slope, offsets, threshold, len(evidence), span=span)


def local_share(evidence: Sequence[Evidence], present: Sequence[np.ndarray]) -> float:
    """How much the local stage's opinion on presence counts: the share with the largest likelihood on validation cases, or one
    half with too few of them."""
    state = np.concatenate(list(present)) if present else np.zeros(0)
    opinions = [e.opinions for e in evidence]
    if (state == 0).sum() < 5 or (state == 1).sum() < 5 or any(o is None for o in opinions):
        return HALF
    known, both = state >= 0, np.concatenate(opinions, axis=1)

    def unlikely(share: float) -> float:
        p = np.clip(mixed(both, share), 1e-6, 1 - 1e-6)[known]
        return float(-np.where(state[known] == 1, np.log(p), np.log(1 - p)).mean())

    return min(SHARES, key=unlikely)


def presence_threshold(evidence: Sequence[Evidence], present: Sequence[np.ndarray]) -> float:
    """The threshold with the best F1 on validation; low where nobody has called a landmark absent, one half with too few."""
    p = np.concatenate([e.presence for e in evidence]) if evidence else np.zeros(0)
    state = np.concatenate(list(present)) if present else np.zeros(0)
    if (state == 1).any() and not (state == 0).any():
        return NEVER_ABSENT
    if (state == 0).sum() < 5 or (state == 1).sum() < 5:
        return 0.5
    grid = np.linspace(0.05, 0.95, 37)
    said = p[None] >= grid[:, None]
    hits = (said & (state == 1)).sum(1)
    wrong = (said & (state == 0)).sum(1) + (~said & (state == 1)).sum(1)
    f1 = 2 * hits / np.maximum(2 * hits + wrong, 1)
    best = np.flatnonzero(f1 >= f1.max() - 1e-9)
    return float(grid[best[len(best) // 2]])
