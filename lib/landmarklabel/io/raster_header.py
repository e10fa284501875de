"""Headers of pictures (png, jpg, bmp, tif), by Pillow; only the plugin of the format itself is tried."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landmarklabel.errors import ImageRejected
from landmarklabel.io.file_kinds import wrong_kind
from landmarklabel.io.files import image_suffix
from landmarklabel.io.image_headers import Header, one_line
from landmarklabel.io.limits import LIMITS

RASTERS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_BYTES = {"1": 1, "L": 1, "P": 3, "RGB": 3, "RGBA": 4, "I;16": 2, "I;16B": 2, "I": 2}
_BYTES_BY_PILLOW = {"1": 1, "L": 1, "P": 3, "RGB": 3, "RGBA": 4, "I;16": 2, "I;16B": 2, "I": 4, "F": 4}
_ORIENTATION = 0x0112  # of EXIF and TIFF


@dataclass(frozen=True)
class _Kind:
    """A format: what files begin and end with, and Pillow's plugin.

    ``itk`` says that SimpleITK decodes the pixels; Pillow does for the others.
    """

    name: str
    magics: tuple[bytes, ...]
    end: bytes
    plugin: tuple[str, str]
    itk: bool


_PNG = _Kind("PNG", (b"\x89PNG\r\n\x1a\n",), b"IEND\xaeB`\x82", ("PngImagePlugin", "PngImageFile"), True)
_JPEG = _Kind("JPEG", (b"\xff\xd8",), b"\xff\xd9", ("JpegImagePlugin", "JpegImageFile"), True)
_BMP = _Kind("BMP", (b"BM",), b"", ("BmpImagePlugin", "BmpImageFile"), False)
_TIFF = _Kind("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), b"", ("TiffImagePlugin", "TiffImageFile"), False)
_KINDS = {".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".bmp": _BMP, ".tif": _TIFF, ".tiff": _TIFF}


def _open(path: Path) -> Any:
    """A Pillow image whose pixels are not decoded."""
    import importlib

    module, name = _KINDS[image_suffix(path) or ""].plugin
    return getattr(importlib.import_module(f"PIL.{module}"), name)(str(path))


def parse_raster(path: Path) -> tuple[Header | None, list[str]]:
    """The header of a picture; its size is that of the picture as viewers show it, turned as its EXIF orientation says."""
    kind = _KINDS[image_suffix(path) or ""]
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(max(path.stat().st_size - LIMITS.trailing_bytes, 0))
        tail = file.read()
    if not start.startswith(kind.magics):
        why = f"wrong magic {start!r}: a {kind.name} file starts with {kind.magics[0]!r}"
        return None, [wrong_kind(f"a {kind.name} file", start, why)]
    faults = [] if kind.end in tail else [f"truncated: the {kind.name} data does not end with its end marker"]
    try:
        with _open(path) as picture:
            size, mode, pages = picture.size, picture.mode, getattr(picture, "n_frames", 1)
            turn, tiff_faults = _turn(picture, kind), _grey_faults(picture) if kind is _TIFF else []
            if kind.itk and mode not in ("P", "RGB") and "transparency" in picture.info:
                mode = "LA"  # what SimpleITK would make of it, and cannot read
    except Exception as error:  # Pillow raises many kinds for damaged files
        return None, [*faults, f"the {kind.name} header cannot be read ({one_line(error)})"]
    sample_bytes = (_BYTES if kind.itk else _BYTES_BY_PILLOW).get(mode)
    if sample_bytes is None:
        return None, [*faults, f"colour mode {mode} is not supported; allowed are grey, RGB and RGBA"]
    faults += tiff_faults
    if min(size) < 1:
        return None, [*faults, f"size {size} must be positive"]
    if pages > 1:
        faults.append(f"{pages} pages in one file; allowed is one (save a stack as .nrrd or .mha, with its spacing)")
    remarks: tuple[str, ...] = ()
    turn = turn if turn in range(2, 9) else 1
    if turn > 1 and kind is _TIFF:
        faults.append(f"orientation {turn}: readers disagree on turned TIFF files; save it upright")
    elif turn > 1:
        remarks = (f"turned as its EXIF orientation ({turn}) says, as viewers show it",)
        size = size[::-1] if turn >= 5 else size
    return Header(
        tuple(size),
        sample_bytes,
        stream="pixels",
        reader="SimpleITK" if kind.itk else "Pillow",
        turn=turn,
        unit="px",
        remarks=remarks,
    ), faults


def _turn(picture: Any, kind: _Kind) -> int:
    """The EXIF orientation, without decoding pixels, which Pillow's own ``getexif`` does for a PNG."""
    from PIL.Image import Exif

    if kind is _TIFF:
        return int(picture.tag_v2.get(_ORIENTATION) or 1)
    exif = Exif()
    exif.load(picture.info.get("exif") or b"")
    return int(exif.get(_ORIENTATION) or 1)


