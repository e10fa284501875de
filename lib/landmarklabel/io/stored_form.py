"""The form in which a study keeps an image: one file that every program reads alike, or a folder of DICOM files.

Most files are kept as they are. A header with its data beside it becomes one file, and so does what only a plugin reads, and a
surface. A lone DICOM file gets a folder. A picture that its EXIF orientation turns is stored upright, because some programs heed
that and some do not.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from landmarklabel.io.files import (
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    atomic_write,
    image_suffix,
    is_dicom_folder,
    is_surface,
    looks_like_dicom,
)
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import read_image, write_image
from landmarklabel.io.plugin_images import is_read_by_plugin
from landmarklabel.io.raster_header import RASTERS, parse_raster, save_upright
from landmarklabel.io.surface_volumes import write_surface_volume

_ONE_FILE = {".mhd": ".mha", ".nhdr": ".nrrd"}


def stored_suffix(path: Path) -> str | None:
    """The suffix under which a study keeps a file or folder; "" for DICOM, None for what is no image."""
    if path.is_dir():
        return "" if is_dicom_folder(path) else None
    suffix = image_suffix(path)
    if suffix in DICOM_SUFFIXES or (suffix is None and looks_like_dicom(path)):
        return ""
    if suffix in RASTERS and _turn(path) > 1:
        return ".png"
    if is_read_by_plugin(path) or is_surface(path):
        return ".nrrd"
    return None if suffix is None else _ONE_FILE.get(suffix, suffix)


def is_stored_unchanged(path: Path) -> bool:
    """Whether the form in which an image comes is the one that is kept."""
    if path.is_dir():
        return True
    return image_suffix(path) in IMAGE_SUFFIXES and not (image_suffix(path) in RASTERS and _turn(path) > 1)


def stored_copy(path: Path, folder: Path) -> Path:
    """A copy of an image in the form that is kept, in ``folder``. Raises ImageRejected and OSError."""
    target = folder / path.name
    if path.is_dir():
        return Path(shutil.copytree(path, target))
    if is_stored_unchanged(path):
        return Path(shutil.copyfile(path, target))
    suffix = stored_suffix(path)
    if suffix == "":
        target = folder / "series"
        target.mkdir()
        shutil.copyfile(path, target / path.name)
        return target
    target = folder / f"image{suffix}"
    if image_suffix(path) in RASTERS:
        save_upright(path, target)
    elif is_surface(path):
        write_surface_volume(target, read_image(path))
    else:
        write_as_stated(target, read_image(path))
    return target


def write_as_stated(path: Path, image: Image) -> None:
    """Write a .mha or .nrrd file that states a spacing only where the image has one."""
    write_image(path, image)
    if image.unit == "px":
        _take_spacing_out(path)


def _take_spacing_out(path: Path) -> None:
    """Remove the spacing of 1 that a writer states, from the header of a .mha or .nrrd file whose source states none."""
    content = path.read_bytes()
    end = content.index(b"ElementDataFile") if path.suffix == ".mha" else content.index(b"\n\n")
    lines = content[:end].split(b"\n")
    kept = [line for line in lines if not line.startswith((b"ElementSpacing", b"space", b"spacings"))]
    atomic_write(path, b"\n".join(kept) + content[end:])


def _turn(path: Path) -> int:
    header, _ = parse_raster(path)
    return header.turn if header else 1
