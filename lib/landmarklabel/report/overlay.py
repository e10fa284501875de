"""Landmarks drawn on their image, predicted beside true.

Images are drawn along the world axes (LPS mm), so that the same anatomy looks the same however it was stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke

from landmarklabel.data.cases import Case, sample_linear
from landmarklabel.geometry import ImageGeometry, axis_aligned_grid
from landmarklabel.io.image_array import Image
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.metrics import point_errors_mm
from landmarklabel.report.configuration import CONFIG

TRUTH, PREDICTION = "#35d07f", "#ffb31a"
_SIDES = (("R", "L"), ("A", "P"), ("I", "S"))  # where each world axis comes from and goes to
_VIEWS = {2: {"": (0, 1)}, 3: {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}}
_HALO = [withStroke(linewidth=2.5, foreground="black", alpha=0.8)]


@dataclass(frozen=True)
class _Marks:
    """What is drawn on an image: (n, d) LPS mm, NaN where there is nothing; errors in mm after the scale rule."""

    names: tuple[str, ...]
    predicted_mm: np.ndarray
    truth_mm: np.ndarray
    expected: np.ndarray  # radius in units of the image
    errors: np.ndarray

    def only(self, i: int) -> _Marks:
        kept = (np.arange(len(self.names)) == i)[:, None]
        predicted, truth = (np.where(kept, p, np.nan) for p in (self.predicted_mm, self.truth_mm))
        return _Marks(self.names, predicted, truth, self.expected, self.errors)


def overlay(image: Image, predicted: LandmarkSet | None, truth: LandmarkSet | None, title: str = "", unit: str = "mm") -> Figure:
    """An image with predicted and true landmarks, and a close-up of the one with the largest error.

    In 3D the whole image is shown as maximum-intensity projections, the close-up as slices through the true position.

    Args:
        image: 2D or 3D, as the sets' task.
        predicted, truth: either may be None.
        title: shown above.
        unit: of the errors.
    """
    marks, dims, case = _marks(predicted, truth), image.geometry.dims, Case("", image)
    low, high = image.geometry.bounds_mm
    spacing = max(float(image.geometry.spacing.min()), float((high - low).max()) / CONFIG.samples(dims))
    whole = axis_aligned_grid(image.geometry, spacing)
    worst = int(np.nanargmax(marks.errors)) if np.isfinite(marks.errors).any() else None
    figure, rows, inches_per_mm = _layout(whole, worst is not None)
    block = _block(case, whole)
    named = [int(i) for i in np.argsort(-marks.errors)[: CONFIG.named_landmarks] if np.isfinite(marks.errors[i])]
    for ax, (view, plane) in zip(rows[0], _VIEWS[dims].items(), strict=True):
        _show(ax, _flat(block, plane, np.max), whole, plane, view)
        _draw_marks(ax, marks, plane)
    roomy = max(rows[0], key=lambda ax: abs(np.ptp(ax.get_xlim()) * np.ptp(ax.get_ylim())))
    plane = [*_VIEWS[dims].values()][rows[0].index(roomy)]
    _name_points(roomy, marks, plane, named, inches_per_mm, unit)
    if worst is not None:
        close = _around(marks, worst, (high - low).max())
        block, shown = _block(case, close), marks if dims == 2 else marks.only(worst)
        for k, (ax, (view, plane)) in enumerate(zip(rows[1], _VIEWS[dims].items(), strict=True)):
            _show(ax, _flat(block, plane, _middle), close, plane, view)
            _draw_marks(ax, shown, plane, size=2.0)
            if k == 0:
                text = f"largest error: {_short(marks.names[worst])}, {marks.errors[worst]:.1f} {unit}"
                ax.set_title(text, color="white", fontsize=9, loc="left", parse_math=False)
    _write_around(figure, predicted, truth, title)
    return figure


def _marks(predicted: LandmarkSet | None, truth: LandmarkSet | None) -> _Marks:
    known = predicted if predicted is not None else truth
    if known is None:
        return _Marks((), *(np.zeros((0, 3)),) * 2, *(np.zeros(0),) * 2)
    empty = LandmarkSet.empty(known.task)
    predicted, truth = predicted or empty, truth or empty
    errors = point_errors_mm(predicted, truth)
    return _Marks(known.task.names, predicted.positions_mm, truth.positions_mm, predicted.expected_error_mm, errors)


def _around(marks: _Marks, i: int, extent_mm: float) -> ImageGeometry:
    """A grid through the true position, wide enough for the predicted one unless that is far away."""
    points = np.stack([marks.predicted_mm[i], marks.truth_mm[i]])
    half = float(np.clip(1.25 * np.abs(points[0] - points[1]).max(), 0.07 * extent_mm, 0.25 * extent_mm))
    n = CONFIG.close_samples(points.shape[1]) + 1
    return ImageGeometry.identity((n,) * points.shape[1], 2 * half / (n - 1), tuple(points[1] - half))


def _block(case: Case, grid: ImageGeometry) -> np.ndarray:
    """([z, ]y, x) grey values on a grid along the world axes."""
    spacing = float(grid.spacing[0])
    axes = [(o + spacing * np.arange(n)).astype(np.float32) for o, n in zip(grid.origin, grid.size, strict=True)]
    positions = np.stack(np.meshgrid(*axes[::-1], indexing="ij")[::-1], -1)
    pixels, geometry = case.coarse(spacing)
    return sample_linear(pixels, geometry, positions, fill=case.window[0])


def _flat(block: np.ndarray, plane: tuple[int, int], along) -> np.ndarray:
    """A picture (rows: second axis of the plane) from a block; 2D blocks are pictures already."""
    return block if block.ndim == 2 else along(block, axis=2 - (3 - sum(plane)))


def _middle(block: np.ndarray, axis: int) -> np.ndarray:
    return np.take(block, block.shape[axis] // 2, axis=axis)


def _layout(grid: ImageGeometry, close: bool) -> tuple[Figure, list[list[Axes]], float]:
    """Axes for the whole image and, if wanted, for the close-up: beside each other in 2D, one above the other in 3D.

    The last number returned is about how many inches of the figure are 1 mm of the whole image.
    """
    extent, views = np.array(grid.size) * grid.spacing, [*_VIEWS[grid.dims].values()]
    if grid.dims == 2:
        ratios = [extent[0], extent[1]] if close else [extent[0]]
        height, shape = min(9.6 * extent[1] / sum(ratios), 7.0), (1, 1 + close)
        width, heights = max(height * sum(ratios) / extent[1], 4.0), [height]
    else:
        ratios, width = [extent[a] for a, _ in views], 10.0
        height = max(extent[b] for _, b in views) / sum(ratios) * width
        if height > 6:
            width, height = max(width * 6 / height, 5.0), 6.0
        heights, shape = [height, *[width / 3] * close], (1 + close, 3)
    figure = Figure(figsize=(width, sum(heights) + 0.9), facecolor="#111417", layout="constrained")
    top, *below = figure.subfigures(shape[0], 1, height_ratios=heights, squeeze=False)[:, 0]
    top.set_facecolor("none")
    rows = [[*top.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]]]
    if grid.dims == 2:
        return figure, [[axes] for axes in rows[0]], height / extent[1]
    for part in below:
        part.set_facecolor("none")
        rows.append([*part.subplots(1, 3)])
    return figure, rows, height / max(extent[b] for _, b in views)


def _show(ax: Axes, picture: np.ndarray, grid: ImageGeometry, plane: tuple[int, int], view: str) -> None:
    low, high = (grid.origin + s * grid.spacing for s in (-0.5, np.array(grid.size) - 0.5))
    (left, bottom), (right, top) = low[[*plane]], high[[*plane]]
    if plane[1] == 1:  # down in the picture is back in the patient, as in a radiograph's rows
        bottom, top = top, bottom
    dark, bright = np.percentile(picture, [0.5, 99.7])
    ax.imshow(
        picture, cmap="gray", origin="upper" if plane[1] == 1 else "lower", extent=(left, right, bottom, top),
        vmin=dark, vmax=max(bright, dark + 1e-6), interpolation="bilinear",
    )  # fmt: skip
    ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    ax.set_frame_on(False)
    if view:
        (west, east), (south, north) = _SIDES[plane[0]], _SIDES[plane[1]][:: -1 if plane[1] == 1 else 1]
        places = ((0.02, 0.5, west), (0.98, 0.5, east), (0.5, 0.03, south), (0.5, 0.97, north), (0.03, 0.03, view))
        for x, y, text in places:
            style: dict[str, Any] = {"ha": "left" if x < 0.1 else "right" if x > 0.9 else "center", "va": "center"}
            ax.text(x, y, text, transform=ax.transAxes, color="#b8c4d0", fontsize=8, path_effects=_HALO, **style)


def _draw_marks(ax: Axes, marks: _Marks, plane: tuple[int, int], size: float = 1.0) -> None:
    found, true = marks.predicted_mm[:, [*plane]], marks.truth_mm[:, [*plane]]
    for p, t, radius in zip(found, true, marks.expected, strict=True):
        ax.plot(*zip(p, t, strict=True), color=PREDICTION, lw=0.9 * size)
        if np.isfinite([*p, radius]).all():
            ax.add_patch(Circle(p, radius, fill=False, ec=PREDICTION, lw=0.7 * size, alpha=0.7))
    for points, marker, colour, scale in ((true, "+", TRUTH, 6.0), (found, "o", PREDICTION, 4.5)):
        for ink, width in (("black", 0.8 * size + 1.2), (colour, 0.8 * size + 0.2)):  # dark below, for bright bone
            ax.plot(*points.T, marker, mfc="none", mec=ink, ms=scale * size, mew=width)


def _name_points(ax: Axes, marks: _Marks, plane: tuple[int, int], named: Sequence[int], inches_per_mm: float, unit: str) -> None:
    """Names with errors, towards the side with more room and one below the other, tied to their points."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    at = {i: (marks.predicted_mm[i, [*plane]] - (left, bottom)) / (right - left, top - bottom) for i in named}
    right_by, below_by = (s / (inches_per_mm * abs(e)) for s, e in ((0.25, right - left), (0.18, top - bottom)))
    last = 1.0
    for i in sorted(at, key=lambda i: -at[i][1]):
        x, y = at[i]
        last = min(float(np.clip(y, below_by, 1 - below_by)), last - below_by)
        side = 1 if x < 0.5 else -1
        text = ax.annotate(
            f"{_short(marks.names[i], 28)}: {marks.errors[i]:.1f} {unit}", (x, y), (x + right_by * side, last),
            "axes fraction", color="white", fontsize=8, ha="left" if side > 0 else "right", va="center",
            path_effects=_HALO, annotation_clip=False, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": "#b8c4d0", "lw": 0.6},
        )  # fmt: skip
        text.set_in_layout(False)


