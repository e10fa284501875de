"""The route that says what the points of a case measure, while a person moves them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fastapi import APIRouter

from landmarklabel.errors import LandmarkFileError, UsageError
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.measurements import Measured
from landmarklabel.server.application import Application
from landmarklabel.server.bodies import Body
from landmarklabel.server.description import MEASURE, takes
from landmarklabel.server.wire import from_wire
from landmarklabel.services.descriptions import image_unit, known_unit
from landmarklabel.services.measuring import measured
from landmarklabel.services.request_values import is_finite


def add_measurement_route(router: APIRouter, application: Application) -> None:
    """``POST /landmarks/images/{id}/measurements``."""
    study = application.study
    where, summary = "/landmarks/images/{image_id}/measurements", "What points measure, with 95 % intervals"

    @router.post(where, tags=["Landmarks"], summary=summary, openapi_extra=takes(MEASURE))
    def measurements(image_id: str, body: Body) -> dict:
        """The task's measurements in its order; null where a value or an interval is not available, and why.

        ``model``: which one proposed the points, the first when not said; it knows how wide intervals are. Nothing is kept.
        """
        if unknown := sorted(set(body) - {"landmarks", "model"}):
            raise UsageError(f"unknown keys {', '.join(k[:40] for k in unknown[:5])}; allowed are landmarks and model")
        served = application.model(body.get("model"))
        path, rows = study.image_path(image_id), body.get("landmarks")
        landmarks = from_wire(rows, study.task, study.plane_of(image_id))
        spread = _covariances(rows, landmarks)
        study.task.check_image(image_id, known_unit(path))
        known = replace(landmarks, unit=image_unit(path), covariance_mm2=spread, interval_factors=served.interval_factors)
        return {"image": image_id, "measurements": [_to_wire(m) for m in measured(known, served.answers)]}


def _covariances(rows: object, landmarks: LandmarkSet) -> np.ndarray:
    """(n, d, d) of the rows that have one, NaN elsewhere; of points without a position, NaN. Raises LandmarkFileError."""
    n, d = len(landmarks), landmarks.task.dims
    out = np.full((n, d, d), np.nan)
    for row in rows if isinstance(rows, list) else []:
        value = row.get("covariance")
        if value is None:
            continue
        shaped = isinstance(value, list) and len(value) == d and all(isinstance(r, list) and len(r) == d for r in value)
        numbers = [v for r in value for v in r] if shaped else [None]
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and is_finite(v) and abs(v) <= 1e12 for v in numbers):
            raise LandmarkFileError("landmarks", [f"{row['name']!r}: covariance must be {d} rows of {d} finite numbers"])
        matrix = np.array(value, np.float64)
        if not np.allclose(matrix, matrix.T) or np.linalg.eigvalsh(matrix)[0] < -1e-6 * max(np.trace(matrix), 1e-12):
            raise LandmarkFileError("landmarks", [f"{row['name']!r}: covariance has a negative variance, or is not symmetric"])
        out[landmarks.task.index(row["name"])] = matrix
    out[~landmarks.defined] = np.nan
    return out


def _to_wire(m: Measured) -> dict:
    numbers = {key: value if np.isfinite(value := getattr(m, key)) else None for key in ("value", "low", "high", "sd")}
    norm = None if m.norm is None else {"mean": m.norm.mean, "sd": m.norm.sd, "source": m.norm.source}
    return {"name": m.name, "unit": m.unit, **numbers, "reason": m.reason, "interval_reason": m.interval_reason, "norm": norm}
