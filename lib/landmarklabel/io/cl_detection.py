"""The CL-Detection challenges' files: all cephalograms in one .mha stack, and their points and pixel sizes in one JSON file.

``train_stack.mha`` holds 8-bit slices (one channel or RGB), padded with zeros to one size. ``train-gt.json`` has ``points``,
each with ``name``, ``point`` [x, y, number of the slice, from 1] in pixels from the upper left corner, and ``scale`` in mm a
pixel. Layout as the public reader of the challenge's baseline has it (szuboy/CL-Detection2023).
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from landmarklabel.errors import ImageRejected, LandmarkFileError, StudyError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import Limits, write_image
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.tables import coordinate_faults, decode, raise_capped, read_limited, shown
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # of red, green and blue, as ITK weights them


@dataclass(frozen=True)
class Stack:
    """Where a challenge's files are, and what they say of each image.

    Args:
        images: the .mha file.
        points: the .json file.
        scale: id to mm per pixel.
        index: id to name to (x, y) in pixels.
    """

    images: Path
    points: Path
    scale: dict[str, float]
    index: dict[str, dict[str, tuple[float, float]]]

    def landmarks(self, task: LandmarkTask) -> dict[str, LandmarkSet]:
        """Id to landmarks in LPS mm; those the file does not have are unset. Raises LandmarkFileError naming unknown ones."""
        foreign = sorted({name for found in self.index.values() for name in found} - set(task.names))
        if foreign:
            known = f"task {task.name!r} has {shown(list(task.names))}; --names takes a file that says which they are"
            raise LandmarkFileError(str(self.points), [f"landmarks {shown(foreign)} are not in the task; {known}"])
        out = {}
        for image_id, found in self.index.items():
            positions = np.array([found.get(name, (np.nan, np.nan)) for name in task.names]) * self.scale[image_id]
            statuses = tuple(Status.PLACED if name in found else Status.UNSET for name in task.names)
            out[image_id] = LandmarkSet(task, positions, statuses)
        return out


def read_stack(folder: str | Path) -> Stack:
    """Find the two files of a folder and read the points.

    Raises:
        StudyError: not one .mha and one .json file there.
        LandmarkFileError: listing the faults of the points.
    """
    files = {suffix: sorted(Path(folder).glob(f"*{suffix}")) for suffix in (".mha", ".json")}
    if any(len(found) != 1 for found in files.values()):
        counts = ", ".join(f"{len(found)} {suffix}" for suffix, found in files.items())
        raise StudyError(f"{folder}: --cl-detection needs one .mha file with all images and one .json file; there are {counts}")
    (images,), (path,) = files[".mha"], files[".json"]
    try:
        points = json.loads(decode(read_limited(path, LIMITS.stack_labels_bytes), str(path), LIMITS.stack_labels_bytes))["points"]
        entries = [(p["name"], p["point"], p["scale"]) for p in points]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise LandmarkFileError(str(path), [f"no list of points with name, point and scale ({type(error).__name__})"]) from None
    whole = [p[2] for _, p, _ in entries if isinstance(p, list) and len(p) == 3 and isinstance(p[2], int)]
    digits = max((len(str(n)) for n in whole if 1 <= n <= LIMITS.stack_slices), default=1)
    scale: dict[str, float] = {}
    index: dict[str, dict[str, tuple[float, float]]] = {}
    faults: list[str] = []
    for number, entry in enumerate(entries, 1):
        fault = _add(entry, digits, scale, index)
        faults += [f"point {number}: {fault}"] if fault else []
    raise_capped(str(path), faults)
    return Stack(images, path, scale, dict(sorted(index.items())))


def _add(entry: tuple, digits: int, scale: dict, index: dict) -> str | None:
    """Take one point in; says what is wrong with it."""
    name, point, size = entry
    whole = isinstance(point, list) and len(point) == 3 and isinstance(point[2], int) and 1 <= point[2] <= LIMITS.stack_slices
    if not isinstance(name, str) or not whole:
        return f"{shown([name, point])} is not a name with [x, y, number of the image from 1]"
    if bad := coordinate_faults(point[:2]):
        return bad[0]
    try:
        millimetres = float(size)
    except (TypeError, ValueError):
        millimetres = math.nan
    if not 1e-4 < millimetres < 100:
        return f"scale {shown(size)} is no size of a pixel in mm"
    image_id = f"{point[2]:0{digits}d}"
    if scale.setdefault(image_id, millimetres) != millimetres:
        return f"image {image_id} has pixels of {scale[image_id]:g} and of {millimetres:g} mm"
    found = index.setdefault(image_id, {})
    if name in found:
        return f"landmark {name!r} of image {image_id} was already given"
    found[name] = (float(point[0]), float(point[1]))
    return None


def unpack_images(stack: Stack, folder: Path, left_out: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Write each image without its padding as <id>.nii.gz with its spacing; yields ids and files.

    ``left_out`` gets the images without points, of which the files do not say how large their pixels are, and empty ones.

    Raises:
        ImageRejected: a stack that is none, is damaged, or ends early.
    """
    digits = len(next(iter(stack.index), "1"))
    for number, slice_ in enumerate(_slices(stack.images), 1):
        image_id = f"{number:0{digits}d}"
        rows, columns = (np.flatnonzero(slice_.any(axis=axis)) for axis in (1, 0))
        if image_id not in stack.scale or not len(rows):
            why = "it is empty" if not len(rows) else f"{stack.points.name} has no point of it, and so not the size of its pixels"
            left_out[f"image {image_id}"] = why
            continue
        pixels = slice_[: rows[-1] + 1, : columns[-1] + 1]  # the padding lies to the right and below: points stay where they are
        spacing = stack.scale[image_id]
        path = folder / f"{image_id}.nii.gz"
        write_image(path, Image(ImageGeometry.identity(pixels.shape[::-1], spacing, (0.0, 0.0)), pixels))
        yield image_id, path


