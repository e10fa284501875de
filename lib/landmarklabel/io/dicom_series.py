"""One DICOM series, in a folder or one file: which files, in which order, and the geometry they make together.

Decision: GDCM stacks whatever it is given, also with a slice missing; so positions are checked here, from the headers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from landmarklabel.errors import FaultsError, ImageRejected
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.dicom_data import check_data, is_coded
from landmarklabel.io.dicom_frames import Frames, read_frames
from landmarklabel.io.dicom_spacing import plane_spacing
from landmarklabel.io.files import DICOM_SUFFIXES, has_preamble, looks_like_dicom
from landmarklabel.io.image_headers import Header, as_text, direction_faults, one_line, spacing_faults, vector_faults
from landmarklabel.io.limits import LIMITS

_DEFLATED = "1.2.840.10008.1.2.1.99"
_RESCALED_APART = ("its slices have slopes of their own: grey values become real numbers",)


@dataclass(frozen=True)
class Slice:
    """What one DICOM file says of itself; positions in LPS mm, spacing in SimpleITK's order (x, y).

    ``loaded_bytes`` are of one sample once it is rescaled, ``coded`` says whether pixels are compressed, ``rescale`` are slope
    and intercept, ``decimals`` those of the position as text, ``frames`` is there where one file holds a whole volume, and
    ``frame`` are the patient and the frame of reference in which positions are meant.
    """

    path: Path
    series: str
    size: tuple[int, int]
    sample_bytes: int
    position: np.ndarray | None
    axes: np.ndarray | None
    spacing: np.ndarray | None
    loaded_bytes: int
    coded: bool
    rescale: tuple[str, str]
    decimals: int
    frames: Frames | None
    remarks: tuple[str, ...]
    frame: tuple[str, str]


@dataclass(frozen=True)
class Series:
    """The files of one series in SimpleITK's order.

    Args:
        files: their paths.
        header: of all of them together.
        geometry: None for a single slice (SimpleITK knows it).
        spacing: (2,) mm within the slice where SimpleITK may take another one.
        order: of the frames in a file that holds several.
        rescaled_apart: whether slices have slopes or intercepts of their own.
    """

    files: tuple[str, ...]
    header: Header
    geometry: ImageGeometry | None
    spacing: np.ndarray | None = None
    order: tuple[int, ...] | None = None
    rescaled_apart: bool = False


def read_series(place: Path) -> Series:
    """Read the headers of a folder's DICOM files, or of one file.

    Raises:
        ImageRejected: no series, several, unreadable or truncated files, positions that are not evenly spaced.
    """
    slices, faults = [], []
    for path in sorted(place.iterdir()) if place.is_dir() else [place]:
        if path.is_dir() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
            continue
        if not path.is_file():
            faults.append(f"{path.name} is not a regular file")
        elif path.suffix.lower() in ("", *DICOM_SUFFIXES, ".img") or path.suffix[1:].isdigit() or looks_like_dicom(path):
            slices += _read_slice(path, faults)
    if not slices and not faults:
        faults.append("no DICOM series in this folder")
    series = sorted({s.series for s in slices})
    if len(series) == 1 and len({s.frame for s in slices}) > 1:
        faults.append(
            "its files are of different patients or frames of reference under one series: their places do not fit together"
        )
    if len(series) > 1:
        faults.append(
            f"{len(series)} DICOM series in this folder; allowed is one: put each into a folder of its own "
            "(images of one file each may lie side by side in the folder that is imported)"
        )
    if faults:
        raise ImageRejected(place.name, faults)
    try:
        return _stack(slices)
    except FaultsError as error:
        raise ImageRejected(place.name, error.faults) from None


def single_images(folder: Path) -> list[Path]:
    """The DICOM files of a folder where each is an image by itself: all of different series, or none with a position.

    Empty where they make one series, and where they cannot be read (``read_series`` says why).
    """
    from pydicom import dcmread

    wanted = ["SeriesInstanceUID", "ImagePositionPatient"]
    files, headers = [p for p in sorted(folder.iterdir()) if _may_be_image(p)], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            try:
                headers.append(dcmread(path, stop_before_pixels=True, force=True, specific_tags=wanted))
            except Exception:  # pydicom raises many kinds for damaged files
                return []
    apart = len({str(h.get("SeriesInstanceUID", "")) for h in headers}) == len(headers)
    placeless = all(h.get("ImagePositionPatient") is None for h in headers)
    return files if len(files) > 1 and (apart or placeless) else []


def _may_be_image(path: Path) -> bool:
    return path.is_file() and path.name.upper() != "DICOMDIR" and looks_like_dicom(path)


def _read_slice(path: Path, faults: list[str]) -> list[Slice]:
    """One Slice, or none and a fault."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bare = looks_like_dicom(path) and not has_preamble(path)
            if not bare and read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
                raise ValueError("deflated transfer syntax is not supported")
            # defer_size: the pixels are skipped, but where they lie is known
            return [_checked_slice(path, _with_syntax(dcmread(path, defer_size=4096, force=bare)))]
    except InvalidDicomError:
        faults.append(f"{path.name} is not a readable DICOM image (wrong magic: no DICM after 128 bytes)")
        return []
    except Exception as error:  # pydicom raises many kinds for damaged files
        faults.append(f"{path.name} is not a readable DICOM image ({one_line(error)})")
        return []


