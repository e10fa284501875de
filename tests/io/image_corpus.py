"""Malformed images, written by hand (not by the code under test), each with the text of its fault."""

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

NAN, INF = float("nan"), float("inf")
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
        meta.MediaStorageSOPInstanceUID = generate_uid()
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


def _sform(*values: float) -> bytes:
    return nifti(("12f", 280, *values))


def _nifti_cases() -> list[Case]:
    size = "8h", 40
    all_nan = nifti(("2h", 70, 16, 32), data=np.full(120, NAN, "f4").tobytes())
    files = {
        "header only": (nifti(data=b""), "truncated: the header declares 592 bytes, the file holds 352"),
        "one byte short": (nifti()[:-1], "truncated: the header declares 592 bytes, the file holds 591"),
        "half a header": (nifti()[:200], "truncated: 200 bytes, a NIfTI-1 header has 352"),
        "much longer than declared": (nifti() + bytes(10**5), "the header declares 592 bytes, but the file holds"),
        "text": (b"hello, this is no image", r"wrong magic b'hell'"),
        "empty": (b"", "empty file"),
        "nifti-2": (struct.pack("<i", 540) + bytes(600), "NIfTI-2 is not supported"),
        "pair magic": (nifti(("4s", 344, b"ni1\0")), "wrong magic b'ni1"),
        "no magic (analyze)": (nifti(("4s", 344, bytes(4))), "wrong magic"),
        "nan spacing": (nifti(("f", 80, NAN)), r"spacing \[nan, 2, 3\] must be finite and positive"),
        "inf spacing": (nifti(("f", 88, INF)), r"spacing \[0.5, 2, inf\] must be finite and positive"),
        "zero spacing": (nifti(("f", 84, 0)), r"spacing \[0.5, 0, 3\] must be finite and positive"),
        "negative spacing": (nifti(("f", 84, -2)), r"spacing \[0.5, -2, 3\] must be finite and positive"),
        "nan sform": (_sform(NAN, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0), r"sform affine .*nan.* must be finite"),
        "nan sform offset": (nifti(("f", 292, NAN)), r"sform affine .*nan.* must be finite"),
        "singular sform": (_sform(0.5, 0.5, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0), r"sform affine .* is singular"),
        "parallel sform": (_sform(0.5, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0), r"sform affine .* is singular or sheared"),
        "sheared sform": (_sform(0.5, 0.8, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0), "sheared: its axes are not at right angles"),
        "sform against pixdim": (
            _sform(-1, 0, 0, 0, 0, -2, 0, 0, 0, 0, 3, 0),
            r"spacing is \[0.5, 2, 3\] in pixdim but \[1, 2, 3\] in the sform",
        ),
        "nan qform": (nifti(("f", 256, NAN)), r"qform \[nan.* must be finite"),
        "qform no rotation": (nifti(("3f", 256, 1, 1, 1)), "qform quaternion .* is no rotation"),
        "nan offset": (nifti(("f", 108, NAN)), "vox_offset nan must be a whole number from 352"),
        "inf offset": (nifti(("f", 108, INF)), "vox_offset inf must be a whole number"),
        "negative offset": (nifti(("f", 108, -352)), "vox_offset -352 must be a whole number"),
        "huge offset": (nifti(("f", 108, 1e9)), r"vox_offset 1e\+09 must be a whole number"),
        "negative size": (nifti((*size, 3, 6, -5, 4, 1, 1, 1, 1)), r"size \(6, -5, 4\) must be positive"),
        "zero size": (nifti((*size, 3, 6, 5, 0, 1, 1, 1, 1)), r"size \(6, 5, 0\) must be positive"),
        "no dimensions": (nifti((*size, 0, 6, 5, 4, 1, 1, 1, 1)), r"dim\[0\] is 0; allowed are 2 and 3"),
        "300 dimensions": (nifti((*size, 300, 6, 5, 4, 1, 1, 1, 1)), r"dim\[0\] is 300; allowed are 2 and 3"),
        "1-D": (nifti((*size, 1, 120, 1, 1, 1, 1, 1, 1)), r"1 dimensions \(120,\); allowed are 2 and 3"),
        "4-D": (nifti((*size, 4, 6, 5, 2, 2, 1, 1, 1)), r"4 dimensions \(6, 5, 2, 2\); allowed are 2 and 3"),
        "5-D": (nifti((*size, 5, 6, 5, 2, 1, 2, 1, 1)), r"5 dimensions \(6, 5, 2, 1, 2\); allowed are 2 and 3"),
        "vector intent": (nifti(("h", 68, 1007)), "intent code 1007 is a vector"),
        "complex": (nifti(("2h", 70, 32, 64)), "datatype 32 is not supported; allowed are real scalars"),
        "rgb": (nifti(("2h", 70, 128, 24)), "datatype 128 is not supported"),
        "bitpix": (nifti(("2h", 70, 4, 8)), "bitpix 8 does not fit datatype 4, which has 16"),
        "all nan": (all_nan, "all 120 pixels are NaN or infinite"),
        "big endian, nan spacing": (nifti(("f", 80, NAN), order=">"), r"spacing \[nan, 2, 3\]"),
    }
    many = np.random.default_rng(2).integers(0, 99, 32**3).astype("<i2").tobytes()
    large = gzip.compress(nifti(data=many, dim=(3, 32, 32, 32, 1, 1, 1, 1)))
    return [Case(f"nii {key}", "a.nii", content, match) for key, (content, match) in files.items()] + [
        Case("nii.gz not gzip", "a.nii.gz", nifti(), "wrong magic .* a .nii.gz file is gzip data"),
        Case("nii.gz header only", "a.nii.gz", gzip.compress(nifti(data=b"")), "truncated: the header declares 592"),
        Case("nii.gz no checksum", "a.nii.gz", large[:-8], "truncated: the compressed data ends before"),
        Case("nii.gz wrong checksum", "a.nii.gz", _flip(large, -6), "damaged compressed data"),
        Case("nii.gz damaged", "a.nii.gz", _flip(large, len(large) // 2), "damaged compressed data"),
        Case("nii.gz all nan", "a.nii.gz", gzip.compress(all_nan), "all 120 pixels are NaN or infinite"),
        Case("nii.gz empty stream", "a.nii.gz", gzip.compress(b""), "wrong magic b''"),
    ]


def _flip(data: bytes, at: int) -> bytes:
    out = bytearray(data)
    out[at] ^= 0xFF
    return bytes(out)


def _nrrd_cases() -> list[Case]:
    directions = "(0.5,0,0) (0,2,0) "
    files = {
        "truncated": (nrrd()[:-1], "truncated: the header declares"),
        "header only": (nrrd(b""), "truncated: the header declares"),
        "no end of header": (nrrd()[:60], "the NRRD header does not end with an empty line"),
        "wrong magic": (b"NRRX" + nrrd()[4:], "wrong magic b'NRRX0004'"),
        "data file": (nrrd(data_file="/etc/passwd"), "data file '/etc/passwd': data in another file is not allowed"),
        "datafile list": (nrrd(datafile="LIST"), "data file 'LIST': data in another file is not allowed"),
        "data file like a key": (nrrd(data_file="/etc/passwd:=x"), "data in another file is not allowed"),
        "byte skip": (nrrd(byte_skip="-1"), "byteskip '-1' is not supported"),
        "ascii": (nrrd(encoding="ascii"), "encoding 'ascii' is not supported; allowed are raw and gzip"),
        "no type": (nrrd(type=None), "type None is not supported"),
        "block type": (nrrd(type="block"), "type 'block' is not supported"),
        "4-D": (nrrd(dimension="4", sizes="6 5 2 2"), "dimension '4'; allowed are 2 and 3"),
        "sizes text": (nrrd(sizes="6 five 4"), "sizes '6 five 4' must be 3 positive whole numbers"),
        "negative sizes": (nrrd(sizes="6 -5 4"), "sizes '6 -5 4' must be 3 positive whole numbers"),
        "too few sizes": (nrrd(sizes="6 20"), "sizes '6 20' must be 3 positive whole numbers"),
        "vector": (nrrd(kinds="vector domain domain"), "kinds 'vector' make a vector image"),
        "none direction": (nrrd(space_directions="none " + directions), "must be 3 vectors of 3 finite numbers"),
        "nan direction": (nrrd(space_directions=directions + "(0,0,nan)"), "must be 3 vectors of 3 finite numbers"),
        "singular": (nrrd(space_directions=directions + "(0,0,0)"), "space directions .* is singular"),
        "sheared": (nrrd(space_directions=directions + "(0,1,3)"), "space directions .* sheared"),
        "nan origin": (nrrd(space_origin="(0,nan,0)"), "space origin .* must be 3 finite numbers"),
        "zero spacings": (nrrd(space_directions=None, space=None, space_origin=None, spacings="1 0 1"), r"\[1, 0, 1\]"),
        "twice": (nrrd().replace(b"type: short\n", b"type: short\ntype: char\n"), "'type: char' is given twice"),
        "gzip of too little": (nrrd(gzip.compress(bytes(239)), encoding="gzip"), "240 bytes, the file holds 239"),
        "all nan": (nrrd(np.full(120, NAN, "f4").tobytes(), type="float"), "all 120 pixels are NaN or infinite"),
        "gzip that is none": (nrrd(encoding="gzip"), "damaged compressed data"),
    }
    return [Case(f"nrrd {key}", "a.nrrd", content, match) for key, (content, match) in files.items()]


def _mha_cases() -> list[Case]:
    files = {
        "truncated": (mha()[:-1], "truncated: the header declares"),
        "header only": (mha(b""), "truncated: the header declares"),
        "no data line": (mha(b"", ElementDataFile=None), "no line 'ElementDataFile = LOCAL'"),
        "binary junk": (bytes(range(256)) * 4, "wrong magic"),
        "other file": (mha(ElementDataFile="/etc/passwd"), "ElementDataFile '/etc/passwd': data in another file"),
        "all inf": (mha(np.full(120, INF).tobytes(), ElementType="MET_DOUBLE"), "all 120 pixels are NaN or infinite"),
        "file list": (mha(ElementDataFile="LIST"), "ElementDataFile 'LIST': data in another file is not allowed"),
        "colon": (b"ElementDataFile : /etc/passwd\n" + mha(), "header line 'ElementDataFile : /etc/passwd' is no"),
        "twice": (b"DimSize = 1 1 1\n" + mha(), "'DimSize = 6 5 4' is given twice"),
        "text data": (mha(BinaryData="False"), "BinaryData 'False' is not supported; allowed is True"),
        "vector": (mha(ElementNumberOfChannels="3"), "ElementNumberOfChannels '3' is not supported"),
        "skipped bytes": (mha(HeaderSize="-1"), "HeaderSize '-1' is not supported"),
        "array type": (mha(ElementType="MET_SHORT_ARRAY"), "ElementType 'MET_SHORT_ARRAY' is not supported"),
        "4-D": (mha(NDims="4", DimSize="6 5 2 2"), "NDims '4'; allowed are 2 and 3"),
        "negative size": (mha(DimSize="6 -5 4"), "DimSize '6 -5 4' must be 3 positive whole numbers"),
        "nan spacing": (mha(ElementSpacing="1 nan 1"), r"spacing \[1, nan, 1\] must be finite"),
        "zero spacing": (mha(ElementSpacing="0 1 1"), r"spacing \[0, 1, 1\] must be finite and positive"),
        "nan offset": (mha(Offset="nan 0 0"), r"Offset \[nan, 0.0, 0.0\] must be 3 finite numbers"),
        "zero matrix": (mha(TransformMatrix="0 0 0 0 0 0 0 0 0"), "TransformMatrix .* is singular"),
        "sheared": (mha(TransformMatrix="1 0 0 0.5 1 0 0 0 1"), "TransformMatrix .* sheared"),
        "short matrix": (mha(TransformMatrix="1 0 0 1"), "TransformMatrix .* must be 9 finite numbers"),
        "compressed, too little": (packed_mha(bytes(239)), "declares 240 bytes, the file holds 239"),
        "compressed, cut": (packed_mha(PIXELS.tobytes())[:-3], "bytes of compressed data, the file holds"),
        "compressed, none": (mha(CompressedData="True"), "damaged compressed data"),
    }
    return [Case(f"mha {key}", "a.mha", content, match) for key, (content, match) in files.items()]


def _raster_cases() -> list[Case]:
    png, jpg = raster("PNG"), raster("JPEG")
    cmyk = io.BytesIO()
    PIL.Image.new("CMYK", (8, 8)).save(cmyk, "JPEG")
    return [
        Case("png named jpg", "a.jpg", png, "wrong magic .* a JPEG file starts with"),
        Case("jpg named png", "a.png", jpg, "wrong magic .* a PNG file starts with"),
        Case("png without end", "a.png", png[:-12], "truncated: the PNG data does not end with its end marker"),
        Case("png damaged data", "a.png", _flip(png, len(png) // 2), "truncated or damaged data"),
        Case("png zero width", "a.png", _png_header(0, 10), "size|header cannot be read"),
        Case("jpg half", "a.jpg", jpg[: len(jpg) // 2], "truncated: the JPEG data does not end with its end marker"),
        Case("png grey with alpha", "a.png", raster("PNG", transparency=3), "colour mode LA is not supported"),
        Case("jpg start only", "a.jpg", b"\xff\xd8\xff\xd9", "the JPEG header cannot be read"),
        Case("jpg cmyk", "a.jpg", cmyk.getvalue(), "colour mode CMYK is not supported"),
    ]


def _png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


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


def _truncate_first(folder: Path, keep: float) -> None:
    path = sorted(folder.iterdir())[0]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)] if keep < 1 else data[:-1])


def _dicom_cases() -> list[Case]:
    def series(**options) -> Callable:
        return lambda p: write_series(p, **options)

    def two(p: Path) -> None:
        write_series(p)
        write_series(p, names=[f"other{k}.dcm" for k in range(4)])

    def cut(keep: float) -> Callable:
        return lambda p: (write_series(p), _truncate_first(p, keep))

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
        "no pixels": (series(skip=["PixelData"]), "no pixel data"),
        "zero spacing": (series(spacing=(0, 1)), r"spacing \[1.0, 0.0, 3.0\] must be finite and positive"),
        "slice one byte short": (cut(1), "0.dcm is not a readable DICOM image .truncated: 6 x 5 pixels are 60 bytes"),
        "slice half": (cut(0.5), "0.dcm is not a readable DICOM image .it has no"),
        "slice empty": (cut(0), "0.dcm is not a readable DICOM image .wrong magic: no DICM"),
        "junk slice": (with_extra("x.dcm", lambda p: p.write_bytes(b"junk" * 100)), "x.dcm is not a readable DICOM"),
        "fifo inside": (with_extra("x.dcm", os.mkfifo), "x.dcm is not a regular file"),
    }
    return [Case(f"dicom {key}", "series", build, match) for key, (build, match) in folders.items()]


CASES = _nifti_cases() + _nrrd_cases() + _mha_cases() + _raster_cases() + _path_cases() + _dicom_cases()


def bombs() -> list[Case]:
    """Small files that declare or unpack to a lot: a reader must refuse them without memory and at once."""
    zeros = gzip.compress(bytes(2**26))
    gibibyte = zeros * 16  # gzip members follow each other: 1 GiB in about 1 MB
    side = "8h", 40, 3

    def uint8(x: int, y: int, z: int) -> bytes:
        return nifti((*side, x, y, z, 1, 1, 1, 1), ("2h", 70, 2, 8), data=b"")

    huge, ratio, more = "too large: size", "compressed bytes declare", "but the file holds at least"
    stream = zlib.compress(bytes(2**28))
    packed = {"CompressedData": "True", "CompressedDataSize": str(len(stream))}
    jpg = bytearray(raster("JPEG"))
    frame = jpg.index(b"\xff\xc0")
    jpg[frame + 5 : frame + 9] = b"\xfd\xe8" * 2  # 65000 x 65000
    return [
        Case("bomb as declared", "bomb.nii.gz", gzip.compress(uint8(1024, 1024, 1024)) + gibibyte, ratio),
        Case("bomb behind a small size", "small.nii.gz", gzip.compress(uint8(8, 8, 8)) + gibibyte, more),
        Case("bomb behind 60 MiB", "60.nii.gz", gzip.compress(uint8(1024, 1024, 60)) + gibibyte, more),
        Case("huge size", "huge.nii", uint8(32000, 32000, 32000) + bytes(18000), huge),
        Case("huge size, gzip", "huge.nii.gz", gzip.compress(uint8(32767, 32767, 32767)), huge),
        Case("1 GiB declared, none there", "none.nii", uint8(1024, 1024, 1024), "truncated"),
        Case("nrrd huge", "huge.nrrd", nrrd(sizes="1000000 1000000 1000000"), huge),
        Case("nrrd overflow", "over.nrrd", nrrd(sizes="4294967296 4294967296 1"), huge),
        Case("nrrd bomb", "bomb.nrrd", nrrd(gibibyte, encoding="gzip"), more),
        Case("mha huge", "huge.mha", mha(DimSize="1000000 1000000 1000000"), huge),
        Case("mha bomb", "bomb.mha", mha(stream, **packed), more),
        Case("mha bomb as declared", "declared.mha", mha(stream, DimSize="512 512 512", **packed), ratio),
        Case("png bomb", "bomb.png", _png_header(30000, 30000), ratio),
        Case("png huge", "huge.png", _png_header(2**31 - 1, 2**31 - 1), huge),
        Case("jpg huge", "huge.jpg", bytes(jpg), huge),
    ]
