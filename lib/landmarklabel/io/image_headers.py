"""What an image file says of itself: its own header, parsed and checked before any reader allocates memory.

Decision: SimpleITK reads the pixels, but it accepts truncated files, NaN affines and headers that point to other files,
so every format's header is parsed first: NIfTI, PNG and JPEG here, the text headers in ``image_text_headers``. A parser
takes a path and returns the header (None where not even the size is known) and the list of its faults.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

MARGIN = 64 * 1024  # bytes a file may hold beyond what its header declares (padding)
_CHUNK = 1 << 20
_MAX_NIFTI_OFFSET = 16 << 20


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
    """

    size: tuple[int, ...]
    sample_bytes: int
    start: int = 0
    stream: str = "raw"
    stored_bytes: int | None = None
    float_type: str | None = None
    loaded_bytes: int | None = None

    @property
    def voxels(self) -> int:
        return math.prod(self.size)

    @property
    def data_bytes(self) -> int:
        return self.voxels * self.sample_bytes


def length_faults(path: Path, header: Header) -> list[str]:
    """What the file's length says against its header, without reading the data."""
    length = path.stat().st_size
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
    if header.stream == "pixels":
        return _raster_data_faults(path)
    whole = header.stream != "deflate"
    declared = header.data_bytes + (header.start if whole else 0)
    with path.open("rb") as file:
        if header.stream == "raw":
            while sink and (chunk := file.read(_CHUNK)):
                sink(chunk)
            return []
        file.seek(0 if whole else header.start)
        stored = header.stored_bytes if header.stored_bytes is not None else path.stat().st_size
        try:
            count, complete = _inflated_length(file, stored, declared + MARGIN, sink)
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
    if found > declared + MARGIN:
        return [f"the header declares {declared} bytes, but the file holds {more}{found}; the header must be wrong"]
    return []


def _inflated_length(file: BinaryIO, stored: int, most: int, sink) -> tuple[int, bool]:
    """Bytes that a gzip or zlib stream unpacks to, stopping above ``most``, and whether it ended properly."""
    count, pending, decoder = 0, b"", zlib.decompressobj(47)
    while count <= most:
        if not pending:
            pending = file.read(min(_CHUNK, stored))
            stored -= len(pending)
        if decoder.eof:
            if pending[:1] != b"\x1f":  # no further gzip member
                return count, True
            decoder = zlib.decompressobj(47)
        at_end = not pending
        unpacked = decoder.decompress(pending, _CHUNK)
        count += len(unpacked)
        if sink:
            sink(unpacked)
        pending = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        if at_end and not unpacked and not decoder.eof:
            return count, False
    return count, decoder.eof


# --- NIfTI-1 -----------------------------------------------------------------------------------------------------

_NIFTI_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}


def parse_nifti(path: Path) -> tuple[Header | None, list[str]]:
    """The header of a .nii or .nii.gz file (NIfTI-1, one file, either byte order)."""
    packed = path.name.lower().endswith(".gz")
    raw, fault = _first_unpacked(path, 352) if packed else (_first(path, 352), None)
    if fault:
        return None, [fault]
    order = next((o for o in "<>" if raw[:4] == struct.pack(o + "i", 348)), None)
    if order is None:
        return None, [f"wrong magic {raw[:4]!r}: a NIfTI-1 file starts with the number 348 (NIfTI-2 is not supported)"]
    if len(raw) < 352:
        return None, [f"truncated: {len(raw)} bytes, a NIfTI-1 header has 352"]
    if raw[344:348] != b"n+1\0":
        return None, [f"wrong magic {raw[344:348]!r}; allowed is b'n+1\\x00' (one file, not a .hdr/.img pair)"]

    def field(code: str, offset: int) -> tuple:
        return struct.unpack_from(order + code, raw, offset)

    size, faults = _nifti_size(field("8h", 40))
    (intent,), (datatype, bitpix) = field("h", 68), field("2h", 70)
    sample_bytes, sample_faults = _nifti_sample(intent, datatype, bitpix)
    faults += sample_faults
    (offset,) = field("f", 108)
    if not (math.isfinite(offset) and offset == int(offset) and 352 <= offset <= _MAX_NIFTI_OFFSET):
        faults.append(f"vox_offset {offset:g} must be a whole number from 352 to {_MAX_NIFTI_OFFSET}")
    if size:
        faults += _nifti_geometry_faults(field, len(size))
    if size is None or sample_bytes is None or not math.isfinite(offset):
        return None, faults
    float_type = f"{order}f{sample_bytes}" if datatype in (16, 64) else None
    stream, scale = "gzip-file" if packed else "raw", field("2f", 112)
    scaled = scale not in ((1, 0), (0, 0)) and datatype != 64  # SimpleITK makes real numbers of them
    return Header(size, sample_bytes, int(offset), stream, None, float_type, max(4, sample_bytes) if scaled else None), faults


def _nifti_sample(intent: int, datatype: int, bitpix: int) -> tuple[int | None, list[str]]:
    faults, sample_bytes = [], _NIFTI_BYTES.get(datatype)
    if intent in (1004, 1005, 1006, 1007):
        faults.append(f"intent code {intent} is a vector or matrix image; allowed are scalar images")
    if sample_bytes is None:
        faults.append(f"datatype {datatype} is not supported; allowed are real scalars ({listed(_NIFTI_BYTES)})")
    elif bitpix != 8 * sample_bytes:
        faults.append(f"bitpix {bitpix} does not fit datatype {datatype}, which has {8 * sample_bytes}")
    return sample_bytes, faults