def _checked_slice(path: Path, header: Any) -> Slice:
    absent = [name for name in ("Rows", "Columns", "BitsAllocated") if header.get(name) is None]
    if absent:
        raise ValueError(f"it has no {', '.join(absent)}: truncated, or no image")
    columns, rows, samples = int(header.Columns), int(header.Rows), int(header.get("SamplesPerPixel", 1))
    if columns < 1 or rows < 1:
        raise ValueError(f"size {(columns, rows)} must be positive")
    if samples != 1:
        raise ValueError(f"{samples} samples per pixel; allowed is 1")
    sample_bytes, count = max(int(header.BitsAllocated) // 8, 1), int(header.get("NumberOfFrames", 1) or 1)
    if not 1 <= count <= LIMITS.frames:
        raise ValueError(f"{count} frames in one file; allowed are 1 to {LIMITS.frames}")
    check_data(path, header, (columns, rows), sample_bytes, count)
    frames = read_frames(header, count) if count > 1 or "PerFrameFunctionalGroupsSequence" in header else None

    def numbers(name: str) -> np.ndarray | None:
        value = header.get(name)
        return None if value is None else np.array([float(v) for v in value])

    spacing, remarks = plane_spacing(header)
    axes, position = numbers("ImageOrientationPatient"), header.get("ImagePositionPatient")
    return Slice(
        path,
        str(header.get("SeriesInstanceUID", "")),
        (columns, rows),
        sample_bytes,
        numbers("ImagePositionPatient"),
        None if axes is None else axes.reshape(2, 3),
        spacing,
        _loaded_bytes(header, sample_bytes),
        is_coded(header),
        (str(header.get("RescaleSlope", "")), str(header.get("RescaleIntercept", ""))),
        max((len(str(v).partition(".")[2]) for v in position or ()), default=0),
        frames,
        remarks,
        (str(header.get("PatientID", "")), str(header.get("FrameOfReferenceUID", ""))),
    )


def _with_syntax(header: Any) -> Any:
    """A data set without a file's preamble says nothing of its syntax: what pydicom found out is written down."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in header.file_meta:
        explicit = ExplicitVRLittleEndian if header.is_little_endian else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if header.is_implicit_VR else explicit
    return header


def _loaded_bytes(header: Any, sample_bytes: int) -> int:
    """Bytes of a sample after GDCM's rescaling, at most: it takes the smallest type that holds all values."""
    try:
        slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    except (TypeError, ValueError):  # nonsense, which GDCM makes its own sense of
        return 8
    if (slope, intercept) == (1, 0):
        return sample_bytes
    small = sample_bytes <= 2 and slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < 2**14
    return 4 if small else 8


def _stack(slices: list[Slice]) -> Series:
    first, count = slices[0], len(slices)
    stream, loaded = "coded series" if any(s.coded for s in slices) else "series", max(s.loaded_bytes for s in slices)
    apart = len({s.rescale for s in slices}) > 1
    unit = "px" if first.spacing is None and first.frames is None else "mm"
    header = Header(
        (*first.size, count),
        first.sample_bytes,
        stream=stream,
        loaded_bytes=max(loaded, 4) if apart else loaded,
        reader="GDCM",
        unit=unit,
        remarks=first.remarks + (_RESCALED_APART if apart else ()),
    )
    if count == 1 and first.frames is not None:
        return _volume(first, first.frames, header)
    if count == 1:
        if faults := _stated_faults(first):
            raise FaultsError("", faults)
        return Series((str(first.path),), header, None, first.spacing)
    if any(s.frames is not None for s in slices):
        raise FaultsError("", ["several files with several frames each; allowed is one such file"])
    for name, shape in (("position", (3,)), ("axes", (2, 3)), ("spacing", (2,))):
        values = [getattr(s, name) for s in slices]
        bad = [s.path.name for s, v in zip(slices, values, strict=True) if v is None or v.shape != shape]
        if bad or not np.isfinite(values).all():
            raise FaultsError("", [f"slice {name} is missing or not finite in {bad[0] if bad else first.path.name}"])
        if name != "position" and np.abs(np.array(values) - values[0]).max() > 1e-3:
            raise FaultsError("", [f"slices differ in {name}; allowed is one {name} for the whole series"])
    if len({(s.size, s.sample_bytes) for s in slices}) > 1:
        raise FaultsError("", [f"slices differ in size or depth: {sorted({s.size for s in slices})}"])
    assert first.spacing is not None and first.axes is not None  # as checked of all slices above
    order, geometry = _stacked(
        header.size, first.spacing, first.axes, np.array([s.position for s in slices]), max(s.decimals for s in slices)
    )
    return Series(tuple(str(slices[i].path) for i in order), header, geometry, rescaled_apart=apart)


def _volume(only: Slice, frames: Frames, header: Header) -> Series:
    """A file with several frames, which say where they are."""
    header = replace(header, size=(*only.size, len(frames.positions)))
    if len(frames.positions) == 1:
        return Series((str(only.path),), header, None, frames.spacing)
    order, geometry = _stacked(header.size, frames.spacing, frames.axes, frames.positions, frames.decimals)
    return Series((str(only.path),), header, geometry, order=tuple(order))


def _stacked(
    size: tuple[int, ...], spacing: np.ndarray, axes: np.ndarray, positions: np.ndarray, decimals: int
) -> tuple[list[int], ImageGeometry]:
    """The order of slices along their normal, and the geometry they make. Raises FaultsError."""
    row, column = (axis / np.linalg.norm(axis) for axis in axes)
    normal = np.cross(row, column)
    order = sorted(range(len(positions)), key=lambda i: float(positions[i] @ normal))
    positions = positions[order]
    faults = _position_faults(positions, normal, decimals)
    if faults:
        raise FaultsError("", faults)
    step = float((positions[-1] - positions[0]) @ normal) / (len(positions) - 1)
    return order, ImageGeometry(size, np.array((*spacing, step), float), positions[0], np.stack([row, column, normal], 1))


def _stated_faults(only: Slice) -> list[str]:
    """What is wrong with the geometry a single file states: SimpleITK puts something else in place of nonsense, unseen."""
    faults = []
    if only.position is not None:
        faults += vector_faults("slice position", only.position.tolist(), 3)
    if only.spacing is not None:
        faults += vector_faults("slice spacing", only.spacing.tolist(), 2) or spacing_faults(only.spacing)
    if only.axes is not None:
        faults += direction_faults("slice axes", only.axes.T)
    return faults


def _position_faults(positions: np.ndarray, normal: np.ndarray, decimals: int) -> list[str]:
    """(n, 3) LPS mm slice positions sorted along the (3,) normal: even steps, straight along the normal?

    Positions written with few ``decimals`` are rounded: that alone makes steps of 1/3 mm uneven. How far each one is from an even
    spacing of all is what counts, and it may be what rounding does, but never a tenth of a step.
    """
    along = (positions - positions[0]) @ normal
    steps = np.diff(along)
    usual = float(np.median(steps))
    if steps.min() < 1e-3:
        return [f"two slices lie at the same position {as_text(positions[int(steps.argmin())])} mm"]
    rounding = min(10.0**-decimals, 0.1 * usual)
    even = np.linspace(0, along[-1], len(along))
    if np.abs(along - even).max() > rounding + 1e-3 and np.abs(steps - usual).max() > 0.01 * usual + 1e-3:
        odd = int(np.abs(steps - usual).argmax())
        return [
            f"slice positions are not uniform: {usual:.4g} mm is usual, but {steps[odd]:.4g} mm follow "
            f"{as_text(positions[odd])} mm (a slice is missing?)"
        ]
    aside = np.linalg.norm(positions - positions[0] - along[:, None] * normal, axis=1)
    if aside.max() > max(rounding, 0.01 * usual) + 1e-3:
        return [f"slice positions shift sideways by up to {aside.max():.4g} mm (a tilted gantry); resample it first"]
    return []
