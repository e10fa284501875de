"""How good a model's predictions are, as a page: numbers, curves, the worst points and the images they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from landmarklabel import __version__
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.metrics import point_errors_mm
from landmarklabel.report import pictures
from landmarklabel.report.page import Page

Pairs = Mapping[str, tuple[LandmarkSet, LandmarkSet]]
_WORST_POINTS, _WORST_IMAGES, _TYPICAL_IMAGES, _BINS = 20, 6, 2, 5


def write_evaluation(path: str | Path, task: LandmarkTask, pairs: Pairs, metrics: Mapping, images: Mapping[str, Path]) -> None:
    """Write the report of predictions against the truth.

    Args:
        path: of the HTML file.
        task: what was predicted.
        pairs: image id to (predicted, truth); at least one.
        metrics: from ``metrics.summarize`` of these pairs.
        images: image id to file; those missing or unreadable are not shown.
    """
    errors = np.stack([point_errors_mm(p, t) for p, t in pairs.values()])  # (images, landmarks) mm
    scales = np.array([t.scaled_to_mm() for _, t in pairs.values()])[:, None]
    expected = np.stack([p.expected_error_mm for p, _ in pairs.values()]) * scales
    nothing = np.full(len(task), np.nan)
    radii = np.stack([nothing if p.radius95_mm is None else p.radius95_mm for p, _ in pairs.values()]) * scales
    page = Page(f"{task.name}: predictions against the truth")
    page.text(_about(task, metrics, images))
    page.numbers(_headline(metrics))
    page.section("Errors")
    page.picture(
        pictures.error_curve(errors, metrics["n_missed"]),
        "How many of the points lie within each distance of the truth; points that were not found count as outside.",
    )
    _landmarks(page, metrics)
    _worst_points(page, task, list(pairs), errors, expected)
    _images(page, task, pairs, errors, images)
    _presence(page, task, pairs, metrics)
    _reliability(page, expected, errors)
    _regions(page, radii, errors)
    page.write(path)


def _about(task: LandmarkTask, metrics: Mapping, images: Mapping[str, Path]) -> str:
    text = f"{_count(metrics['n_images'], 'image')}, {_count(metrics['n_landmarks'], 'landmark')} each, "
    text += f"{_count(metrics['n_points'], 'true point')}. "
    if task.scale:
        rule = task.scale
        text += f"Every image is scaled so that {rule.a} and {rule.b} are {rule.mm:g} mm apart. "
    elif any(Path(p).suffix.lower() in (".png", ".jpg", ".jpeg") for p in images.values()):
        text += "The images state no pixel spacing and the task no scale rule: read “mm” as pixels. "
    today = datetime.now(UTC).date().isoformat()
    return f"{text}Written by landmarklabel {__version__} on {today}."


def _headline(metrics: Mapping) -> list[tuple[str, str, str]]:
    interval = metrics.get("confidence_95", {})
    sdr, outliers = metrics["sdr"], metrics["outliers"]
    return [
        ("Mean radial error (MRE)", _mm(metrics["mre_mm"]), _interval(interval.get("mre_mm"), "mm", 2)),
        ("Median error", _mm(metrics["median_mm"]), f"sd {_mm(metrics['sd_mm'])}, largest {_mm(metrics['max_mm'])}"),
        ("Within 2 mm", _percent(sdr["2"]), _interval(interval.get("sdr_2"), "%", 1)),
        ("Within 4 mm", _percent(sdr["4"]), f"2.5 mm: {_percent(sdr['2.5'])}, 3 mm: {_percent(sdr['3'])}"),
        ("Beyond 10 mm", str(outliers["10"]), f"of {metrics['n_points']} points, not found ones included"),
        ("Not found", str(metrics["n_missed"]), "points that the truth has; counted as failures"),
    ]


def _landmarks(page: Page, metrics: Mapping) -> None:
    page.section("Landmarks")
    per_landmark = metrics["per_landmark"]
    if any(m["mre_mm"] is not None for m in per_landmark.values()):
        page.picture(pictures.per_landmark(metrics), "Mean error of each landmark, largest first.")
    order = sorted(per_landmark, key=lambda n: -(per_landmark[n]["mre_mm"] or 0.0))
    distances = {"mean mm": "mre_mm", "median mm": "median_mm", "sd mm": "sd_mm", "largest mm": "max_mm"}
    rows = []
    for name, m in ((n, per_landmark[n]) for n in order):
        rates = m["sdr"]["2"], m["sdr"]["4"], m["outliers"]["10"]
        rows.append([name, *(m[key] for key in distances.values()), *rates])
    page.table(["landmark", *distances, "within 2 mm %", "within 4 mm %", "beyond 10 mm or not found"], rows)


def _worst_points(page: Page, task: LandmarkTask, ids: list[str], errors: np.ndarray, expected: np.ndarray) -> None:
    order = [i for i in np.argsort(-errors, axis=None) if np.isfinite(errors.flat[i])][:_WORST_POINTS]
    if not order:
        return
    page.section(f"The {len(order)} largest errors")
    page.text("A point whose expected error is small although its error is large was wrong without a warning.")
    rows = []
    for flat in order:
        i, k = np.unravel_index(flat, errors.shape)
        rows.append([ids[i], task.names[k], float(errors[i, k]), float(expected[i, k])])
    page.table(["image", "landmark", "error mm", "expected error mm"], rows)


def _images(page: Page, task: LandmarkTask, pairs: Pairs, errors: np.ndarray, images: Mapping[str, Path]) -> None:
    if not any(i in images for i in pairs):
        return
    finite = {i: row[np.isfinite(row)] for i, row in zip(pairs, errors, strict=True)}
    means = {i: float(row.mean()) for i, row in finite.items() if row.size}
    worst_first = sorted(pairs, key=lambda i: -means.get(i, np.inf))  # an image without any point found comes first
    page.section("Images")
    page.text("Green crosses are the truth, amber rings the predictions; a line joins the two.")
    shown = _overlays(page, task, pairs, worst_first, images, _WORST_IMAGES, "Among the worst", means)
    middle = float(np.median([*means.values()])) if means else 0.0
    left = sorted((i for i in means if i not in shown), key=lambda i: abs(means[i] - middle))
    _overlays(page, task, pairs, left, images, _TYPICAL_IMAGES, "Typical", means)


def _overlays(page, task, pairs, order, images, most: int, kind: str, means) -> set[str]:
    """Show the first images of ``order`` that can be read; returns all that were tried."""
    tried, shown = set(), 0
    for image_id in (i for i in order if i in images):
        if shown == most:
            break
        tried.add(image_id)
        try:
            image = read_image(images[image_id], task.dims)
        except LandmarkLabelError as error:
            page.text(f"Image {image_id} cannot be shown: {error}")
            continue
        mean = f"mean error {means[image_id]:.2f} mm" if image_id in means else "no point found"
        page.picture(pictures.overlay(image, *pairs[image_id], title=image_id), f"{kind}: {image_id}, {mean}.")
        shown += 1
    return tried


def _presence(page: Page, task: LandmarkTask, pairs: Pairs, metrics: Mapping) -> None:
    found = np.array([p.defined for p, _ in pairs.values()])
    there = np.array([t.defined for _, t in pairs.values()])
    said, gone = (np.array([[s is Status.ABSENT for s in pair[k].status] for pair in pairs.values()]) for k in (0, 1))
    if not (said.any() or gone.any()):
        return
    presence = metrics["presence"]
    page.section("Presence")
    f1 = "–" if presence["f1"] is None else f"{presence['f1']:.3f}"
    page.numbers([
        ("F1 of presence", f1, "1 is perfect"),
        ("Found, rightly", str(presence["true_present"]), "points"),
        ("Found, but absent", str(presence["false_present"]), "points that the truth says are not there"),
        ("Not found, but there", str(presence["false_absent"]), "said to be absent, or no answer"),
    ])  # fmt: skip
    counts = np.stack([gone.sum(axis=0), (found & gone).sum(axis=0), (~found & there).sum(axis=0)], axis=1).tolist()
    rows = [[name, *row] for name, row in zip(task.names, counts, strict=True) if any(row)]
    if rows:
        page.table(["landmark", "absent in the truth", "found, but absent", "not found, but there"], rows)


def _reliability(page: Page, expected: np.ndarray, errors: np.ndarray) -> None:
    bins = reliability_bins(expected, errors)
    if not bins:
        return
    page.section("Can the expected error be trusted?")
    page.text("Points sorted by expected error, in groups of equal size. Actual and expected should agree.")
    page.picture(pictures.reliability(bins), "Mean actual against mean expected error of each group.")
    page.table(["mean expected mm", "mean actual mm", "points"], bins)


def _regions(page: Page, radii: np.ndarray, errors: np.ndarray) -> None:
    known = np.isfinite(radii) & np.isfinite(errors)
    if not known.any():
        return
    inside = errors <= radii
    whole = [row[k].all() for row, k in zip(inside, known, strict=True) if k.any()]
    page.section("Do the 95 % regions hold?")
    page.text(
        f"{100 * inside[known].mean():.1f} % of {known.sum()} points lie within the longest half axis of their region "
        f"(mean {radii[known].mean():.2f} mm), in {100 * np.mean(whole):.0f} % of the images all points do. Each region is "
        "made to hold its own landmark in 95 % of cases; all at once need larger ones."
    )


def reliability_bins(expected: np.ndarray, errors: np.ndarray, bins: int = _BINS) -> list[tuple[float, float, int]]:
    """(mean expected, mean actual, points) of groups of equal size by expected error; pairs with NaN are left out."""
    both = np.isfinite(expected) & np.isfinite(errors)
    order = np.argsort(expected[both], kind="stable")
    groups = np.array_split(order, bins)
    return [(float(expected[both][g].mean()), float(errors[both][g].mean()), len(g)) for g in groups if len(g)]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} mm"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} %"


def _interval(bounds: list[float] | None, unit: str, digits: int) -> str:
    if bounds is None or not np.isfinite(bounds).all():
        return "no confidence interval: too few images"
    return f"95 % confidence {bounds[0]:.{digits}f} to {bounds[1]:.{digits}f} {unit}"
