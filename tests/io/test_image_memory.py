"""Memory: reading takes no more than a stated multiple of what a file declares, and what would take too much is not begun."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import SimpleITK as sitk
from image_corpus import mha, nifti, nrrd, raster, valid_files, write_series
from pydicom import dcmread
from pydicom.uid import RLELossless

from landmarklabel.errors import ImageRejected
from landmarklabel.io import memory
from landmarklabel.io.dicom_series import read_series
from landmarklabel.io.image_headers import Header
from landmarklabel.io.images import Limits, read_geometry, read_image
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.nifti_header import parse_nifti

RNG = np.random.default_rng(0)
FLAT = np.kron(RNG.integers(0, 200, (256, 640)).astype(np.uint8), np.ones((8, 8), np.uint8))  # 10 MB
VOLUME = FLAT.reshape(32, 512, 640).astype(np.int16)  # 21 MB
COLOURS = np.repeat(FLAT[:1024, :, None], 3, 2)  # 16 MB
SIZE = {"dim": (3, 640, 512, 32, 1, 1, 1, 1)}
SMALL_BUFFERS = 6e6

# Reads each file in a process of its own, forked so that everything is imported once; prints by how many bytes the peak grew
CHILD = """
import json, os, resource, sys
from landmarklabel.io.images import read_image
warm, *paths = sys.argv[1:]
def read_small_ones():
    for name in sorted(os.listdir(warm)):
        read_image(os.path.join(warm, name))
read_small_ones()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
for path in paths:
    if os.fork() == 0:
        read_small_ones()
        before = peak()
        nbytes = read_image(path).pixels.nbytes
        print(json.dumps([path, peak() - before, nbytes]), flush=True)
        os._exit(0)
    os.wait()
