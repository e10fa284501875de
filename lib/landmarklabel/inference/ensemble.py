"""Several models of the same landmarks that answer together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landmarklabel.data.cases import Case
from landmarklabel.errors import TaskMismatch
from landmarklabel.inference.configuration import EnsembleConfig
from landmarklabel.inference.localizer import Localizer
from landmarklabel.io.image_array import Image
from landmarklabel.landmarks import LandmarkSet, Status


class Ensemble:
    """Models whose answers are merged, landmark by landmark.

    Args:
        models: at least one; the first prepares and checks the images.
        config: how answers are merged.

    Raises:
        TaskMismatch: models of different landmarks.
    """

    def __init__(self, models: Sequence[Localizer], config: EnsembleConfig | None = None):
        self.models, self.config = list(models), config or EnsembleConfig()
        first = self.models[0]
        for other in self.models[1:]:
            if other.task.hash != first.task.hash:
                raise TaskMismatch(
                    f"a model of {other.task.name!r} cannot answer together with one of {first.task.name!r}: "
                    "names, order and dimensions of the landmarks must agree"
                )
        self.task, self.preset = first.task, first.preset

    def case(self, image_id: str, image: Image) -> Case:
        """The image as it is: every model prepares its own."""
        return Case(image_id, image)

    def check_extent(self, case: Case) -> None:
        """Raise ImageRejected for an image that is far larger than those of any model's training."""
        for model in self.models:
            model.check_extent(case)

    def count_windows(self, case: Case) -> int:
        """How many windows all models look at."""
        return sum(model.count_windows(case) for model in self.models)

    def predict(self, case: Case) -> LandmarkSet:
        """The merged landmarks: PREDICTED, ABSENT or UNSET, with expected errors where all models have them."""
        return self.propose(case)[0]

    def propose(self, case: Case) -> tuple[LandmarkSet, list[str]]:
        """As ``predict``, and the names of the landmarks that any of the models flags: they contradict the others."""
        answers = [model.propose(model.case(case.image_id, case.image)) for model in self.models]
        flagged = np.any([answer.flagged for answer in answers], axis=0)
        together = merged([answer.landmarks for answer in answers], self.config)
        names = [name for name, is_flagged in zip(self.task.names, flagged & together.defined, strict=True) if is_flagged]
        return together, names


def merged(answers: Sequence[LandmarkSet], config: EnsembleConfig | None = None) -> LandmarkSet:
    """One answer of several.

    A landmark is there if most models say so; where they are divided, if the mean of their presence probabilities is a half or
    more. Its position is the mean of the models' positions, each weighted by the inverse of its squared expected error; positions
    that lie too far from the one with the least expected error do not count. The expected error grows with the models'
    disagreement. A model that was never shown a landmark has no say in it.

    Args:
        answers: of the same task and image.
        config: from when on positions are too far apart.
    """
    config, first = config or EnsembleConfig(), answers[0]
    if len(answers) == 1:
        return first
    n, d = first.positions_mm.shape
    positions, errors, status = np.full((n, d), np.nan), np.full(n, np.nan), []
    for i in range(n):
        told = [one for one in answers if one.status[i] is not Status.UNSET]
        there = [one for one in told if one.defined[i]]
        if not told:
            status.append(Status.UNSET)
        elif not there or not _is_there(told, len(there), i):
            status.append(Status.ABSENT)
        else:
            status.append(Status.PREDICTED)
            places = np.stack([one.positions_mm[i] for one in there])
            positions[i], errors[i] = _together(places, np.array([one.expected_error_mm[i] for one in there]), config)
    return LandmarkSet(first.task, positions, tuple(status), errors, unit=first.unit)


def _is_there(told: Sequence[LandmarkSet], count: int, i: int) -> bool:
    if 2 * count != len(told):
        return 2 * count > len(told)  # each has its own threshold for its own probability
    presence = [one.presence[i] for one in told if one.presence is not None]
    if len(presence) == len(told) and np.isfinite(presence).all():
        return float(np.mean(presence)) >= 0.5
    return True


def _together(places: np.ndarray, errors: np.ndarray, config: EnsembleConfig) -> tuple[np.ndarray, float]:
    """(d,) position and its expected error, of (m, d) positions with (m,) expected errors, NaN where unknown."""
    known = bool(np.isfinite(errors).all())
    weights = 1 / np.maximum(errors, config.least_error_mm) ** 2 if known else np.ones(len(places))
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    centre = int(np.argmin(errors)) if known else int(np.argmin(apart.sum(axis=1)))
    limit = config.far * np.hypot(errors, errors[centre]) if known else np.full(len(places), np.inf)
    counts = apart[centre] <= limit
    position = np.average(places[counts], axis=0, weights=weights[counts])
    spread = float(np.average(((places - position) ** 2).sum(axis=1), weights=weights))
    return position, float(np.sqrt(np.average(errors**2, weights=weights) + spread)) if known else float("nan")