def _nifti_size(dim: tuple[int, ...]) -> tuple[tuple[int, ...] | None, list[str]]:
    count, sizes = dim[0], dim[1:]
    if not 1 <= count <= 7:
        return None, [f"dim[0] is {count}; allowed are 2 and 3 dimensions"]
    while count > 3 and sizes[count - 1] == 1:  # one time point: SimpleITK drops such axes too
        count -= 1
    if count not in (2, 3):
        return None, [f"{count} dimensions {sizes[:count]}; allowed are 2 and 3"]
    if min(sizes[:count]) < 1:
        return None, [f"size {sizes[:count]} must be positive"]
    return sizes[:count], []


def _nifti_geometry_faults(field, dims: int) -> list[str]:
    faults = []
    pixdim = np.array(field("8f", 76))
    spacing, (qform, sform) = pixdim[1 : dims + 1], field("2h", 252)
    spacing_fault = spacing_faults(spacing)
    faults += spacing_fault
    quaternion = np.array(field("6f", 256))
    if qform > 0 and not (np.isfinite(quaternion).all() and np.isfinite(pixdim[0])):
        faults.append(f"qform {quaternion.tolist()} must be finite")
    elif qform > 0 and np.square(quaternion[:3]).sum() > 1.001:
        faults.append(f"qform quaternion {quaternion[:3].tolist()} is no rotation: b²+c²+d² is above 1")
    if sform > 0:
        affine = np.array(field("12f", 280)).reshape(3, 4)
        if not np.isfinite(affine).all():
            faults.append(f"sform affine {affine.tolist()} must be finite")
        else:
            columns = affine[:, :dims]
            faults += direction_faults("sform affine", columns)
            lengths = np.linalg.norm(columns, axis=0)
            # SimpleITK would take pixdim and nibabel the sform: two different places for one landmark
            if not spacing_fault and lengths.all() and not np.allclose(lengths, spacing, rtol=2e-3):
                faults.append(f"spacing is {as_text(spacing)} in pixdim but {as_text(lengths)} in the sform affine")
    return faults


def _first(path: Path, wanted: int) -> bytes:
    with path.open("rb") as file:
        return file.read(wanted)


def _first_unpacked(path: Path, wanted: int) -> tuple[bytes, str | None]:
    packed = _first(path, 1 << 16)  # far more than 352 bytes need
    if packed[:2] != b"\x1f\x8b":
        return b"", f"wrong magic {packed[:2]!r}: a .nii.gz file is gzip data and starts with b'\\x1f\\x8b'"
    try:
        return zlib.decompressobj(47).decompress(packed, wanted), None
    except zlib.error as error:
        return b"", f"damaged compressed data ({error})"


# --- PNG and JPEG ------------------------------------------------------------------------------------------------

_RASTER_BYTES = {"1": 1, "L": 1, "P": 3, "RGB": 3, "RGBA": 4, "I;16": 2, "I;16B": 2, "I": 2}


def _open_raster(path: Path):
    """A Pillow image whose pixels are not decoded; the plugin is called directly so only its own format is tried."""
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    return (PngImageFile if path.name.lower().endswith(".png") else JpegImageFile)(str(path))


def parse_raster(path: Path) -> tuple[Header | None, list[str]]:
    """The header of a .png or .jpg file."""
    png = path.name.lower().endswith(".png")
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(max(path.stat().st_size - MARGIN, 0))
        tail = file.read()
    magic, end, kind = (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82", "PNG") if png else (b"\xff\xd8", b"\xff\xd9", "JPEG")
    if not start.startswith(magic):
        return None, [f"wrong magic {start!r}: a {kind} file starts with {magic!r}"]
    faults = [] if end in tail else [f"truncated: the {kind} data does not end with its end marker"]
    try:
        with _open_raster(path) as picture:
            size, mode = picture.size, picture.mode
            if mode not in ("P", "RGB") and "transparency" in picture.info:
                mode = "LA"  # what SimpleITK would make of it, and cannot read
    except Exception as error:  # Pillow raises many kinds for damaged files
        return None, [*faults, f"the {kind} header cannot be read ({one_line(error)})"]
    if mode not in _RASTER_BYTES:
        return None, [*faults, f"colour mode {mode} is not supported; allowed are grey, RGB and RGBA"]
    if min(size) < 1:
        return None, [*faults, f"size {size} must be positive"]
    return Header(tuple(size), _RASTER_BYTES[mode], stream="pixels"), faults


def _raster_data_faults(path: Path) -> list[str]:
    try:
        with _open_raster(path) as picture:
            picture.load()
    except Exception as error:  # Pillow raises many kinds for damaged files
        return [f"truncated or damaged data ({one_line(error)})"]
    return []


# --- shared ------------------------------------------------------------------------------------------------------


def spacing_faults(spacing) -> list[str]:
    """What is wrong with the distances of samples along the axes."""
    spacing = np.asarray(spacing, float)
    good = np.isfinite(spacing).all() and (spacing > 0).all()
    return [] if good else [f"spacing {as_text(spacing)} must be finite and positive, one number an axis"]


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


def as_text(values) -> str:
    """Numbers as they may appear in a message."""
    return "[" + ", ".join(f"{v:.6g}" for v in np.ravel(values)) + "]"


def listed(names) -> str:
    """Names, separated by commas."""
    return ", ".join(map(str, names))


def one_line(error: Exception) -> str:
    """An error's text, short and on one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
