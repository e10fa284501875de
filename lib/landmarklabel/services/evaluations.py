"""Predictions held against the truth: which images count, in which unit, and what a person should be told of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landmarklabel.errors import StudyError, listed
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.metrics import summarize, unit_of
from landmarklabel.services.measuring import measurement_errors

LEAST_POINTS, MOST_SIZE = 3, 1.5  # points that make a size; how many times too large or small predicted shapes are told to be


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Args:
        pairs: image id to (predicted, truth) of the images that count.
        metrics: of ``metrics.summarize``, with ``training_images``: ids among the predicted that the model was trained on.
        remarks: what a person should know, one text each.
        units: image id to the unit of its distances.
    """

    pairs: dict[str, tuple[LandmarkSet, LandmarkSet]]
    metrics: dict[str, Any]
    remarks: tuple[str, ...]
    units: dict[str, str] = field(default_factory=dict)


def compare(
    task: LandmarkTask,
    predicted: Mapping[str, LandmarkSet],
    truth: Mapping[str, LandmarkSet],
    *,
    unit: Callable[[str], str],
    trained_on: Collection[str] = (),
    include_training: bool = False,
    places: tuple[str, str] = ("the predictions", "the truth"),
) -> Comparison:
    """Measure the images that both have and that the model was not trained on.

    Args:
        task: of all sets.
        predicted, truth: image id to landmarks; of the truth, what a person has stated counts.
        unit: of an image's distances, by its id.
        trained_on: ids of images that the model was trained on.
        include_training: count those as well.
        places: what predictions and truth are called in messages.

    Raises:
        StudyError: no image is left to measure.
    """
    unconfirmed = {i: n for i, x in truth.items() if i in predicted and (n := int((x.defined & ~x.by_person).sum()))}
    truth = {i: x.stated() for i, x in truth.items()}
    both = [i for i in sorted(predicted) if i in truth and truth[i].defined.any()]
    if not both:
        only = f" that a person has placed or accepted: {sum(unconfirmed.values())} are predictions" if unconfirmed else ""
        apart = truth and not set(predicted) & set(truth)
        ids = f": their ids are {listed(sorted(predicted))}, and {listed(sorted(truth))}" if apart else ""
        raise StudyError(f"no image of {places[0]} has landmarks in {places[1]}{only}{ids}")
    unscaled = [i for i in both if not math.isfinite(truth[i].scaled_to_mm())]
    if unscaled and len(unscaled) == len(both):
        needed = " and ".join(_scale_of(task))
        raise StudyError(f"the task's scale needs {needed}, which {places[1]} has in no predicted image as points of a person")
    both = [i for i in both if i not in set(unscaled)]
    known = [i for i in both if i in set(trained_on)]
    used = both if include_training else [i for i in both if i not in set(known)]
    if not used:
        raise StudyError(
            f"all {len(both)} images were used to train the model that predicted them: how well it finds landmarks shows on "
            "others only; --include-training (include_training=True) measures it all the same"
        )
    pairs = {i: (predicted[i], truth[i]) for i in used}
    units = {i: unit(i) for i in used}
    metrics = summarize(list(pairs.values()), unit=unit_of(task, units.values()))
    metrics["training_images"] = known
    if task.measurements:
        metrics["measurements"] = measurement_errors(pairs, unit)
    missing = sorted(i for i, x in truth.items() if x.defined.any() and i not in predicted)
    remarks = _remarks(len(predicted) - len(both) - len(unscaled), known, missing, include_training)
    if unscaled:
        why = f"the task's scale needs {' and '.join(_scale_of(task))}"
        remarks = (f"{len(unscaled)} images are left out, because {why}: {listed(unscaled)}", *remarks)
    return Comparison(pairs, metrics, (*_unconfirmed(unconfirmed), *_sizes(pairs.values()), *remarks), units)


def _scale_of(task: LandmarkTask) -> tuple[str, ...]:
    return task.scale.landmarks if task.scale is not None else ()


def _sizes(pairs: Iterable[tuple[LandmarkSet, LandmarkSet]]) -> list[str]:
    """A remark where most predictions are of another size than the truth, as with other units or images of half size."""
    ratios = []
    for predicted, truth in pairs:
        both = predicted.defined & truth.defined
        if both.sum() >= LEAST_POINTS:
            own, true = (float(x.positions_mm[both].std(0).sum()) for x in (predicted, truth))
            ratios += [own / true] if true > 0 else []
    ratio = float(np.median(ratios)) if ratios else 1.0
    if MOST_SIZE**-1 < ratio < MOST_SIZE:
        return []
    return [
        f"the predicted shapes are {ratio:.2g} times as large as the true ones: are both of the same images, in the same unit?"
    ]


def _unconfirmed(found: Mapping[str, int]) -> list[str]:
    text = f"{sum(found.values())} points of the truth are predictions that nobody has confirmed, and do not count"
    return [f"{text}: {listed(sorted(found))}"] if found else []


def _remarks(without_truth: int, trained_on: list[str], missing: list[str], included: bool) -> tuple[str, ...]:
    remarks = [f"{without_truth} predicted images have no truth"] if without_truth else []
    if missing:
        remarks.append(f"{len(missing)} images of the truth have no prediction and do not count: {listed(missing)}")
    if trained_on:
        what = "are among these" if included else "are left out (--include-training has them)"
        remarks.append(f"{len(trained_on)} images that the model was trained on {what}: {listed(trained_on)}")
    return tuple(remarks)


def metrics_line(metrics: Mapping[str, Any]) -> str:
    """The metrics of ``summarize`` in one line."""
    if metrics.get("mre_mm") is None:
        return "no landmark found"
    sdr, outliers, unit = metrics["sdr"], metrics["outliers"], metrics.get("unit", "mm")
    return (
        f"MRE {metrics['mre_mm']:.3f} {unit}, median {metrics['median_mm']:.3f}, within 2/2.5/3/4 {unit} "
        f"{sdr['2']:.1f}/{sdr['2.5']:.1f}/{sdr['3']:.1f}/{sdr['4']:.1f} %, beyond 10 {unit} "
        f"{outliers['10']} of {metrics['n_points']}"
    )
