"""The report at the end of ``landmarklabel demo``: what the annotator did, what was saved, and how the proposals got better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.metrics import mean_or_none, summarize
from landmarklabel.report import pictures
from landmarklabel.report.page import Page


class PlayedStudy(Protocol):
    """What ``cli.demo`` recorded of one study.

    ``rows`` (annotated cases), ``template`` and ``tests`` (the same test cases before and after the training) hold
    ``id``, ``proposal``, ``truth``, ``errors_mm``, ``wrong``, ``flagged`` and ``origin`` each; ``order`` compares the first
    cases chosen with the first by name.
    """

    @property
    def model(self) -> str: ...
    @property
    def unit(self) -> str: ...

    task: LandmarkTask
    rows: list[dict]
    training: dict
    template: list[dict]
    tests: list[dict]
    order: dict


def demo_figures(study: PlayedStudy) -> dict:
    """The figures of a study, for ``demo.json``; distances in ``unit``, None where there is nothing to measure."""
    last = study.training
    ratio = last["model_mm"] / last["template_mm"] if last["model_mm"] is not None and last["template_mm"] else None
    return {
        "model": study.model,
        "unit": study.unit,
        "test_images": len(study.tests),
        **{key: last.get(key) for key in _TRAINING},
        "model_of_template": ratio,
        "clicks": _clicks(study.rows),
        "clicks_with_a_model": _clicks([r for r in study.rows if r["origin"] == "model"]),
        "flags": _flags([r for r in [*study.rows, *study.tests] if r["origin"] == "model"]),
        "order": study.order,
    }


_TRAINING = ("labels", "template_mm", "model_mm", "missed", "points", "minutes", "state", "published", "reason")


def _clicks(rows: Sequence[dict]) -> dict:
    """Corrections made while each moved the rest, and points wrong before the first: what clicking alone would have taken."""
    points = sum(len(r["wrong"]) for r in rows)
    return {
        "cases": len(rows),
        "points": points,
        "assisted": int(sum(r["clicks"] for r in rows)),
        "alone": int(sum(r["wrong"].sum() for r in rows)),
    }


def _flags(rows: Sequence[dict]) -> dict:
    """Of the points a model proposed: how many were flagged, how many of these were wrong, and how many wrong ones there were."""
    flagged, wrong = (np.concatenate([np.zeros(0, bool), *(r[key] for r in rows)]) for key in ("flagged", "wrong"))
    return {
        "points": len(flagged),
        "flagged": int(flagged.sum()),
        "flagged_and_wrong": int((flagged & wrong).sum()),
        "wrong": int(wrong.sum()),
    }


def write_demo(path: Path, played: Sequence[PlayedStudy], folder: Path, failed: Mapping[str, str] | None = None) -> Path:
    """Write the report and return its path.

    Args:
        path: of the HTML file.
        played: the studies, in the order they were played.
        folder: holds ``tests2d`` and ``tests3d`` with the test images.
        failed: why a study is missing, by its name.
    """
    page = Page("LandmarkLabel demo: from no label to a model that proposes")
    page.text(
        "Synthetic images with exactly known landmarks: repeated look-alike parts, random pose, noise, some landmarks "
        "absent. A simulated annotator asked the server for the next case, looked at the proposed points, corrected the wrong "
        "ones, flagged ones first and then the worst, while each correction moved the rest, submitted, and had the model "
        "retrained; all through the server's HTTP interface. The test images were never in the study."
    )
    for name, reason in (failed or {}).items():
        page.text(f"The {name} study failed and is missing here: {reason}")
    for study in played:
        _study(page, study, folder / f"tests{study.task.dims}d")
    page.write(path)
    return path


def _study(page: Page, study: PlayedStudy, images: Path) -> None:
    page.section(f"{study.task.dims}D, model {study.model}: {len(study.task)} landmarks")
    _headline(page, study)
    numbers, means = [r["number"] for r in study.rows], [mean_or_none(r["errors_mm"]) for r in study.rows]
    trained = [m if r["origin"] == "model" else None for r, m in zip(study.rows, means, strict=True)]
    untrained = [None if r["origin"] == "model" else m for r, m in zip(study.rows, means, strict=True)]
    curve = list(zip(numbers, untrained, trained, strict=True))
    page.picture(
        pictures.learning_curve(
            curve,
            ("proposed by the template", "proposed by a trained model"),
            axes=("cases annotated", f"mean error of the proposals ({study.unit})"),
        ),
        "Error of the points proposed for each case, before the annotator touched it.",
    )
    before, after = (np.concatenate([t["errors_mm"] for t in tests]) for tests in (study.template, study.tests))
    page.picture(
        pictures.before_after(before, after, ("template", "after the training"), study.unit),
        f"Error on the test images: the template of {study.training['labels']} labels, and after training on them.",
    )
    t, distances = study.training, [f"{what} ({study.unit})" for what in ("template", "answers after it")]
    page.table(
        ["training after", "minutes", "model", *distances, "missed", "reason"],
        [
            [
                f"{t['labels']} cases", round(t["minutes"], 1), _published(t), t["template_mm"], t["model_mm"],
                f"{t['missed']} of {t['points']}", t.get("reason", ""),
            ]
        ],
    )  # fmt: skip
    _savings(page, study)
    page.table(
        ["case", "proposed by", f"mean error ({study.unit})", "wrong points", "corrections", "flagged", "why this case"],
        [
            [r["id"], r["origin"], m, int(r["wrong"].sum()), r["clicks"], int(r["flagged"].sum()), r["reason"]]
            for r, m in zip(study.rows, means, strict=True)
        ],
    )
    for test in sorted(study.tests, key=lambda t: -(mean_or_none(t["errors_mm"]) or 0.0))[:2]:
        file = next(images.glob(f"{test['id']}.*"))
        figure = pictures.overlay(read_image(file, study.task.dims), test["proposal"], test["truth"], test["id"], study.unit)
        off = _length(mean_or_none(test["errors_mm"]), study.unit)
        page.picture(figure, f"{test['id']}: mean error {off}; one of the two worst test images.", photograph=True)


def _headline(page: Page, study: PlayedStudy) -> None:
    metrics, figures = summarize([(t["proposal"], t["truth"]) for t in study.tests]), demo_figures(study)
    f1 = metrics["presence"]["f1"]
    page.numbers(
        [
            ("mean error", _length(figures["model_mm"], study.unit), f"on {metrics['n_images']} images never annotated"),
            (
                "template",
                _length(figures["template_mm"], study.unit),
                f"on the same, from the shapes of the same {figures['labels']} labels",
            ),
            ("median error", _length(metrics["median_mm"], study.unit), "after the training"),
            ("presence F1", "–" if f1 is None else f"{100 * f1:.0f} %", "absent landmarks recognised"),
            ("corrections", f"{figures['clicks']['assisted']}", f"instead of {figures['clicks']['alone']}, each alone"),
        ]
    )


def _savings(page: Page, study: PlayedStudy) -> None:
    """What the assistant, the flags and the order of cases gave, in words."""
    figures = demo_figures(study)
    for key, when in (("clicks", "All cases"), ("clicks_with_a_model", "Cases proposed by a trained model")):
        c = figures[key]
        if c["cases"]:
            page.text(
                f"{when}: {c['assisted']} corrections for {c['points']} points of {c['cases']} cases with the assistant moving "
                f"the rest; correcting each wrong point of the proposals alone would have taken {c['alone']}."
            )
    f = figures["flags"]
    if f["points"]:
        page.text(
            f"Flags: of {f['points']} points that a model proposed, {f['flagged']} were flagged, {f['flagged_and_wrong']} of "
            f"them indeed wrong; {f['wrong']} were wrong in all, so the flags caught {f['flagged_and_wrong']} of {f['wrong']}."
        )
    told = ", ".join(f"{name} {_length(value, study.unit)}" for name, value in study.order["template_mm"].items())
    page.text(
        f"Order of annotation: error of the template on the test images from the first {study.order['labels']} cases: {told}. "
        "One run on few cases: a difference of a few tenths is chance."
    )


def _published(training: dict) -> str:
    if training.get("state") != "done":
        return str(training.get("state") or "unknown")
    return "published" if training["published"] else "not published"


def _length(value: float | None, unit: str) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.2f} {unit}"
