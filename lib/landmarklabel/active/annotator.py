"""A simulated annotator who knows the truth and always corrects the worst point first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from landmarklabel.active.configuration import ClicksConfig
from landmarklabel.data.cases import Case
from landmarklabel.inference.localizer import Localizer
from landmarklabel.landmarks import Status
from landmarklabel.metrics import mean_or_none

KINDS = ("assisted", "alone")
_CONFIG = ClicksConfig()


@dataclass(frozen=True)
class Clicks:
    """Point errors of one case in mm (after the task's scale rule), (k + 1, n) after 0, 1, … k clicks; NaN where a landmark
    is not in the truth, infinite where it is but is not shown. A clicked point counts as exact."""

    assisted: np.ndarray
    alone: np.ndarray


def click_through(model: Localizer, case: Case) -> Clicks:
    """Correct a labelled case to the end, with the assistant and without it.

    With the assistant every click moves the other points too, and a second pass of the networks follows where it would in the
    server. Without it, the points are the network's own and each is corrected alone.
    """
    truth = case.labels
    scale, there = truth.scaled_to_mm(), truth.defined
    detected = model.detect(case)
    shown = np.where(model.calibration.predicted_absent(detected)[:, None], np.nan, detected.positions_mm)
    alone = [_errors(shown, truth.positions_mm, there, scale)]
    for worst in np.argsort(-np.nan_to_num(alone[0], nan=-1.0))[: there.sum()]:
        alone.append(alone[-1].copy())
        alone[-1][worst] = 0.0
    fixed: dict[str, np.ndarray] = {}
    absent = [n for n, s in zip(truth.task.names, truth.status, strict=True) if s is Status.ABSENT]
    (evidence, shape_fit), geometry = model.assess(case), case.image.geometry
    suggestion = model.suggest(evidence, geometry, shape_fit=shape_fit)
    assisted = [_errors(suggestion.landmarks.positions_mm, truth.positions_mm, there, scale)]
    while len(fixed) < there.sum():
        left = np.array([there[i] and name not in fixed for i, name in enumerate(truth.task.names)])
        worst = int(np.argmax(np.where(left, np.nan_to_num(assisted[-1], nan=-1.0), -2.0)))
        fixed[truth.task.names[worst]] = truth.positions_mm[worst]
        suggestion = model.suggest(evidence, geometry, fixed, absent, before=suggestion.shape_fit)
        if model.needs_second_pass(evidence, geometry, suggestion.shape_fit):
            evidence, suggestion = model.suggest_after_second_pass(case, evidence, suggestion, fixed, absent)
        assisted.append(_errors(suggestion.landmarks.positions_mm, truth.positions_mm, there, scale))
    return Clicks(np.stack(assisted), np.stack(alone))


def _errors(shown: np.ndarray, truth: np.ndarray, there: np.ndarray, scale: float) -> np.ndarray:
    errors = np.linalg.norm(shown - truth, axis=1) * scale
    return np.where(there, np.where(np.isfinite(errors), errors, np.inf), np.nan)


def summarize_clicks(cases: Sequence[Clicks], clicks: int, unit: str = "mm") -> dict:
    """The content of ``simulate clicks --json``: mean errors after 0 … ``clicks`` clicks, points beyond some distances, and
    clicks needed (NoC).

    Landmarks that are in the truth but not shown have no distance and are left out of the means; for NoC they are wrong.
    """
    out: dict[str, Any] = {"unit": unit, "n_images": len(cases)}
    for key, kind in zip(("mre_mm", "alone_mre_mm"), KINDS, strict=True):
        rows = [[_mean(getattr(c, kind)[min(k, len(getattr(c, kind)) - 1)]) for k in range(clicks + 1)] for c in cases]
        out[key] = [mean_or_none(column) for column in np.array(rows, float).T]
    out["beyond"] = {}
    for r in _CONFIG.beyond_mm:
        counts = {k: np.array([[_beyond(c, k, clicked, r) for clicked in range(clicks + 1)] for c in cases]) for k in KINDS}
        out["beyond"][f"{r:g}"] = {k: [int(v) for v in count.sum(axis=0)] for k, count in counts.items()}
    out["noc"] = {}
    for r in _CONFIG.noc_radii_mm:
        out["noc"][f"{r:g}"] = {k: float(np.mean([_needed(getattr(c, k), r) for c in cases])) for k in KINDS}
    return out


def _beyond(case: Clicks, kind: str, clicked: int, radius: float) -> int:
    errors = getattr(case, kind)
    return int((errors[min(clicked, len(errors) - 1)] > radius).sum())


def _mean(errors: np.ndarray) -> float:
    seen = errors[np.isfinite(errors)]
    return float(seen.mean()) if len(seen) else float("nan")


def _needed(errors: np.ndarray, radius: float) -> int:
    """Clicks until every point is within the radius; all of them where that never comes."""
    near = np.nan_to_num(errors, nan=np.inf if np.isnan(errors).all() else 0.0).max(axis=1) <= radius
    return int(np.argmax(near)) if near.any() else len(errors) - 1
