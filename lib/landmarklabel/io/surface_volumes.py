"""The surface that a volume of distances shows: how such a volume is told from any other, and points put onto the surface.

See ``surfaces.distance_volume`` for the volume. A study keeps no other form of a surface.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from landmarklabel.io.files import is_surface
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import read_image, write_image
from landmarklabel.io.surfaces import CONFIG, FloatArray, Surface, read_surface
from landmarklabel.landmarks import LandmarkSet, Status

SUFFIX = ".nrrd"
_KEY = "LandmarkLabelSurfaceBand"  # in the header of such a file: the band of its grey values, in samples
_BAND = re.compile(rf"\n{_KEY}:=([0-9]{{1,3}}(?:\.[0-9]{{1,6}})?)\r?\n".encode())


class NoSurface(Exception):
    """A volume that no surface is in."""


class VolumeSurface:
    """The surface in a volume of distances, to about a twentieth of a sample where it is thicker than two.

    Args:
        image: from ``surfaces.distance_volume``.
        band: samples from the surface within which its grey values tell the distance.

    Raises:
        NoSurface: the volume shows none, or is none of distances.
    """

    def __init__(self, image: Image, band: float):
        self._geometry = image.geometry
        self._grey, self._per_grey = image.pixels.transpose(2, 1, 0), band / CONFIG.grey_per_band
        found = _crossings((self._grey.astype(np.float32) - CONFIG.grey_on_it) * np.float32(self._per_grey))
        if not 0 < len(found) <= CONFIG.most_crossings * self._grey.size:
            raise NoSurface
        _, first = np.unique(np.rint(found).astype(np.int32), axis=0, return_index=True)
        self._crossings = found[first]  # one beside every sample is enough to begin with
        self._tree = cKDTree(self._crossings)

    def nearest(self, places: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """As ``Surface.nearest``."""
        wanted = np.asarray(places, np.float64)
        index = self._geometry.world_to_index(wanted)
        best = self._crossings[self._tree.query(index)[1]]
        now = best
        for _ in range(CONFIG.refinements):
            now = self._refined(index, now)
            better = np.linalg.norm(now - index, axis=1) < np.linalg.norm(best - index, axis=1)
            on_it = np.abs(self._at(now)) < CONFIG.off_surface
            best = np.where((better & on_it)[:, None], now, best)
        found = self._geometry.index_to_world(best)
        return found, np.linalg.norm(found - wanted, axis=1)

    def _refined(self, wanted: FloatArray, at: FloatArray) -> FloatArray:
        """A step from places near the surface to where it is nearest to those wanted: along the plane that touches it there."""
        slope = self._slope(at)
        steep = np.linalg.norm(slope, axis=1, keepdims=True)
        normal = np.divide(slope, steep, out=np.zeros_like(slope), where=steep > 0)
        beside = wanted - at
        along = beside - (beside * normal).sum(1, keepdims=True) * normal
        length = np.linalg.norm(along, axis=1, keepdims=True)
        moved = at + along * np.minimum(1, 1 / np.maximum(length, 1e-9))  # a sample at most: farther off it has turned
        return np.asarray(moved - normal * self._at(moved)[:, None])

    def _slope(self, at: FloatArray) -> FloatArray:
        steps = np.eye(3) / 2
        return np.stack([self._at(at + step) - self._at(at - step) for step in steps], axis=1)

    def _at(self, index: FloatArray) -> FloatArray:
        """(k,) samples of depth, above 0 inside, at places between the samples."""
        grey = ndimage.map_coordinates(self._grey, index.T, np.float64, order=1, mode="nearest")
        return np.asarray((grey - CONFIG.grey_on_it) * self._per_grey)


def _crossings(depth: npt.NDArray[np.float32]) -> FloatArray:
    """(k, 3) indices where the depth passes 0 between two samples along an axis.

    Behind the band of an open surface it jumps from inside to outside: there is no surface.
    """
    found = []
    for axis in range(3):
        here = np.take(depth, np.arange(depth.shape[axis] - 1), axis)
        there = np.take(depth, np.arange(1, depth.shape[axis]), axis)
        which = ((here >= 0) != (there >= 0)) & (np.abs(here - there) <= CONFIG.steepest)
        index = np.argwhere(which).astype(np.float64)
        index[:, axis] += here[which] / (here[which] - there[which])
        found.append(index)
    return np.concatenate(found)


def write_surface_volume(path: Path, volume: Image) -> None:
    """Write a volume of ``distance_volume`` as a file that says what it is; as ``images.write_image``."""
    write_image(path, volume, {_KEY: f"{CONFIG.band:g}"})


def surface_at(path: Path) -> Surface | VolumeSurface | None:
    """The surface that a volume is of; None for any other. Raises ImageRejected."""
    if is_surface(path):
        return read_surface(path)
    if (band := _band(path)) is None:
        return None
    image = read_image(path)
    if image.geometry.dims != 3 or image.pixels.dtype != np.uint8 or min(image.pixels.shape) < 2:
        return None
    try:
        return VolumeSurface(image, band)
    except NoSurface:
        return None


def shows_surface(path: Path) -> bool:
    """Whether an image is of a surface; only the beginning of the file is read."""
    return is_surface(path) or _band(path) is not None


def _band(path: Path) -> float | None:
    if path.suffix.lower() != SUFFIX or not path.is_file():
        return None
    with path.open("rb") as file:
        found = _BAND.search(file.read(CONFIG.head_bytes).split(b"\n\n")[0] + b"\n")
    return float(found[1]) if found and float(found[1]) > 0 else None


def onto_surface(landmarks: LandmarkSet, surface: Surface | VolumeSurface | None) -> tuple[LandmarkSet, FloatArray]:
    """Predicted landmarks put onto the nearest point of a surface, and how far (n,) mm each moved.

    What a person has said stays; without a surface nothing moves. The distances of what does not move are NaN.
    """
    moved = np.full(len(landmarks), np.nan)
    predicted = np.array([status is Status.PREDICTED for status in landmarks.status], bool)
    if surface is None or not predicted.any():
        return landmarks, moved
    positions = landmarks.positions_mm.copy()
    positions[predicted], moved[predicted] = surface.nearest(positions[predicted])
    return replace(landmarks, positions_mm=positions), moved
