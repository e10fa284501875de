"""ISBI text files and voxel lists: points land where the image's geometry says, and doubtful files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from landmarklabel.errors import LandmarkFileError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.images import Image, read_geometry, write_image
from landmarklabel.io.index_points import IndexPoints, mean_points, read_isbi, read_voxels, text_files
from landmarklabel.landmarks import LandmarkTask, Status

FLAT = LandmarkTask("ceph", ("sella", "nasion", "orbitale"), 2)
SOLID = LandmarkTask("ear", ("tip", "base"), 3)
SCAN = ImageGeometry.identity((200, 100))
ISBI = "10,20\n30.5,40\n0,99\n1\n2\n3\n"


def oblique() -> ImageGeometry:
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    q[:, 0] *= np.linalg.det(q)
    return ImageGeometry((9, 7, 5), (0.4, 1.3, 2.7), (11.5, -203.25, 77.1), q)


def folder_with(folder: Path, **files: str) -> Path:
    """A folder of files; ``a__nii__txt`` is ``a.nii.txt``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content.encode())
    return folder


def isbi(folder: Path, content: str, task: LandmarkTask = FLAT) -> IndexPoints:
    return read_isbi(folder_with(folder, a__txt=content), task)["a"]


def voxels(folder: Path, task: LandmarkTask = SOLID) -> dict[str, IndexPoints]:
    return read_voxels(folder, text_files(folder), task)


# --- ISBI ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        ISBI,
        ISBI.replace("\n", "\r\n"),
        "\ufeff" + ISBI,
        "10,20\n30.5,40\n0,99",
        "10, 20\n\n 30.5 ,40 \n0,99\n\n",
        "10 20\n30.5\t40\n0 99\n-1\n2.5\n",
    ],
)
def test_isbi_rows_are_pixels_and_numbers_after_them_are_ignored(tmp_path, content):
    landmarks = isbi(tmp_path, content).on(SCAN)
    assert landmarks.positions_mm.tolist() == [[10, 20], [30.5, 40], [0, 99]]
    assert set(landmarks.status) == {Status.PLACED} and landmarks.task is FLAT


def test_isbi_pixels_of_an_image_with_spacing(tmp_path):
    scan = ImageGeometry.identity((200, 100), 0.1, (5, 7))
    np.testing.assert_allclose(isbi(tmp_path, ISBI).on(scan).positions_mm[1], (5 + 3.05, 7 + 4))


def test_mean_of_two_annotators(tmp_path):
    first = read_isbi(folder_with(tmp_path / "senior", a__txt=ISBI), FLAT)
    second = read_isbi(folder_with(tmp_path / "junior", a__txt=ISBI.replace("10,20", "13,30")), FLAT)
    assert mean_points(first, second)["a"].on(SCAN).positions_mm.tolist() == [[11.5, 25], [30.5, 40], [0, 99]]
    second["b"] = second["a"]
    with pytest.raises(LandmarkFileError, match=r"image 'b': only .*junior/a.txt has its points"):
        mean_points(first, second)


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ("10,20\n30,40\n", [r"2 rows of coordinates, the task 'ceph' has 3 landmarks"]),
        ("1,2\n" * 4, [r"4 rows of coordinates, the task 'ceph' has 3 landmarks"]),
        ("1\n" + ISBI, [r"line 1: '1' has 1 values; a row is x y", r"4 rows"]),
        ("10,20\n30\n0,99\n1\n", [r"line 2: '30' has 1 values; a row is x y"]),
        ("10,20,\n30,40\nx,1e400\n", [r"line 1: '10,20,' has 3 values", r"line 3: position \['x', inf\] is not made of"]),
        ("10,nan\n30,inf\n0,1e9\n", [r"line 1: .* not finite", r"line 2: .* not finite", r"line 3: .* more than 1e\+06"]),
        ("10,20\n30,40\n0,99\nClass II\n", [r"line 4: position \['Class', 'II'\] is not made of numbers", r"4 rows"]),
        ("", [r"0 rows of coordinates"]),
    ],
)
def test_isbi_faults_are_all_listed(tmp_path, content, faults):
    with pytest.raises(LandmarkFileError) as error:
        isbi(tmp_path, content)
    assert len(error.value.faults) == len(faults)
    for fault in faults:
        error.match(rf"a\.txt: {fault}")


