"""Whether landmarks lie on their surface; where they do not, which unit and frame of the surface would bring them there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from landmarklabel.configuration import Configuration, number
from landmarklabel.io.files import SURFACE_FRAMES, SURFACE_UNITS
from landmarklabel.io.surfaces import Surface
from landmarklabel.io.tables import raise_capped
from landmarklabel.landmarks import LandmarkSet


@dataclass(frozen=True)
class SurfaceCheckConfig(Configuration):
    """When a surface's unit or frame is taken to be wrong."""

    near: float = number(0.03, 0)  # median distance, in diagonals of the surface, of landmarks that lie on it
    times_nearer: float = number(3.0, 1)  # another unit must bring them so much nearer: some landmarks lie beside every surface


CONFIG = SurfaceCheckConfig()
_TO_RAS = np.array([-1.0, -1.0, 1.0])


def check_on_surface(landmarks: LandmarkSet, surface: Surface, what: str, unit: str, *, is_stated: bool = False) -> None:
    """Raise LandmarkFileError where landmarks are far from their surface, and are on it in another unit or frame of the surface.

    Args:
        landmarks: of the surface; where fewer than three have a place, nothing is said.
        surface: as it was read.
        what: the file or case, for the message.
        unit: as which the surface's coordinates were read, of ``SURFACE_UNITS``.
        is_stated: its file states this unit; else an option did.
    """
    places = landmarks.positions_mm[landmarks.defined]
    if len(places) < 3:
        return
    off = _relative_distance(surface, places)
    if off <= CONFIG.near:
        return
    others = {
        (u, turned): places * SURFACE_UNITS[unit] / factor * (_TO_RAS if turned else 1.0)
        for u, factor in SURFACE_UNITS.items()
        for turned in (False, True)
        if (u, turned) != (unit, False)
    }
    distances = {key: _relative_distance(surface, moved) for key, moved in others.items()}
    (best, turned), nearest = min(distances.items(), key=lambda item: item[1])
    if nearest > min(CONFIG.near, off / CONFIG.times_nearer):
        return
    how = "which the file itself states, and should not" if is_stated else f"say --mesh-unit {best}"
    said = [f"in {best} instead of {unit}: {how}"] if best != unit else []
    frames = " or ".join(SURFACE_FRAMES)
    other = f"in the other frame ({frames}): see --mesh-frame, and where the file states its frame, that of the landmarks"
    said += [other] if turned else []
    size = float(np.linalg.norm(np.ptp(surface.vertices, axis=0)))
    raise_capped(
        what,
        [
            f"they lie {off * size:.3g} mm from the surface (median), and that is {size:.3g} mm from corner to corner; "
            f"they would lie on it were its file {', and '.join(said)}"
        ],
    )


def _relative_distance(surface: Surface, places: npt.NDArray[np.float64]) -> float:
    """Median distance of places from a surface, in diagonals of the surface."""
    return float(np.median(surface.nearest(places)[1]) / np.linalg.norm(np.ptp(surface.vertices, axis=0)))
