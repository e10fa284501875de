"""The surfaces that a server's images are of: read once each, for the answers to be put onto them."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from landmarklabel.inference.suggestion import Suggestion
from landmarklabel.io.surface_volumes import VolumeSurface, onto_surface, shows_surface, surface_at
from landmarklabel.io.surfaces import Surface
from landmarklabel.store.pixels import stamp

Found = Surface | VolumeSurface | None  # in an image


class Surfaces:
    """The surfaces of the study's images that were asked for last; any thread may ask. One is read at a time.

    Args:
        kept: how many.
    """

    def __init__(self, kept: int):
        self._kept = kept
        self._found: dict[tuple[Path, str], VolumeSurface | None] = {}  # oldest first
        self._changing, self._reading = threading.Lock(), threading.Lock()

    def put_on(self, path: Path, suggestion: Suggestion) -> tuple[Suggestion, dict[str, float]]:
        """A suggestion for an image with its predicted points on the surface that the image is of, and how many mm each moved.

        Of an image that is no surface, nothing moves.
        """
        task = suggestion.landmarks.task
        if task.dims != 3 or not shows_surface(path):
            return suggestion, {}
        landmarks, moved = onto_surface(suggestion.landmarks, self._surface(path))
        by_name = zip(task.names, moved.tolist(), strict=True)
        return replace(suggestion, landmarks=landmarks), {name: mm for name, mm in by_name if mm == mm}

    def _surface(self, path: Path) -> Found:
        key = path, stamp(path)
        is_known, surface = self._known(key)
        if not is_known:
            with self._reading:  # who asks for the same meanwhile finds it then
                is_known, surface = self._known(key)
                if not is_known:
                    surface = surface_at(path)
        if isinstance(surface, Surface):  # an uploaded file, which is asked for once, and may have gigabytes
            return surface
        with self._changing:
            self._found.pop(key, None)
            self._found[key] = surface
            while len(self._found) > self._kept:
                del self._found[next(iter(self._found))]
        return surface

    def _known(self, key: tuple[Path, str]) -> tuple[bool, Found]:
        with self._changing:
            return key in self._found, self._found.get(key)
