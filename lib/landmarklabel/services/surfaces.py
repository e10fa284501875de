"""The surfaces that a server's images are of: read once each, for the answers to be put onto them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from landmarklabel.inference.suggestion import Suggestion
from landmarklabel.io.surface_volumes import VolumeSurface, onto_surface, shows_surface, surface_at
from landmarklabel.io.surfaces import Surface
from landmarklabel.store.pixels import stamp


class Surfaces:
    """The last few surfaces that were asked for.

    Args:
        kept: how many.
    """

    def __init__(self, kept: int):
        self._kept = kept
        self._found: dict[tuple[Path, str], Surface | VolumeSurface] = {}  # oldest first

    def put_on(self, path: Path, suggestion: Suggestion) -> tuple[Suggestion, dict[str, float]]:
        """A suggestion for an image with its predicted points on the surface that the image is of, and how many mm each moved.

        Of an image that is no surface, nothing moves.
        """
        if not shows_surface(path):
            return suggestion, {}
        key = path, stamp(path)
        surface = self._found.pop(key, None) or surface_at(path)
        if surface is None:
            return suggestion, {}
        self._found[key] = surface
        while len(self._found) > self._kept:
            self._found.pop(next(iter(self._found)), None)
        landmarks, moved = onto_surface(suggestion.landmarks, surface)
        names = suggestion.landmarks.task.names
        return replace(suggestion, landmarks=landmarks), {n: float(mm) for n, mm in zip(names, moved, strict=True) if mm == mm}
