"""The labelled cases of a study, read for a training or a measurement."""

from __future__ import annotations

from collections.abc import Mapping

from landmarklabel.data.cases import Case
from landmarklabel.errors import FaultsError, NotFound
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study


def load_cases(study: Study, labels: Mapping[str, LandmarkSet]) -> list[Case]:
    """Read the images of some labelled cases, sorted by id. Raises ImageRejected, NotFound."""
    return [_load(study, i, labels[i]) for i in sorted(labels)]


def read_cases(study: Study, labels: Mapping[str, LandmarkSet]) -> tuple[list[Case], list[str]]:
    """As ``load_cases``, but an image that cannot be read, or has changed by now, leaves out itself only: a text says so."""
    cases, faults = [], []
    for image_id in sorted(labels):
        try:
            case = _load(study, image_id, labels[image_id])
        except (FaultsError, NotFound) as error:
            faults.append(f"{image_id} is left out: {error}")
            continue
        cases.append(case)
    changed = study.verify([case.image_id for case in cases])
    faults += [f"{c.image_id} is left out: the image was changed since it was labelled" for c in cases if c.image_id in changed]
    return [c for c in cases if c.image_id not in changed], faults


def _load(study: Study, image_id: str, landmarks: LandmarkSet) -> Case:
    path = study.image_path(image_id)
    before = stamp(path)
    image = read_image(path, study.task.dims)
    study.note_pixels(image_id, image, before)
    return Case(image_id, image, landmarks)
