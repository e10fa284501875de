"""How far readers agree on measurements: bias, limits of agreement, intraclass correlation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.measurements import measure, values

FloatArray = npt.NDArray[np.float64]
_LIMIT = 1.96  # standard deviations between which 95 % of the differences lie


@dataclass(frozen=True)
class Agreement:
    """How far two readers' values of one measurement agree.

    Args:
        measurement, unit: what was measured.
        readers: their names.
        means, differences: (n,) of the n cases that both have read: mean, and the first's less the second's.
        icc: intraclass correlation of single readings, absolute agreement, two-way random effects; NaN of fewer than three cases.
    """

    measurement: str
    unit: str
    readers: tuple[str, str]
    means: FloatArray
    differences: FloatArray
    icc: float

    @property
    def bias(self) -> float:
        """Mean of the differences."""
        return float(self.differences.mean())

    @property
    def limits(self) -> tuple[float, float]:
        """Between which 95 % of the differences lie. Source: Bland and Altman 1986, Lancet 327, p. 307."""
        spread = float(self.differences.std(ddof=1)) if len(self.differences) > 1 else float("nan")
        return self.bias - _LIMIT * spread, self.bias + _LIMIT * spread


def agreements(task: LandmarkTask, by_reader: Mapping[str, Mapping[str, LandmarkSet]], unit: str = "mm") -> list[Agreement]:
    """Every pair of readers, measurement by measurement, over the cases that both have read and where it is available.

    Args:
        task: of all sets.
        by_reader: name of a reader to image id to landmarks.
        unit: of the distances.
    """
    units = [m.unit for m in measure(replace(LandmarkSet.empty(task), unit=unit), with_intervals=False)]
    out = []
    for one, other in combinations(sorted(by_reader), 2):
        both = sorted(by_reader[one].keys() & by_reader[other].keys())
        if not both:
            continue
        first, second = (values(task, np.stack([by_reader[r][i].positions_mm for i in both])) for r in (one, other))
        for k, m in enumerate(task.measurements):
            off = np.array([difference(a, b, units[k]) for a, b in zip(first[:, k], second[:, k], strict=True)])
            known = np.isfinite(off)
            if known.any():
                mean = second[known, k] + off[known] / 2
                pair = np.stack([second[known, k] + off[known], second[known, k]], axis=1)
                out.append(Agreement(m.name, units[k], (one, other), mean, off[known], intraclass_correlation(pair)))
    return out


def intraclass_correlation(readings: npt.ArrayLike) -> float:
    """ICC(A,1) of readings (n cases, k readers); NaN of fewer than three cases or without any spread.

    Source: McGraw and Wong 1996, Psychological Methods 1, table 4: two-way random effects, absolute agreement, single readings.
    """
    x = np.asarray(readings, np.float64)
    n, k = x.shape
    if n < 3:
        return float("nan")
    rows = k * ((x.mean(1) - x.mean()) ** 2).sum() / (n - 1)
    columns = n * ((x.mean(0) - x.mean()) ** 2).sum() / (k - 1)
    rest = ((x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()) ** 2).sum() / ((n - 1) * (k - 1))
    whole = rows + (k - 1) * rest + k * (columns - rest) / n
    return float((rows - rest) / whole) if whole > 0 else float("nan")


def difference(one: float, other: float, unit: str) -> float:
    """One less the other; of angles the short way round."""
    return (one - other + 180) % 360 - 180 if unit == "°" else one - other
