"""How good a model's predictions are, as a page: numbers, curves, the worst points and the images they lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from landmarklabel import __version__
from landmarklabel.errors import LandmarkLabelError, counted
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.metrics import point_errors_mm
from landmarklabel.report import pictures
from landmarklabel.report.configuration import CONFIG
from landmarklabel.report.page import Cell, Page

Pairs = Mapping[str, tuple[LandmarkSet, LandmarkSet]]


def write_evaluation(
    path: str | Path,
    task: LandmarkTask,
    pairs: Pairs,
    metrics: Mapping,
    images: Mapping[str, Path],
    remarks: Sequence[str] = (),
) -> None:
    """Write the report of predictions against the truth.

    Args:
        path: of the HTML file.
        task: what was predicted.
        pairs: image id to (predicted, truth); at least one.
        metrics: from ``metrics.summarize`` of these pairs.
        images: image id to file; those missing or unreadable are not shown.
        remarks: what a person should know of the predictions, one text each.
    """
    errors = np.stack([point_errors_mm(p, t) for p, t in pairs.values()])  # (images, landmarks) mm
    scales = np.array([t.scaled_to_mm() for _, t in pairs.values()])[:, None]
    expected = np.stack([p.expected_error_mm for p, _ in pairs.values()]) * scales
    nothing = np.full(len(task), np.nan)
    radii = np.stack([nothing if p.radius95_mm is None else p.radius95_mm for p, _ in pairs.values()]) * scales
    unit, trained_on = metrics.get("unit", "mm"), frozenset(metrics.get("training_images", ()))
    measured = _Measured(task, pairs, errors, expected, images, unit, trained_on)
    page = Page(f"{task.name}: predictions against the truth")
    page.text(_about(task, metrics, measured))
    for text in remarks:
        page.text(f"{text[:1].upper()}{text[1:]}.")
    page.numbers(_headline(metrics, unit))
    _worst_points(page, measured)
    _images(page, measured)
    page.section("Errors")
    page.picture(
        pictures.error_curve(errors, metrics["n_missed"], unit),
        "How many of the points lie within each distance of the truth; points that were not found count as outside.",
    )
    _landmarks(page, metrics, unit)
    _presence(page, task, pairs, metrics)
    _reliability(page, expected, errors, unit)
    _regions(page, radii, errors, unit)
    _measurements(page, metrics.get("measurements", {}))
    page.write(path)


def _measurements(page: Page, measured: Mapping[str, Mapping]) -> None:
    if not measured:
        return
    page.section("Measurements")
    page.text("Bias: mean of predicted less true. Coverage: how many of the 95 % intervals hold the true value.")
    keys = ("unit", "n", "mean_absolute_error", "median_absolute_error", "bias", "n_with_interval", "coverage_95")
    header = ["measurement", "unit", "cases", "mean absolute error", "median", "bias", "with interval", "coverage (%)"]
    page.table(header, [[name, *(of[key] for key in keys)] for name, of in measured.items()])


@dataclass(frozen=True)
class _Measured:
    """What the page is about; errors and expected errors are (images, landmarks) in ``unit``."""

    task: LandmarkTask
    pairs: Pairs
    errors: np.ndarray
    expected: np.ndarray
    images: Mapping[str, Path]
    unit: str
    trained_on: frozenset[str]

    def named(self, image_id: str) -> str:
        return f"{image_id} (training image)" if image_id in self.trained_on else image_id


def _about(task: LandmarkTask, metrics: Mapping, m: _Measured) -> str:
    text = f"{counted(metrics['n_images'], 'image')}, {counted(metrics['n_landmarks'], 'landmark')} each, "
    text += f"{counted(metrics['n_points'], 'true point')}. "
    if among := len(m.trained_on & set(m.pairs)):
        text += f"{counted(among, 'image')} among them served to train the model: errors on new images are larger. "
    elif m.trained_on:
        text += f"{counted(len(m.trained_on), 'image')} that served to train the model are left out. "
    if task.scale:
        text += f"Millimetres by the task's scale rule: {task.scale.text}. "
    elif m.unit == "px":
        text += "Distances are in pixels: the images state no pixel spacing and the task no scale rule. "
    today = datetime.now(UTC).date().isoformat()
    return f"{text}Written by landmarklabel {__version__} on {today}."


def _headline(metrics: Mapping, unit: str) -> list[tuple[str, str, str]]:
    def length(key: str) -> str:
        return "–" if metrics[key] is None else f"{metrics[key]:.2f} {unit}"

    interval = metrics.get("confidence_95", {})
    sdr, outliers = metrics["sdr"], metrics["outliers"]
    return [
        ("Mean radial error (MRE)", length("mre_mm"), _interval(interval.get("mre_mm"), unit, 2)),
        ("Median error", length("median_mm"), f"sd {length('sd_mm')}, largest {length('max_mm')}"),
        (f"Within 2 {unit}", _percent(sdr["2"]), _interval(interval.get("sdr_2"), "%", 1)),
        (f"Within 4 {unit}", _percent(sdr["4"]), f"2.5 {unit}: {_percent(sdr['2.5'])}, 3 {unit}: {_percent(sdr['3'])}"),
        (f"Beyond 10 {unit}", str(outliers["10"]), f"of {metrics['n_points']} points, not found ones included"),
        ("Not found", str(metrics["n_missed"]), "points that the truth has; counted as failures"),
    ]


def _landmarks(page: Page, metrics: Mapping, unit: str) -> None:
    page.section("Landmarks")
    per_landmark = metrics["per_landmark"]
    if any(m["mre_mm"] is not None for m in per_landmark.values()):
        page.picture(pictures.per_landmark(metrics), "Mean error of each landmark, largest first.")
    order = sorted(per_landmark, key=lambda n: -(per_landmark[n]["mre_mm"] or 0.0))
    keys = {"mean": "mre_mm", "median": "median_mm", "sd": "sd_mm", "largest": "max_mm"}
    rows = []
    for name, m in ((n, per_landmark[n]) for n in order):
        rates = m["sdr"]["2"], m["sdr"]["4"], m["outliers"]["10"]
        rows.append([name, *(m[key] for key in keys.values()), *rates])
    header = [f"{name} ({unit})" for name in keys] + [f"within {r} {unit} (%)" for r in (2, 4)]
    page.table(["landmark", *header, f"beyond 10 {unit} or not found"], rows)


def _worst_points(page: Page, m: _Measured) -> None:
    order = [i for i in np.argsort(-m.errors, axis=None) if np.isfinite(m.errors.flat[i])][: CONFIG.worst_points]
    if not order:
        return
    page.section(f"The {len(order)} largest errors")
    far = f"points beyond {CONFIG.far:g} mm, and " if m.unit == "mm" else ""
    page.text(f"Marked rows need a look: {far}points whose error is more than {CONFIG.unwarned_factor:g} times the expected one.")
    rows: list[list[Cell]] = []
    ids, marked = list(m.pairs), set()
    for flat in order:
        i, k = np.unravel_index(flat, m.errors.shape)
        error, expected = float(m.errors[i, k]), float(m.expected[i, k])
        remark = f"beyond {CONFIG.far:g} mm" if error > CONFIG.far and m.unit == "mm" else ""
        if error > CONFIG.unwarned_factor * expected:
            remark += ("; " if remark else "") + f"more than {CONFIG.unwarned_factor:g} times the expected error"
        marked |= {len(rows)} if remark else set()
        rows.append([m.named(ids[i]), m.task.names[k], error, expected, remark])
    page.table(["image", "landmark", f"error ({m.unit})", f"expected error ({m.unit})", "remark"], rows, marked)


def _images(page: Page, m: _Measured) -> None:
    finite = {i: row[np.isfinite(row)] for i, row in zip(m.pairs, m.errors, strict=True)}
    means = {i: float(row.mean()) for i, row in finite.items() if row.size}
    worst_first = sorted(m.pairs, key=lambda i: -means.get(i, np.inf))  # an image without any point found comes first
    page.section("Images, the worst first")
    if any(i in m.images for i in m.pairs):
        page.text("Green crosses are the truth, amber rings the predictions; a line joins the two.")
        shown = _overlays(page, m, worst_first, CONFIG.worst_images, "Among the worst", means)
        middle = float(np.median([*means.values()])) if means else 0.0
        left = sorted((i for i in means if i not in shown), key=lambda i: abs(means[i] - middle))
        _overlays(page, m, left, CONFIG.typical_images, "Typical", means)
    rows: list[list[Cell]] = []
    far = set()
    for i in worst_first[: CONFIG.image_rows]:
        missed = int((m.pairs[i][1].defined & ~m.pairs[i][0].defined).sum())
        largest = float(finite[i].max()) if finite[i].size else None
        far |= {len(rows)} if largest is None or largest > CONFIG.far else set()
        rows.append([m.named(i), means.get(i), largest, missed])
    page.table(["image", f"mean error ({m.unit})", f"largest ({m.unit})", "not found"], rows, far)
    if len(worst_first) > len(rows):
        page.text(f"{len(worst_first) - len(rows)} images with smaller errors are not listed.")


def _overlays(page: Page, m: _Measured, order: Sequence[str], most: int, kind: str, means: Mapping[str, float]) -> set[str]:
    """Show the first images of ``order`` that can be read; returns all that were tried."""
    tried, shown = set(), 0
    for image_id in (i for i in order if i in m.images):
        if shown == most:
            break
        tried.add(image_id)
        try:
            image = read_image(m.images[image_id], m.task.dims)
        except LandmarkLabelError as error:
            page.text(f"Image {image_id} cannot be shown: {error}")
            continue
        mean = f"mean error {means[image_id]:.2f} {m.unit}" if image_id in means else "no point found"
        drawn = pictures.overlay(image, *m.pairs[image_id], title=m.named(image_id), unit=m.unit)
        page.picture(drawn, f"{kind}: {m.named(image_id)}, {mean}.", photograph=True)
        shown += 1
    return tried


def _presence(page: Page, task: LandmarkTask, pairs: Pairs, metrics: Mapping) -> None:
    found = np.array([p.defined for p, _ in pairs.values()])
    there = np.array([t.defined for _, t in pairs.values()])
    predicted_absent, truly_absent = (
        np.array([[s is Status.ABSENT for s in pair[k].status] for pair in pairs.values()]) for k in (0, 1)
    )
    if not (predicted_absent.any() or truly_absent.any()):
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
    counts = np.stack(
        [truly_absent.sum(axis=0), (found & truly_absent).sum(axis=0), (~found & there).sum(axis=0)], axis=1
    ).tolist()
    rows = [[name, *row] for name, row in zip(task.names, counts, strict=True) if any(row)]
    if rows:
        page.table(["landmark", "absent in the truth", "found, but absent", "not found, but there"], rows)


def _reliability(page: Page, expected: np.ndarray, errors: np.ndarray, unit: str) -> None:
    bins = reliability_bins(expected, errors)
    if not bins:
        return
    page.section("Can the expected error be trusted?")
    page.text("Points sorted by expected error, in groups of equal size. Actual and expected should agree.")
    page.picture(pictures.reliability(bins, unit), "Mean actual against mean expected error of each group.")
    page.table([f"mean expected ({unit})", f"mean actual ({unit})", "points"], bins)


def _regions(page: Page, radii: np.ndarray, errors: np.ndarray, unit: str) -> None:
    known = np.isfinite(radii) & np.isfinite(errors)
    if not known.any():
        return
    inside = errors <= radii
    whole = [row[k].all() for row, k in zip(inside, known, strict=True) if k.any()]
    page.section("Do the 95 % regions hold?")
    page.text(
        f"{100 * inside[known].mean():.1f} % of {known.sum()} points lie within the longest half axis of their region "
        f"(mean {radii[known].mean():.2f} {unit}), in {100 * np.mean(whole):.0f} % of the images all points do. Each region is "
        "made to hold its own landmark in 95 % of cases; all at once need larger ones."
    )


def reliability_bins(
    expected: np.ndarray, errors: np.ndarray, bins: int = CONFIG.calibration_bins
) -> list[tuple[float, float, int]]:
    """(mean expected, mean actual, points) of groups of equal size by expected error; pairs with NaN are left out."""
    both = np.isfinite(expected) & np.isfinite(errors)
    order = np.argsort(expected[both], kind="stable")
    groups = np.array_split(order, bins)
    return [(float(expected[both][g].mean()), float(errors[both][g].mean()), len(g)) for g in groups if len(g)]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} %"


def _interval(bounds: list[float] | None, unit: str, digits: int) -> str:
    if bounds is None or not np.isfinite(bounds).all():
        return "no confidence interval: too few images"
    return f"95 % confidence {bounds[0]:.{digits}f} to {bounds[1]:.{digits}f} {unit}"
