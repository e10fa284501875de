"""Headers of NIfTI files, versions 1 and 2: one file, either byte order.

Decision: programs disagree where a file's two transforms (sform, qform) differ: SimpleITK and Slicer take the one, nibabel the
other, by their codes. A point would lie in two places, so such a file is refused.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from landmarklabel.io.file_kinds import wrong_kind
from landmarklabel.io.image_headers import Header, as_text, direction_faults, listed, spacing_faults
from landmarklabel.io.limits import LIMITS

_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
_UNITS_MM = {1: 1000.0, 3: 1e-3}  # metres, micrometres


@dataclass(frozen=True)
class _Layout:
    """Where the fields of a header are, as (struct code, offset)."""

    size: int
    magic: tuple[bytes, int]
    dim: tuple[str, int]
    datatype: tuple[str, int]
    intent: tuple[str, int]
    pixdim: tuple[str, int]
    offset: tuple[str, int]
    scale: tuple[str, int]
    codes: tuple[str, int]
    quaternion: tuple[str, int]
    affine: tuple[str, int]
    units: tuple[str, int]


_ONE = _Layout(
    348, (b"n+1\0", 344), ("8h", 40), ("2h", 70), ("h", 68), ("8f", 76), ("f", 108), ("2f", 112), ("2h", 252), ("6f", 256),
    ("12f", 280), ("B", 123),
)  # fmt: skip
_TWO = _Layout(
    540, (b"n+2\0\r\n\x1a\n", 4), ("8q", 16), ("2h", 12), ("i", 504), ("8d", 104), ("q", 168), ("2d", 176), ("2i", 344),
    ("6d", 352), ("12d", 400), ("i", 500),
)  # fmt: skip


def parse_nifti(path: Path) -> tuple[Header | None, list[str]]:
    """The header of a .nii or .nii.gz file."""
    packed = path.name.lower().endswith(".gz")
    raw, fault = _first_unpacked(path, 544) if packed else (_first(path, 544), None)
    if fault:
        return None, [fault]
    known = {struct.pack(order + "i", layout.size): (order, layout) for order, layout in product("<>", (_ONE, _TWO))}
    if raw[:4] not in known:
        why = f"wrong magic {raw[:4]!r}: a NIfTI file starts with the number 348 or 540"
        return None, [wrong_kind("a NIfTI file", raw[:8], why)]
    order, layout = known[raw[:4]]
    if len(raw) < layout.size + 4:
        return None, [f"truncated: {len(raw)} bytes, a NIfTI-{1 if layout is _ONE else 2} header has {layout.size + 4}"]
    magic, at = layout.magic
    if raw[at : at + len(magic)] != magic:
        return None, [f"wrong magic {raw[at : at + len(magic)]!r}; allowed is {magic!r} (one file, not a .hdr/.img pair)"]

    def field(name: str) -> tuple:
        code, offset = getattr(layout, name)
        return struct.unpack_from(order + code, raw, offset)

    size, faults = _size(field("dim"))
    (intent,), (datatype, bitpix), (offset,), scale = field("intent"), field("datatype"), field("offset"), field("scale")
    sample_bytes, sample_faults = _sample(intent, datatype, bitpix)
    faults += sample_faults
    least = layout.size + 4
    if not (math.isfinite(offset) and offset == int(offset) and least <= offset <= LIMITS.nifti_offset):
        faults.append(f"vox_offset {offset:g} must be a whole number from {least} to {LIMITS.nifti_offset}")
    remarks: list[str] = []
    if size:
        faults += _geometry_faults(field, size, remarks)
    if size is None or sample_bytes is None or not math.isfinite(offset):
        return None, faults
    scaled = scale not in ((1, 0), (0, 0)) and math.isfinite(scale[0]) and datatype != 64  # readers make real numbers of them
    return Header(
        size,
        sample_bytes,
        int(offset),
        "gzip-file" if packed else "raw",
        float_type=f"{order}f{sample_bytes}" if datatype in (16, 64) else None,
        loaded_bytes=max(4 if layout is _ONE else 8, sample_bytes) if scaled else None,
        reader="SimpleITK" if layout is _ONE else "nibabel",
        remarks=tuple(remarks),
    ), faults


def _sample(intent: int, datatype: int, bitpix: int) -> tuple[int | None, list[str]]:
    faults, sample_bytes = [], _BYTES.get(datatype)
    if intent in (1004, 1005, 1006, 1007):
        faults.append(f"intent code {intent} is a vector or matrix image; allowed are scalar images")
    if sample_bytes is None:
        faults.append(f"datatype {datatype} is not supported; allowed are real scalars ({listed(_BYTES)})")
    elif bitpix != 8 * sample_bytes:
        faults.append(f"bitpix {bitpix} does not fit datatype {datatype}, which has {8 * sample_bytes}")
    return sample_bytes, faults


def _size(dim: tuple[int, ...]) -> tuple[tuple[int, ...] | None, list[str]]:
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


def _geometry_faults(field: Callable[[str], tuple], size: tuple[int, ...], remarks: list[str]) -> list[str]:
    """What is wrong with the two transforms; ``remarks`` gets what a person should know of them."""
    faults, dims = [], len(size)
    pixdim, quaternion = np.array(field("pixdim"), float), np.array(field("quaternion"), float)
    spacing, (qform, sform) = pixdim[1 : dims + 1], field("codes")
    spacing_fault = spacing_faults(spacing)
    faults += spacing_fault
    if qform > 0 and not (np.isfinite(quaternion).all() and np.isfinite(pixdim[0])):
        faults.append(f"qform {quaternion.tolist()} must be finite")
    elif qform > 0 and np.square(quaternion[:3]).sum() > 1.001:
        faults.append(f"qform quaternion {quaternion[:3].tolist()} is no rotation: b²+c²+d² is above 1")
    affine = np.array(field("affine"), float).reshape(3, 4)
    if sform > 0 and not np.isfinite(affine).all():
        faults.append(f"sform affine {affine.tolist()} must be finite")
    elif sform > 0:
        columns = affine[:, :dims]
        faults += direction_faults("sform affine", columns)
        lengths = np.linalg.norm(columns, axis=0)
        # SimpleITK would take pixdim and nibabel the sform: two different places for one landmark
        if not spacing_fault and lengths.all() and not np.allclose(lengths, spacing, rtol=2e-3):
            faults.append(f"spacing is {as_text(spacing)} in pixdim but {as_text(lengths)} in the sform affine")
    if qform > 0 and sform > 0 and not faults:
        faults += _apart(affine, _affine_of_quaternion(quaternion, pixdim), size, spacing.min())
    if dims == 2 and not faults and (sform > 0 or qform > 0):
        faults += _off_plane(affine if sform > 0 else _affine_of_quaternion(quaternion, pixdim), spacing.min())
    if qform <= 0 and sform <= 0:
        remarks.append("the file does not say where it lies (sform and qform codes 0): its first sample is put at 0")
    if (unit := field("units")[0] & 7) in _UNITS_MM:
        remarks.append(f"its {'metres' if unit == 1 else 'micrometres'} are made mm")
    return faults


def _off_plane(affine: np.ndarray, step: float) -> list[str]:
    """A fault where a 2D file lies elsewhere in space than on z = 0: readers of 2D images drop what they cannot say."""
    if np.abs(affine[2, :2]).max() <= LIMITS.form_disagreement * step and abs(affine[2, 3]) <= LIMITS.form_disagreement * step:
        return []
    return [
        "a 2D file that does not lie on the axial plane z = 0, and its readers drop where it lies; store it as a volume of one "
        "slice (dim[0] = 3, dim[3] = 1), for example with numpy: nibabel.Nifti1Image(data[..., None], img.affine)"
    ]


def _affine_of_quaternion(quaternion: np.ndarray, pixdim: np.ndarray) -> np.ndarray:
    """(3, 4) voxel index to RAS. Source: nifti1.h, section "QUATERNION REPRESENTATION OF ROTATION MATRIX" (method 2)."""
    b, c, d = quaternion[:3]
    a = math.sqrt(max(1.0 - (b * b + c * c + d * d), 0.0))
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
    ])  # fmt: skip
    steps = np.where(pixdim[1:4] > 0, pixdim[1:4], 1.0) * (1, 1, -1 if pixdim[0] < 0 else 1)
    return np.column_stack([rotation * steps, quaternion[3:]])


def _apart(sform: np.ndarray, qform: np.ndarray, size: tuple[int, ...], step: float) -> list[str]:
    """A fault where the two transforms put a corner of the image in different places."""
    corners = np.array(list(product(*((0, n - 1) for n in (*size, 1)[:3]))), float)
    offset = corners @ (sform - qform)[:, :3].T + (sform - qform)[:, 3]
    worst = offset[np.linalg.norm(offset, axis=1).argmax()]
    if np.linalg.norm(worst) <= LIMITS.form_disagreement * step:
        return []
    return [
        f"sform and qform put the image in different places, up to {as_text(worst)} mm apart (RAS), and programs disagree which "
        "holds; find out which one is right and write both alike, for example with nibabel's set_qform(img.affine)"
    ]


def _first(path: Path, wanted: int) -> bytes:
    with path.open("rb") as file:
        return file.read(wanted)


def _first_unpacked(path: Path, wanted: int) -> tuple[bytes, str | None]:
    packed = _first(path, 1 << 16)  # far more than a header needs
    if packed[:2] != b"\x1f\x8b":
        why = f"wrong magic {packed[:2]!r}: a .nii.gz file is gzip data and starts with b'\\x1f\\x8b'"
        return b"", wrong_kind("a .nii.gz file", packed[:8], why)
    try:
        return zlib.decompressobj(47).decompress(packed, wanted), None
    except zlib.error as error:
        return b"", f"damaged compressed data ({error})"
