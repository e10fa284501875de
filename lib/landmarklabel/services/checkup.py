"""Faults of a study that a program can see: images that cannot be read, points outside of them or where no others lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from landmarklabel.data.shape_outliers import shape_outliers
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.io.bounds_check import check_inside
from landmarklabel.io.images import Description, describe_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask


def look_at_images(images: Mapping[str, Path], dims: int) -> tuple[dict[str, Description], list[str]]:
    """What the images' headers say, and why those that are missing cannot be read."""
    found, faults = {}, []
    for image_id, path in images.items():
        try:
            found[image_id] = describe_image(path, dims)
        except LandmarkLabelError as error:
            faults.append(str(error))
    return found, faults


def points_outside(labelled: Mapping[str, LandmarkSet], images: Mapping[str, Description]) -> list[str]:
    """A text for each image with points outside of it."""
    faults = []
    for image_id, landmarks in labelled.items():
        if image_id in images:
            try:
                check_inside(landmarks, images[image_id].geometry, image_id, option="import --allow-outside MM")
            except LandmarkLabelError as error:
                faults.append(str(error))
    return faults


def unlabelled_landmarks(labelled: Mapping[str, LandmarkSet], task: LandmarkTask) -> list[str]:
    """Names of landmarks of which no case says anything; empty without cases."""
    if not labelled:
        return []
    stated = np.any([x.by_person for x in labelled.values()], axis=0)
    return [name for name, known in zip(task.names, stated, strict=True) if not known]


def odd_shapes(labelled: Mapping[str, LandmarkSet], images: Mapping[str, Description]) -> list[str]:
    """A text for each point that lies far from where the other cases have it."""
    out = []
    for o in shape_outliers(labelled):
        unit = images[o.image_id].unit if o.image_id in images else "mm"
        out.append(
            f"{o.image_id}: {o.name} is {o.off_mm:.1f} {unit} from its usual place (half of the cases: {o.typical_mm:.1f})"
        )
    return out
