"""Whether points lie in their image; where they do not, what may have gone wrong."""

from __future__ import annotations

import numpy as np

from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.tables import raise_capped
from landmarklabel.landmarks import LandmarkSet

_SHOWN_WITH_HINT = 2  # of the points that are outside, where one cause would explain all
_MARKS_OF_MISSING = (-1.0, -9.0, -99.0, -999.0, -9999.0, 9999.0, 99999.0)  # that programs write for a point that is not there


def check_inside(
    landmarks: LandmarkSet, image: ImageGeometry, what: str, allowed_mm: float = 0.0, option: str = "--allow-outside MM"
) -> None:
    """Raise LandmarkFileError where a point that somebody placed is outside of its image, naming all such points.

    Args:
        landmarks: of the image.
        image: where it lies.
        what: the file or case, for the message.
        allowed_mm: as far outside may a point be; one that is a usual mark of a missing point is refused all the same.
        option: how more is allowed, for the message.
    """
    placed = np.flatnonzero(landmarks.defined & landmarks.by_person)
    positions_mm = landmarks.positions_mm[placed]
    off_mm = outside_mm(positions_mm, image)
    marks = np.array([len(set(p)) == 1 and p[0] in _MARKS_OF_MISSING for p in positions_mm.tolist()], bool)
    bad = (off_mm > allowed_mm) | ((off_mm > 0) & marks)
    if not bad.any():
        return
    low, high = image.bounds_mm
    hint = _hint(positions_mm[~marks], image)
    faults = [
        f"landmark {landmarks.task.names[i]!r} at {_point(p)} is {off:.4g} outside of the image"
        + (" (a usual mark of a missing point: leave its cells empty instead, or write absent)" if mark else "")
        for i, p, off, mark in zip(placed[bad], positions_mm[bad], off_mm[bad], marks[bad], strict=True)
    ]
    if hint and len(faults) > _SHOWN_WITH_HINT:  # one cause for all: a few show it
        faults = [*faults[:_SHOWN_WITH_HINT], f"so are {len(faults) - _SHOWN_WITH_HINT} more"]
    faults.append(
        f"the image lies between {_point(low)} and {_point(high)} (LPS){hint}; {option} takes points that are meant to be outside"
    )
    raise_capped(what, faults)


def outside_mm(positions_mm: np.ndarray, image: ImageGeometry) -> np.ndarray:
    """(n,) how far (n, d) LPS mm are outside of the outer edges of an image's samples; 0 inside."""
    index = image.world_to_index(positions_mm)
    over = np.maximum(np.maximum(-0.5 - index, index - (np.array(image.size) - 0.5)), 0)
    over[over < 1e-6] = 0
    made: np.ndarray = np.linalg.norm(over * image.spacing, axis=-1)
    return made


def _hint(positions_mm: np.ndarray, image: ImageGeometry) -> str:
    """What the points would be if they were all inside: the usual mistakes of frame and scale."""
    if not outside_mm(positions_mm, image).any():  # only marks of missing points are: they say nothing of the others
        return ""
    flips = np.array([-1.0, -1.0, 1.0])[: image.dims]
    by_samples = image.index_to_world(positions_mm)
    guesses = {
        "read as RAS they would be inside: convert them to LPS (x and y change sign)": positions_mm * flips,
        "read as sample indices they would be inside: multiply by the pixel size, or see --voxels": by_samples,
        "halved they would be inside: were they placed on an image of twice the size?": positions_mm / 2,
        "a tenth of them would be inside: are they in tenths of a millimetre?": positions_mm / 10,
        "ten times as large they would be inside: are they in cm?": positions_mm * 10,
    }
    said = [text for text, moved in guesses.items() if not outside_mm(moved, image).any()]
    return f"; {said[0]}" if said and len(positions_mm) > 1 else ""


def _point(position_mm: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in position_mm) + ")"
