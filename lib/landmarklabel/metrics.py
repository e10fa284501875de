"""Localization errors as the papers report them: point error, image-wise point error, SDR, outliers, per landmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from landmarklabel.landmarks import LandmarkSet, LandmarkTask

SDR_RADII_MM = (2.0, 2.5, 3.0, 4.0)
OUTLIER_RADII_MM = (2.0, 4.0, 10.0)


def unit_of(task: LandmarkTask, units: Iterable[str]) -> str:
    """The unit of errors over images of these units: mm where the task's rule scales them, px where one has no spacing."""
    return "mm" if task.scale is not None or "px" not in set(units) else "px"


def point_errors_mm(predicted: LandmarkSet, truth: LandmarkSet) -> np.ndarray:
    """(n,) point error in mm after the task's scale rule; NaN where either set has no position.

    Source: Payer 2019, section 4.3 (PE); the scale rule follows the hand data's 50 mm wrist convention.
    """
    scale = truth.scaled_to_mm()
    made: np.ndarray = np.linalg.norm(predicted.positions_mm - truth.positions_mm, axis=1) * scale
    return made


def distance_between(one: LandmarkSet, other: LandmarkSet) -> np.ndarray:
    """How far two people's points of one image are apart, (n,); NaN where one has none.

    In the sets' unit, in mm where the task has a scale rule: by the mean of both sets' scales, or the one known.
    """
    scales = np.array([one.scaled_to_mm(), other.scaled_to_mm()])
    known = scales[np.isfinite(scales)]
    scale = float(known.mean()) if known.size else float("nan")
    return np.asarray(scale * np.linalg.norm(one.positions_mm - other.positions_mm, axis=1))


def summarize(pairs: Sequence[tuple[LandmarkSet, LandmarkSet]], bootstrap: int = 1000, seed: int = 0, unit: str = "mm") -> dict:
    """Metrics over (predicted, truth) pairs of the same task.

    A landmark that is in the truth but not found counts as a failure in SDR and outliers and not in the mean; found ones
    that the truth says are absent count in ``presence``.

    Args:
        pairs: one per image; at least one.
        bootstrap: resamples of the images for the 95 % confidence intervals; 0 for none.
        seed: of the bootstrap.
        unit: of the errors (``unit_of``): the keys say mm for either.

    Returns:
        The content of ``evaluate --json``; distances in ``unit`` (after the scale rule), rates in percent.
    """
    errors = np.stack([point_errors_mm(p, t) for p, t in pairs])
    in_truth = np.stack([t.defined for _, t in pairs])
    found = np.isfinite(errors)
    missed = in_truth & ~found
    out = {"unit": unit, "n_images": len(pairs), "n_landmarks": errors.shape[1], "n_points": int(in_truth.sum())}
    out |= {"n_missed": int(missed.sum()), **distances(errors, missed)}
    out["image_point_error_mm"] = _spread(_row_means(errors))
    out["presence"] = _presence(pairs)
    names = pairs[0][1].task.names
    out["per_landmark"] = {name: distances(errors[:, [i]], missed[:, [i]]) for i, name in enumerate(names)}
    if bootstrap and len(pairs) > 1:
        out["confidence_95"] = _bootstrap(errors, missed, bootstrap, seed)
    return out


def distances(errors: np.ndarray, missed: np.ndarray) -> dict:
    """Mean, median, SD and largest of errors (NaN: none), and rates in which a missed point is a failure.

    Args:
        errors: (cases, n), NaN where there is none.
        missed: (cases, n), whether a point of the truth was not found.
    """
    values = errors[np.isfinite(errors)]
    total = values.size + int(missed.sum())
    failures = {r: int((values > r).sum()) + int(missed.sum()) for r in (*SDR_RADII_MM, *OUTLIER_RADII_MM)}
    return {
        **{f"{key}_mm": value for key, value in zip(("mre", "median", "sd"), _spread(values).values(), strict=True)},
        "max_mm": float(values.max()) if values.size else None,
        "sdr": {f"{r:g}": 100 * (1 - failures[r] / total) if total else None for r in SDR_RADII_MM},
        "outliers": {f"{r:g}": failures[r] for r in OUTLIER_RADII_MM},
    }


def _spread(values: np.ndarray) -> dict:
    values = values[np.isfinite(values)]
    if not values.size:
        return {"mean": None, "median": None, "sd": None}
    return {"mean": float(values.mean()), "median": float(np.median(values)), "sd": float(values.std())}


def mean_or_none(values: np.ndarray) -> float | None:
    """Mean of the finite ones; None where there are none."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def _row_means(errors: np.ndarray) -> np.ndarray:
    counts = np.isfinite(errors).sum(axis=1)
    sums = np.nansum(errors, axis=1)
    return np.divide(sums, counts, out=np.full(len(errors), np.nan), where=counts > 0)


def _presence(pairs: Sequence[tuple[LandmarkSet, LandmarkSet]]) -> Mapping[str, float | int | None]:
    """Detection of presence over all landmarks the truth is sure about; positive = present."""
    said = np.concatenate([p.defined for p, _ in pairs])
    true = np.concatenate([t.defined for _, t in pairs])
    sure = np.concatenate([t.by_person for _, t in pairs])
    hit, false, miss = (int((x & sure).sum()) for x in (said & true, said & ~true, ~said & true))
    f1 = 2 * hit / (2 * hit + false + miss) if hit + false + miss else None
    return {"f1": f1, "true_present": hit, "false_present": false, "false_absent": miss}


def _bootstrap(errors: np.ndarray, missed: np.ndarray, n: int, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    mre, sdr2 = [], []
    for _ in range(n):
        rows = rng.integers(0, len(errors), len(errors))
        values = errors[rows][np.isfinite(errors[rows])]
        total = values.size + missed[rows].sum()
        if values.size:
            mre.append(values.mean())
        if total:
            sdr2.append(100 * (values <= 2).sum() / total)
    bounds = {key: np.percentile(v, [2.5, 97.5]) for key, v in (("mre_mm", mre), ("sdr_2", sdr2)) if v}
    return {key: [float(x) for x in value] for key, value in bounds.items()}
