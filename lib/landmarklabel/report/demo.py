"""The report at the end of ``landmarklabel demo``: what the annotator did, and how the proposals got better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.metrics import summarize
from landmarklabel.report import pictures
from landmarklabel.report.page import Page


class PlayedStudy(Protocol):
    """What ``cli.demo`` recorded of one study: rows of annotated cases, of trainings and of test cases."""

    model: str
    task: LandmarkTask
    rows: list[dict]
    trainings: list[dict]
    tests: list[dict]


def write_demo(path: Path, played: Sequence[PlayedStudy], folder: Path) -> Path:
    """Write the report and return its path.

    Args:
        path: of the HTML file.
        played: the studies, in the order they were played.
        folder: holds ``study2d`` and ``study3d`` with the images.
    """
    page = Page("LandmarkLabel demo: from no label to a model that proposes")
    page.text(
        "Synthetic images with exactly known landmarks: repeated look-alike parts, random pose, noise, some landmarks "
        "absent. A simulated annotator asked the server for the next case, looked at the proposed points, corrected those "
        "that were wrong, submitted, and had the model retrained; all through the server's HTTP interface."
    )
    for study in played:
        _study(page, study, folder / f"study{study.task.dims}d")
    page.write(path)
    return path


def _study(page: Page, study: PlayedStudy, images: Path) -> None:
    task = study.task
    page.section(f"{task.dims}D, model {study.model}: {len(task)} landmarks")
    metrics = summarize([(t["proposal"], t["truth"]) for t in study.tests])
    page.numbers(
        [
            ("median error", _mm(metrics["median_mm"]), f"on {metrics['n_images']} images never annotated"),
            ("mean error", _mm(metrics["mre_mm"]), "on the same images"),
            ("presence F1", f"{100 * (metrics['presence']['f1'] or 0):.0f} %", "absent landmarks recognised"),
            ("corrections", f"{study.rows[-1]['clicks']} of {len(task)}", "in the last annotated case"),
        ]
    )
    numbers, means = [r["number"] for r in study.rows], [_mean(r["errors_mm"]) for r in study.rows]
    trained = [np.nan if r["origin"] != "model" else m for r, m in zip(study.rows, means, strict=True)]
    untrained = [np.nan if r["origin"] == "model" else m for r, m in zip(study.rows, means, strict=True)]
    curve = list(zip(numbers, untrained, trained, strict=True))
    page.picture(
        pictures.learning_curve(curve, ("proposed by the template", "proposed by a trained model")),
        "Error of the points proposed for each case, before the annotator touched it.",
    )
    untrained_errors = np.concatenate([r["errors_mm"] for r in study.rows if r["origin"] != "model"])
    test_errors = np.concatenate([t["errors_mm"] for t in study.tests])
    page.picture(
        pictures.before_after(untrained_errors, test_errors, ("before any training", "after the last training")),
        "Error of the proposals before any training, and of the final model on images it has never seen.",
    )
    page.table(
        ["training after", "minutes", "result", "reason"],
        [[f"{t['labels']} cases", round(t["minutes"], 1), t.get("state", ""), t.get("reason", "")] for t in study.trainings],
    )
    page.table(
        ["case", "proposed by", "mean error (mm)", "points corrected", "why this case"],
        [[r["id"], r["origin"], _rounded(m), r["clicks"], r["reason"]] for r, m in zip(study.rows, means, strict=True)],
    )
    for test in sorted(study.tests, key=lambda t: -_mean(t["errors_mm"]))[:2]:
        file = next(images.glob(f"{test['id']}.*"))
        figure = pictures.overlay(read_image(file, task.dims), test["proposal"], test["truth"], test["id"])
        page.picture(figure, f"{test['id']}: mean error {_mm(_mean(test['errors_mm']))}; one of the two worst test images.")


def _mean(errors: np.ndarray) -> float:
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else float("nan")


def _mm(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.2f} mm"


def _rounded(value: float) -> float | str:
    return round(value, 2) if np.isfinite(value) else "–"