def _grey_faults(picture: Any) -> list[str]:
    """Grey values of a TIFF file that Pillow would change. Source: TIFF 6.0, tags 262, 258 and 339."""
    tags = picture.tag_v2
    inverted, bits, kind = tags.get(262) == 0, (tags.get(258) or (1,))[0], (tags.get(339) or (1,))[0]
    if inverted and bits > 8:
        return ["white is its smallest value, which readers show otherwise; save it with black as zero"]
    if (bits, kind) in ((8, 2), (32, 1)):
        return [f"its {bits}-bit {'signed' if kind == 2 else 'unsigned'} values are not read rightly; save it as 16 bit or float"]
    return []


def raster_data_faults(path: Path) -> list[str]:
    """What is wrong with a picture's compressed data."""
    try:
        with _open(path) as picture:
            picture.load()
    except Exception as error:  # Pillow raises many kinds for damaged files
        return [f"truncated or damaged data ({one_line(error)})"]
    return []


def raster_pixels(path: Path) -> np.ndarray:
    """(y, x) or (y, x, 3 or 4) pixels as stored, by Pillow; palettes become colours."""
    with _open(path) as picture:
        picture.load()
        if picture.mode == "P":
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        elif picture.mode == "1":
            picture = picture.convert("L")
        pixels = np.array(picture)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def stored_numbers(path: Path) -> np.ndarray | None:
    """(y, x) numbers of a picture that is shown by others, turned as viewers turn it; None for one that is shown as stored.

    Those of a palette, and of fewer than 8 bits. Raises ImageRejected for a TIFF file in which white is zero: programs differ on
    whether its numbers are meant as stored or as shown.
    """
    with _open(path) as picture:
        kind = _KINDS[image_suffix(path) or ""]
        if kind is _TIFF and picture.tag_v2.get(262) == 0:
            raise ImageRejected(path.name, ["white is its smallest value; save it with black as zero"])
        bits = _png_format(path)[0] if kind is _PNG and picture.mode not in ("P", "1") else 0
        if picture.mode not in ("P", "1") and not 1 < bits < 8:
            return None
        turn, numbers = _turn(picture, kind), np.array(picture)
    if bits:
        numbers = numbers // (255 // (2**bits - 1))  # Pillow spreads them over 0 to 255
    return turned(numbers.astype(np.uint8) if numbers.dtype == bool else numbers, turn if turn in range(1, 9) else 1)


def has_deep_colours(path: Path) -> bool:
    """Whether a PNG has colours of 16 bits, of which Pillow reads the upper 8."""
    return _KINDS[image_suffix(path) or ""] is _PNG and _png_format(path) in ((16, 2), (16, 6))


def _png_format(path: Path) -> tuple[int, int]:
    """Bits of a sample, and the type of colours. Source: PNG 3rd edition, 11.2.1 (IHDR)."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[24], head[25]


def save_upright(path: Path, target: Path) -> None:
    """Write a picture that its EXIF orientation turns as a PNG that needs no turning, with its colours."""
    from PIL.ImageOps import exif_transpose

    with _open(path) as picture:
        upright = exif_transpose(picture)
        upright.info.pop("exif", None)
        upright.save(target, format="PNG", exif=b"")


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(y, x[, c]) stored pixels as they are meant to be seen. Source: EXIF 2.32, tag 0x0112 (Orientation), values 1 to 8."""
    if orientation >= 5:  # stored columns are rows of the picture
        pixels = pixels.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::down, ::across])
