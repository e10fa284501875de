"""How good a trained model is on its validation cases, and its calibration by them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from landmarklabel.data.cases import Case
from landmarklabel.data.presence import landmark_state
from landmarklabel.errors import Cancelled
from landmarklabel.inference.calibration import (
    Calibration,
    choose_fine_presence_weight,
    fit_calibration,
    fit_interval_factors,
    fit_regions,
    presence_threshold,
)
from landmarklabel.inference.evidence import Evidence, blend_presence
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.shape_fit import ShapeFit
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.metrics import summarize, unit_of


class InTime:
    """A model that looks at an image again only while there is time for it.

    Args:
        model: which.
        ends_at: ``time.monotonic()`` by which all cases shall be done; None for as long as it takes.
        cases: how many there are.

    Attributes:
        in_haste: of how many cases it would have looked for more, had there been time.
    """

    def __init__(self, model: Localizer, ends_at: float | None, cases: int):
        self.model, self.ends_at, self._left, self.in_haste = model, ends_at, cases, 0

    def assess(self, case: Case) -> tuple[Evidence, ShapeFit | None]:
        """As ``Localizer.assess``, with an equal part of the time that is left."""
        seconds = math.inf if self.ends_at is None else max(self.ends_at - time.monotonic(), 0.0) / max(self._left, 1)
        self._left -= 1
        refused = []

        def may_take(needed_s: float) -> bool:
            if needed_s > seconds:
                refused.append(needed_s)
            return needed_s <= seconds

        found = self.model.assess(case, may_take)
        self.in_haste += bool(refused)
        return found

    def predict(self, case: Case) -> LandmarkSet:
        """As ``Localizer.predict``."""
        evidence, shape_fit = self.assess(case)
        return self.model.suggest(evidence, case.image.geometry, shape_fit=shape_fit).landmarks


def part_of_time(ends_at: float | None, parts: int) -> float | None:
    """When the first of so many equal parts of the time from now to ``ends_at`` is over."""
    return None if ends_at is None else time.monotonic() + max(ends_at - time.monotonic(), 0.0) / parts


def calibrate_and_validate(
    model: Localizer,
    valid: Sequence[Case],
    should_stop: Callable[[], bool] = lambda: False,
    ends_at: float | None = None,
) -> dict[str, Any]:
    """Calibrate a model on validation cases, and its metrics on them; {} without cases whose errors are known in mm.

    A model that has hardly been trained finds no image plausible and would look at each from all directions, which can take many
    times as long as its training: after ``ends_at`` (see ``InTime``) it looks once. ``in_haste`` of the metrics, where there are
    such cases, is how many: a model that may take its time answers otherwise there.

    The same cases calibrate and measure. Three numbers that move positions or presence are chosen on them: the presence
    threshold, the weight of the fine network's presence, and the inflation of the shape prior; then expected errors,
    regions and intervals are fitted to them. So the metrics are slightly optimistic. Raises Cancelled.
    """
    if not valid:
        return {}
    evidence, hurried = [], InTime(model, ends_at, len(valid))
    for case in valid:
        if should_stop():
            raise Cancelled("stopped while the validation cases were looked at")
        evidence.append(hurried.assess(case)[0])
    evidence = calibrate(model, valid, evidence)
    found = [model.suggest(e, c.image.geometry).landmarks for e, c in zip(evidence, valid, strict=True)]
    scaled = [i for i, c in enumerate(valid) if np.isfinite(_labels(c).scaled_to_mm())]  # of the others no error is known
    if not scaled:
        return {}
    pairs = [(found[i], _labels(valid[i])) for i in scaled]
    metrics = summarize(pairs, unit=unit_of(model.task, (valid[i].image.unit for i in scaled)))
    return metrics | ({"in_haste": hurried.in_haste} if hurried.in_haste else {})


def calibrate(model: Localizer, valid: Sequence[Case], evidence: Sequence[Evidence]) -> list[Evidence]:
    """Learn the model's presence threshold, expected errors, regions and intervals from labelled cases it was not trained on.

    Args:
        model: gets another calibration.
        valid: labelled cases.
        evidence: of each, from ``Localizer.assess``; not changed.

    Returns:
        The evidence with the presence that the chosen weight of the fine network makes of it.
    """
    config = model.config.calibration
    states = [landmark_state(_labels(c)) for c in valid]
    truth = [_labels(c).positions_mm for c in valid]
    weight = choose_fine_presence_weight(evidence, states, config)
    blended = [
        e if e.presence_by_stage is None else replace(e, presence=blend_presence(e.presence_by_stage, weight)) for e in evidence
    ]
    threshold = presence_threshold(blended, states, config)
    plain = Calibration(presence_threshold=threshold, fine_presence_weight=weight, level=config.level)

    def final_evidence(calibration: Calibration) -> list[Evidence]:
        model.calibrate(calibration)
        suggestions = [model.suggest(e, c.image.geometry) for e, c in zip(blended, valid, strict=True)]
        return [s.final_evidence for s in suggestions if s.final_evidence is not None]

    def mean_error(calibration: Calibration) -> float:
        found = np.stack([e.positions_mm for e in final_evidence(calibration)])
        return float(np.nanmean(np.linalg.norm(found - np.stack(truth), axis=2)))

    if len(valid) >= config.min_cases_for_inflation:
        plain = min((replace(plain, prior_inflation=inflation) for inflation in config.prior_inflations), key=mean_error)
    found = final_evidence(plain)
    fitted = fit_regions(fit_calibration(found, truth, states, config), found, truth)
    fitted = replace(fitted, prior_inflation=plain.prior_inflation, fine_presence_weight=weight)
    model.calibrate(fitted)
    if not model.task.measurements:
        return blended
    predicted = [model.suggest(e, c.image.geometry).landmarks for e, c in zip(blended, valid, strict=True)]
    model.calibrate(replace(fitted, interval_factors=fit_interval_factors(predicted, [_labels(c) for c in valid], config.level)))
    return blended


def _labels(case: Case) -> LandmarkSet:
    if case.landmarks is None:
        raise ValueError(f"{case.image_id} has no landmarks")
    return case.landmarks
