"""What the bytes of a DICOM file say against its header.

Decision: GDCM allocates what an element, a fragment or an embedded picture declares, before it looks whether that is there, so a
file of some kB can take 16 GB; all three are checked first.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

_PIXEL_DATA, _UNDEFINED = 0x7FE00010, 0xFFFFFFFF
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_SYNTAX = "1.2.840.10008.1.2"
_RAW = {_SYNTAX, f"{_SYNTAX}.1", f"{_SYNTAX}.2"}
_RLE = f"{_SYNTAX}.5"
_CODED = {f"{_SYNTAX}.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)}  # JPEG, JPEG-LS, JPEG 2000
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG's start of a frame, and JPEG-LS's


def check_data(path: Path, header: Any, size: tuple[int, int], sample_bytes: int, frames: int = 1) -> None:
    """Raises ValueError where the bytes of a file are not what its header needs.

    Args:
        path: the file.
        header: its pydicom data set, read with ``defer_size`` and without conversions.
        size: columns and rows.
        sample_bytes: bytes of one pixel.
        frames: in the file; compressed ones must be a fragment each.
    """
    end = path.stat().st_size
    pixels = next((e for e in header.values() if e.tag == _PIXEL_DATA), None)
    if pixels is None:
        raise ValueError("no pixel data")
    syntax, declared = header.file_meta.TransferSyntaxUID, size[0] * size[1] * sample_bytes * frames
    if syntax not in _RAW | _CODED | {_RLE}:
        raise ValueError(f"transfer syntax {syntax!s:.64} is not supported; allowed are raw, RLE, JPEG, JPEG-LS and JPEG 2000")
    if (pixels.length == _UNDEFINED) != (syntax not in _RAW):
        raise ValueError("pixels in fragments must be compressed, others must not")
    if syntax in _RAW and min(pixels.length, end - pixels.value_tell) < declared:
        held = min(pixels.length, end - pixels.value_tell)
        raise ValueError(f"truncated: {size[0]} x {size[1]} pixels are {declared} bytes, the file holds {held}")
    _check_order(header)
    _check_lengths(header, end)
    if syntax not in _RAW:
        fragments = _fragments(path, pixels.value_tell, end)
        pictures = [b"".join(fragments)] if frames == 1 else fragments
        if len(pictures) != frames:
            raise ValueError(f"{len(pictures)} fragments of compressed data for {frames} frames; allowed is one each")
        if syntax in _CODED and any(_coded_size(coded) != (*size, 1) for coded in pictures):
            raise ValueError(f"the compressed picture is not one of {size[0]} x {size[1]} grey values")


def is_coded(header: Any) -> bool:
    """Whether the pixels are compressed."""
    return header.file_meta.TransferSyntaxUID not in _RAW


def _check_order(header: Any) -> None:
    """Where elements are out of order or of no known type, GDCM and pydicom do not see the same ones."""
    from pydicom.valuerep import STANDARD_VR

    elements = list(header.values())
    for before, element in zip(elements, elements[1:], strict=False):
        if element.tag < before.tag:
            raise ValueError(f"element {element.tag} follows {before.tag}; elements must be in ascending order")
    odd = [e.tag for e in elements if e.VR not in STANDARD_VR and not header.is_implicit_VR]
    if odd:
        raise ValueError(f"element {odd[0]} is of no known type")


def _check_lengths(elements: Any, end: int) -> None:
    """No element, also inside of sequences, may be longer than what is there."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR
    from pydicom.dataelem import RawDataElement

    for element in list(elements.values()):
        vr = element.VR
        if isinstance(element, RawDataElement):
            if vr is None and dictionary_has_tag(element.tag):
                vr = dictionary_VR(element.tag)
            held = end - element.value_tell if element.value is None else len(element.value)
            if element.length != _UNDEFINED and element.length > max(held, 0):
                raise ValueError(f"truncated: element {element.tag} declares {element.length} bytes, the file holds {held}")
        if vr == "SQ":
            for item in elements[element.tag].value:
                _check_lengths(item, end)


def _fragments(path: Path, start: int, end: int) -> list[bytes]:
    """All fragments of the pixel data after the first, which is a table of offsets."""
    parts = []
    with path.open("rb") as file:
        file.seek(start)
        while (head := file.read(8))[:4] == _ITEM and len(head) == 8:
            length = int.from_bytes(head[4:], "little")
            if length > end - file.tell():
                raise ValueError(f"truncated: a fragment declares {length} bytes, the file holds {end - file.tell()}")
            parts.append(file.read(length))
    if head[:4] != _END:
        raise ValueError("truncated: the fragments of the pixel data have no end")
    return parts[1:]


def _coded_size(coded: bytes) -> tuple[int, int, int] | None:
    """Columns, rows and components that a JPEG, JPEG-LS or JPEG 2000 picture declares; None where it is none."""
    try:
        if coded.startswith(b"\xff\x4f\xff\x51"):
            right, bottom, left, top = struct.unpack_from(">4I", coded, 8)
            return right - left, bottom - top, struct.unpack_from(">H", coded, 40)[0]
        at = 2
        while coded.startswith(b"\xff\xd8"):
            prefix, marker, length = struct.unpack_from(">BBH", coded, at)
            if marker in _FRAME_MARKERS:
                rows, columns, components = struct.unpack_from(">HHB", coded, at + 5)
                return columns, rows, components
            if prefix != 0xFF or marker == 0xDA:
                return None
            at += 1 if marker == 0xFF else 2 + length
    except struct.error:
        pass
    return None
