"""Where the slices of a 2D study lie in the world: its label files show the points on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from landmarklabel.errors import ImageRejected, NotFound
from landmarklabel.geometry import SlicePlane
from landmarklabel.io.images import slice_plane
from landmarklabel.store.pixels import stamp


class SlicePlanes:
    """The planes of a study's images, each read again only when its file changes.

    Args:
        dims: of the study's task; images of a 3D task have no plane.
        path_of: an image's file or folder; raises NotFound.
    """

    def __init__(self, dims: int, path_of: Callable[[str], Path]):
        self._dims, self._path_of = dims, path_of
        self._known: dict[str, tuple[str, SlicePlane | None]] = {}

    def of(self, image_id: str) -> SlicePlane | None:
        """The plane of an image that is a slice of a volume, None for any other."""
        if self._dims != 2:
            return None
        try:
            path = self._path_of(image_id)
            now = stamp(path)
            if self._known.get(image_id, ("",))[0] != now:
                self._known[image_id] = now, slice_plane(path, 2)
            return self._known[image_id][1]
        except (ImageRejected, NotFound, OSError):
            return None
