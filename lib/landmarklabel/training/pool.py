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

ENOUGH = 100  # labelled and found cases together: more would cost time and teach little
MOST_BYTES = 2**30  # of pixels of found cases
LABELLED_SHARE = 0.3  # of the training cases, at least, when there are found ones


def find_cases(
    model: Localizer, labelled: int, pool: Sequence[Path], should_stop: Callable[[], bool] = lambda: False
) -> list[Case]:
    """Cases the model finds in unlabelled images: those whose shape makes sense, without the landmarks that contradict it.

    Args:
        model: trained, with a shape prior; without one nothing is found.
        labelled: how many labelled cases there are.
        pool: unlabelled images; unreadable ones are passed over.
        should_stop: asked before every image.
    """
    from landmarklabel.io.images import read_image  # here, where files are read: training on arrays needs no image reader

    found: list[Case] = []
    for path in pool[: max(0, ENOUGH - labelled)] if model.prior is not None else ():
        if should_stop() or sum(c.image.pixels.nbytes for c in found) > MOST_BYTES:
            break
        try:
            case = model.case(path.name, read_image(path, model.task.dims))
        except FaultsError:
            continue
        found += with_findings(model, [case])
    return found


def with_findings(model: Localizer, cases: Sequence[Case]) -> list[Case]:
    """The cases in which the model finds the study's shape, labelled by what it finds."""
    out = []
    for case in cases:
        suggestion = model.suggest(model.detect(case), case.image.geometry)
        if not suggestion.explained.doubtful:
            positions = np.where(suggestion.flagged[:, None], np.nan, suggestion.landmarks.positions_mm)
            landmarks = LandmarkSet.of_positions(model.task, positions)
            out.append(Case(case.image_id, case.image, landmarks, case.window))
    return out


def together(labelled: Sequence[Case], found: Sequence[Case]) -> list[Case]:
    """All cases, the labelled ones repeated so that they are not outnumbered."""
    if not found:
        return list(labelled)
    times = math.ceil(LABELLED_SHARE / (1 - LABELLED_SHARE) * len(found) / len(labelled))
    return [*labelled * max(times, 1), *found]
