"""Images: what is damaged is refused with its fault named; what is read agrees with SimpleITK."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_corpus import CASES, PIXELS, bombs, mha, nifti, nrrd, raster, valid_files, write_series
from pydicom.data import get_testdata_file
from tests.hostile.corpus import hostile_files

from landmarklabel.errors import ImageRejected
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.images import Image, Limits, describe_image, read_geometry, read_image, write_image

RNG = np.random.default_rng(7)
REAL = Path(os.environ.get("LANDMARKLABEL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def rotation(dims: int) -> np.ndarray:
    """An oblique right-handed direction matrix."""
    q, _ = np.linalg.qr(np.random.default_rng(dims).normal(size=(dims, dims)))
    q[:, 0] *= np.linalg.det(q)
    return q


def oblique(dims: int) -> ImageGeometry:
    spacing, origin = (0.4, 1.3, 2.7), (11.5, -203.25, 77.1)
    return ImageGeometry((7, 5, 4)[:dims], spacing[:dims], origin[:dims], rotation(dims))


def assert_where_simpleitk_says(geometry: ImageGeometry, image: sitk.Image) -> None:
    for _ in range(20):
        index = [int(RNG.integers(0, s)) for s in geometry.size]
        expected = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(geometry.index_to_world(index), expected, atol=1e-4)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_malformed_image_is_refused_with_its_fault(case, tmp_path):
    path = case.build(tmp_path)
    start = time.perf_counter()
    with pytest.raises(ImageRejected, match=case.match) as caught:
        read_image(path)
    assert time.perf_counter() - start < 2
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value) and len(str(caught.value)) < 1000


MEASURE = """
import json, sys, time
from landmarklabel.errors import ImageRejected
from landmarklabel.io.images import read_geometry, read_image
import PIL.PngImagePlugin, PIL.JpegImagePlugin

def peak_mb():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024

