"""How far off points may be in which directions, in a Slicer landmark file: measurements with a value per control point.

And by how much the intervals of a task's measurements are wider or narrower than these say: measurements with one value.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from landmarklabel.io.limits import LIMITS
from landmarklabel.io.tables import shown

_AXES = "xyz"
_FACTOR = "interval_factor "  # and the name of what the task measures
UNKNOWN = -1.0  # on the diagonal: no variance is negative


def _names(dims: int) -> list[tuple[str, int, int]]:
    return [(f"covariance_{_AXES[i]}{_AXES[j]}_mm2", i, j) for i in range(dims) for j in range(i, dims)]


def covariance_measurements(covariance_mm2: npt.NDArray[np.float64] | None, description: str) -> list[dict]:
    """Measurements for (n, d, d) covariances along the axes of LPS, or of a 2D task's image; none where none is known."""
    if covariance_mm2 is None or not (known := _is_known(covariance_mm2)).any():
        return []
    out = []
    for name, i, j in _names(covariance_mm2.shape[1]):
        values = np.where(known, covariance_mm2[:, i, j], UNKNOWN if i == j else 0.0)
        out.append({"name": name, "units": "mm2", "description": description, "controlPointValues": values.tolist()})
    return out


def _is_known(covariance_mm2: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    finite = np.isfinite(covariance_mm2).all((1, 2))
    return np.asarray(
        finite & (np.abs(np.where(finite[:, None, None], covariance_mm2, 0)) <= LIMITS.coordinate_mm**2).all((1, 2))
    )


def covariances_of(measurements: object, n: int, faults: list[str]) -> list[npt.NDArray[np.float64] | None]:
    """The (d, d) covariance of each of n control points in LPS, None where the file knows none.

    A program that saves the positions in RAS keeps these numbers as they are: they do not turn with the file's frame.

    Args:
        measurements: of the list of points, as the file has them.
        n: control points.
        faults: gets a text for what is wrong.
    """
    found: dict[str, list] = {}
    for m in measurements if isinstance(measurements, list) else []:
        name = m.get("name") if isinstance(m, dict) else None
        if isinstance(name, str) and name.startswith("covariance_"):
            if name in found:
                faults.append(f"several measurements are called {shown(name)}")
            found[name] = m.get("controlPointValues", [])
    dims = next((d for d in (2, 3) if found.keys() == {name for name, *_ in _names(d)}), 0)
    if not found:
        return [None] * n
    if not dims:
        faults.append(f"covariances {shown(sorted(found))} must be those of two axes or of three")
        return [None] * n
    matrix = np.full((n, dims, dims), np.nan)
    for name, i, j in _names(dims):
        values = found[name]
        if not isinstance(values, list) or len(values) != n or not all(_is_number(v) for v in values):
            faults.append(f"{name} {shown(values)} must be a list of {n} numbers, one per control point")
            return [None] * n
        matrix[:, i, j] = matrix[:, j, i] = np.array(values, np.float64)
    known = (matrix[:, range(dims), range(dims)] >= 0).all(1)
    wrong = [k + 1 for k in np.flatnonzero(known) if np.linalg.eigvalsh(matrix[k])[0] < -1e-6 * np.trace(matrix[k])]
    if wrong:
        faults.append(f"the covariance of point {wrong[0]} is none: it has a negative variance in some direction")
    return [matrix[k] if known[k] else None for k in range(n)]


def factor_measurements(factors: Mapping[str, float], description: str) -> list[dict]:
    """Measurements for ``LandmarkSet.interval_factors``."""
    return [{"name": f"{_FACTOR}{n}", "value": float(v), "units": "", "description": description} for n, v in factors.items()]


def factors_of(measurements: object, faults: list[str]) -> dict[str, float]:
    """``LandmarkSet.interval_factors`` of a file's measurements; ``faults`` gets a text for what is wrong."""
    found: dict[str, float] = {}
    for m in measurements if isinstance(measurements, list) else []:
        name = m.get("name") if isinstance(m, dict) else None
        if not isinstance(name, str) or not name.startswith(_FACTOR):
            continue
        if name.removeprefix(_FACTOR) in found:
            faults.append(f"{shown(name)} is given twice")
        elif _is_number(m.get("value")) and m["value"] > 0:
            found[name.removeprefix(_FACTOR)] = float(m["value"])
        else:
            faults.append(f"{shown(name)} {shown(m.get('value'))} must be a positive number")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e12 <= value <= 1e12  # NaN is in no range