def _write_around(figure: Figure, predicted, truth, title: str) -> None:
    lines = [_short(title, 90)] * bool(title) + _presence_lines(predicted, truth)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", color="white", fontsize=9, parse_math=False)
    keys = [Line2D([], [], ls="", marker="+", c=TRUTH, ms=8, mew=1.4, label="truth")] * (truth is not None)
    if predicted is not None:
        ring = np.isfinite(predicted.expected_error_mm).any()
        label = "prediction, ring: expected error" if ring else "prediction"
        keys.append(Line2D([], [], ls="", marker="o", mfc="none", mec=PREDICTION, ms=7, label=label))
    if keys:
        figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, labelcolor="white", fontsize=9)


def _presence_lines(predicted: LandmarkSet | None, truth: LandmarkSet | None) -> list[str]:
    """What the top left corner says about points that cannot be drawn."""
    if predicted is None:
        return []
    names, found = np.array(predicted.task.names, object), predicted.defined
    absent = np.array([s is Status.ABSENT for s in predicted.status])
    if truth is None:
        groups = {"absent": absent}
    else:
        really = np.array([s is Status.ABSENT for s in truth.status])
        groups = {
            "absent, as in the truth": absent & really,
            "missed": ~found & truth.defined,
            "found, but absent in the truth": found & really,
        }
        groups["absent, truth unknown"] = absent & ~truth.defined & ~really
    return [f"{key}: {_listed(names[which])}" for key, which in groups.items() if which.any()]


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(_short(n, 24) for n in names[:most]) + more


def _short(text: str, most: int = 32) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
