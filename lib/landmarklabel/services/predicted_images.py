"""Whether the images that are there are those that were predicted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from landmarklabel.errors import FaultsError, listed
from landmarklabel.io.files import is_surface
from landmarklabel.io.surface_volumes import shows_surface
from landmarklabel.store.pixels import PixelHashes


def other_pixels(
    notes: Mapping[str, Mapping[str, object]], images: Mapping[str, Path], ids: Collection[str], known: PixelHashes
) -> list[str]:
    """A remark on the images whose pixels are not those that ``predict`` has noted, if there are any; surfaces are passed over.

    Args:
        notes: of ``read_notes``.
        images: id to file, as far as they are known.
        ids: of the images that count.
        known: of ``store.pixels.hashes_of``.
    """
    other = []
    for image_id in sorted(ids):
        noted, path = notes.get(image_id, {}).get("pixels"), images.get(image_id)
        if noted and path is not None and not is_surface(path) and not shows_surface(path):
            with suppress(FaultsError, OSError):  # what cannot be read is said elsewhere
                if known.of(path) != noted:
                    other.append(image_id)
    text = f"{len(other)} images are not the ones that were predicted: their pixels are others, so their figures mean nothing"
    return [f"{text}: {listed(other)}"] if other else []
