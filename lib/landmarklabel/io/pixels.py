"""The hash of decoded pixels and where they lie: the same for the same image, in whatever file it is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from landmarklabel.io.limits import LIMITS

if TYPE_CHECKING:
    from landmarklabel.geometry import ImageGeometry
    from landmarklabel.io.image_array import Image

_VERSION = "landmarklabel pixels 1"  # part of what is hashed: a hash of other rules never equals one of these
_TYPES = ("u1", "<i2", "<i4", "<i8", "<u8")


def pixel_hash(image: Image) -> str:
    """SHA-256 (64 hex digits) of an image's grey values and geometry, whatever file format, compression or type held them.

    Values are hashed in the first of uint8, int16, int32, int64, uint64 (all whole numbers), float32, float64 that holds every
    value of the image exactly, little-endian, in the order of the array axes [z, ]y, x. The type follows from the values
    alone, so that 8 bits in a png, 16 in a NIfTI file and whole numbers kept as float hash alike, and one changed grey value
    always shows. -0 is 0.

    Geometry is rounded, because formats keep it differently: NIfTI as float32 and quaternion, DICOM and NRRD as text. First
    to float32, then the spacing to 5 significant digits (less than a hundredth of a sample over 1000 samples), the origin to
    0.001 mm (a micrometre, finer than any scanner's table), the direction to 4 decimals (0.05 mm over half a metre). What differs
    by less is the same place for a landmark; what is written to another format and back differs by less than a thousandth of
    a step, so that once in hundreds of oblique images it may fall across a step and hash differently: then the same image is
    taken for another one, never another one for it.

    Args:
        image: pixels of any whole, float or bool type, in any memory layout; not changed and not copied as a whole.
    """
    digest = hashlib.sha256(json.dumps([_VERSION, *_place(image.geometry)]).encode())
    kind = _smallest_type(image.pixels)
    digest.update(kind.encode())
    for chunk in _chunks(image.pixels):
        values = chunk.astype(kind, copy=False)
        digest.update(((values + values.dtype.type(0)) if "f" in kind else values).data)  # -0 + 0 is 0
    return digest.hexdigest()


def _place(geometry: ImageGeometry) -> list:
    """Size and rounded geometry, as plain numbers; + 0 makes -0 a 0."""
    spacing = [float(f"{s:.4e}") for s in geometry.spacing.astype(np.float32)]
    origin = np.round(np.float32(geometry.origin).astype(float), 3) + 0.0
    direction = np.round(np.float32(geometry.direction).astype(float), 4) + 0.0
    return [list(geometry.size), spacing, origin.tolist(), direction.tolist()]


def _smallest_type(pixels: np.ndarray) -> str:
    """The first type that holds every value exactly."""
    if pixels.dtype.kind == "f":
        if all(_is_whole(chunk) for chunk in _chunks(pixels)):
            return _whole_type(int(pixels.min()), int(pixels.max()))
        return "<f4" if all(_fits_float32(chunk) for chunk in _chunks(pixels)) else "<f8"
    return _whole_type(int(pixels.min()), int(pixels.max()))


def _whole_type(lowest: int, highest: int) -> str:
    for kind in _TYPES:
        limits = np.iinfo(kind)
        if limits.min <= lowest and highest <= limits.max:
            return kind
    return "<f8"  # whole numbers beyond 64 bits were floats


def _is_whole(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (np.rint(values) == values).all())


def _fits_float32(values: np.ndarray) -> bool:
    if values.dtype.itemsize <= 4:
        return True
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float32), values, equal_nan=True))


def _chunks(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Flat pieces in C order; of another memory layout one slab along the first axis is copied at a time."""
    for slab in [pixels] if pixels.flags.c_contiguous else pixels:
        flat = np.ascontiguousarray(slab).reshape(-1)
        for start in range(0, flat.size, LIMITS.hash_samples):
            yield flat[start : start + LIMITS.hash_samples]
