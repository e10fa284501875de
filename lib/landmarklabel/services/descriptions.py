"""What the image of a case says of the points on it: where they may lie, in which unit, and on which slice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from landmarklabel.errors import ImageRejected
from landmarklabel.geometry import SlicePlane
from landmarklabel.io.images import Description, describe_image
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.metrics import unit_of
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study


def describe(path: str | Path, dims: int | None = None) -> Description:
    """``describe_image``, looked up once for each state of a file: the headers of a long DICOM series take a while.

    Raises:
        ImageRejected: as ``describe_image``.
    """
    return _described(str(path), stamp(Path(path)), dims)


@lru_cache(maxsize=1024)
def _described(path: str, state: str, dims: int | None) -> Description:
    return describe_image(path, dims)


def image_unit(path: str | Path) -> str:
    """``mm``, or ``px`` for an image without spacing; ``mm`` also where the image cannot be read."""
    try:
        return describe(path).unit
    except ImageRejected:
        return "mm"


def unit_lookup(notes: Mapping[str, Mapping[str, object]], images: Mapping[str, Path]) -> Callable[[str], str]:
    """What tells the unit of an image's distances by its id: what ``predict`` noted of it, else the image itself, else ``mm``."""

    def unit(image_id: str) -> str:
        if noted := notes.get(image_id, {}).get("unit"):
            return str(noted)
        return image_unit(images[image_id]) if image_id in images else "mm"

    return unit


def of_unknown_unit(
    task: LandmarkTask, ids: Iterable[str], notes: Mapping[str, Mapping[str, object]], images: Mapping[str, Path]
) -> list[str]:
    """Cases whose lengths ``unit_lookup`` calls mm although they may be px: pictures that nobody has given."""
    if task.scale is not None or task.dims > 2:  # volumes state their spacing
        return []
    return [i for i in ids if i not in images and not notes.get(i, {}).get("unit")]


def image_plane(path: str | Path, dims: int) -> SlicePlane | None:
    """Where an image of a 2D task lies that is a slice of a volume; None for any other, or one that cannot be read."""
    try:
        return describe(path, dims).plane
    except ImageRejected:
        return None


def study_unit(study: Study) -> str:
    """The unit of errors in a study, told from its first image: all of them come from the same kind of device."""
    first = next(iter(study.images().values()), None)
    return unit_of(study.task, [image_unit(first)] if first is not None else ())
