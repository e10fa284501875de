"""An answer before any model is trained: the shape prior of the labelled cases, or, where no shape can be learned, their mean as
fractions of the field of view.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landmarklabel.data.cases import Case
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.configuration import ShapeModelConfig
from landmarklabel.inference.shape_prior import learn_prior
from landmarklabel.inference.suggestion import suggest
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status


class Template:
    """What answers while there is no model: the shape prior of labelled cases, or their mean where no shape can be learned.

    Args:
        task: the landmarks.
        labelled: geometry and landmarks of labelled cases.
    """

    def __init__(self, task: LandmarkTask, labelled: Sequence[tuple[ImageGeometry, LandmarkSet]]):
        self.task, self.labelled = task, labelled
        self.prior = learn_prior(labelled) if labelled else None

    def predict(self, case: Case) -> LandmarkSet:
        """The landmarks of a case, whatever its pixels."""
        geometry = case.image.geometry
        if self.prior is not None:
            return suggest(self.task, geometry, self.prior, None, Calibration()).landmarks
        return template_landmarks(self.task, geometry, self.labelled)


def template_landmarks(
    task: LandmarkTask, geometry: ImageGeometry, labelled: Sequence[tuple[ImageGeometry, LandmarkSet]]
) -> LandmarkSet:
    """Landmarks of an image from labelled images alone; unset where no case has the landmark.

    Args:
        task: the landmarks.
        geometry: of the image.
        labelled: geometry and landmarks of labelled cases; none gives an empty set.

    Returns:
        Positions in LPS mm, PREDICTED; the expected error is the spread over the cases (needs two), and never less than how far
        the pose of a case is taken to vary: a few that agree say little.
    """
    if not labelled:
        return LandmarkSet.empty(task)
    low, high = geometry.bounds_mm
    fractions = np.stack([_fractions(g, s) for g, s in labelled])
    counts = np.isfinite(fractions[..., 0]).sum(axis=0)
    mean = np.nansum(fractions, axis=0) / np.maximum(counts, 1)[:, None]
    positions = np.where(counts[:, None] > 0, low + mean * (high - low), np.nan)
    distances = np.linalg.norm((fractions - mean) * (high - low), axis=-1)
    spread = np.nansum(distances, axis=0) / np.maximum(counts - 1, 1)
    config, side = ShapeModelConfig(), float((high - low).mean())
    cases = np.maximum(counts, 1)
    least = side * np.sqrt(task.dims) * np.sqrt(config.pose_sd[0] ** 2 + config.first_pose_sd[0] ** 2 / cases**2)
    expected = np.where(counts > 1, np.sqrt(spread**2 * (cases + 1) / cases + least**2), np.nan)
    status = tuple(Status.PREDICTED if c else Status.UNSET for c in counts)
    return LandmarkSet(task, positions, status, expected_error_mm=expected)


def _fractions(geometry: ImageGeometry, landmarks: LandmarkSet) -> np.ndarray:
    low, high = geometry.bounds_mm
    made: np.ndarray = (landmarks.positions_mm - low) / (high - low)
    return made
