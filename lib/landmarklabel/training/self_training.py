"""What images without labels teach: a model's own findings, where its shape prior agrees with them, are labels for the next.

Source: self-training, as in Lee 2013 (pseudo-labels); here a shape prior decides which ones are believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from landmarklabel.data.cases import Case
from landmarklabel.errors import FaultsError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.training.configuration import SelfTrainingConfig


def find_pseudo_labels(
    model: Localizer,
    labelled: int,
    unlabelled: Sequence[Path],
    config: SelfTrainingConfig,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[Path, Case]:
    """Cases the model finds in unlabelled images, by path: those whose shape makes sense, without landmarks that contradict it.

    Args:
        model: trained, with a shape prior; without one nothing is found.
        labelled: how many labelled cases there are.
        unlabelled: images; unreadable ones are passed over.
        config: how many are enough.
        should_stop: asked before every image.
    """
    from landmarklabel.io.images import read_image  # here, where files are read: training on arrays needs no image reader

    found: dict[Path, Case] = {}
    for path in unlabelled[: max(0, config.max_cases - labelled)] if model.prior is not None else ():
        if should_stop() or sum(c.image.pixels.nbytes for c in found.values()) > config.max_pixel_bytes:
            break
        try:
            for case in pseudo_labelled(model, [model.case(path.name, read_image(path, model.task.dims))]):
                found[path] = case
        except FaultsError:
            continue
    return found


def labelled_image(model: Localizer, path: Path, positions_mm: np.ndarray) -> Case:
    """A case as ``find_pseudo_labels`` makes it, of positions (n, d) that another process found; NaN where it found none."""
    from landmarklabel.io.images import read_image

    case = model.case(path.name, read_image(path, model.task.dims))
    return Case(case.image_id, case.image, LandmarkSet.of_positions(model.task, positions_mm), case.window)


def pseudo_labelled(model: Localizer, cases: Sequence[Case]) -> list[Case]:
    """The cases in which the model finds the study's shape, labelled by what it finds."""
    out = []
    for case in cases:
        suggestion = model.suggest(model.detect(case), case.image.geometry)
        if suggestion.shape_fit is not None and not suggestion.shape_fit.needs_pose_search:
            positions = np.where(suggestion.flagged[:, None], np.nan, suggestion.landmarks.positions_mm)
            landmarks = LandmarkSet.of_positions(model.task, positions)
            out.append(Case(case.image_id, case.image, landmarks, case.window))
    return out


def together(labelled: Sequence[Case], found: Sequence[Case], min_share: float) -> list[Case]:
    """All cases, the labelled ones repeated so that they are at least a share of them."""
    if not found:
        return list(labelled)
    times = math.ceil(min_share / (1 - min_share) * len(found) / len(labelled))
    return [*list(labelled) * max(times, 1), *found]
