"""Measurements of many cases: as a table, against the truth, and between readers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from landmarklabel.agreement import Agreement, difference
from landmarklabel.inference.calibration import ENOUGH_CASES
from landmarklabel.io.tables import table_text
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.measurements import Measured, measure
from landmarklabel.services.configuration import TABLES

COLUMNS = ["id", "measurement", "value", "unit", "low", "high", "norm_mean", "norm_sd", "note"]
NOT_LEARNED = f"the model has not learned how wide its interval has to be, which takes {ENOUGH_CASES} validation cases"
BY_SHAPE = "as far as the labelled cases differ; no model has learned it"
UNKNOWN_UNIT = "unit not sure: the image, which may state a spacing or none, was not given"


def measured(landmarks: LandmarkSet, by_model: bool = True) -> list[Measured]:
    """``measure``, without the intervals whose width the model has not learned: they can be far too narrow.

    Args:
        landmarks: of one image.
        by_model: a trained model proposed the points; else the labelled cases alone did, whose spread is what is shown.
    """
    nan, found = float("nan"), measure(landmarks)
    for i, m in enumerate(found):
        if not m.sd > 0 or m.name in landmarks.interval_factors:
            continue
        if by_model:
            found[i] = replace(m, low=nan, high=nan, sd=nan, interval_reason=NOT_LEARNED)
        elif not m.interval_reason:
            found[i] = replace(m, interval_reason=BY_SHAPE)
    return found


def measured_cases(sets: Mapping[str, LandmarkSet], unit: Callable[[str], str]) -> dict[str, list[Measured]]:
    """The measurements of every case; ``unit``: of an image's distances, by its id."""
    return {image_id: measured(replace(landmarks, unit=unit(image_id))) for image_id, landmarks in sets.items()}


def measurements_text(cases: Mapping[str, Sequence[Measured]], without_image: Collection[str] = ()) -> str:
    """A CSV table with a row for each measurement of each case; ``low`` and ``high`` are the ends of the 95 % interval.

    Args:
        cases: image id to what was measured.
        without_image: cases of which nobody knows whether their image states a spacing; the note of their lengths says so.
    """
    rows: list[list[object]] = [list(COLUMNS)]
    for image_id, measured in cases.items():
        for m in measured:
            numbers = [cell(m.value), m.unit, cell(m.low), cell(m.high)]
            norm = ["", ""] if m.norm is None else [m.norm.mean, "" if m.norm.sd is None else m.norm.sd]
            notes = [m.reason or m.interval_reason, UNKNOWN_UNIT if image_id in without_image and m.unit == "mm" else ""]
            rows.append([image_id, m.name, *numbers, *norm, "; ".join(filter(None, notes))])
    return table_text(rows)


def cell(value: float) -> object:
    """A number as tables have it; empty for none."""
    return round(value, TABLES.digits) if np.isfinite(value) else ""


# --- against the truth -----------------------------------------------------------------------------------------------------


def measurement_errors(
    pairs: Mapping[str, tuple[LandmarkSet, LandmarkSet]], unit: Callable[[str], str]
) -> dict[str, dict[str, Any]]:
    """How far predicted measurements are from the true ones, and how often their 95 % intervals hold these.

    Args:
        pairs: image id to (predicted, truth), of one task.
        unit: of an image's distances, by its id.

    Returns:
        by measurement: ``unit``; ``n`` cases where both are available; ``mean_absolute_error`` and ``median_absolute_error``;
        ``bias`` and ``sd`` of predicted less true; ``n_with_interval``; ``coverage_95`` in percent of those. None where there is
        nothing to state.
    """
    out: dict[str, dict[str, Any]] = {}
    one = "px" if any(unit(i) == "px" for i in pairs) else "mm"  # as of point errors: no length in px is called mm
    predicted = measured_cases({i: p for i, (p, _) in pairs.items()}, lambda _: one)
    true = measured_cases({i: t for i, (_, t) in pairs.items()}, lambda _: one)
    for k, m in enumerate(next(iter(predicted.values()), [])):
        found = [predicted[i][k] for i in pairs]
        off = np.array([difference(f.value, true[i][k].value, f.unit) for f, i in zip(found, pairs, strict=True)])
        ends = np.array([[f.low - f.value, f.high - f.value] for f in found])
        known, told = np.isfinite(off), np.isfinite(off) & np.isfinite(ends).all(1)
        inside = (ends[told, 0] <= -off[told]) & (-off[told] <= ends[told, 1])
        out[m.name] = {
            "unit": next((f.unit for f in found if f.unit), m.unit),
            "n": int(known.sum()),
            "mean_absolute_error": float(np.abs(off[known]).mean()) if known.any() else None,
            "median_absolute_error": float(np.median(np.abs(off[known]))) if known.any() else None,
            "bias": float(off[known].mean()) if known.any() else None,
            "sd": float(off[known].std(ddof=1)) if known.sum() > 1 else None,
            "n_with_interval": int(told.sum()),
            "coverage_95": float(100 * inside.mean()) if told.any() else None,
        }
    return out


# --- between readers -------------------------------------------------------------------------------------------------------


def agreement_text(found: Sequence[Agreement]) -> str:
    """A CSV table with a row for each pair of readers and measurement."""
    rows: list[list[object]] = [["measurement", "unit", "reader", "other_reader", "cases", "bias", "low", "high", "icc"]]
    for a in found:
        low, high = a.limits
        rows.append([a.measurement, a.unit, *a.readers, len(a.means), cell(a.bias), cell(low), cell(high), cell(a.icc)])
    return table_text(rows)
