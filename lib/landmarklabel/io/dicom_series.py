"""A folder with one DICOM series: which files, in which order, and the geometry they make together.

Decision: GDCM stacks whatever it is given, also with a slice missing; so positions are checked here, from the headers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from landmarklabel.errors import FaultsError, ImageRejected
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.dicom_data import check_data, is_coded
from landmarklabel.io.image_headers import Header, as_text, direction_faults, one_line, spacing_faults, vector_faults

_DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class Slice:
    """What one DICOM file says of itself; positions in LPS mm, spacing in SimpleITK's order (x, y).

    ``loaded_bytes`` are of one sample once it is rescaled, ``coded`` says whether the pixels are compressed.
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


@dataclass(frozen=True)
class Series:
    """The files of one series in SimpleITK's order; ``geometry`` is None for a single file (SimpleITK knows it)."""

    files: tuple[str, ...]
    header: Header
    geometry: ImageGeometry | None


def read_series(folder: Path) -> Series:
    """Read the headers of a folder's DICOM files.

    Raises:
        ImageRejected: no series, several, unreadable or truncated files, positions that are not evenly spaced.
    """
    slices, faults = [], []
    for path in sorted(folder.iterdir()):
        if path.is_dir() or path.name.startswith(".") or path.name == "DICOMDIR":
            continue
        if not path.is_file():
            faults.append(f"{path.name} is not a regular file")
        elif path.suffix.lower() in ("", ".dcm", ".dicom", ".ima", ".img") or path.suffix[1:].isdigit():
            slices += _read_slice(path, faults)
    if not slices and not faults:
        faults.append("no DICOM series in this folder")
    series = sorted({s.series for s in slices})
    if len(series) > 1:
        faults.append(f"{len(series)} DICOM series in this folder; allowed is one")
    if faults:
        raise ImageRejected(folder.name, faults)
    try:
        return _stack(slices)
    except FaultsError as error:
        raise ImageRejected(folder.name, error.faults) from None


def _read_slice(path: Path, faults: list[str]) -> list[Slice]:
    """One Slice, or none and a fault."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
                raise ValueError("deflated transfer syntax is not supported")
            # defer_size: the pixels are skipped, but where they lie is known
            return [_checked_slice(path, dcmread(path, defer_size=4096))]
    except InvalidDicomError:
        faults.append(f"{path.name} is not a readable DICOM image (wrong magic: no DICM after 128 bytes)")
        return []
    except Exception as error:  # pydicom raises many kinds for damaged files
        faults.append(f"{path.name} is not a readable DICOM image ({one_line(error)})")
        return []


def _checked_slice(path: Path, header) -> Slice:
    absent = [name for name in ("Rows", "Columns", "BitsAllocated") if header.get(name) is None]
    if absent:
        raise ValueError(f"it has no {', '.join(absent)}: truncated, or no image")
    columns, rows, samples = int(header.Columns), int(header.Rows), int(header.get("SamplesPerPixel", 1))
    if columns < 1 or rows < 1:
        raise ValueError(f"size {(columns, rows)} must be positive")
    if samples != 1:
        raise ValueError(f"{samples} samples a pixel; allowed is 1")
    if int(header.get("NumberOfFrames", 1) or 1) != 1:
        raise ValueError(f"{header.NumberOfFrames} frames in one file; allowed is 1")
    sample_bytes = max(int(header.BitsAllocated) // 8, 1)
    check_data(path, header, (columns, rows), sample_bytes)

    def numbers(name: str) -> np.ndarray | None:
        value = header.get(name)
        return None if value is None else np.array([float(v) for v in value])

    axes, spacing = numbers("ImageOrientationPatient"), numbers("PixelSpacing")
    return Slice(
        path,
        str(header.get("SeriesInstanceUID", "")),
        (columns, rows),
        sample_bytes,
        numbers("ImagePositionPatient"),
        None if axes is None else axes.reshape(2, 3),
        None if spacing is None else spacing[::-1],
        _loaded_bytes(header, sample_bytes),
        is_coded(header),
    )


def _loaded_bytes(header, sample_bytes: int) -> int:
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
    header = Header((*first.size, count), first.sample_bytes, stream=stream, loaded_bytes=loaded)
    if count == 1:
        if faults := _stated_faults(first):
            raise FaultsError("", faults)
        return Series((str(first.path),), header, None)
    for name, shape in (("position", (3,)), ("axes", (2, 3)), ("spacing", (2,))):
        values = [getattr(s, name) for s in slices]
        bad = [s.path.name for s, v in zip(slices, values, strict=True) if v is None or v.shape != shape]
        if bad or not np.isfinite(values).all():
            raise FaultsError("", [f"slice {name} is missing or not finite in {bad[0] if bad else first.path.name}"])
        if name != "position" and np.abs(np.array(values) - values[0]).max() > 1e-3:
            raise FaultsError("", [f"slices differ in {name}; allowed is one {name} for the whole series"])
    if len({(s.size, s.sample_bytes) for s in slices}) > 1:
        raise FaultsError("", [f"slices differ in size or depth: {sorted({s.size for s in slices})}"])
    row, column = (axis / np.linalg.norm(axis) for axis in first.axes)
    normal = np.cross(row, column)
    slices = sorted(slices, key=lambda s: float(s.position @ normal))
    positions = np.array([s.position for s in slices])
    faults = _position_faults(positions, normal)
    if faults:
        raise FaultsError("", faults)
    step = float((positions[-1] - positions[0]) @ normal) / (count - 1)
    geometry = ImageGeometry(header.size, (*first.spacing, step), positions[0], np.stack([row, column, normal], 1))
    return Series(tuple(str(s.path) for s in slices), header, geometry)


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


def _position_faults(positions: np.ndarray, normal: np.ndarray) -> list[str]:
    """(n, 3) LPS mm slice positions sorted along the (3,) normal: even steps, straight along the normal?"""
    along = (positions - positions[0]) @ normal
    steps = np.diff(along)
    usual = float(np.median(steps))
    if steps.min() < 1e-3:
        return [f"two slices lie at the same position {as_text(positions[int(steps.argmin())])} mm"]
    if np.abs(steps - usual).max() > 0.01 * usual + 1e-3:
        odd = int(np.abs(steps - usual).argmax())
        return [
            f"slice positions are not uniform: {usual:.4g} mm is usual, but {steps[odd]:.4g} mm follow "
            f"{as_text(positions[odd])} mm (a slice is missing?)"
        ]
    aside = np.linalg.norm(positions - positions[0] - along[:, None] * normal, axis=1)
    if aside.max() > 0.01 * usual + 1e-3:
        return [f"slice positions shift sideways by up to {aside.max():.4g} mm (a tilted gantry); resample it first"]
    return []
