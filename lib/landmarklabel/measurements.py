"""What a task measures, calculated from landmarks: lengths, angles and indices with their 95 % intervals.

Values are calculated for all measurements of a kind at once, and for many configurations of landmarks at once.

Intervals are by first-order propagation (JCGM 100:2008, 5.1.2): every measurement is differentiated by the landmarks' positions,
also where it is made of others, so that what a sum's parts have in common counts once. The derivatives are central differences of
the points' coordinates, and exact rules for ratios, sums and the scale. The covariances of different landmarks are taken to be
zero, since only each landmark's own is known.

Decision: a point by a person (placed, accepted) adds nothing to an interval. What the person's own error is, nobody knows; a
measurement all of whose points are such has a value and no interval, and one of which some are says what it leaves out. A
predicted point without covariance takes the interval of every measurement that needs it: leaving it out would call it exact.

Errors of neighbouring landmarks go together, so first-order intervals of what lies between them are too wide (or, for a sum of
them, too narrow). A trained model has learned by how much for each measurement of its task (``interval_factors`` of its landmark
sets, see ``inference.calibration.fit_interval_factors``), and intervals of its predictions are multiplied by that. Where a person
placed some of the points, errors do not go together any more: such an interval is not made narrower.

Limit: near the end of its range (a distance or an angle in 3D within about two standard deviations of 0) a measurement is not
linear, and a first-order interval holds less than 95 %; ``sampled_interval`` does not have this limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from landmarklabel.errors import UsageError, listed
from landmarklabel.measurement_definitions import Measurement, Norm
from landmarklabel.measurement_precision import PRECISION
from landmarklabel.measurement_program import Evaluation, Program, compiled, degenerate, evaluated

if TYPE_CHECKING:
    from landmarklabel.landmarks import LandmarkSet, LandmarkTask

FloatArray = npt.NDArray[np.float64]

NORMAL_95 = 1.959963984540054  # half width of the 95 % interval of a standard normal variable
_UNITS = {"angle": "°", "ratio": "", "percentage": "%"}  # of a length: mm or px
_SAMPLES = 10_000  # JCGM 101:2008, 7.2.1 asks for 10^4/(1 - p); a twentieth of that tells an interval's ends to 2 % of its width


@dataclass(frozen=True)
class Measured:
    """One measurement of one image.

    Args:
        name: of the measurement.
        value: in ``unit``; NaN where it is not available.
        unit: ``mm`` or ``px`` (lengths), ``°``, ``%``, or "" (a ratio).
        low, high: ends of the 95 % interval, in ``unit``; NaN where there is none.
        sd: standard uncertainty, in ``unit``, such that the interval is 1.96 times it to both sides; NaN where there is none.
        reason: why there is no value, in words; empty where there is one.
        interval_reason: why there is no interval although there is a value, or what the interval leaves out.
        norm: what is usual; None where the task does not say it, or says it in mm and the value is in px.
    """

    name: str
    value: float
    unit: str
    low: float = float("nan")
    high: float = float("nan")
    sd: float = float("nan")
    reason: str = ""
    interval_reason: str = ""
    norm: Norm | None = None

    @property
    def available(self) -> bool:
        """Whether there is a value."""
        return not self.reason


def measure(landmarks: LandmarkSet, with_intervals: bool = True) -> list[Measured]:
    """The measurements of a landmark set's task, in the task's order.

    Lengths are in mm after the task's scale rule, else in the set's unit.

    Args:
        landmarks: of one image; missing ones make what needs them unavailable, with a reason.
        with_intervals: whether 95 % intervals are calculated.
    """
    task = landmarks.task
    if not task.measurements:
        return []
    program = _program(task, task.measurements)
    found = evaluated(program, landmarks.positions_mm[program.used], with_derivatives=with_intervals)
    reasons = _reasons(program, landmarks, found)
    sd, no_interval = _uncertainties(program, landmarks, found)
    sd = sd * _interval_factors(program, landmarks)
    unit = "mm" if task.scale else landmarks.unit
    out = []
    for i, m in enumerate(task.measurements):
        dimension, value = program.dimensions[i], float(found.values[i])
        least, most = program.ranges[i]
        half = NORMAL_95 * float(sd[i])
        out.append(
            Measured(
                name=m.name,
                value=value,
                unit=_UNITS.get(dimension, unit),
                low=max(value - half, least) if half == half else half,
                high=min(value + half, most) if half == half else half,
                sd=float(sd[i]),
                reason=reasons[i],
                interval_reason="" if reasons[i] else no_interval[i],
                norm=None if dimension == "length" and unit != "mm" else m.norm,
            )
        )
    return out


def values(task: LandmarkTask, positions_mm: npt.ArrayLike) -> FloatArray:
    """The values (…, m) of a task's measurements for many configurations of its landmarks at once.

    Args:
        task: with m measurements.
        positions_mm: (…, n, dims); NaN rows are missing landmarks.

    Returns:
        As ``Measured.value``; NaN where not available.
    """
    positions = np.asarray(positions_mm, np.float64)
    if not task.measurements:
        return np.empty((*positions.shape[:-2], 0))
    program = _program(task, task.measurements)
    return evaluated(program, positions[..., program.used, :]).values


def sampled_interval(
    landmarks: LandmarkSet, measurement: Measurement | str, n: int = _SAMPLES, rng: np.random.Generator | None = None
) -> tuple[float, float]:
    """The 95 % interval of one measurement by drawing positions from the landmarks' normal distributions (JCGM 101:2008).

    An angle with a sign is followed through ±180, so that its interval is in one piece.

    Args:
        landmarks: of one image.
        measurement: of its task, or the name of one.
        n: samples.
        rng: source of them.

    Returns:
        The 2.5 % and 97.5 % quantiles; NaN where ``measure`` gives no value, or where no covariance is known.

    Raises:
        UsageError: the task has no such measurement.
    """
    task, name = landmarks.task, measurement if isinstance(measurement, str) else measurement.name
    by_name = {m.name: m for m in task.measurements}
    if name not in by_name:
        raise UsageError(f"task {task.name!r} has no measurement called {name!r}")
    needed = [by_name[name]]
    for m in needed:  # grows on the way
        needed += [by_name[other] for other in m.of if by_name[other] not in needed]
    program = _program(task, tuple(needed))
    positions = landmarks.positions_mm[program.used]
    covariance, known = _covariances(program, landmarks)
    at = evaluated(program, positions)
    if not np.isfinite(at.values[0]) or (program.uses[0] & ~known).any() or not covariance.any():
        return float("nan"), float("nan")
    rng = np.random.default_rng(0) if rng is None else rng
    spread, axes = np.linalg.eigh(covariance)
    drawn = rng.standard_normal((n, *positions.shape)) * np.sqrt(np.maximum(spread, 0))
    moved = positions + np.einsum("uij,nuj->nui", axes, drawn)
    sample = evaluated(program, moved, around=at.in_image_units).values[:, 0]
    low, high = np.quantile(sample[np.isfinite(sample)], [0.025, 0.975])
    return float(low), float(high)


def _program(task: LandmarkTask, measurements: tuple[Measurement, ...]) -> Program:
    return compiled(task.names, measurements, task.scale)


def _covariances(program: Program, landmarks: LandmarkSet) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """(u, d, d) of the landmarks that are used, and (u,) whether what they add to an interval is known.

    Zero for a person's points: a covariance that stands beside one is the model's, of where it was.
    """
    n, d = len(program.used), landmarks.task.dims
    given = landmarks.covariance_mm2
    covariance = np.full((n, d, d), np.nan) if given is None else given[program.used]
    by_person = landmarks.by_person[program.used]
    used = np.isfinite(covariance).all((1, 2)) & ~by_person
    return np.where(used[:, None, None], covariance, 0.0), used | by_person


def _uncertainties(program: Program, landmarks: LandmarkSet, found: Evaluation) -> tuple[FloatArray, list[str]]:
    """(m,) standard uncertainties, NaN where there is none, and why there is none."""
    m = len(program.measurements)
    if found.derivatives is None:
        return np.full(m, np.nan), [""] * m
    covariance, known = _covariances(program, landmarks)
    variance = (np.einsum("mud,ude->mue", found.derivatives, covariance) * found.derivatives).sum((1, 2))
    unknown = program.uses & ~known
    size = np.abs(found.derivatives).max(2)  # a point that only says to which side has none
    least = PRECISION.relative_tolerance * np.nanmax(size, axis=1, keepdims=True, initial=0)
    placed = program.uses & landmarks.by_person[program.used]
    moves = ~(size <= least) | ~placed.any(1, keepdims=True)  # NaN at an end of a range; predictions may cancel: that is certain
    exact = ~(program.uses & moves & covariance.any((1, 2))).any(1)  # all its points, as far as is known
    sd = np.sqrt(np.where(unknown.any(1) | exact, np.nan, np.maximum(variance, 0)))
    reasons = [""] * m
    for i in np.flatnonzero(np.isnan(sd)):
        if unknown[i].any():
            reasons[i] = f"it is not known how far off {_listed(program, unknown[i], landmarks)} may be"
        elif exact[i]:
            reasons[i] = "its points were placed by a person, whose error is not known"
        else:
            reasons[i] = "it is at the end of its range, where there is no first-order interval"
    for i in np.flatnonzero(np.isfinite(sd) & placed.any(1)):
        reasons[i] = f"without the error of whoever placed {_listed(program, placed[i], landmarks)}"
    return sd, reasons


def _interval_factors(program: Program, landmarks: LandmarkSet) -> FloatArray:
    """(m,) what the standard uncertainties are multiplied by: learned of measurements all of whose points are predicted."""
    learned = np.array([landmarks.interval_factors.get(m.name, 1.0) for m in program.measurements])
    some_placed = (program.uses & landmarks.by_person[program.used]).any(1)
    return np.where(some_placed, np.maximum(learned, 1.0), learned)


def _reasons(program: Program, landmarks: LandmarkSet, found: Evaluation) -> list[str]:
    """Why there is no value, by measurement; "" where there is one."""
    missing = ~landmarks.defined[program.used]
    reasons: dict[str, str] = {}
    for i in program.order:
        m = program.measurements[i]
        if np.isfinite(found.values[i]):
            reasons[m.name] = ""
        elif (gone := program.uses[i] & missing).any():
            reasons[m.name] = "; ".join(_missing(program, landmarks, gone))
        elif part := next((name for name in m.of if reasons[name]), None):
            reasons[m.name] = f"{part}: {reasons[part]}"
        else:
            reasons[m.name] = degenerate(program, i, found)
    return [reasons[m.name] for m in program.measurements]


def _missing(program: Program, landmarks: LandmarkSet, which: npt.NDArray[np.bool_]) -> list[str]:
    indices = program.used[which]
    words = {"absent": "is absent", "unset": "is not placed"}
    return [f"{landmarks.names[i]} {words[landmarks.status[i].value]}" for i in indices]


def _listed(program: Program, which: npt.NDArray[np.bool_], landmarks: LandmarkSet) -> str:
    return listed([landmarks.names[i] for i in program.used[which]])
