"""The report of ``simulate clicks``: how much work the assistant saves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from landmarklabel.landmarks import LandmarkTask
from landmarklabel.report import pictures
from landmarklabel.report.page import Page

if TYPE_CHECKING:
    from landmarklabel.active.annotator import Clicks


def write_clicks(path: str | Path, task: LandmarkTask, played: Mapping[str, Clicks], result: Mapping) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        task: what was corrected.
        played: image id to its errors after each click.
        result: of ``summarize_clicks`` of these.
    """
    page = Page(f"{task.name}: error against clicks")
    page.text(
        f"{len(played)} images. A simulated annotator who knows the truth corrects the worst point first; a corrected point "
        "counts as exact. Assisted, every correction moves the other points, and detections that contradict the others are "
        "replaced before the first click. Alone, the points are the network's own and each is corrected by itself."
    )
    unit = result["unit"]
    points = [(k, *pair) for k, pair in enumerate(zip(result["alone_mre_mm"], result["mre_mm"], strict=True))]
    axes = ("clicks", f"mean error of all points ({unit})")
    page.picture(pictures.learning_curve(points, ("alone", "assisted"), axes=axes), "Mean over the images.")
    page.section("Clicks until every point is near enough")
    rows = [[f"{r} {unit}", needed["assisted"], needed["alone"]] for r, needed in result["noc"].items()]
    page.table(["within", "assisted", "alone"], rows)
    page.section("Images")
    ends = [
        (i, _mean(c.alone[0]), _mean(c.assisted[0]), _mean(c.assisted[min(1, len(c.assisted) - 1)])) for i, c in played.items()
    ]
    header = ["image", *(f"{when} ({unit})" for when in ("network alone", "shown before any click", "after one click"))]
    page.table(header, [list(row) for row in sorted(ends, key=lambda row: -row[2])])
    page.write(path)


def _mean(errors: np.ndarray) -> float:
    seen = errors[np.isfinite(errors)]
    return float(seen.mean()) if len(seen) else float("nan")
