"""Valid images, written by hand (not by the code under test), and the malformed ones that cannot be files of tests/hostile."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PIXELS = np.random.default_rng(0).integers(0, 2000, (4, 5, 6)).astype(np.int16)  # z, y, x


# --- valid files, by hand ------------------------------------------------------------------------------------------


def nifti(*edits: tuple, data: bytes | None = None, order: str = "<", dim=(3, 6, 5, 4, 1, 1, 1, 1)) -> bytes:
    """A NIfTI-1 file with spacing (0.5, 2, 3); ``edits`` are (format, offset, values…) put into the header."""
    head = bytearray(352)
    sform = (-0.5, 0, 0, -3, 0, -2, 0, 4, 0, 0, 3, 7)
    for code, offset, *values in (
        ("i", 0, 348),
        ("8h", 40, *dim),
        ("2h", 70, 4, 16),
        ("8f", 76, 1, 0.5, 2, 3, 1, 0, 0, 0),
        ("f", 108, 352),
        ("2f", 112, 1, 0),
        ("b", 123, 2),
        ("2h", 252, 1, 1),
        ("6f", 256, 0, 0, 1, -3, 4, 7),
        ("12f", 280, *sform),
        ("4s", 344, b"n+1\0"),
        *edits,
    ):
        struct.pack_into(order + code, head, offset, *values)
    return bytes(head) + (PIXELS.astype(order + "i2").tobytes() if data is None else data)


def nrrd(data: bytes | None = None, **changes: str | None) -> bytes:
    """A NRRD file; ``changes`` name fields with _ for a space, None leaves one out."""
    fields = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "6 5 4",
        "space directions": "(0.5,0,0) (0,2,0) (0,0,3)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(3,-4,7)",
    } | {key.replace("_", " "): value for key, value in changes.items()}
    text = "NRRD0004\n" + "".join(f"{k}: {v}\n" for k, v in fields.items() if v is not None) + "\n"
    return text.encode() + (PIXELS.tobytes() if data is None else data)


def mha(data: bytes | None = None, **changes: str | None) -> bytes:
    """A MetaImage file; None leaves a field out."""
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "3 -4 7",
        "ElementSpacing": "0.5 2 3",
        "DimSize": "6 5 4",
        "ElementType": "MET_SHORT",
    } | changes
    last = fields.pop("ElementDataFile", "LOCAL")
    lines = [f"{k} = {v}\n" for k, v in fields.items() if v is not None]
    lines += [f"ElementDataFile = {last}\n"] if last else []
    return "".join(lines).encode() + (PIXELS.tobytes() if data is None else data)


def packed_mha(data: bytes, **changes: str) -> bytes:
    packed = zlib.compress(data)
    return mha(packed, **{"CompressedData": "True", "CompressedDataSize": str(len(packed)), **changes})


def raster(kind: str, pixels: np.ndarray | None = None, **options) -> bytes:
    out = io.BytesIO()
    if pixels is None:
        pixels = np.random.default_rng(1).integers(0, 255, (40, 50)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def valid_files() -> dict[str, bytes]:
    """One valid file a format and encoding, by file name."""
    return {
        "a.nii": nifti(),
        "a.nii.gz": gzip.compress(nifti()),
        "raw.nrrd": nrrd(),
        "gz.nrrd": nrrd(gzip.compress(PIXELS.tobytes()), encoding="gzip"),
        "raw.mha": mha(),
        "z.mha": packed_mha(PIXELS.tobytes()),
        "a.png": raster("PNG"),
        "a.jpg": raster("JPEG"),
    }


def write_series(folder: Path, z=(0, 3, 6, 9), names=None, axes=None, origin=(10, -20, 30), **options) -> np.ndarray:
    """Write a CT series, one file a slice, and return its pixels (z, y, x) along the slice normal.

    Args:
        folder: made if it does not exist.
        z: position of each slice along the normal, mm.
        names: file names, one a slice.
        axes: (2, 3) directions of the rows and columns.
        origin: of the slice at z = 0.
        options: ``series`` uid, ``spacing`` (row, column) mm, ``shapes`` of the slices, ``tilt`` mm, ``skip`` tags,
            ``pixels`` (slices, rows, columns) int16 (random ones without).
    """
    folder.mkdir(exist_ok=True)
    axes = np.array([[1, 0, 0], [0, 1, 0]] if axes is None else axes, float)
    normal = np.cross(*axes)
    series, spacing = options.get("series", generate_uid()), options.get("spacing", (2, 0.5))
    shapes = options.get("shapes", [(5, 6)] * len(z))
    volume = []
    for k, (along, shape) in enumerate(zip(z, shapes, strict=True)):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(k)])
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.is_little_endian, data.is_implicit_VR = True, False
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = "CT", series, series
        data.Rows, data.Columns = shape
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 1, 1
        data.PhotometricInterpretation, data.PixelSpacing = "MONOCHROME2", [f"{s:.8f}" for s in spacing]
        position = np.array(origin) + along * normal + k * options.get("tilt", 0) * axes[1]
        data.ImagePositionPatient = [f"{v:.9f}" for v in position]
        data.ImageOrientationPatient = [f"{v:.12f}" for v in axes.ravel()]
        random = np.random.default_rng(k).integers(-1000, 2000, shape).astype(np.int16)
        volume.append(options["pixels"][k] if "pixels" in options else random)
        data.PixelData = volume[-1].tobytes()
        for tag in options.get("skip", ()):
            delattr(data, tag)
        data.save_as(folder / (names[k] if names else f"{k}.dcm"), write_like_original=False)
    return np.array(volume) if len({v.shape for v in volume}) == 1 else np.zeros(0)


# --- malformed files -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A file name, what builds it (bytes, or a function of its path) and a pattern of the fault's text."""

    id: str
    name: str
    content: bytes | Callable[[Path], object]
    match: str

    def build(self, folder: Path) -> Path:
        path = folder / self.name
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path