def test_faults_of_all_files_in_one_error(tmp_path):
    folder_with(tmp_path, a__txt="1,2\n", b__txt=ISBI, c__txt="1,2\n\xff,3\n5,6")
    (tmp_path / "d.txt").write_bytes(b"1,2\n\xff")
    with pytest.raises(LandmarkFileError, match=r"a\.txt: 1 rows.*; c\.txt: line 2: .*; d\.txt: not UTF-8") as error:
        read_isbi(tmp_path, FLAT)
    assert error.value.what == str(tmp_path) and len(error.value.faults) == 3


def test_isbi_of_a_3d_task(tmp_path):
    with pytest.raises(LandmarkFileError, match="ISBI files hold 2D points, the task 'ear' is 3D"):
        isbi(tmp_path, ISBI, SOLID)


# --- voxel lists ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a__txt", "a__nii__txt", "a__nii__gz__txt", "a__TXT"])
@pytest.mark.parametrize("content", ["4 0 8\n1 6 2.5\n", "4,0,8\n1, 6 ,2.5", "4\t0   8\r\n\r\n1 6 2.5\r\n"])
def test_voxels_are_indices_of_the_stored_array(tmp_path, name, content):
    points = voxels(folder_with(tmp_path, **{name: content}))["a"]
    geometry = oblique()
    landmarks = points.on(geometry)
    expected = geometry.origin + geometry.direction @ (geometry.spacing * [8, 0, 4])
    np.testing.assert_allclose(landmarks.positions_mm[0], expected)
    np.testing.assert_allclose(geometry.world_to_index(landmarks.positions_mm), [[8, 0, 4], [2.5, 6, 1]], atol=1e-9)


def test_voxels_agree_with_simpleitk_and_the_pixels(tmp_path):
    """The brightest element of the stored array lies where its "z y x" row puts the landmark."""
    pixels = np.zeros((5, 7, 9), np.int16)
    pixels[3, 6, 1] = 100
    write_image(tmp_path / "a.nii.gz", Image(oblique(), pixels))
    stored = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    where = np.unravel_index(sitk.GetArrayFromImage(stored).argmax(), pixels.shape)
    folder_with(tmp_path, a__nii__txt=" ".join(map(str, where)) + "\n0 0 0\n")
    landmarks = voxels(tmp_path)["a"].on(read_geometry(tmp_path / "a.nii.gz"))
    expected = stored.TransformContinuousIndexToPhysicalPoint([float(v) for v in where[::-1]])
    np.testing.assert_allclose(landmarks.positions_mm[0], expected, atol=1e-6)


def test_voxels_in_2d_are_x_y(tmp_path):
    points = voxels(folder_with(tmp_path, a__png__txt="150 20\n30 40\n0 99\n"), FLAT)["a"]
    assert points.on(SCAN).positions_mm.tolist() == [[150, 20], [30, 40], [0, 99]]


def test_points_outside_of_the_image_are_all_named(tmp_path):
    points = voxels(folder_with(tmp_path, a__txt="8 0 4\n1 -1 2\n"))["a"]
    with pytest.raises(LandmarkFileError) as error:
        points.on(oblique())
    assert error.value.faults == (
        "landmark 'tip': z y x = 8 0 4 is outside of the image, which has 5 7 9 samples along z y x",
        "landmark 'base': z y x = 1 -1 2 is outside of the image, which has 5 7 9 samples along z y x",
    )
    with pytest.raises(LandmarkFileError, match="'nasion': x y = 20 150 is outside of the image, which has 200 100 samples"):
        isbi(tmp_path, "10,20\n20,150\n1,1\n").on(SCAN)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("1 2 3\n4 5\n", r"line 2: '4 5' has 2 values; a row is z y x"),
        ("1 2 3\n4 5 6\n7\n", r"line 3: '7' has 1 values"),
        ("z y x\n1 2 3\n", r"line 1: position \['z', 'y', 'x'\] is not made of numbers"),
        ("1 2 3\n", r"1 rows of coordinates, the task 'ear' has 2 landmarks"),
    ],
)
def test_voxel_faults(tmp_path, content, fault):
    with pytest.raises(LandmarkFileError, match=fault):
        voxels(folder_with(tmp_path, a__txt=content))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(LandmarkFileError, match=r"nowhere: not a folder that can be read"):
        text_files(tmp_path / "nowhere")
    with pytest.raises(LandmarkFileError, match=r"no \.txt files in this folder"):
        text_files(folder_with(tmp_path, __hidden__txt="", a__csv=""))
    with pytest.raises(LandmarkFileError, match=r"a\.nii\.txt and a\.txt would both be of image 'a'"):
        text_files(folder_with(tmp_path, a__txt="", a__nii__txt=""))
