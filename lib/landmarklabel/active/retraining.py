"""When to train again: after so many new labels, or as soon as corrections show that the model does not know these cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landmarklabel.active.configuration import RetrainingConfig


def why_retrain(
    new: int, after: int, recent_mm: Sequence[float], model_mm: float | None, config: RetrainingConfig | None = None
) -> str:
    """The reason to train now; empty when there is none.

    Args:
        new: cases labelled since the last training.
        after: of these it takes; 0 for never.
        recent_mm: mean errors of the proposals in them, oldest first.
        model_mm: the model's error on its validation cases, if it has been measured.
        config: the defaults when None.
    """
    config = config or RetrainingConfig()
    if after <= 0 or new <= 0:
        return ""
    if new >= after:
        return f"{new} new labels"
    recent = np.asarray(recent_mm, float)
    recent = recent[np.isfinite(recent)][-max(config.min_recent, len(recent) // 2) :]
    if model_mm and len(recent) >= config.min_recent and np.median(recent) > config.stale_factor * model_mm:
        return f"the last proposals were {np.median(recent):.2f} mm off, the model's own error is {model_mm:.2f} mm"
    return ""
