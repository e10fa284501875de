"""The report of ``simulate labels``: how many labels a way of choosing needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from landmarklabel.landmarks import LandmarkTask
from landmarklabel.report import pictures
from landmarklabel.report.page import Page


def write_labels(
    path: str | Path, task: LandmarkTask, runs: Mapping[str, Mapping[int, Mapping[int, dict]]], result: Mapping
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        task: what was labelled.
        runs: metrics by strategy, seed and number of labels, with the ids chosen.
        result: of ``summarize_campaigns`` of these.
    """
    page, unit = Page(f"{task.name}: error against labels"), result["unit"]
    page.text(
        "Cases are labelled by the truth in the order a strategy chooses them; after each round a model is trained on them "
        f"and on the images that are left, and measured on others. All labels: {result['full_mre_mm']:.2f} {unit}. Lines are "
        "means over the seeds, bands reach from the best to the worst one."
    )
    page.picture(pictures.label_curves(result["curves"], result["target_mm"], unit), "Mean error on the images kept apart.")
    rows = [[s, result["labels_to_target"][s], result["worst_seed"][s]] for s in runs]
    page.table(["strategy", f"labels to {result['target_mm']:.2f} {unit}, mean of seeds", "worst seed"], rows)
    page.text("Empty: the target was not reached by every seed.")
    page.section("Every round")
    rows = []
    for strategy, curve in result["curves"].items():
        for count, errors in curve:
            beyond = [rounds[count]["outliers"]["10"] for rounds in runs[strategy].values() if count in rounds]
            mean, worst = (float(np.mean(errors)), float(np.max(errors))) if errors else (None, None)
            rows.append([strategy, count, mean, worst, float(np.mean(beyond))])
    page.table(["strategy", "labels", f"mean error ({unit})", f"worst seed ({unit})", f"points beyond 10 {unit}"], rows)
    page.section("What was chosen first")
    for strategy, seeds in runs.items():
        for seed, rounds in seeds.items():
            if rounds:
                page.text(f"{strategy}, seed {seed}: {', '.join(rounds[max(rounds)]['chosen'][:20])}")
    page.write(path)
