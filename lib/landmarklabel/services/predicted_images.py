"""Whether predictions are those of a model, and the images that are there those that were predicted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from landmarklabel.errors import FaultsError, StudyError, listed
from landmarklabel.io.files import is_surface
from landmarklabel.io.folders import find_label_files
from landmarklabel.io.prediction_folder import not_written_by_predict, notes_remarks, read_notes
from landmarklabel.io.surface_volumes import shows_surface
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.store.pixels import PixelHashes


def of_models(
    folder: str | Path, predicted: Mapping[str, LandmarkSet]
) -> tuple[dict[str, LandmarkSet], dict[str, dict[str, Any]], list[str]]:
    """Of the label files in a folder those that ``predict`` wrote, what it noted of them, and remarks.

    Args:
        folder: where ``predict`` did not write to it, all of it counts, and nothing is noted.
        predicted: of ``read_label_folder``.

    Raises:
        StudyError: somebody has changed every one of them.
    """
    other = not_written_by_predict(folder, find_label_files(folder).paths)
    kept = {i: x for i, x in predicted.items() if i not in set(other)}
    if other and not kept:
        why = "so none is a model's; to measure them, move them to a folder of their own"
        raise StudyError(f"{folder}: predict did not write these files, or they were changed since, {why}")
    notes = {i: note for i, note in read_notes(folder).items() if i in kept}
    remarks = [f"not written by predict, or changed since, and left out: {listed(other)}"] if other else []
    return kept, notes, [*remarks, *notes_remarks(notes)]


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