for path in sys.argv[1:]:
    before, start = peak_mb(), time.perf_counter()
    try:
        read_image(path)
        fault = None
    except ImageRejected as error:
        fault = str(error)
    print(json.dumps([fault, time.perf_counter() - start, peak_mb() - before]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_bombs_and_hostile_files_cost_neither_memory_nor_time(tmp_path):
    expected = {str(case.build(tmp_path)): case.match for case in bombs()}
    expected |= {str(f.path): f.says for f in hostile_files("images").values() if f.path.suffix != ".dcm"}
    done = subprocess.run([sys.executable, "-c", MEASURE, *expected], capture_output=True, check=True, encoding="utf-8")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for (path, says), (fault, seconds, grown_mb) in zip(expected.items(), results, strict=True):
        assert fault and says in fault, (path, fault)
        assert seconds < 2, (path, seconds)
        assert grown_mb < 200, (path, grown_mb)


@pytest.mark.parametrize("name", valid_files())
def test_truncation_at_every_percent_is_refused(name, tmp_path):
    content = valid_files()[name]
    path = tmp_path / name
    read_image(write(path, content))
    for length in sorted({len(content) * k // 100 for k in range(100)} | {len(content) - 1}):
        with pytest.raises(ImageRejected):
            read_image(write(path, content[:length]))


def test_every_fault_is_listed_at_once(tmp_path):
    path = write(tmp_path / "a.nii", nifti(("f", 80, 0), ("f", 108, float("nan")), ("2h", 70, 4, 8), ("h", 68, 1007)))
    with pytest.raises(ImageRejected) as caught:
        read_geometry(path)
    assert len(caught.value.faults) == 4
    for text in ("spacing [0, 2, 3]", "vox_offset nan", "bitpix 8", "intent code 1007"):
        assert text in str(caught.value)


def test_limits(tmp_path):
    path = write(tmp_path / "a.nii", nifti())
    read_image(path, limits=Limits(max_voxels=120, max_bytes=240))
    with pytest.raises(ImageRejected, match="has 120 samples; allowed are 119"):
        read_image(path, limits=Limits(max_voxels=119))
    with pytest.raises(ImageRejected, match="needs 240 bytes; allowed are 239"):
        read_geometry(path, limits=Limits(max_bytes=239))


def test_geometry_of_a_truncated_file_is_refused_too(tmp_path):
    with pytest.raises(ImageRejected, match="truncated"):
        read_geometry(write(tmp_path / "a.nii", nifti()[:-1]))


# --- dimensions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_single_slice_volume_as_2d(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    flat = ImageGeometry((6, 5, 1), [0.5, 2, 9], [3, -4, 7], np.diag([1, -1, -1]))
    write_image(path, Image(flat, PIXELS[:1]))
    image = read_image(path, dims=2)
    assert image.geometry.size == (6, 5) and read_geometry(path, dims=2).size == (6, 5)
    np.testing.assert_allclose(image.geometry.index_to_world([2, 1]), [4, -6], atol=1e-6)
    np.testing.assert_array_equal(image.pixels, PIXELS[0])
    assert read_image(path).pixels.shape == read_image(path, dims=3).pixels.shape == (1, 5, 6)


def test_wrong_number_of_dimensions(tmp_path):
    volume, flat = write(tmp_path / "a.nii", nifti()), write(tmp_path / "a.png", raster("PNG"))
    for read in (read_image, read_geometry):
        with pytest.raises(ImageRejected, match=r"a 3D image of size \(6, 5, 4\); this task needs a 2D image"):
            read(volume, dims=2)
        with pytest.raises(ImageRejected, match=r"a 2D image of size \(50, 40\); this task needs a 3D one"):
            read(flat, dims=3)
        with pytest.raises(ImageRejected, match="dims 4 must be 2 or 3"):
            read(volume, dims=4)


@pytest.mark.parametrize("single", [0, 1, 2])
def test_a_slice_in_any_plane_is_2d_and_knows_where_it_lies(single, tmp_path):
    size = tuple(np.insert([6, 5], single, 1))
    stored = Image(ImageGeometry(size, [0.5, 1, 2], [3, -4, 37.5], rotation(3)), PIXELS[:1].reshape(size[::-1]))
    write_image(tmp_path / "a.nrrd", stored)
    image, plane = read_image(tmp_path / "a.nrrd", dims=2), describe_image(tmp_path / "a.nrrd", dims=2).plane
    assert image.geometry.size == (6, 5)
    np.testing.assert_array_equal(image.pixels, PIXELS[0])
    place = stored.geometry.index_to_world(np.insert([2.0, 3.0], single, 0))
    np.testing.assert_allclose(plane.lift(image.geometry.index_to_world([2, 3])), place, atol=1e-4)
    flat, off_mm = plane.drop(place + 0.25 * stored.geometry.direction[:, single])
    np.testing.assert_allclose(image.geometry.world_to_index(flat), [2, 3], atol=1e-4)
    assert off_mm == pytest.approx(0.25, abs=1e-4)


# --- read right ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_round_trip_of_oblique_images(suffix, dtype, dims, tmp_path):
    geometry, path = oblique(dims), tmp_path / f"a{suffix}"
    pixels = RNG.uniform(0, 200, geometry.size[::-1]).astype(dtype)
    write_image(path, Image(geometry, pixels))
    image, reference = read_image(path, dims=dims), sitk.ReadImage(str(path))
    assert image.pixels.dtype == dtype and image.geometry.size == geometry.size
    np.testing.assert_array_equal(image.pixels, pixels)
    np.testing.assert_array_equal(image.pixels, sitk.GetArrayFromImage(reference))
    assert_where_simpleitk_says(image.geometry, reference)
    np.testing.assert_allclose(image.geometry.corners_mm, geometry.corners_mm, atol=1e-3)
    np.testing.assert_array_equal(read_geometry(path).corners_mm, image.geometry.corners_mm)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_reflected_directions_survive(suffix, tmp_path):
    geometry = ImageGeometry((6, 5, 4), [1, 2, 3], [5, 6, 7], [[0, 0, 1], [-1, 0, 0], [0, 1, 0]] @ np.diag([1, 1, -1]))
    write_image(tmp_path / f"a{suffix}", Image(geometry, PIXELS))
    np.testing.assert_allclose(read_geometry(tmp_path / f"a{suffix}").corners_mm, geometry.corners_mm, atol=1e-4)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "raw.nrrd", "gz.nrrd", "raw.mha", "z.mha"])
def test_hand_written_files_lie_where_they_say(name, tmp_path):
    image = read_image(write(tmp_path / name, valid_files()[name]))
    np.testing.assert_allclose(image.geometry.index_to_world([1, 2, 3]), [3.5, 0, 16], atol=1e-5)
    np.testing.assert_array_equal(image.pixels, PIXELS)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_files_that_simpleitk_compresses(suffix, tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(PIXELS), str(tmp_path / f"a{suffix}"), useCompression=True)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").pixels, PIXELS)


def test_harmless_oddities_are_read(tmp_path):
    one_time = nifti(dim=(4, 6, 5, 4, 1, 1, 1, 1))
    head, tail = nifti()[:400], nifti()[400:]
    files = {
        "big_endian.nii": nifti(order=">"),
        "one_time.nii": one_time,
        "members.nii.gz": gzip.compress(head) + gzip.compress(tail),
        "padded.nii": nifti() + bytes(512),
        "UPPER.NII": nifti(),
        "crlf.nrrd": nrrd(b"").replace(b"\n", b"\r\n") + PIXELS.tobytes(),
        "keys.nrrd": nrrd().replace(b"kinds", b"data file:=my own key\n# a comment: x\nkinds"),
        "named ä.mha": mha(),
    }
    for name, content in files.items():
        np.testing.assert_array_equal(read_image(write(tmp_path / name, content)).pixels, PIXELS, err_msg=name)
    (tmp_path / "link.nii").symlink_to(tmp_path / "padded.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "link.nii").pixels, PIXELS)


def test_rescaled_and_constant_pixels(tmp_path):
    image = read_image(write(tmp_path / "a.nii", nifti(("2f", 112, 2, -5))))
    np.testing.assert_allclose(image.pixels, PIXELS * 2.0 - 5)
    assert (read_image(write(tmp_path / "b.nii", nifti(data=bytes(240)))).pixels == 0).all()


@pytest.mark.parametrize("name", ["a.nii", "big.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_some_nonfinite_pixels_become_the_smallest(name, tmp_path):
    order = ">" if name == "big.nii" else "<"
    data = np.arange(3, 123).astype(order + "f4")
    data[[0, 50, 119]] = np.nan, np.inf, -np.inf
    raw = data.tobytes()
    content = {"a.nrrd": nrrd(raw, type="float"), "a.mha": mha(raw, ElementType="MET_FLOAT")}.get(name)
    content = content or nifti(("2h", 70, 16, 32), data=raw, order=order)
    image = read_image(write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content))
    flat = image.pixels.ravel()
    assert flat[0] == flat[50] == flat[119] == 4  # not 0, which the NIfTI library would put there
    np.testing.assert_array_equal(np.delete(flat, [0, 50, 119]), np.delete(data, [0, 50, 119]))


def test_finite_samples_are_found_across_chunks(tmp_path):
    pixels = RNG.normal(size=(70, 80, 90))  # 4 MB in chunks of 1 MiB that do not end with a sample
    pixels.ravel()[::1000] = np.nan
    content = nifti(("2h", 70, 64, 64), data=pixels.tobytes(), dim=(3, 90, 80, 70, 1, 1, 1, 1))
    expected = np.where(np.isnan(pixels), np.nanmin(pixels), pixels)
    for path in (write(tmp_path / "a.nii", content), write(tmp_path / "a.nii.gz", gzip.compress(content, 1))):
        np.testing.assert_array_equal(read_image(path).pixels, expected)


# --- png and jpg ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind,suffix", [("PNG", ".png"), ("JPEG", ".jpg"), ("JPEG", ".jpeg")])
def test_dpi_is_no_spacing(kind, suffix, tmp_path):
    path = write(tmp_path / f"a{suffix}", raster(kind, dpi=(300, 300)))
    image = read_image(path, dims=2)
    assert image.geometry.size == (50, 40) and image.pixels.dtype == np.uint8
    for geometry in (image.geometry, read_geometry(path)):
        np.testing.assert_array_equal(geometry.index_to_world([3, 9]), [3, 9])
    np.testing.assert_array_equal(image.pixels, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


@pytest.mark.parametrize("kind,suffix", [("PNG", ".png"), ("JPEG", ".jpg")])
def test_colours_become_luminance(kind, suffix, tmp_path):
    colour = np.zeros((16, 48, 3), np.uint8)
    for k in range(3):
        colour[:, 16 * k : 16 * k + 16, k] = 255
    options = {"subsampling": 0, "quality": 95} if kind == "JPEG" else {}
    image = read_image(write(tmp_path / f"a{suffix}", raster(kind, colour, **options)))
    assert image.pixels.shape == (16, 48) and image.pixels.dtype == np.uint8
    np.testing.assert_allclose(image.pixels[8, [8, 24, 40]], [76, 150, 29], atol=2)


def test_grey_in_colour_files_is_kept(tmp_path):
    grey = RNG.integers(0, 256, (9, 11)).astype(np.uint8)
    alpha = np.full_like(grey, 7)
    for name, pixels in {"rgb": np.dstack([grey] * 3), "rgba": np.dstack([grey] * 3 + [alpha])}.items():
        np.testing.assert_array_equal(read_image(write(tmp_path / f"{name}.png", raster("PNG", pixels))).pixels, grey)


def test_png_and_jpg_round_trip(tmp_path):
    geometry = ImageGeometry.identity((11, 9))
    for dtype in (np.uint8, np.uint16):
        pixels = RNG.integers(0, np.iinfo(dtype).max, (9, 11)).astype(dtype)
        write_image(tmp_path / "a.png", Image(geometry, pixels))
        np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels)
    smooth = np.add.outer(np.arange(9), np.arange(11)).astype(np.uint8) * 10
    write_image(tmp_path / "a.jpg", Image(geometry, smooth))
    assert np.abs(read_image(tmp_path / "a.jpg").pixels.astype(int) - smooth).max() < 12


# --- DICOM ---------------------------------------------------------------------------------------------------------


def test_dicom_series_in_any_file_order(tmp_path):
    folder, axes = tmp_path / "scan", rotation(3)[:, :2].T
    names = ["b.dcm", "IM0003", "z.dcm", "a.dcm", "m.IMA"]
    pixels = write_series(folder, z=np.arange(5) * 2.5, names=names, axes=axes, spacing=(0.8, 0.3))
    (folder / "notes.txt").write_text("not an image", encoding="utf-8")
    image = read_image(folder, dims=3)
    np.testing.assert_array_equal(image.pixels, pixels)
    expected = ImageGeometry((6, 5, 5), [0.3, 0.8, 2.5], [10, -20, 30], np.stack([*axes, np.cross(*axes)], axis=1))
    np.testing.assert_allclose(image.geometry.corners_mm, expected.corners_mm, atol=1e-4)
    np.testing.assert_array_equal(read_geometry(folder).corners_mm, image.geometry.corners_mm)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    reference = reader.Execute()
    assert_where_simpleitk_says(image.geometry, reference)
    np.testing.assert_array_equal(image.pixels, sitk.GetArrayFromImage(reference))


def test_dicom_slices_stored_from_the_other_end(tmp_path):
    pixels = write_series(tmp_path / "scan", z=(9, 6, 3, 0))
    image = read_image(tmp_path / "scan")
    np.testing.assert_array_equal(image.pixels, pixels[::-1])
    np.testing.assert_allclose(image.geometry.index_to_world([0, 0, 3]), [10, -20, 39])


def test_dicom_single_slice(tmp_path):
    pixels = write_series(tmp_path / "one", z=(0,))
    image = read_image(tmp_path / "one", dims=2)
    np.testing.assert_array_equal(image.pixels, pixels[0])
    np.testing.assert_allclose(image.geometry.index_to_world([1, 1]), [10.5, -18])
    assert read_image(tmp_path / "one").pixels.shape == (1, 5, 6)


def test_dicom_slices_of_a_real_size(tmp_path):
    pixels = write_series(tmp_path / "scan", shapes=[(256, 320)] * 4)
    np.testing.assert_array_equal(read_image(tmp_path / "scan").pixels, pixels)


@pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless", "implicit", "bigendian", "expb"])
def test_dicom_in_other_transfer_syntaxes(name, tmp_path):
    pixels = []
    for file in ("MR_small.dcm", f"MR_small_{name}.dcm"):
        (tmp_path / file).mkdir()
        shutil.copy(get_testdata_file(file, download=False), tmp_path / file)
        pixels.append(read_image(tmp_path / file).pixels)
    np.testing.assert_array_equal(*pixels)
    assert pixels[0].shape == (1, 64, 64)


def test_dicom_limits_and_dimensions(tmp_path):
    write_series(tmp_path / "scan")
    with pytest.raises(ImageRejected, match="has 120 samples; allowed are 100"):
        read_geometry(tmp_path / "scan", limits=Limits(max_voxels=100))
    with pytest.raises(ImageRejected, match="a 3D image of size"):
        read_image(tmp_path / "scan", dims=2)


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,geometry,dtype,match",
    [
        ("a.txt", ImageGeometry.identity((6, 5, 4)), "int16", "cannot be written as '.txt'"),
        ("a.png", ImageGeometry.identity((6, 5), 0.5), "uint8", "png cannot store spacing"),
        ("a.png", ImageGeometry.identity((6, 5), 1.0, (3, 0)), "uint8", "png cannot store spacing"),
        ("a.png", ImageGeometry.identity((6, 5)), "float32", "SimpleITK refuses it"),
        ("a.jpg", ImageGeometry.identity((6, 5, 4)), "uint8", "."),
        ("a.nii", ImageGeometry.identity((6, 5)), "float16", "."),
    ],
)
def test_what_a_format_cannot_hold_is_not_written(name, geometry, dtype, match, tmp_path):
    old = write(tmp_path / name, b"old")
    with pytest.raises(ImageRejected, match=match) as caught:
        write_image(old, Image(geometry, np.zeros(geometry.size[::-1], dtype)))
    assert "\n" not in str(caught.value)
    assert old.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == [name]


def test_pixels_must_fit_the_size():
    with pytest.raises(ImageRejected, match="do not fit size"):
        Image(ImageGeometry.identity((5, 6)), np.zeros((6, 4)))


# --- real data -----------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize("folder,dims", [("mouse_ct", 3), ("hand_xray", 2)])
def test_real_images_read_as_simpleitk_does(folder, dims):
    files = sorted((REAL / folder / "images").glob("*"))[:3]
    if not files:
        pytest.skip("no real data beside the checkout")
    for file in files:
        image, reference = read_image(file, dims), sitk.ReadImage(str(file))
        np.testing.assert_array_equal(image.pixels, sitk.GetArrayFromImage(reference))
        assert_where_simpleitk_says(image.geometry, reference)
