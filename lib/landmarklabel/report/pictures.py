"""Figures for reports: how large errors are and how they fall with labels; ``overlay`` shows them on an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landmarklabel.metrics import SDR_RADII_MM
from landmarklabel.report.configuration import CONFIG
from landmarklabel.report.overlay import overlay

__all__ = ["before_after", "error_curve", "learning_curve", "overlay", "per_landmark", "reliability"]

FIRST, SECOND, SOFT, INK = "#2563eb", "#e8710a", "#cfd6de", "#3b4653"


def error_curve(errors_mm: Sequence[float], missed: int = 0, unit: str = "mm") -> Figure:
    """Share of points within each distance of the truth, with the usual radii marked.

    Args:
        errors_mm: any shape; NaN is left out.
        missed: points that were not found: within no distance.
        unit: of the errors.
    """
    figure, ax = _chart(7.2, 3.8, f"error ({unit})", "points within this error (%)")
    values = _finite(errors_mm)
    _cumulative(ax, values, missed, FIRST)
    for r in SDR_RADII_MM:
        share = 100 * (values <= r).sum() / max(values.size + missed, 1)
        ax.plot([r, r], [0, share], color=INK, lw=0.8, ls=":")
        ax.plot(r, share, "o", color=FIRST, ms=5, label=f"within {r:g} {unit}: {share:.1f} %")
    _fit_errors(ax, values, unit)
    ax.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9, handlelength=1)
    return figure


def before_after(
    before_errors: Sequence[float],
    after_errors: Sequence[float],
    labels: tuple[str, str] = ("before", "after"),
    unit: str = "mm",
) -> Figure:
    """Share of points within each distance (in ``unit``) of the truth, for two sets of errors; NaN is left out."""
    figure, ax = _chart(7.2, 3.8, f"error ({unit})", "points within this error (%)")
    sets = [_finite(e) for e in (before_errors, after_errors)]
    for values, label, colour in zip(sets, labels, (SECOND, FIRST), strict=True):
        mean = f": mean {values.mean():.2f} {unit}, median {np.median(values):.2f} {unit}" if values.size else ": no points"
        _cumulative(ax, values, 0, colour, label + mean)
    _fit_errors(ax, np.concatenate(sets), unit)
    _legend(ax, loc="lower right")
    return figure


def per_landmark(metrics: Mapping) -> Figure:
    """Mean error of each landmark, largest first, with the median as a diamond.

    Args:
        metrics: from ``metrics.summarize``. Beyond 60 landmarks only the worst are drawn.
    """
    known = {n: m for n, m in metrics["per_landmark"].items() if m["mre_mm"] is not None}
    names = sorted(known, key=lambda n: -known[n]["mre_mm"])[: CONFIG.bars]
    figure, ax = _chart(7.2, 0.21 * len(names) + 1.0, f"error ({metrics.get('unit', 'mm')})", "")
    means, rows = [known[n]["mre_mm"] for n in names], np.arange(len(names))
    ax.barh(rows, means, height=0.68, color=FIRST, alpha=0.85, label="mean")
    ax.plot([known[n]["median_mm"] for n in names], rows, "D", color="white", mec=INK, ms=4, ls="", label="median")
    for row, mean in zip(rows, means, strict=True):
        ax.annotate(f"{mean:.2f}", (mean, row), (6, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    ax.set_yticks(rows, [n if len(n) <= 36 else n[:35] + "…" for n in names], fontsize=8, parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 1.12 * max(means, default=1.0) or 1.0)
    ax.grid(False, axis="y")
    _legend(ax, loc="lower right")
    return figure


def bland_altman(means: np.ndarray, differences: np.ndarray, lines: Sequence[float], what: str) -> Figure:
    """Differences of two readers (n,) against their means (n,), and lines across: bias and limits of agreement."""
    figure, ax = _chart(7.2, 3.2, f"mean of both readers: {what}", "difference")
    ax.scatter(means, differences, s=14, color=FIRST, alpha=0.7, lw=0)
    for value in lines:
        if np.isfinite(value):
            ax.axhline(value, color=INK, lw=1, ls="--")
            ax.annotate(
                f"{value:.2f}", (1, value), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center"
            )
    return figure


def learning_curve(
    points: Sequence[tuple[int, float | None, float | None]],
    labels: tuple[str, str] = ("before learning from these cases", "after"),
    target_mm: float | None = None,
    axes: tuple[str, str] = ("cases annotated", "mean error of the proposals (mm)"),
) -> Figure:
    """Error of the proposals while cases are annotated, or while one is corrected.

    Args:
        points: (cases annotated, MRE before, MRE after) in mm; None or NaN where unknown.
        labels: of the two lines.
        target_mm: drawn as a line.
        axes: their titles.
    """
    figure, ax = _chart(7.2, 3.8, *axes)
    table = np.array([[np.nan if v is None else v for v in row] for row in points], float).reshape(-1, 3)
    for column, colour, label, marker, up in zip((1, 2), (SECOND, FIRST), labels, "os", (6, -6), strict=True):
        known = np.isfinite(table[:, column])
        if known.any():
            ax.plot(table[known, 0], table[known, column], color=colour, marker=marker, ms=5, lw=1.8, label=label)
            x, y = table[known, 0][-1], table[known, column][-1]
            ax.annotate(f"{y:.2f}", (x, y), (7, up), textcoords="offset points", va="center", fontsize=9, color=colour)
    if target_mm is not None:
        ax.axhline(target_mm, color=INK, lw=1, ls=":", label=f"target {target_mm:g} mm")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.06)
    if isinstance(locator := ax.xaxis.get_major_locator(), MaxNLocator):
        locator.set_params(integer=True)
    _legend(ax, loc="upper right")
    return figure


def label_curves(curves: Mapping[str, Sequence], target_mm: float, unit: str = "mm") -> Figure:
    """Error against labels for several strategies.

    Args:
        curves: by strategy, [number of labels, [error of each seed]] in rising order.
        target_mm: drawn as a line.
        unit: of the errors.
    """
    figure, ax = _chart(7.2, 3.8, "labelled cases", f"mean error ({unit})")
    for number, (strategy, curve) in enumerate(curves.items()):
        curve, colour = [point for point in curve if point[1]], f"C{number}"
        counts = [n for n, _ in curve]
        means, best, worst = ([f(errors) for _, errors in curve] for f in (np.mean, np.min, np.max))
        ax.plot(counts, means, color=colour, marker="o", ms=4, lw=1.8, label=strategy)
        ax.fill_between(counts, best, worst, color=colour, alpha=0.15, lw=0)
    ax.axhline(target_mm, color=INK, lw=1, ls=":", label=f"target {target_mm:.2f} {unit}")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(sorted({n for curve in curves.values() for n, _ in curve}))
    ax.minorticks_off()
    low, high = ax.get_ylim()
    ax.set_yticks([mm for mm in (0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100) if low <= mm <= high])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    _legend(ax, loc="upper right")
    return figure


def reliability(bins: Sequence[tuple[float, float, int]], unit: str = "mm") -> Figure:
    """Actual against expected error; on the diagonal the expected error can be taken at its word.

    Args:
        bins: (mean expected error, mean actual error, points) in ``unit``.
        unit: of the errors.
    """
    figure, ax = _chart(4.6, 4.2, f"mean expected error ({unit})", f"mean actual error ({unit})")
    expected, actual = np.array([b[:2] for b in bins], float).reshape(-1, 2).T
    top = 1.1 * max(*expected, *actual, 1e-3) if len(bins) else 1.0
    ax.plot([0, top], [0, top], color=INK, lw=1, ls=":", label="as expected")
    ax.plot(expected, actual, "o-", color=FIRST, ms=6, lw=1.5, label="measured")
    ax.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    _legend(ax, loc="upper left")
    return figure


def _chart(width: float, height: float, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    ax = figure.subplots()
    ax.set_xlabel(x, color=INK)
    ax.set_ylabel(y, color=INK)
    ax.tick_params(colors=INK, labelsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(SOFT)
    ax.grid(color=SOFT, lw=0.6, alpha=0.7)
    ax.set_axisbelow(True)
    return figure, ax


def _legend(ax: Axes, loc: Literal["upper right", "lower right", "upper left", "lower left"]) -> None:
    handles, labels = ax.get_legend_handles_labels()
    legend = ax.legend(handles, labels, loc=loc, frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _finite(errors_mm: Sequence[float]) -> np.ndarray:
    values = np.asarray(errors_mm, float).ravel()
    return np.sort(values[np.isfinite(values)])


def _cumulative(ax: Axes, values: np.ndarray, missed: int, colour: str, label: str = "_") -> None:
    share = 100 * np.arange(values.size + 1) / max(values.size + missed, 1)
    far = max(1e3, 2 * values[-1]) if values.size else 1e3  # the line goes on to the edge of the picture
    ax.step([0, *values, far], [*share, share[-1]], where="post", color=colour, lw=2, label=label)


def _fit_errors(ax: Axes, values: np.ndarray, unit: str = "mm") -> None:
    """Show all but the last percent of errors, and how many lie beyond the picture."""
    right = max(5.0, 1.15 * float(np.percentile(values, 99))) if values.size else 5.0
    ax.set(xlim=(0, right), ylim=(0, 102))
    beyond = int((values > right).sum())
    if beyond:
        text = f"{beyond} beyond, up to {values.max():.0f} {unit} →"
        ax.text(0.995, 1.0, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=8, color=INK)
