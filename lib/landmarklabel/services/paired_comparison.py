"""Two predictions of the same images, point by point: which is nearer to the truth, and could that be chance?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from landmarklabel.errors import StudyError
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.metrics import distances, point_errors_mm, unit_of
from landmarklabel.services.configuration import COMPARISON
from landmarklabel.services.evaluations import Comparison


def paired_comparison(a: Comparison, b: Comparison, seed: int = 0) -> dict[str, Any]:
    """The errors of two predictions on the images that both have, and on the points of them that both have found.

    Differences are B minus A: negative where B is nearer. The 95 % interval is of the mean difference, by a bootstrap over
    images, as the points of an image err together; the test flips the signs of the images' differences and is of that mean.

    Args:
        a, b: of the same task and truth.
        seed: of the bootstrap.

    Returns:
        Figures in mm, or px where an image of either has no spacing; ``per_landmark`` has those of each landmark, without a test.

    Raises:
        StudyError: no image, or no point, was predicted by both.
    """
    ids = sorted(set(a.pairs) & set(b.pairs))
    if not ids:
        raise StudyError("no image was predicted by both")
    errors_a, missed_a = _errors(a.pairs, ids)
    errors_b, missed_b = _errors(b.pairs, ids)
    both = np.isfinite(errors_a) & np.isfinite(errors_b)
    if not both.any():
        raise StudyError("no point was found by both")
    figures = [_figures(errors, missed, both) for errors, missed in ((errors_a, missed_a), (errors_b, missed_b))]
    errors_a, errors_b = (np.where(both, e, np.nan) for e in (errors_a, errors_b))
    task = next(iter(a.pairs.values()))[1].task
    names = task.names
    differences = errors_b - errors_a
    counts = np.isfinite(differences).astype(float)
    totals = np.nan_to_num(differences)
    whole, *each = _differences(
        np.column_stack([totals.sum(axis=1), totals]), np.column_stack([counts.sum(axis=1), counts]), np.random.default_rng(seed)
    )
    mres = [{"mre_a": _mean(errors_a[:, i]), "mre_b": _mean(errors_b[:, i])} for i in range(len(names))]
    return {
        "unit": unit_of(task, [side.units.get(i, "mm") for side in (a, b) for i in ids]),
        "n_images": len(ids),
        "a": figures[0],
        "b": figures[1],
        **whole,
        "p_value": _sign_flips(totals.sum(axis=1), counts.sum(axis=1), np.random.default_rng(seed)),
        "per_landmark": {name: {**mre, **one} for name, mre, one in zip(names, mres, each, strict=True)},
    }


def _errors(pairs: Mapping[str, tuple[LandmarkSet, LandmarkSet]], ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(cases, n) errors, NaN where there is none, and whether a point of the truth was missed."""
    errors = np.stack([point_errors_mm(*pairs[i]) for i in ids])
    return errors, np.stack([pairs[i][1].defined for i in ids]) & ~np.isfinite(errors)


def _figures(errors: np.ndarray, missed: np.ndarray, both: np.ndarray) -> dict[str, Any]:
    """Mean and median of the points that both have found; rates as ``evaluate`` has them, of all: a missed point is a failure."""
    rates = distances(errors, missed)
    return {
        "mre": float(errors[both].mean()),
        "median": float(np.median(errors[both])),
        "missed": int(missed.sum()),
        "sdr": rates["sdr"],
        "outliers": rates["outliers"],
    }


def _differences(totals: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Of every column: mean difference over the points, and its interval over resampled cases; None with a single case.

    Args:
        totals: (cases, columns) sums of the differences of a case's points.
        counts: (cases, columns) how many points those are.
    """
    n, means = len(totals), []
    for _ in range(0, COMPARISON.resamples, COMPARISON.at_once):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=COMPARISON.at_once).astype(float)  # how often each case is drawn
        points = drawn @ counts
        means.append(np.divide(drawn @ totals, points, out=np.full(points.shape, np.nan), where=points > 0))
    resampled = np.concatenate(means)
    found: list[dict[str, Any]] = []
    for column in range(totals.shape[1]):
        count = counts[:, column]
        if not count.sum():
            found.append({"n_points": 0, "difference": None, "confidence_95": None})
            continue
        values = resampled[np.isfinite(resampled[:, column]), column]
        interval = [float(x) for x in np.percentile(values, [2.5, 97.5])] if (count > 0).sum() > 1 else None
        mean = float(totals[:, column].sum() / count.sum())
        found.append({"n_points": int(count.sum()), "difference": mean, "confidence_95": interval})
    return found


def _sign_flips(totals: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> float | None:
    """Two-sided p of the mean difference: how often it is as large where A and B of each image change places at random.

    Exact for a few images; None with too few to tell anything. Source: Good 2005, Permutation, Parametric and Bootstrap Tests.
    """
    totals = totals[counts > 0]
    n = len(totals)
    if n < COMPARISON.fewest_images:
        return None
    least, hits, tried = abs(totals.sum()) * (1 - COMPARISON.rounding), 0, 0
    exact = 2**n <= COMPARISON.resamples
    for begin in range(0, 2**n if exact else COMPARISON.resamples, COMPARISON.at_once):
        if exact:
            numbers = np.arange(begin, min(begin + COMPARISON.at_once, 2**n))
            flips = (numbers[:, None] >> np.arange(n)) & 1
        else:
            flips = rng.integers(0, 2, (COMPARISON.at_once, n))
        hits, tried = hits + int((abs((2 * flips - 1) @ totals) >= least).sum()), tried + len(flips)
    return hits / tried if exact else (hits + 1) / (tried + 1)  # what was seen is one of the draws


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def comparison_lines(found: Mapping[str, Any]) -> list[str]:
    """The figures for people to read."""
    unit, a, b = found["unit"], found["a"], found["b"]
    lines = [f"{found['n_images']} images, {found['n_points']} points that both have found"]
    for name, one in (("A", a), ("B", b)):
        lines.append(
            f"{name}: MRE {one['mre']:.3f} {unit}, median {one['median']:.3f}, within 2 {unit} {one['sdr']['2']:.1f} %, "
            f"beyond 10 {unit} {one['outliers']['10']}, missed {one['missed']}"
        )
    lines.append(f"B minus A: {found['difference']:+.3f} {unit}{_interval(found)}; {_verdict(found)}")
    return lines


def _interval(found: Mapping[str, Any]) -> str:
    if found["confidence_95"] is None:
        return ""
    low, high = found["confidence_95"]
    return f" (95 % interval {low:+.3f} to {high:+.3f})"


def _verdict(found: Mapping[str, Any]) -> str:
    p, interval = found["p_value"], found["confidence_95"]
    if p is None or interval is None:
        return f"too few images to tell from chance: {COMPARISON.fewest_images} are needed"
    said = f"p {p:.2g}" if p >= COMPARISON.least_p else f"p < {COMPARISON.least_p:g}"
    if p >= COMPARISON.chance or interval[0] <= 0 <= interval[1]:
        return f"{said}: this may be chance"
    nearer = f"{said}: {'B' if found['difference'] < 0 else 'A'} is nearer to the truth"
    return nearer if found["a"]["missed"] == found["b"]["missed"] else f"{nearer}, where both have found a point"