"""


def scans(folder: Path) -> set[str]:
    """Write a file or series of each kind; returns their names."""
    same = ("2f", 112, 1, 0)
    files = {
        "grey.png": raster("PNG", FLAT, compress_level=1),
        "colours.png": raster("PNG", COLOURS, compress_level=1),
        "alpha.png": raster("PNG", np.concatenate([COLOURS, COLOURS[..., :1]], 2), compress_level=1),
        "grey.jpg": raster("JPEG", FLAT),
        "colours.jpg": raster("JPEG", COLOURS),
        "progressive.jpg": raster("JPEG", COLOURS, progressive=True, subsampling=0),
        "plain.nii.gz": gzip.compress(nifti(same, data=VOLUME.tobytes(), **SIZE), 1),
        "scaled.nii.gz": gzip.compress(nifti(("2f", 112, 2, -5), data=VOLUME.tobytes(), **SIZE), 1),
        "scaled8.nii": nifti(("2f", 112, 2, -5), ("2h", 70, 2, 8), data=FLAT.tobytes(), **SIZE),
        "holes.nii.gz": gzip.compress(nifti(("2h", 70, 16, 32), data=holes().tobytes(), **SIZE), 1),
        "packed.nrrd": nrrd(gzip.compress(VOLUME.tobytes(), 1), encoding="gzip", sizes="640 512 32"),
        "packed.mha": packed(VOLUME),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_series(folder / "raw", z=range(32), pixels=VOLUME, shapes=[(512, 640)] * 32)
    single = FLAT[:1024, :2048].astype(np.int16)
    for name in ("one", "rle", "j2k"):
        write_series(folder / name, z=[0], pixels=[single], shapes=[single.shape])
    rle = dcmread(folder / "rle" / "0.dcm")
    rle.compress(RLELossless)
    rle.save_as(folder / "rle" / "0.dcm")
    write_jpeg_2000(folder / "one" / "0.dcm", folder / "j2k" / "0.dcm")
    return files.keys() | {"raw", "one", "rle", "j2k"}


def holes() -> np.ndarray:
    out = VOLUME.astype(np.float32)
    out[::2] = np.nan
    return out


def packed(volume: np.ndarray) -> bytes:
    data = zlib.compress(volume.tobytes(), 1)
    return mha(data, CompressedData="True", CompressedDataSize=str(len(data)), DimSize="640 512 32")


def write_jpeg_2000(source: Path, target: Path) -> None:
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(target))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    writer.Execute(sitk.ReadImage(str(source)))


def budget(path: Path, monkeypatch) -> tuple[int, Header]:
    """What the reader allows for a file: seen where it asks."""
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(memory, "reading_bytes", lambda header, kind: seen.append((header, kind)) or 2**62)
        with pytest.raises(ImageRejected, match="too large for the memory"):
            read_image(path)
    return memory.reading_bytes(*seen[0]), seen[0][0]


def test_reading_takes_no_more_than_stated(tmp_path, monkeypatch):
    for place in ("warm", "files"):
        (tmp_path / place).mkdir()
    for name, content in valid_files().items():
        (tmp_path / "warm" / name).write_bytes(content)
    write_series(tmp_path / "warm" / "series")
    paths = [str(tmp_path / "files" / name) for name in sorted(scans(tmp_path / "files"))]
    words = [sys.executable, "-c", CHILD, str(tmp_path / "warm"), *paths]
    done = subprocess.run(words, capture_output=True, timeout=500, encoding="utf-8")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row[0] for row in found] == paths, done.stderr
    took = {}
    for path, grown, nbytes in found:
        allowed, header = budget(Path(path), monkeypatch)
        allowed += SMALL_BUFFERS - LIMITS.decoder_bytes
        took[Path(path).name] = round(grown / header.data_bytes, 2)
        assert 0.9 * nbytes < grown <= allowed, (took, grown / 1e6, allowed / 1e6, header)


def test_rescaled_samples_count_as_large_as_they_become(tmp_path):
    """8 bits that a NIfTI file scales take nine times their bytes, which says the same file unscaled needs two."""
    (tmp_path / "a.nii").write_bytes(nifti(("2f", 112, 2, 0), ("2h", 70, 2, 8), data=bytes(120)))
    (tmp_path / "b.nii").write_bytes(nifti(("2h", 70, 2, 8), data=bytes(120)))
    scaled, plain = parse_nifti(tmp_path / "a.nii")[0], parse_nifti(tmp_path / "b.nii")[0]
    assert (scaled.loaded_bytes, plain.loaded_bytes) == (4, None)
    assert memory.reading_bytes(scaled, ".nii") - LIMITS.decoder_bytes == int(120 * (4 * 2.4 + 1))
    for slope, intercept, loaded in ((1, -1024, 4), (0.5, 0, 8), (1, 0, 2), (3e9, 0, 8), ("", "", 2)):
        folder = tmp_path / f"{slope}"
        write_series(folder, z=[0], shapes=[(5, 6)])
        data = dcmread(folder / "0.dcm")
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.save_as(folder / "0.dcm")
        assert read_series(folder).header.loaded_bytes == loaded
        assert read_image(folder).pixels.itemsize <= loaded


def oversized(folder: Path) -> dict[str, int]:
    """Files that declare 49 to 268 MB above data that would be refused as damaged if anything decoded them."""
    side, junk = 7_000, b"\x55" * 1_000_000
    png = bytearray(raster("PNG", compress_level=0))
    png[16:24] = side.to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    dim, size = (3, 512, 512, 512, 1, 1, 1, 1), "512 512 512"
    head = nifti(data=b"", dim=dim)
    for name, content in {
        "a.png": bytes(png),
        "a.nii.gz": gzip.compress(head) + junk,
        "a.nrrd": nrrd(junk, encoding="gzip", sizes=size),
        "a.mha": mha(junk, CompressedData="True", CompressedDataSize=str(len(junk)), DimSize=size),
    }.items():
        (folder / name).write_bytes(content)
    PIL.Image.new("RGB", (side, side)).save(folder / "a.jpg")
    return {"a.png": side**2, "a.jpg": 3 * side**2, "a.nii.gz": 2**28, "a.nrrd": 2**28, "a.mha": 2**28}


def test_what_declares_more_than_its_share_of_the_free_memory_is_refused_at_once(tmp_path):
    limits = Limits(max_ratio=1e9, max_share=100e6 / memory.free_bytes())
    for name, declared in oversized(tmp_path).items():
        start = time.perf_counter()
        with pytest.raises(ImageRejected) as caught:
            read_image(tmp_path / name, limits=limits)
        assert time.perf_counter() - start < 0.5, name
        (fault,) = caught.value.faults
        assert (
            f" declares {declared} bytes and takes about 0." in fault or f" declares {declared} bytes and takes about 1" in fault
        )
        assert "GB to read; allowed are 0.1 GB" in fault or "allowed are 0.09" in fault
        assert fault.endswith("Close other programs, crop or resample the image, or use a computer with more memory")
        side = 7_000 if name in ("a.png", "a.jpg") else 512
        assert read_geometry(tmp_path / name, limits=Limits(max_ratio=1e9, max_share=0)).size[0] == side
    write_series(tmp_path / "scan", shapes=[(500, 600)] * 4)
    with pytest.raises(ImageRejected, match=r"size \(600, 500, 4\) declares 2400000 bytes and takes about 0.038 GB"):
        read_image(tmp_path / "scan", limits=Limits(max_share=1e6 / memory.free_bytes()))
    assert read_image(tmp_path / "scan").pixels.shape == (4, 500, 600)


def test_the_usual_share_leaves_half_of_what_is_free():
    assert Limits().max_share == 0.5 and 0 < memory.free_bytes() < 2**50


def test_pixels_can_be_written_and_outlive_their_reader(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(nrrd(VOLUME.tobytes(), sizes="640 512 32"))
    pixels = read_image(tmp_path / "a.nrrd").pixels
    others = [read_image(tmp_path / "a.nrrd").pixels for _ in range(3)]
    del others
    np.testing.assert_array_equal(pixels, VOLUME)
    pixels[0] = 5
    assert pixels.flags.writeable and pixels.flags.c_contiguous and (pixels[0] == 5).all()
