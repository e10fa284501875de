"""The pixels of an image whose header was checked: decoded, made grey and finite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from landmarklabel.errors import ImageRejected
from landmarklabel.io.dicom_series import Series
from landmarklabel.io.image_headers import FiniteMask, Header
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.raster_header import raster_pixels, turned

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, of red, green, blue


@dataclass(frozen=True)
class Cleared:
    """A file or folder whose header has no fault.

    Args:
        path: of the file or folder.
        header: what it says.
        image_io: SimpleITK's name of the format.
        series: of DICOM files.
        finite: which samples of a NIfTI file are finite.
    """

    path: Path
    header: Header
    image_io: str = ""
    series: Series | None = None
    finite: FiniteMask | None = None


def reader_of(file: str, image_io: str) -> sitk.ImageFileReader:
    """SimpleITK's reader of one file, of one format."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)  # only the format that was checked, whatever else the content might look like
    reader.SetFileName(file)
    return reader


def decoded(source: Cleared) -> np.ndarray:
    """Pixels [z, ]y, x, of colours with their channels last, as they are meant to be seen. Grey values are not copied."""
    if source.series is not None:
        return _series_pixels(source.series)
    if source.header.reader == "Pillow":
        return raster_pixels(source.path)
    if source.header.reader == "nibabel":
        return _pixels_by_nibabel(source.path)
    image = reader_of(str(source.path), source.image_io).Execute()
    pixels = np.asarray(_Memory(image))
    return pixels if source.header.turn == 1 else turned(pixels, source.header.turn)


def _pixels_by_nibabel(path: Path) -> np.ndarray:
    import nibabel

    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Pair)
    pixels = np.asarray(image.dataobj).reshape(image.shape[:3])
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(pixels.T)


def _series_pixels(series: Series) -> np.ndarray:
    if len(series.files) == 1:
        pixels = np.asarray(_Memory(reader_of(series.files[0], "GDCMImageIO").Execute()))
        return pixels if series.order is None else np.ascontiguousarray(pixels[list(series.order)])
    if series.rescaled_apart:  # GDCM would give all slices the type that the first one needs
        slices = (np.asarray(_Memory(reader_of(file, "GDCMImageIO").Execute())) for file in series.files)
        return np.concatenate([pixels.astype(np.float32) for pixels in slices])
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames(series.files)
    return np.asarray(_Memory(reader.Execute()))


def grey_values(pixels: np.ndarray, source: Cleared) -> np.ndarray:
    """Pixels [z, ]y, x; of colours the luminance (alpha is ignored), in the stored type. Grey values are not copied."""
    if pixels.ndim == len(source.header.size):
        return pixels
    if pixels.shape[-1] == 4 and not np.ptp(pixels[..., :3]) and np.ptp(pixels[..., 3]):
        raise ImageRejected(
            source.path.name, ["the whole picture is in its alpha channel; put it on a background and save it as grey"]
        )
    grey = np.empty(pixels.shape[:-1], pixels.dtype)
    for row, colours in zip(grey, pixels, strict=True):  # row by row: floats of a whole image would be four times its bytes
        luminance = colours[..., 0] * _LUMINANCE[0]
        for channel in (1, 2):
            luminance += colours[..., channel] * _LUMINANCE[channel]
        row[...] = np.rint(luminance).astype(pixels.dtype)
    return grey


class _Memory:
    """The memory of a SimpleITK image that nobody else uses, for numpy: arrays made of it can be written and keep it alive."""

    def __init__(self, image: sitk.Image):
        view = sitk.GetArrayViewFromImage(image)
        self.image = image
        self.__array_interface__ = {**view.__array_interface__, "data": (view.ctypes.data, False)}


def with_finite_values(pixels: np.ndarray, source: Cleared) -> np.ndarray:
    """Pixels that are not finite, or were not in the file, become the smallest finite one (in place, piece by piece)."""
    if pixels.dtype.kind != "f":
        return pixels
    flat, in_file = pixels.reshape(-1), source.finite.values if source.finite else None
    pieces = [slice(start, start + LIMITS.scan_samples) for start in range(0, flat.size, LIMITS.scan_samples)]

    def good(piece: slice) -> np.ndarray:
        finite = np.isfinite(flat[piece])
        made: np.ndarray = finite if in_file is None else finite & in_file[piece]
        return made

    lowest, bad = [], []
    for piece in pieces:
        mask = good(piece)
        lowest += [flat[piece][mask].min()] if mask.any() else []
        bad += [] if mask.all() else [piece]
    if not lowest:
        raise ImageRejected(source.path.name, [f"all {pixels.size} pixels are NaN or infinite"])
    for piece in bad:
        flat[piece][~good(piece)] = min(lowest)
    return pixels
