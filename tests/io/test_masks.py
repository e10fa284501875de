"""Masks: a label becomes its centroid or its outermost samples in the world, whatever the axis order of the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture

from landmarklabel.errors import LandmarkFileError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.images import Image, write_image
from landmarklabel.io.masks import MaskLandmarks, read_masks
from landmarklabel.landmarks import LandmarkTask, Status

GRID = ImageGeometry.identity((8, 7, 6), (1.0, 2.0, 3.0), (10, 20, 30))


def task(n: int, dims: int = 3, **definitions: str) -> LandmarkTask:
    return LandmarkTask("organs", tuple(f"p{i}" for i in range(n)), dims, definitions)


def mask_file(path: Path, boxes: dict, geometry: ImageGeometry = GRID, dtype: type = np.uint8) -> Path:
    """A mask whose labels are boxes: label to slices of the array [z, ]y, x."""
    pixels = np.zeros(geometry.size[::-1], dtype)
    for label, where in boxes.items():
        pixels[where] = label
    write_image(path, Image(geometry, pixels))
    return path


def read(paths: list[Path], task: LandmarkTask, rule: str = "centroid") -> dict[str, MaskLandmarks]:
    return read_masks("masks", [(p.name.partition(".")[0], p) for p in paths], task, rule)


def turned() -> ImageGeometry:
    """An oblique geometry, a quarter turn and 20 degrees off the axes."""
    c, s = np.cos(np.radians(110)), np.sin(np.radians(110))
    return ImageGeometry((8, 7, 6), (1.0, 2.0, 3.0), (10, 20, 30), [[c, -s, 0], [s, c, 0], [0, 0, 1]])


# --- centroid ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_centroids_of_labels_in_ascending_order(tmp_path, suffix, dtype):
    boxes = {7: np.s_[0:3, 2, 4], 2: np.s_[4, 1:3, 0:4]}
    sets = read([mask_file(tmp_path / f"a{suffix}", boxes, dtype=dtype)], task(2))
    landmarks = sets["a"].on(GRID)
    np.testing.assert_allclose(landmarks.positions_mm, [[11.5, 23, 42], [14, 24, 33]], atol=1e-5)
    assert landmarks.status == (Status.PLACED, Status.PLACED)


def test_centroid_follows_an_oblique_geometry(tmp_path):
    path = mask_file(tmp_path / "a.nrrd", {1: np.s_[1:4, 2:5, 0:3]}, turned())
    positions_mm = read([path], task(1))["a"].on(turned()).positions_mm
    np.testing.assert_allclose(positions_mm, turned().index_to_world([[1, 3, 2]]), atol=1e-9)


def test_labels_of_all_cases_count_and_a_missing_one_is_absent(tmp_path):
    a = mask_file(tmp_path / "a.nrrd", {1: np.s_[0, 0, 0], 3: np.s_[5, 5, 5]})
    b = mask_file(tmp_path / "b.nrrd", {2: np.s_[1, 1, 1]})
    sets = {i: m.on(GRID) for i, m in read([a, b, mask_file(tmp_path / "c.nrrd", {})], task(3)).items()}
    assert sets["a"].status == (Status.PLACED, Status.ABSENT, Status.PLACED)
    assert sets["b"].status == (Status.ABSENT, Status.PLACED, Status.ABSENT)
    assert sets["c"].status == (Status.ABSENT,) * 3
    assert sets["b"].positions_mm[1].tolist() == [11, 22, 33]


def test_definitions_choose_labels(tmp_path):
    path = mask_file(tmp_path / "a.nrrd", {1: np.s_[0, 0, 0], 3: np.s_[5, 5, 5], 9: np.s_[2, 2, 2]})
    chosen = task(3, p0="Tip of the nose (label 9)", p1="Label 3", p2="label 40, the spleen")
    landmarks = read([path], chosen)["a"].on(GRID)
    assert landmarks.positions_mm[:2].tolist() == [[12, 24, 36], [15, 30, 45]]
    assert landmarks.status[2] is Status.ABSENT


def test_definitions_that_do_not_choose(tmp_path):
    path = mask_file(tmp_path / "a.nrrd", {1: np.s_[0, 0, 0]})
    with pytest.raises(LandmarkFileError) as error:
        read([path], task(4, p0="label 1", p1="label 0", p2="label 1"))
    assert error.value.faults == (
        "landmark 'p3': its definition says no 'label N', others do",
        "landmark 'p1': label 0 is the background",
        "landmark 'p2': label 1 is already 'p0'",
    )


def test_2d_masks(tmp_path):
    flat = ImageGeometry.identity((8, 7))
    path = mask_file(tmp_path / "a.png", {1: np.s_[2, 1:4], 2: np.s_[6, 7]}, flat)
    assert read([path], task(2, 2))["a"].on(flat).positions_mm.tolist() == [[2, 2], [7, 6]]


# --- extremes ------------------------------------------------------------------------------------------------------


def test_extremes_are_means_of_ties_in_the_stated_order(tmp_path):
    boxes = {4: np.s_[1:4, 2:5, 3:7], 5: np.s_[5, 0, 1]}
    path = mask_file(tmp_path / "a.nrrd", boxes)
    positions_mm = read([path], task(12), "extremes")["a"].on(GRID).positions_mm
    x, y, z = 14.5, 26, 36  # the box's centre
    box = [[13, y, z], [16, y, z], [x, 24, z], [x, 28, z], [x, y, 33], [x, y, 39]]
    np.testing.assert_allclose(positions_mm, [*box, *[[11, 20, 45]] * 6], atol=1e-9)


def test_extremes_of_ties_apart_and_in_2d(tmp_path):
    flat = ImageGeometry.identity((8, 7))
    path = mask_file(tmp_path / "a.png", {1: np.s_[[0, 2, 6, 3], [2, 6, 2, 0]]}, flat)  # rows, columns of four samples
    positions = read([path], task(4, 2), "extremes")["a"].on(flat).positions_mm
    assert positions.tolist() == [[0, 3], [6, 2], [2, 0], [2, 6]]
    tied = mask_file(tmp_path / "b.png", {1: np.s_[[0, 6, 3], [0, 0, 4]]}, flat)
    assert read([tied], task(4, 2), "extremes")["b"].on(flat).positions_mm[0].tolist() == [0, 3]


def test_extremes_are_along_world_axes_and_do_not_depend_on_how_the_mask_is_stored(tmp_path):
    rng = np.random.default_rng(5)
    geometry, pixels = turned(), (rng.random((6, 7, 8)) < 0.1).astype(np.uint8)
    write_image(tmp_path / "a.nrrd", Image(geometry, pixels))
    flipped = ImageGeometry((6, 7, 8), (3, 2, 1), geometry.index_to_world([7, 0, 0]), geometry.direction[:, ::-1] * [1, 1, -1])
    write_image(tmp_path / "b.nrrd", Image(flipped, np.ascontiguousarray(pixels.transpose(2, 1, 0)[::-1])))
    sets = read([tmp_path / "a.nrrd", tmp_path / "b.nrrd"], task(6), "extremes")
    one, other = (sets[i].on(geometry).positions_mm for i in "ab")
    np.testing.assert_allclose(one, other, atol=1e-6)
    samples = geometry.index_to_world(np.argwhere(pixels)[:, ::-1])
    for k in range(3):
        np.testing.assert_allclose(one[2 * k : 2 * k + 2, k], [samples[:, k].min(), samples[:, k].max()], atol=1e-6)


def test_a_rounded_direction_keeps_ties(tmp_path):
    c, s = np.cos(1e-6), np.sin(1e-6)
    rounded = ImageGeometry((8, 7, 6), (1, 2, 3), (10, 20, 30), [[c, -s, 0], [s, c, 0], [0, 0, 1]])
    path = mask_file(tmp_path / "a.nrrd", {1: np.s_[1:4, 2:5, 3:7]}, rounded)
    positions_mm = read([path], task(6), "extremes")["a"].on(GRID).positions_mm
    np.testing.assert_allclose(positions_mm[0], [13, 26, 36], atol=1e-3)


def test_extremes_of_an_absent_label(tmp_path):
    paths = [mask_file(tmp_path / f"{i}.nrrd", {label: np.s_[0, 0, 0]}) for i, label in (("a", 1), ("b", 2))]
    assert read(paths, task(12), "extremes")["b"].on(GRID).status == (Status.ABSENT,) * 6 + (Status.PLACED,) * 6


# --- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "n", "fault"),
    [
        ("centroid", 3, r"2 label values \[1, 4\], so rule centroid needs a task with 2 landmarks; 'organs' has 3; or give"),
        ("extremes", 6, r"2 label values \[1, 4\], so rule extremes needs a task with 12 landmarks; 'organs' has 6$"),
    ],
)
def test_number_of_landmarks(tmp_path, rule, n, fault):
    path = mask_file(tmp_path / "a.nrrd", {1: np.s_[0, 0, 0], 4: np.s_[1, 1, 1]})
    with pytest.raises(LandmarkFileError, match=fault):
        read([path], task(n), rule)


def test_values_that_are_no_labels_and_damaged_masks_in_one_error(tmp_path):
    half = mask_file(tmp_path / "a.nrrd", {1.5: np.s_[0, 0, 0], -2: np.s_[1]}, dtype=np.float32)
    good = mask_file(tmp_path / "b.nrrd", {1: np.s_[0, 0, 0]})
    (tmp_path / "c.nrrd").write_bytes(b"")
    lossy = mask_file(tmp_path / "d.jpg", {1: np.s_[0, 0]}, ImageGeometry.identity((8, 8)))
    with pytest.raises(LandmarkFileError) as error:
        read([half, good, tmp_path / "c.nrrd", lossy], task(1))
    assert error.value.faults == (
        "a.nrrd: value 1.5 is not a whole number; a mask holds label values",
        "a.nrrd: value -2 is negative; 0 is the background, labels are above",
        "c.nrrd: empty file",
        "d.jpg: a jpg does not keep label values; give the mask as png, nrrd or nii.gz",
    )


def test_a_scan_is_no_mask(tmp_path):
    geometry = ImageGeometry.identity((20, 20, 20))
    write_image(tmp_path / "a.nrrd", Image(geometry, np.arange(8000, dtype=np.uint16).reshape(20, 20, 20)))
    with pytest.raises(LandmarkFileError, match=r"a\.nrrd: more than 5000 values; a scan instead of a segmentation\?"):
        read([tmp_path / "a.nrrd"], task(1))


def test_no_masks():
    with pytest.raises(LandmarkFileError, match="masks: no masks"):
        read([], task(1))


def test_mask_on_another_grid_and_elsewhere(tmp_path):
    mask = read([mask_file(tmp_path / "a.nrrd", {1: np.s_[0:2, 0, 0]})], task(1))["a"]
    coarse = ImageGeometry.identity((3, 3, 3), 6.0, (8, 18, 28))
    np.testing.assert_allclose(mask.on(coarse).positions_mm, [[10, 20, 31.5]])
    with pytest.raises(LandmarkFileError, match=r"a\.nrrd: the mask does not overlap the image: it lies between \(9.5, 19, "):
        mask.on(ImageGeometry.identity((8, 7, 6), 1.0, (100, 20, 30)))
    with pytest.raises(LandmarkFileError, match=r"none of the mask's landmarks is inside the image, the first at \(10, 20, 31.5"):
        mask.on(ImageGeometry.identity((8, 7, 6), 1.0, (14, 20, 30)))


def test_a_png_mask_must_have_the_images_pixels(tmp_path):
    flat = ImageGeometry.identity((8, 7))
    mask = read([mask_file(tmp_path / "a.png", {1: np.s_[0, 0]}, flat)], task(1, 2))["a"]
    for image in (ImageGeometry.identity((16, 14)), ImageGeometry.identity((8, 7), 0.1)):
        with pytest.raises(LandmarkFileError, match=r"a png mask of size \(8, 7\) says no spacing"):
            mask.on(image)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_of_a_picture_with_a_palette_the_numbers_count_and_not_how_bright_their_colours_are(tmp_path, suffix):
    numbers = np.zeros((40, 50), np.uint8)
    for label in (1, 2, 3):
        numbers[10 * label, 5 * label] = label
    picture = Picture.fromarray(numbers, mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])  # as drawing programs have it: blue is the darkest
    picture.save(tmp_path / f"a.{suffix}")
    landmarks = read([tmp_path / f"a.{suffix}"], task(3, 2))["a"].landmarks
    assert landmarks.positions_mm.tolist() == [[5, 10], [10, 20], [15, 30]]


def test_a_picture_with_a_palette_is_turned_as_any_other(tmp_path):
    numbers = np.zeros((40, 50), np.uint8)
    numbers[10, 5] = 1
    picture = Picture.fromarray(numbers, mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    exif = Picture.Exif()
    exif[0x0112] = 6  # stored lying on its side
    picture.save(tmp_path / "a.png", exif=exif)
    assert read([tmp_path / "a.png"], task(1, 2))["a"].landmarks.positions_mm.tolist() == [[29, 5]]


def test_a_mask_in_colours_is_refused_and_one_whose_colours_are_greys_is_read(tmp_path):
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[5, 6] = 1
    Picture.fromarray(colours).save(tmp_path / "grey.png")
    assert read([tmp_path / "grey.png"], task(1, 2))["grey"].landmarks.positions_mm.tolist() == [[6, 5]]
    colours[9, 9] = (255, 0, 0)
    Picture.fromarray(colours).save(tmp_path / "red.png")
    with pytest.raises(LandmarkFileError, match="a picture in colours; a mask holds a number for each label"):
        read([tmp_path / "red.png"], task(2, 2))


def lines(most: int) -> np.ndarray:
    """Numbers from 1 to ``most``, each at a place of its own."""
    numbers = np.zeros((40, 50), np.uint8)
    for label in range(1, most + 1):
        numbers[10 * label, 5 * label] = label
    return numbers


@pytest.mark.parametrize("name", ["one_bit.png", "one_bit.bmp", "one_bit.tif"])
def test_a_mask_of_one_bit_has_label_1(tmp_path, name):
    Picture.fromarray(lines(1) > 0).save(tmp_path / name)
    found = read([tmp_path / name], task(1, 2, p0="label 1"))["one_bit"].landmarks
    assert found.positions_mm.tolist() == [[5, 10]]


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_values_of_few_bits_are_numbers(tmp_path, bits):
    numbers, samples = lines(3), 8 // bits
    rows = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % samples))).reshape(40, -1, samples)
    packed = (rows << (bits * np.arange(samples)[::-1])).sum(-1).astype(np.uint8)
    header = struct.pack(">IIBBBBB", 50, 40, bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, chunk in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        content += struct.pack(">I", len(chunk)) + kind + chunk + struct.pack(">I", zlib.crc32(kind + chunk))
    (tmp_path / "a.png").write_bytes(content)
    stated = {f"p{i}": f"label {i + 1}" for i in range(3)}
    assert read([tmp_path / "a.png"], task(3, 2, **stated))["a"].landmarks.positions_mm.tolist() == [[5, 10], [10, 20], [15, 30]]


def test_a_mask_in_which_white_is_zero_is_refused(tmp_path):
    Picture.fromarray(lines(3)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(LandmarkFileError, match="a.tif: white is its smallest value; save it with black as zero"):
        read([tmp_path / "a.tif"], task(3, 2))


def test_a_mask_none_of_whose_values_is_a_label_is_refused(tmp_path):
    Picture.fromarray(lines(3) * 10).save(tmp_path / "a.png")
    stated = {f"p{i}": f"label {i + 1}" for i in range(3)}
    with pytest.raises(LandmarkFileError, match="a.png: none of its values .10, 20, 30. is the label of a landmark"):
        read([tmp_path / "a.png"], task(3, 2, **stated))
    Picture.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / "empty.png")
    assert read([tmp_path / "empty.png"], task(3, 2, **stated))["empty"].landmarks.status == (Status.ABSENT,) * 3


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_picture_of_another_size_is_no_mask_of_an_image(tmp_path, suffix):
    Picture.fromarray(lines(1)).save(tmp_path / f"a.{suffix}")
    found = read([tmp_path / f"a.{suffix}"], task(1, 2))["a"]
    with pytest.raises(LandmarkFileError, match=f"a {suffix} mask of size .* must be a picture of that size"):
        found.on(ImageGeometry.identity((100, 80), (1.0, 1.0), (0, 0)))
    assert found.on(ImageGeometry.identity((50, 40), (1.0, 1.0), (0, 0))) == found.landmarks


def test_colours_of_16_bits_are_refused_however_small_they_are(tmp_path):
    colours = np.zeros((20, 30, 3), np.uint16)
    colours[5, 6] = (3, 1, 2)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / "a.png"))
    with pytest.raises(LandmarkFileError, match="a picture in colours"):
        read([tmp_path / "a.png"], task(1, 2))
