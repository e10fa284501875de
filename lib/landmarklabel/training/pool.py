"""What images without labels teach: with few labelled shapes, the trained model's own findings widen the shape prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from landmarklabel.errors import FaultsError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.prior import ShapePrior, learn_prior
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet

ENOUGH_SHAPES = 100  # labelled and found ones together


def widen_prior(
    model: Localizer,
    labelled: Sequence[tuple[ImageGeometry, LandmarkSet]],
    pool: Sequence[Path],
    should_stop: Callable[[], bool] = lambda: False,
) -> ShapePrior | None:
    """The prior of the labelled shapes and of those the model finds in unlabelled images.

    A finding counts where the prior of the labelled shapes does not contradict it; flagged landmarks are left out.

    Args:
        model: trained, with the prior of the labelled shapes.
        labelled: geometry and landmarks of the labelled cases.
        pool: unlabelled images; unreadable ones are passed over.
        should_stop: asked before every image.
    """
    if model.prior is None:
        return None
    found = []
    for path in pool[: max(0, ENOUGH_SHAPES - len(labelled))]:
        if should_stop():
            break
        try:
            image = read_image(path, model.task.dims)
        except FaultsError:
            continue
        suggestion = model.suggest(model.detect(model.case(path.name, image)), image.geometry)
        if suggestion.explained.doubtful:
            continue
        positions = np.where(suggestion.flagged[:, None], np.nan, suggestion.landmarks.positions_mm)
        found.append((image.geometry, LandmarkSet.of_positions(model.task, positions)))
    return learn_prior([*labelled, *found]) if found else model.prior
