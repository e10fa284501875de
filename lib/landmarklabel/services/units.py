"""Units of the distances that people are shown: pixels where images state no spacing."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from landmarklabel.errors import ImageRejected
from landmarklabel.io.images import describe_image
from landmarklabel.metrics import unit_of
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study


def image_unit(path: str | Path) -> str:
    """``mm``, or ``px`` for an image without spacing; ``mm`` also where the image cannot be read."""
    return _unit(str(path), stamp(Path(path)))


@lru_cache(maxsize=1024)
def _unit(path: str, state: str) -> str:
    """Looked up once for each state of a file: the headers of a long DICOM series take a while."""
    try:
        return describe_image(path).unit
    except ImageRejected:
        return "mm"


def study_unit(study: Study) -> str:
    """The unit of errors in a study, told from its first image: all of them come from the same kind of device."""
    first = next(iter(study.images().values()), None)
    return unit_of(study.task, [image_unit(first)] if first is not None else ())