def _slices(path: Path) -> Iterator[np.ndarray]:
    """(rows, columns) uint8 of each slice, one in memory at a time."""
    with path.open("rb") as file:
        head = file.read(LIMITS.stack_head_bytes)
        end = re.search(rb"^ElementDataFile[ \t]*=[ \t]*LOCAL\r?\n", head, re.MULTILINE)
        if end is None:
            raise ImageRejected(path.name, ["no header of an .mha stack of slices"])
        fields = dict(re.findall(r"(?m)^(\w+)\s*=\s*(.*?)\s*$", head[: end.start()].decode("ascii", "replace")))
        try:
            x, y, count = (int(n) for n in fields["DimSize"].split())
            channels, packed = int(fields.get("ElementNumberOfChannels", 1)), fields.get("CompressedData", "False") == "True"
        except (KeyError, ValueError):
            raise ImageRejected(path.name, ["no header of an .mha stack of slices"]) from None
        limits, slice_bytes = Limits(), x * y * channels
        if fields.get("ElementType") != "MET_UCHAR" or channels not in (1, 3):
            raise ImageRejected(path.name, ["the stack must have 8-bit samples of one channel or three"])
        if not (0 < count <= LIMITS.stack_slices and 0 < x * y <= limits.max_voxels and slice_bytes <= limits.max_bytes):
            raise ImageRejected(path.name, [f"too large: {count} slices of {x} x {y}"])
        file.seek(end.end())
        unpacker = zlib.decompressobj() if packed else None
        for number in range(count):
            samples = _take(file, unpacker, slice_bytes, path.name).reshape(y, x, channels)
            alike = channels == 1 or not (np.diff(samples, axis=-1)).any()
            if number == count - 1 and unpacker is not None:
                _check_end(file, unpacker, path.name)
            yield samples[..., 0] if alike else np.rint(samples @ _LUMINANCE).astype(np.uint8)


def _check_end(file: BinaryIO, unpacker: Any, name: str) -> None:
    """The compressed data must end whole: its checksum comes last."""
    try:
        unpacker.decompress(unpacker.unconsumed_tail + file.read(64), 64)
    except zlib.error:
        raise ImageRejected(name, ["damaged compressed data"]) from None
    if not unpacker.eof:
        raise ImageRejected(name, ["truncated: the compressed data does not end"])


def _take(file: BinaryIO, unpacker: Any, wanted: int, name: str) -> np.ndarray:
    """The next samples of a stream."""
    data = bytearray()
    try:
        while len(data) < wanted:
            if unpacker is None:
                piece = file.read(wanted - len(data))
            else:
                packed = unpacker.unconsumed_tail or file.read(2**20)
                piece = unpacker.decompress(packed, wanted - len(data)) if packed else b""
                if packed and not piece:
                    continue
            if not piece:
                raise ImageRejected(name, ["truncated: the stack ends before its last image"])
            data += piece
    except zlib.error:
        raise ImageRejected(name, ["damaged compressed data"]) from None
    return np.frombuffer(bytes(data), np.uint8)
