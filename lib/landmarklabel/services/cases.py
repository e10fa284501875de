"""The labelled cases of a study, read for a training or a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from landmarklabel.data.cases import Case
from landmarklabel.data.mapped_pixels import PIXEL_FILES
from landmarklabel.errors import FaultsError, NotFound
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import read_image
from landmarklabel.io.memory import free_bytes
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.services.configuration import TRAINING
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study


def load_cases(study: Study, labels: Mapping[str, LandmarkSet], processes: int = 1) -> list[Case]:
    """Read the images of some labelled cases, sorted by id; what memory has no room for stays in temporary files.

    Args:
        study: whose.
        labels: by image id.
        processes: of this computer that read as many images, and share its memory.

    Raises:
        ImageRejected, NotFound, NoRoom.
    """
    room = _Room(processes)
    return [_load(study, i, labels[i], room) for i in sorted(labels)]


def read_cases(study: Study, labels: Mapping[str, LandmarkSet], processes: int = 1) -> tuple[list[Case], list[str]]:
    """As ``load_cases``, but an image that cannot be read, or has changed by now, leaves out itself only: a text says so."""
    cases, faults, room = [], [], _Room(processes)
    for image_id in sorted(labels):
        try:
            case = _load(study, image_id, labels[image_id], room)
        except (FaultsError, NotFound) as error:
            faults.append(f"{image_id} is left out: {error}")
            continue
        cases.append(case)
    changed = study.verify([case.image_id for case in cases])
    faults += [f"{c.image_id} is left out: the image was changed since it was labelled" for c in cases if c.image_id in changed]
    return [c for c in cases if c.image_id not in changed], faults


class _Room:
    """The memory that images may take, of what is free at the beginning."""

    def __init__(self, processes: int):
        self._left = TRAINING.memory_share * free_bytes() / processes

    def hold(self, image: Image) -> Image:
        """The image, with its pixels in memory while there is room, and in a file after that."""
        coarser_copies = 4 * image.pixels.size / 3  # floats, each copy shorter in two directions at least
        self._left -= image.pixels.nbytes + coarser_copies
        return image if self._left >= 0 else replace(image, pixels=PIXEL_FILES.keep(image.pixels))


def _load(study: Study, image_id: str, landmarks: LandmarkSet, room: _Room) -> Case:
    path = study.image_path(image_id)
    before = stamp(path)
    image = read_image(path, study.task.dims)
    study.task.check_image(image_id, image.unit)
    study.note_pixels(image_id, image, before)
    return Case(image_id, room.hold(image), landmarks)
