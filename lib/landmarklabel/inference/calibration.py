"""How far off a predicted point may be, learned from validation residuals; silent where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from landmarklabel.inference.localizer import Evidence

MIN_POINTS = 30
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
        cases: how many validation cases this rests on.
    """

    intercept: float | None = None
    slope: float = 0.0
    offsets: tuple[float, ...] = field(default=())
    presence_threshold: float = 0.5
    cases: int = 0

    def expected_error_mm(self, evidence: Evidence) -> np.ndarray:
        """(n,) expected error in mm, NaN without calibration."""
        if self.intercept is None:
            return np.full(len(evidence.mass), np.nan)
        return np.exp(self.intercept + self.slope * _log_spread(evidence) + np.array(self.offsets))


def _log_spread(evidence: Evidence) -> np.ndarray:
    """(n,) log of a spread in mm that grows with the map's width and with the mass that lies elsewhere."""
    width = np.sqrt(np.trace(evidence.covariance_mm2, axis1=1, axis2=2))
    return np.log(width / np.clip(evidence.mass, 0.05, 1.0))


def fit_calibration(evidence: Sequence[Evidence], truth_mm: Sequence[np.ndarray], present: Sequence[np.ndarray]):
    """Fit on validation cases.

    Args:
        evidence: one a case.
        truth_mm: (n, d) a case, NaN where unknown or absent.
        present: (n,) a case: 1 present, 0 absent, -1 unknown.
    """
    threshold = _presence_threshold(evidence, present)
    errors = np.stack([np.linalg.norm(e.positions_mm - t, axis=1) for e, t in zip(evidence, truth_mm, strict=True)])
    spread = np.stack([_log_spread(e) for e in evidence])
    known = np.isfinite(errors)
    if known.sum() < MIN_POINTS:
        return Calibration(presence_threshold=threshold, cases=len(evidence))
    y, x = np.log(np.maximum(errors[known], 1e-3)), spread[known]
    slope = float(np.clip(np.cov(x, y)[0, 1] / max(np.var(x), 1e-6), 0.0, 1.5))
    raw = np.where(known, np.maximum(errors, 1e-3) / np.exp(slope * spread), np.nan)
    overall = float(np.nanmean(raw))
    counts = known.sum(axis=0)
    means = np.nansum(raw, axis=0) / np.maximum(counts, 1)
    shrunk = (counts * means + 5 * overall) / (counts + 5)
    return Calibration(float(np.log(overall)), slope, tuple(float(v) for v in np.log(shrunk / overall)), threshold, len(evidence))


def _presence_threshold(evidence: Sequence[Evidence], present: Sequence[np.ndarray]) -> float:
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
