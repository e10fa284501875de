"""Checked image reading: SimpleITK is the reference for pixels and geometry, once our parsers have cleared the file.

Every fault that the file's header shows is found before memory is allocated, and all of them are in one ImageRejected.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import SimpleITK as sitk

from landmarklabel.errors import FaultsError, ImageRejected
from landmarklabel.geometry import ImageGeometry, SlicePlane
from landmarklabel.io.dicom_series import read_series
from landmarklabel.io.files import (
    ALSO_READ,
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    image_suffix,
    is_surface,
    looks_like_dicom,
    plugin_readers,
)
from landmarklabel.io.image_array import Image
from landmarklabel.io.image_headers import (
    FiniteMask,
    Header,
    length_faults,
    one_line,
    stream_faults,
)
from landmarklabel.io.image_pixels import Cleared, decoded, grey_values, reader_of, with_finite_values
from landmarklabel.io.image_text_headers import parse_meta, parse_nrrd
from landmarklabel.io.itk_warnings import without_itk_warnings
from landmarklabel.io.memory import OUT_OF_MEMORY, memory_faults
from landmarklabel.io.nifti_header import parse_nifti
from landmarklabel.io.plugin_images import is_read_by_plugin, read_by_plugin
from landmarklabel.io.raster_header import RASTERS, parse_raster, raster_data_faults
from landmarklabel.io.surfaces import distance_volume, read_surface, volume_geometry

_FORMATS = {
    ".nii.gz": (parse_nifti, "NiftiImageIO"),
    ".nii": (parse_nifti, "NiftiImageIO"),
    ".nrrd": (parse_nrrd, "NrrdImageIO"),
    ".nhdr": (parse_nrrd, "NrrdImageIO"),
    ".mha": (parse_meta, "MetaImageIO"),
    ".mhd": (parse_meta, "MetaImageIO"),
    ".png": (parse_raster, "PNGImageIO"),
    ".jpg": (parse_raster, "JPEGImageIO"),
    ".jpeg": (parse_raster, "JPEGImageIO"),
    ".bmp": (parse_raster, ""),
    ".tif": (parse_raster, ""),
    ".tiff": (parse_raster, ""),
}
_NO_MEMORY = re.compile(r"bad_alloc|allocate memory", re.IGNORECASE)  # as ITK says it
_WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Limits:
    """The largest image that is read.

    Args:
        max_voxels: samples.
        max_bytes: bytes of all stored samples.
        max_ratio: unpacked by packed bytes of compressed images above 64 MiB; bombs reach 1030, scans about 10.
        max_share: of the memory that is free, which reading may take (see ``io.memory``); the other half is for what is done with
            the image, which the networks see as float32 on another grid.
    """

    max_voxels: int = 2**30
    max_bytes: int = 4 * 2**30
    max_ratio: float = 200.0
    max_share: float = 0.5


@dataclass(frozen=True)
class Description:
    """What an image's header says.

    Args:
        geometry: where its samples lie.
        unit: of the distances in it: ``mm``, or ``px`` where the file states no spacing.
        remarks: what a person should know of how the file was read, one sentence each.
        plane: of a 3D image that is one slice and was asked for as 2D: where it lies.
    """

    geometry: ImageGeometry
    unit: str = "mm"
    remarks: tuple[str, ...] = ()
    plane: SlicePlane | None = None


def describe_image(path: str | Path, dims: int | None = None, limits: Limits = Limits()) -> Description:
    """What an image's header says of it.

    Args:
        path: an image file (suffixes of ``files.IMAGE_SUFFIXES`` and ``files.ALSO_READ``) or a folder with one DICOM series.
        dims: 2 or 3, the dimensions wanted; None takes the image as stored.
        limits: the largest image allowed.

    Raises:
        ImageRejected: listing every fault found in the header.
    """
    if is_read_by_plugin(path):
        return _by_plugin(Path(path), dims, limits)[1]
    if is_surface(path):
        with _rejecting(Path(path)):
            return _of_surface(Path(path), volume_geometry(read_surface(path)), dims)
    return _check(path, dims, limits, with_data=False)[1]


def read_geometry(path: str | Path, dims: int | None = None, limits: Limits = Limits()) -> ImageGeometry:
    """Where an image's samples lie, from its header alone; arguments and errors as in ``describe_image``."""
    return describe_image(path, dims, limits).geometry