def _path_cases() -> list[Case]:
    return [
        Case("fifo", "a.nii", os.mkfifo, "not a regular file"),
        Case("device", "a.nii", lambda p: p.symlink_to("/dev/zero"), "not a regular file"),
        Case("symlink to nowhere", "a.nii", lambda p: p.symlink_to(p.parent / "gone.nii"), "no such image file"),
        Case("symlink loop", "a.nii", lambda p: p.symlink_to(p), "cannot be read"),
        Case("missing", "a.nii", lambda p: None, "no such image file"),
        Case("NUL in the name", "a\0.nii", lambda p: None, "refuses it|cannot be read|no such"),
        Case("unknown suffix", "a.txt", nifti(), "unknown suffix '.txt'; allowed are .nii.gz"),
        Case("suffix only", ".nii", nifti(), "unknown suffix"),
    ]


def _dicom_cases() -> list[Case]:
    def series(**options) -> Callable:
        return lambda p: write_series(p, **options)

    def two(p: Path) -> None:
        write_series(p)
        write_series(p, names=[f"other{k}.dcm" for k in range(4)])

    def with_extra(name: str, make: Callable) -> Callable:
        return lambda p: (write_series(p), make(p / name))

    folders = {
        "empty folder": (Path.mkdir, "no DICOM series in this folder"),
        "two series": (two, "2 DICOM series in this folder; allowed is one"),
        "missing slice": (series(z=(0, 3, 9, 12)), "not uniform: 3 mm is usual, but 6 mm follow"),
        "same position": (series(z=(0, 3, 3, 6)), "two slices lie at the same position"),
        "tilted": (series(tilt=1.0), "shift sideways by up to 3 mm"),
        "sizes differ": (series(shapes=[(5, 6)] * 3 + [(6, 6)]), "slices differ in size"),
        "no positions": (series(skip=["ImagePositionPatient"]), "slice position is missing"),
        "no spacing": (series(skip=["PixelSpacing"]), "slice spacing is missing"),
        "zero spacing": (series(spacing=(0, 1)), r"spacing \[1.0, 0.0, 3.0\] must be finite and positive"),
        "junk slice": (with_extra("x.dcm", lambda p: p.write_bytes(b"junk" * 100)), "x.dcm is not a readable DICOM"),
        "fifo inside": (with_extra("x.dcm", os.mkfifo), "x.dcm is not a regular file"),
    }
    return [Case(f"dicom {key}", "series", build, match) for key, (build, match) in folders.items()]


CASES = _path_cases() + _dicom_cases()


def bombs() -> list[Case]:
    """Files that unpack to a lot, too large for the hostile corpus: a reader must refuse them without memory and at once."""
    gibibyte = gzip.compress(bytes(2**26)) * 16  # gzip members follow each other: 1 GiB in about 1 MB
    stream = zlib.compress(bytes(2**28))
    packed = {"CompressedData": "True", "CompressedDataSize": str(len(stream))}

    def bomb(x: int, y: int, z: int) -> bytes:
        return gzip.compress(nifti(("2h", 70, 2, 8), dim=(3, x, y, z, 1, 1, 1, 1), data=b"")) + gibibyte

    ratio, more = "compressed bytes declare", "but the file holds at least"
    return [
        Case("bomb as declared", "bomb.nii.gz", bomb(1024, 1024, 1024), ratio),
        Case("bomb behind a small size", "small.nii.gz", bomb(8, 8, 8), more),
        Case("bomb behind 60 MiB", "60.nii.gz", bomb(1024, 1024, 60), more),
        Case("nrrd bomb", "bomb.nrrd", nrrd(gibibyte, encoding="gzip"), more),
        Case("mha bomb", "bomb.mha", mha(stream, **packed), more),
        Case("mha bomb as declared", "declared.mha", mha(stream, DimSize="512 512 512", **packed), ratio),
    ]
