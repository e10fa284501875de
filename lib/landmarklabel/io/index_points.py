"""Landmarks as the seeds' data has them: one text file per image, one row of sample indices per landmark.

The ISBI 2015 cephalograms have rows ``x,y`` in pixels, followed by classification numbers; the voxel lists of the
global-to-local seed have rows ``z y x`` of the stored array (``x y`` in 2D). Sample centres are at whole numbers.
A file alone does not say where its points are: that takes the image (``IndexPoints.on``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from landmarklabel.errors import LandmarkFileError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.files import image_id_of
from landmarklabel.io.tables import coordinate_faults, decode, number_or_text, raise_capped, read_limited, shown
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

_SUFFIX = ".txt"
_SEPARATOR = re.compile(r"\s*,\s*|\s+")


@dataclass(frozen=True)
class IndexPoints:
    """All landmarks of one image as sample indices.

    Args:
        task: the task.
        index: (n, d) continuous index (x, y[, z]).
        what: the file or files they come from, for messages.
    """

    task: LandmarkTask
    index: np.ndarray
    what: str

    def on(self, image: ImageGeometry) -> LandmarkSet:
        """Where the points are (LPS mm, status placed). Raises LandmarkFileError naming all that the image lacks."""
        positions_mm = image.index_to_world(self.index)
        order = slice(None, None, -1) if self.task.dims == 3 else slice(None)
        axes, size = _axes(self.task.dims), image.size[order]
        outside = np.flatnonzero(~image.contains(positions_mm))
        raise_capped(
            self.what,
            [
                f"landmark {self.task.names[i]!r}: {axes} = {_text(self.index[i][order])} is outside of the image, "
                f"which has {_text(size)} samples along {axes}"
                for i in outside
            ],
        )
        return LandmarkSet.of_positions(self.task, positions_mm)


def _axes(dims: int) -> str:
    return "z y x" if dims == 3 else "x y"


def _text(values: Sequence[float]) -> str:
    return " ".join(f"{v:g}" for v in values)


def text_files(folder: str | Path) -> dict[str, Path]:
    """Image id to text file: ``a.txt``, ``a.nii.txt`` and ``a.nii.gz.txt`` are of image ``a``.

    Raises:
        LandmarkFileError: no folder, no text files, or two for one image.
    """
    out: dict[str, Path] = {}
    folder, faults = Path(folder), []
    try:
        paths = sorted(p for p in folder.iterdir() if p.name.lower().endswith(_SUFFIX) and not p.name.startswith("."))
    except OSError as error:
        raise LandmarkFileError(str(folder), [f"not a folder that can be read ({error.strerror})"]) from None
    for path in paths:
        image_id = image_id_of(path.name[: -len(_SUFFIX)])
        if out.setdefault(image_id, path) != path:
            faults.append(f"{out[image_id].name} and {path.name} would both be of image {image_id!r}")
    if not out:
        faults.append(f"no {_SUFFIX} files in this folder")
    raise_capped(str(folder), faults)
    return out


def read_isbi(folder: str | Path, task: LandmarkTask) -> dict[str, IndexPoints]:
    """Image id to one annotator's points: a row ``x,y`` a landmark, then any number of lines with a single number.

    Raises:
        LandmarkFileError: a task that is not 2D, or listing the faults of all files (the first 20).
    """
    if task.dims != 2:
        raise LandmarkFileError(str(folder), [f"ISBI files hold 2D points, the task {task.name!r} is {task.dims}D"])
    return _read_files(str(folder), text_files(folder), task, numbers_may_follow=True)


def read_voxels(folder: str | Path, files: Mapping[str, Path], task: LandmarkTask) -> dict[str, IndexPoints]:
    """Image id to the points of its voxel list: a row ``z y x`` (in 2D ``x y``) a landmark, and nothing else.

    Args:
        folder: for messages.
        files: what ``text_files`` found there, or the part of it that has images.
        task: the landmarks, in the order of the rows.

    Raises:
        LandmarkFileError: listing the faults of all files (the first 20).
    """
    return _read_files(str(folder), files, task, numbers_may_follow=False)


def mean_points(first: Mapping[str, IndexPoints], second: Mapping[str, IndexPoints]) -> dict[str, IndexPoints]:
    """The average of two annotators, image by image. Raises LandmarkFileError where only one has an image's points."""
    alone = sorted(set(first) ^ set(second))
    raise_capped("annotators", [f"image {i!r}: only {(first.get(i) or second[i]).what} has its points" for i in alone])
    return {
        i: IndexPoints(a.task, (a.index + second[i].index) / 2, f"mean of {a.what} and {second[i].what}")
        for i, a in first.items()
    }


def _read_files(what: str, files: Mapping[str, Path], task: LandmarkTask, numbers_may_follow: bool) -> dict[str, IndexPoints]:
    out, faults = {}, []
    for image_id, path in files.items():
        try:
            out[image_id] = IndexPoints(task, _read(path, task, numbers_may_follow), str(path))
        except LandmarkFileError as error:
            faults += [f"{path.name}: {fault}" for fault in error.faults]
    raise_capped(what, faults)
    return out


def _read(path: Path, task: LandmarkTask, numbers_may_follow: bool) -> np.ndarray:
    """(n, d) index (x, y[, z]) of one file. Raises LandmarkFileError listing all its faults."""
    faults: list[str] = []
    rows: list[list] = []  # also the bad ones, so that one bad line does not shift the landmarks after it
    for number, line in enumerate(decode(read_limited(path), str(path)).splitlines(), 1):
        if not line.strip():
            continue
        values = [number_or_text(cell) for cell in _SEPARATOR.split(line.strip())]
        if numbers_may_follow and len(rows) >= len(task) and len(values) == 1 and isinstance(values[0], float):
            continue
        rows.append(values)
        faults += [f"line {number}: {fault}" for fault in _row_faults(line.strip(), values, task.dims)]
    if len(rows) != len(task):
        faults.append(f"{len(rows)} rows of coordinates, the task {task.name!r} has {len(task)} landmarks")
    if faults:
        raise LandmarkFileError(str(path), faults)
    index = np.array(rows, np.float64)
    return index[:, ::-1] if task.dims == 3 else index


def _row_faults(line: str, values: list, dims: int) -> list[str]:
    if len(values) != dims:
        return [f"{shown(line)} has {len(values)} values; a row is {_axes(dims)}"]
    return coordinate_faults(values)
