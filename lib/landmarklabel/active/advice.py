"""How much is a further label still worth? Told from how far off the proposals were, case after case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landmarklabel.active.configuration import AdviceConfig


@dataclass(frozen=True)
class Advice:
    """``enough``: more labels would hardly help, by this estimate; None while nothing can be said. ``now_mm``, ``then_mm``: the
    proposals' mean error today and after so many further labels as the configuration looks ahead."""

    text: str
    enough: bool | None = None
    now_mm: float | None = None
    then_mm: float | None = None


def advise(
    labels: Sequence[int],
    errors_mm: Sequence[float],
    drawn_at_random: Sequence[bool] = (),
    unit: str = "mm",
    config: AdviceConfig | None = None,
) -> Advice:
    """Fit error = level + gain / labels to the cases a model saw before people did, by least absolute deviations.

    Args:
        labels: how many cases were labelled when each of them was.
        errors_mm: mean error of the proposals in each.
        drawn_at_random: for each case, whether it was drawn at random and not chosen for its uncertainty; where there are enough
            such cases, only they count.
        unit: of the errors.
        config: the defaults when None.
    """
    config = config or AdviceConfig()
    least, ahead = config.min_cases, config.labels_ahead
    n, error = np.asarray(labels, float), np.asarray(errors_mm, float)
    known = np.isfinite(error) & (n > 0)
    labelled = n[known].max(initial=0)
    drawn = known & (np.asarray(drawn_at_random, bool) if len(drawn_at_random) else False)
    if drawn.sum() >= least and np.ptp(n[drawn]) >= least - 1:
        known = drawn
    n, error = n[known], error[known]
    if len(n) < least or np.ptp(n) < least - 1:
        left = max(least - len(n), 1)
        cases = "one more case" if left == 1 else f"{left} more cases"
        return Advice(f"label {cases} with a model at work before it can be said how much labels still help")
    level, gain = _fit(1 / n, error)
    if level < 0:  # the line through the origin then
        level, gain = 0.0, float(np.median(error * n))
    now, then = (level + gain / m for m in (labelled, labelled + ahead))
    saved = (now - then) / max(now, 1e-9)
    figures = f"about {now:.2f} {unit} off now, {then:.2f} {unit} after {ahead} more labels"
    if saved < config.min_relative_gain:
        return Advice(f"more labels would hardly help: proposals are {figures}", True, float(now), float(then))
    return Advice(f"more labels still help: proposals are {figures}", False, float(now), float(then))


def _fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Level and slope (not below 0) of the line with the least sum of absolute deviations: one outlier changes little."""
    weight = np.ones(len(x))
    for _ in range(30):
        a = np.stack([np.ones(len(x)), x], axis=1) * weight[:, None]
        level, gain = np.linalg.lstsq(a, y * weight, rcond=None)[0]
        weight = 1 / np.sqrt(np.maximum(np.abs(y - level - gain * x), 1e-3 * max(np.abs(y).max(), 1e-9)))
    return (float(level), float(gain)) if gain > 0 else (float(np.median(y)), 0.0)
