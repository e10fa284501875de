"""What the image of a case says of the points on it: where they may lie, in which unit, and on which slice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from landmarklabel.errors import ImageRejected
from landmarklabel.geometry import SlicePlane
from landmarklabel.io.images import Description, describe_image
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.metrics import unit_of
from landmarklabel.scale_rules import PixelSize, ScaleRule
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study

UNSURE = "mm or px"  # of a length where nobody knows whether the image states a spacing


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
    return known_unit(path) or "mm"


def known_unit(path: str | Path) -> str:
    """As ``image_unit``; empty where the image cannot be read."""
    try:
        return describe(path).unit
    except ImageRejected:
        return ""


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
    if isinstance(task.scale, ScaleRule) or task.dims > 2:  # it gives mm whatever the unit; volumes state their spacing
        return []
    return [i for i in ids if i not in images and not notes.get(i, {}).get("unit")]


def unit_or_unsure(unit: Callable[[str], str], unsure: Collection[str]) -> Callable[[str], str]:
    """``unit``, for tables: of the cases of ``of_unknown_unit`` it says that nobody knows."""
    of_those = frozenset(unsure)
    return lambda image_id: UNSURE if image_id in of_those else unit(image_id)


def check_scale(
    task: LandmarkTask, ids: Iterable[str], notes: Mapping[str, Mapping[str, object]], images: Mapping[str, Path]
) -> None:
    """Raise ImageRejected for a case that is known to be in mm where the task's scale rule is for pictures without."""
    for image_id in ids if isinstance(task.scale, PixelSize) else ():
        noted = str(notes.get(image_id, {}).get("unit") or "")
        task.check_image(image_id, noted or (known_unit(images[image_id]) if image_id in images else ""))


def image_plane(path: str | Path, dims: int) -> SlicePlane | None:
    """Where an image of a 2D task lies that is a slice of a volume; None for any other, or one that cannot be read."""
    try:
        return describe(path, dims).plane
    except ImageRejected:
        return None


def shown_length(task: LandmarkTask, unit: str) -> tuple[float, str]:
    """How a length on an image is shown: what it is multiplied by, and its unit then; ``unit`` need not be known for sure.

    Only the size of a pixel counts, and no image of such a task is in mm (``check_scale``): what a distance between two landmarks
    gives is known of whole cases only.
    """
    return (task.scale.mm, "mm") if isinstance(task.scale, PixelSize) else (1.0, unit)


def study_unit(study: Study) -> str:
    """The unit of errors in a study, told from its first image: all of them come from the same kind of device."""
    first = next(iter(study.images().values()), None)
    return unit_of(study.task, [image_unit(first)] if first is not None else ())