def slice_plane(path: str | Path, dims: int) -> SlicePlane | None:
    """Where an image of a 2D task lies that is one slice of a volume; None for any other. Raises ImageRejected."""
    if dims != 2 or image_suffix(path) in RASTERS:
        return None
    return describe_image(path, dims).plane


def read_image(path: str | Path, dims: int | None = None, limits: Limits = Limits()) -> Image:
    """Read an image, its pixels as stored; arguments and errors as in ``describe_image``.

    Some non-finite pixels become the smallest finite value.

    Raises:
        ImageRejected: also for truncated or damaged data and for an image without a finite pixel.
    """
    if is_read_by_plugin(path):
        return _by_plugin(Path(path), dims, limits)[0]
    if is_surface(path):
        with _rejecting(Path(path)):
            volume = distance_volume(read_surface(path))
            _of_surface(Path(path), volume.geometry, dims)
            return volume
    source, about = _check(path, dims, limits, with_data=True)
    with _rejecting(source.path):
        pixels = with_finite_values(grey_values(decoded(source), source), source)
        geometry = about.geometry
        return Image(geometry, pixels.reshape(geometry.size[::-1]), about.unit)


def write_image(path: str | Path, image: Image, header: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write an image through SimpleITK, whole or not at all, and check that the format keeps its geometry.

    Args:
        path: with a suffix of ``files.IMAGE_SUFFIXES``; png and jpg only take 2D images with spacing 1 and origin 0.
        image: what to write.
        header: what else the file's header says, by name; kept by nrrd.

    Raises:
        ImageRejected: unknown suffix, or a format that cannot hold these pixels or this geometry.
    """
    path = Path(path)
    with _rejecting(path):
        suffix = image_suffix(path)
        if suffix not in _WRITTEN:
            raise ImageRejected(path.name, [f"an image cannot be written as {path.suffix!r}; allowed are {', '.join(_WRITTEN)}"])
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.ascontiguousarray(image.pixels)
        stored = sitk.GetImageFromArray(pixels.view(np.uint8) if pixels.dtype == bool else pixels, isVector=False)
        stored.SetSpacing(image.geometry.spacing.tolist())
        stored.SetOrigin(image.geometry.origin.tolist())
        stored.SetDirection(image.geometry.direction.ravel().tolist())
        for name, value in header.items():
            stored.SetMetaData(name, value)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
            temporary = Path(folder) / f"image{suffix}"
            sitk.WriteImage(stored, str(temporary))
            _check_kept(image.geometry, read_geometry(temporary, limits=Limits(2**40, 2**50, np.inf)), suffix)
            os.replace(temporary, path)


# --- checks before reading -----------------------------------------------------------------------------------------


def _check(path: str | Path, dims: int | None, limits: Limits, with_data: bool) -> tuple[Cleared, Description]:
    path = Path(path)
    with _rejecting(path):
        _check_dims(path, dims)
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise ImageRejected(str(path), ["no such image file"]) from None
        if stat.S_ISDIR(mode):
            return _check_series(path, dims, limits, with_data)
        if not stat.S_ISREG(mode):
            raise ImageRejected(path.name, ["not a regular file (a pipe, device or socket); allowed are files and folders"])
        if image_suffix(path) in DICOM_SUFFIXES or (image_suffix(path) is None and looks_like_dicom(path)):
            return _check_series(path, dims, limits, with_data)
        return _check_file(path, dims, limits, with_data)


def _check_dims(path: Path, dims: int | None) -> None:
    if dims not in (2, 3, None):
        raise ImageRejected(path.name, [f"dims {dims!r} must be 2 or 3"])


def _by_plugin(path: Path, dims: int | None, limits: Limits) -> tuple[Image, Description]:
    """An image of a format that a plugin reads: its header cannot be looked at alone, so all of it is read."""
    with _rejecting(path):
        _check_dims(path, dims)
        image = read_by_plugin(path)
        faults = _dims_faults(image.geometry.size, dims)
        if image.pixels.size > limits.max_voxels:
            faults.append(f"too large: {image.pixels.size} samples; allowed are {limits.max_voxels}")
        if faults:
            raise ImageRejected(path.name, faults)
        about = _described(image.geometry, image.unit, (), dims)
        return Image(about.geometry, image.pixels.reshape(about.geometry.size[::-1]), image.unit), about


def _of_surface(path: Path, geometry: ImageGeometry, dims: int | None) -> Description:
    if faults := _dims_faults(geometry.size, dims):
        raise ImageRejected(path.name, faults)
    return _described(geometry, "mm", ("a surface, read as a volume of the distances from it",), dims)


def _check_file(path: Path, dims: int | None, limits: Limits, with_data: bool) -> tuple[Cleared, Description]:
    suffix, finite = image_suffix(path), None
    if suffix is None:
        raise ImageRejected(path.name, [_unknown_suffix(path)])
    if path.stat().st_size == 0:
        raise ImageRejected(path.name, ["empty file"])
    header, faults = _FORMATS[suffix][0](path)
    if header:
        packed = header.data_bytes if header.stream == "raw" else path.stat().st_size
        faults = faults + _limit_faults(header, limits, packed) + length_faults(path, header)
        faults += _dims_faults(header.size, dims)
        faults += memory_faults(header, suffix, limits.max_share) if with_data else []
    if header and not faults and with_data:
        finite = FiniteMask(header) if header.float_type else None
        faults = raster_data_faults(path) if suffix in RASTERS else stream_faults(path, header, finite)
    if faults or header is None:
        raise ImageRejected(path.name, faults)
    try:
        stored = _stored_geometry(path, header, suffix)
    except RuntimeError:
        if damage := stream_faults(path, header, None):  # says more than the reader does
            raise ImageRejected(path.name, damage) from None
        raise
    if stored.size != header.size:
        raise ImageRejected(path.name, [f"the header declares size {header.size}, {header.reader} reads {stored.size}"])
    return Cleared(path, header, _FORMATS[suffix][1], finite=finite), _described(stored, header.unit, header.remarks, dims)


def _check_series(path: Path, dims: int | None, limits: Limits, with_data: bool) -> tuple[Cleared, Description]:
    series = read_series(path)
    packed = sum(Path(file).stat().st_size for file in series.files)
    faults = _limit_faults(series.header, limits, packed) + _dims_faults(series.header.size, dims)
    faults += memory_faults(series.header, "series", limits.max_share) if with_data else []
    if faults:
        raise ImageRejected(path.name, faults)
    stored = series.geometry or _with_spacing(_geometry_by_simpleitk(series.files[0], "GDCMImageIO"), series.spacing)
    if stored.size != series.header.size:
        raise ImageRejected(path.name, [f"the header declares size {series.header.size}, SimpleITK reads {stored.size}"])
    return Cleared(path, series.header, "GDCMImageIO", series), _described(
        stored, series.header.unit, series.header.remarks, dims
    )


def _limit_faults(header: Header, limits: Limits, packed: int) -> list[str]:
    faults, declared = [], header.data_bytes
    if header.voxels > limits.max_voxels:
        faults.append(f"too large: size {header.size} has {header.voxels} samples; allowed are {limits.max_voxels}")
    if declared > limits.max_bytes:
        faults.append(f"too large: size {header.size} needs {declared} bytes; allowed are {limits.max_bytes}")
    if declared > 2**26 and declared > limits.max_ratio * packed:
        faults.append(
            f"{packed} compressed bytes declare {declared} bytes of image ({declared / packed:.0f}:1); "
            f"allowed is {limits.max_ratio:g}:1"
        )
    return faults


def _dims_faults(size: tuple[int, ...], dims: int | None) -> list[str]:
    if dims == 3 and len(size) == 2:
        return [f"a 2D image of size {size}; this task needs a 3D one"]
    if dims == 2 and len(size) == 3 and size.count(1) != 1:
        return [f"a 3D image of size {size}; this task needs a 2D image or a single slice"]
    return []


def _described(stored: ImageGeometry, unit: str, remarks: tuple[str, ...], dims: int | None) -> Description:
    if dims == 2 and stored.dims == 3:
        plane = SlicePlane.of(stored)
        return Description(plane.flat, unit, remarks, plane)
    return Description(stored, unit, remarks)


def _unknown_suffix(path: Path) -> str:
    allowed = ", ".join((*IMAGE_SUFFIXES, *ALSO_READ, *plugin_readers()))
    return f"unknown suffix {path.suffix!r}; allowed are {allowed} and folders with a DICOM series"


# --- SimpleITK -----------------------------------------------------------------------------------------------------


def _stored_geometry(path: Path, header: Header, suffix: str) -> ImageGeometry:
    if suffix in RASTERS:  # their resolution is a printer's, not a scanner's
        return ImageGeometry.identity(header.size)
    if header.reader == "nibabel":
        return _geometry_by_nibabel(path)
    return _geometry_by_simpleitk(str(path), _FORMATS[suffix][1])


def _geometry_by_nibabel(path: Path) -> ImageGeometry:
    """Geometry of a NIfTI-2 file, which SimpleITK does not read."""
    import nibabel

    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Pair)
    size = tuple(n for axis, n in enumerate(image.shape) if axis < 3)
    d = len(size)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine  # RAS to LPS
    if image.header["qform_code"] <= 0 and image.header["sform_code"] <= 0:  # as SimpleITK does it for NIfTI-1
        affine = np.diag([*image.header.get_zooms()[:3], *(1.0,) * (4 - min(d, 3))])[:4, :4]
    columns = affine[:d, :d] * {"meter": 1000.0, "micron": 1e-3}.get(image.header.get_xyzt_units()[0], 1.0)
    spacing = np.linalg.norm(columns, axis=0)
    scale = spacing / np.linalg.norm(affine[:d, :d], axis=0)
    return ImageGeometry(size, spacing, affine[:d, 3] * scale[0], columns / spacing)


def _with_spacing(stored: ImageGeometry, spacing: np.ndarray | None) -> ImageGeometry:
    """``stored`` with other distances within the slice: GDCM takes those at the detector where a calibrated one is stated."""
    if spacing is None or np.allclose(stored.spacing[:2], spacing, rtol=1e-6):
        return stored
    return ImageGeometry(stored.size, np.array([*spacing, *stored.spacing[2:]], float), stored.origin, stored.direction)


def _geometry_by_simpleitk(file: str, image_io: str) -> ImageGeometry:
    reader = reader_of(file, image_io)
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() > 1 and image_io not in ("PNGImageIO", "JPEGImageIO"):
        raise FaultsError("", [f"{reader.GetNumberOfComponents()} components per sample; allowed is 1"])
    dims = reader.GetDimension()
    return ImageGeometry(
        reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), np.reshape(reader.GetDirection(), (dims, dims))
    )


def _check_kept(wanted: ImageGeometry, kept: ImageGeometry, suffix: str) -> None:
    if wanted.size != kept.size:
        raise FaultsError("", [f"{suffix} would turn size {wanted.size} into {kept.size}"])
    if np.abs(wanted.corners_mm - kept.corners_mm).max() > 1e-3 * wanted.spacing.min():
        raise FaultsError("", [f"{suffix} cannot store spacing, origin or direction of this image; use .nrrd or .mha"])


@contextmanager
def _rejecting(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes an ImageRejected with one line of text that does not say which folder."""
    name = path.name
    try:
        with without_itk_warnings():
            yield
    except ImageRejected:
        raise
    except FaultsError as error:
        raise ImageRejected(name, error.faults) from None
    except OSError as error:
        raise ImageRejected(name, [f"cannot be read or written ({error.strerror or one_line(error)})"]) from None
    except MemoryError:
        raise ImageRejected(name, [OUT_OF_MEMORY]) from None
    except (RuntimeError, ValueError, TypeError, OverflowError, LookupError) as error:
        if _NO_MEMORY.search(str(error)):
            raise ImageRejected(name, [OUT_OF_MEMORY]) from None
        last_line = (str(error).strip() or type(error).__name__).splitlines()[-1]
        reason = re.sub(r"^.*(ERROR:|\(0x[0-9a-f]+\):)\s*", "", last_line).replace(f"{path.parent}{os.sep}", "")
        raise ImageRejected(name, [f"SimpleITK refuses it ({' '.join(reason.split())[:150]})"]) from None
