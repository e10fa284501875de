"""The labelled cases of a study, read for a training or a measurement."""

from __future__ import annotations

from collections.abc import Mapping

from landmarklabel.data.cases import Case
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.store.study import Study


def load_cases(study: Study, labels: Mapping[str, LandmarkSet]) -> list[Case]:
    """Read the images of some labelled cases, sorted by id. Raises ImageRejected, NotFound."""
    dims = study.task.dims
    return [Case(i, read_image(study.image_path(i), dims), labels[i]) for i in sorted(labels)]
