"""What an image file says of itself: its own header, parsed and checked before any reader allocates memory.

Decision: SimpleITK reads the pixels, but it accepts truncated files, NaN affines and headers that point to other files,
so every format's header is parsed first, in ``nifti_header``, ``raster_header``, ``image_text_headers`` and ``dicom_series``. A
parser takes a path and returns the header (None where not even the size is known) and the list of its faults.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from landmarklabel.io.limits import LIMITS


@dataclass(frozen=True)
class Header:
    """How many samples a file declares and where they lie.

    Args:
        size: samples along x, y[, z].
        sample_bytes: bytes of one sample of the stored data, all channels together.
        start: bytes before the first sample, in the decompressed stream if the whole file is compressed.
        stream: ``raw``, ``gzip-file`` (all of the file), ``deflate`` (from ``start`` on), ``pixels`` (png, jpg), or of DICOM
            files ``series`` and ``coded series`` (compressed).
        stored_bytes: length of the compressed data, None if it ends with the file.
        float_type: numpy type of the samples of a NIfTI file with real numbers: its reader turns NaN into 0 unseen.
        loaded_bytes: bytes of one sample once read, where the header rescales samples to a larger type.
        reader: who decodes the pixels: SimpleITK, or what reads a format that it does not.
        turn: EXIF orientation, 1 to 8, by which the stored pixels are to be turned.
        unit: of distances in the image: ``mm``, or ``px`` where the format states no spacing that means anything.
        data_file: where the samples lie, if not in the file itself.
        remarks: what a person should know of how the file is read.
    """

    size: tuple[int, ...]
    sample_bytes: int
    start: int = 0
    stream: str = "raw"
    stored_bytes: int | None = None
    float_type: str | None = None
    loaded_bytes: int | None = None
    reader: str = "SimpleITK"
    turn: int = 1
    unit: str = "mm"
    data_file: Path | None = None
    remarks: tuple[str, ...] = ()

    @property
    def voxels(self) -> int:
        return math.prod(self.size)

    @property
    def data_bytes(self) -> int:
        return self.voxels * self.sample_bytes


def length_faults(path: Path, header: Header) -> list[str]:
    """What the file's length says against its header, without reading the data."""
    length = (header.data_file or path).stat().st_size
    if header.stream == "raw":
        return _count_faults(length, header.start + header.data_bytes)
    if header.stored_bytes is not None and not 0 < header.stored_bytes <= length - header.start:
        held = length - header.start
        return [f"truncated: the header declares {header.stored_bytes} bytes of compressed data, the file holds {held}"]
    return []


def stream_faults(path: Path, header: Header, sink: Callable[[bytes], None] | None = None) -> list[str]:
    """What the data themselves say against the header: decompressed and counted in chunks, never kept.

    Args:
        path: of the file.
        header: its header.
        sink: gets every chunk of a raw or gzip NIfTI file, header included.
    """
    whole = header.stream != "deflate"
    declared = header.data_bytes + (header.start if whole else 0)
    path = header.data_file or path
    with path.open("rb") as file:
        if header.stream == "raw":
            while sink and (chunk := file.read(LIMITS.inflate_bytes)):
                sink(chunk)
            return []
        file.seek(0 if whole else header.start)
        stored = header.stored_bytes if header.stored_bytes is not None else path.stat().st_size
        try:
            count, complete = _inflated_length(file, stored, declared + LIMITS.trailing_bytes, sink)
        except zlib.error as error:
            return [f"damaged compressed data ({error})"]
    faults = _count_faults(count, declared, more="" if complete else "at least ")
    if not complete and not faults:
        faults = ["truncated: the compressed data ends before its checksum"]
    return faults


class FiniteMask:
    """Which samples of a NIfTI file are finite, gathered while its stream is checked (the ``sink``)."""

    def __init__(self, header: Header):
        self._header, self._skip, self._rest, self._count = header, header.start, b"", 0
        self._values: np.ndarray | None = None  # as long as all are finite, as in nearly every file, there is no mask

    def __call__(self, chunk: bytes) -> None:
        data = self._rest + chunk[self._skip :]
        self._skip = max(self._skip - len(chunk), 0)
        whole = len(data) - len(data) % self._header.sample_bytes
        self._rest = data[whole:]
        finite = np.isfinite(np.frombuffer(data[:whole], self._header.float_type))[: self._header.voxels - self._count]
        if self._values is None and not finite.all():
            self._values = np.ones(self._header.voxels, bool)
        if self._values is not None:
            self._values[self._count : self._count + len(finite)] = finite
        self._count += len(finite)

    @property
    def values(self) -> np.ndarray | None:
        """Bool, (voxels,) in the file's order, or None where all are finite."""
        return self._values


def _count_faults(found: int, declared: int, more: str = "") -> list[str]:
    if found < declared:
        return [f"truncated: the header declares {declared} bytes, the file holds {found}"]
    if found > declared + LIMITS.trailing_bytes:
        return [f"the header declares {declared} bytes, but the file holds {more}{found}; the header must be wrong"]
    return []


def _inflated_length(file: BinaryIO, stored: int, most: int, sink: Callable[[bytes], None] | None) -> tuple[int, bool]:
    """Bytes that a gzip or zlib stream unpacks to, stopping above ``most``, and whether it ended properly."""
    count, pending, decoder = 0, b"", zlib.decompressobj(47)
    while count <= most:
        if not pending:
            pending = file.read(min(LIMITS.inflate_bytes, stored))
            stored -= len(pending)
        if decoder.eof:
            if pending[:1] != b"\x1f":  # no further gzip member
                return count, True
            decoder = zlib.decompressobj(47)
        at_end = not pending
        unpacked = decoder.decompress(pending, LIMITS.inflate_bytes)
        count += len(unpacked)
        if sink:
            sink(unpacked)
        pending = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        if at_end and not unpacked and not decoder.eof:
            return count, False
    return count, decoder.eof


# --- shared ------------------------------------------------------------------------------------------------------


def spacing_faults(spacing: Sequence[float] | np.ndarray) -> list[str]:
    """Faults of the spacing along the axes."""
    spacing = np.asarray(spacing, float)
    good = np.isfinite(spacing).all() and (spacing > 0).all()
    return [] if good else [f"spacing {as_text(spacing)} must be finite and positive, one number per axis"]


def vector_faults(name: str, values: list[float] | None, count: int) -> list[str]:
    """What is wrong with a header's list of ``count`` numbers."""
    if values is None or len(values) != count or not np.isfinite(values).all():
        return [f"{name} {values} must be {count} finite numbers"]
    return []


def direction_faults(name: str, columns: np.ndarray) -> list[str]:
    """What is wrong with axes whose world directions, of any length, are the columns."""
    lengths = np.linalg.norm(columns, axis=0)
    if not (lengths > 0).all():
        return [f"{name} {columns.tolist()} is singular"]
    unit = columns / lengths
    error = np.abs(unit.T @ unit - np.eye(unit.shape[1])).max()
    if error <= 1e-3:
        return []
    return [f"{name} {columns.round(4).tolist()} is singular or sheared: its axes are not at right angles"]


def as_text(values: Sequence[float] | np.ndarray) -> str:
    """Numbers as they may appear in a message."""
    return "[" + ", ".join(f"{v:.6g}" for v in np.ravel(values)) + "]"


def listed(names: Iterable[object]) -> str:
    """Names, separated by commas."""
    return ", ".join(map(str, names))


def one_line(error: Exception) -> str:
    """An error's text, short and on one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
