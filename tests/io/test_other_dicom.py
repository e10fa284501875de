"""DICOM as people bring it: other spacings, slopes, names, frames and folders, read as its own programs show it or refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from image_corpus import write_series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from landmarklabel.errors import ImageRejected
from landmarklabel.io.dicom_series import single_images
from landmarklabel.io.images import describe_image, read_image

RNG = np.random.default_rng(3)


def changed(folder: Path, change) -> list[Path]:
    """A series of six slices, with ``change(data set, number)`` applied to each."""
    write_series(folder)
    paths = sorted(folder.iterdir())
    for number, path in enumerate(sorted(paths, key=lambda p: float(pydicom.dcmread(p).ImagePositionPatient[2]))):
        header = pydicom.dcmread(path)
        change(header, number)
        header.save_as(path)
    return paths


DX = UID("1.2.840.10008.5.1.4.1.1.1.1")


@pytest.mark.parametrize(
    ("stated", "spacing", "says"),
    [
        (
            {"PixelSpacing": [0.15, 0.3]},
            (0.3, 0.15),
            ("spacing 0.3 x 0.15 mm is PixelSpacing, where SimpleITK takes 1: its points lie elsewhere",),
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.4]},
            (0.4, 0.2),
            ("spacing 0.4 x 0.2 mm is that at the detector (ImagerPixelSpacing): the patient is smaller",),
        ),
        (
            {"NominalScannedPixelSpacing": [0.1, 0.1]},
            (0.1, 0.1),
            ("spacing 0.1 mm is that of a scanned film (NominalScannedPixelSpacing)",),
        ),
        (
            {"PixelSpacing": [0.15, 0.15], "ImagerPixelSpacing": [0.2, 0.2]},
            (0.15, 0.15),
            (
                "spacing 0.15 mm is PixelSpacing (calibrated), not the 0.2 mm at the detector, which SimpleITK takes: points "
                "that were placed with it lie elsewhere",
            ),
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25},
            (0.2, 0.2),
            ("spacing 0.2 mm is that at the detector (ImagerPixelSpacing): the patient is smaller by about 1.25",),
        ),
        ({}, (1, 1), ("the file states no spacing of its pixels: distances are in pixels",)),
    ],
)
def test_which_spacing_of_a_radiograph_counts_and_why(stated, spacing, says, tmp_path):
    write_series(tmp_path / "s")
    header = pydicom.dcmread(sorted((tmp_path / "s").iterdir())[0])
    for name in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(header, name)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = DX
    header.Modality = "DX"
    for name, value in stated.items():
        setattr(header, name, value)
    header.save_as(tmp_path / "a.dcm")
    about = describe_image(tmp_path / "a.dcm", 2)
    assert (tuple(about.geometry.spacing), about.remarks) == (spacing, says)
    assert about.unit == ("mm" if stated else "px")


def test_slices_with_slopes_of_their_own_keep_their_values(tmp_path):
    def rescaled(header, number):
        header.RescaleSlope, header.RescaleIntercept = str([0.5, 100, 3][number % 3]), "-7"

    paths = changed(tmp_path / "s", rescaled)
    image = read_image(tmp_path / "s")
    by_pydicom = sorted((pydicom.dcmread(p) for p in paths), key=lambda h: float(h.ImagePositionPatient[2]))
    expected = [h.pixel_array * float(h.RescaleSlope) + float(h.RescaleIntercept) for h in by_pydicom]
    np.testing.assert_array_equal(image.pixels, np.array(expected, np.float32))
    assert describe_image(tmp_path / "s").remarks


@pytest.mark.parametrize(("step", "decimals"), [(1 / 3, 2), (0.625, 2), (2 / 3, 1)])
def test_rounded_positions_are_even(step, decimals, tmp_path):
    def placed(header, number):
        header.ImagePositionPatient = ["0", "0", f"{number * step:.{decimals}f}"]

    changed(tmp_path / "s", placed)
    assert read_image(tmp_path / "s").geometry.spacing[2] == pytest.approx(step, abs=10**-decimals)


@pytest.mark.parametrize("decimals", [0, 2])
def test_a_missing_slice_is_still_missed(decimals, tmp_path):
    def placed(header, number):
        header.ImagePositionPatient = ["0", "0", f"{(number + (number > 1)) * 1.0:.{decimals}f}"]

    changed(tmp_path / "s", placed)
    with pytest.raises(ImageRejected, match="a slice is missing"):
        read_image(tmp_path / "s")


def test_files_are_slices_by_their_content_whatever_they_are_called(tmp_path):
    write_series(tmp_path / "s")
    whole = read_image(tmp_path / "s").pixels
    for number, path in enumerate(sorted((tmp_path / "s").iterdir())):
        path.rename(path.with_name(f"{number}.dc3"))
    np.testing.assert_array_equal(read_image(tmp_path / "s").pixels, whole)


def test_files_without_a_preamble(tmp_path):
    write_series(tmp_path / "s")
    whole = read_image(tmp_path / "s")
    for path in (tmp_path / "s").iterdir():
        header = pydicom.dcmread(path)
        bare = Dataset({tag: header[tag] for tag in header.keys()})  # noqa: SIM118
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pydicom.dcmwrite(path, _plain(bare, header))
        assert path.read_bytes()[128:132] != b"DICM"
    image = read_image(tmp_path / "s")
    np.testing.assert_array_equal(image.pixels, whole.pixels)
    np.testing.assert_allclose(image.geometry.corners_mm, whole.geometry.corners_mm)


def _plain(bare: Dataset, header) -> Dataset:
    bare.is_little_endian, bare.is_implicit_VR = header.is_little_endian, header.is_implicit_VR
    return bare


def enhanced(path: Path, order=(2, 0, 3, 1), step=2.5) -> np.ndarray:
    """An enhanced CT of four frames in any order; returns the voxels as they lie, [z, y, x]."""
    write_series(path.parent / "s")
    header = pydicom.dcmread(sorted((path.parent / "s").iterdir())[0])
    voxels = RNG.integers(0, 900, (4, header.Rows, header.Columns)).astype(np.uint16)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        if name in header:
            delattr(header, name)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2.1")
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.NumberOfFrames = 4

    def group(**values) -> Sequence:
        inner = Dataset()
        for name, value in values.items():
            setattr(inner, name, value)
        return Sequence([inner])

    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.5, 0.75], SliceThickness=step)
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelValueTransformationSequence = group(RescaleSlope="2", RescaleIntercept="-100", RescaleType="HU")
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for z in order:
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[-10, -20, z * step])
        frames.append(frame)
    header.PerFrameFunctionalGroupsSequence = Sequence(frames)
    header.PixelData = voxels[list(order)].tobytes()
    header.save_as(path)
    return voxels.astype(float) * 2 - 100


def test_an_enhanced_file_is_a_volume_in_the_order_of_its_positions(tmp_path):
    voxels = enhanced(tmp_path / "a.dcm")
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.pixels, voxels)
    np.testing.assert_allclose(image.geometry.index_to_world([1, 2, 3]), [-10 + 0.75, -20 + 1, 7.5])


def test_frames_that_are_no_volume_are_refused(tmp_path):
    enhanced(tmp_path / "a.dcm")
    header = pydicom.dcmread(tmp_path / "a.dcm")
    del header.PerFrameFunctionalGroupsSequence
    header.save_as(tmp_path / "b.dcm")
    with pytest.raises(ImageRejected, match="4 frames in one file that does not say where they are"):
        read_image(tmp_path / "b.dcm")
    enhanced(tmp_path / "c.dcm", order=(0, 1, 1, 2))
    with pytest.raises(ImageRejected, match="two slices lie at the same position"):
        read_image(tmp_path / "c.dcm")


def test_which_files_of_a_folder_are_images_by_themselves(tmp_path):
    write_series(tmp_path / "series")
    assert single_images(tmp_path / "series") == []
    for number in range(3):
        write_series(tmp_path / f"s{number}")
        header = pydicom.dcmread(sorted((tmp_path / f"s{number}").iterdir())[0])
        header.SeriesInstanceUID = f"1.2.3.{number}"
        (tmp_path / "apart").mkdir(exist_ok=True)
        header.save_as(tmp_path / "apart" / f"{number}.dcm")
    assert [p.name for p in single_images(tmp_path / "apart")] == ["0.dcm", "1.dcm", "2.dcm"]


def test_a_series_beside_other_images_is_no_heap_of_slices(tmp_path):
    from landmarklabel.errors import StudyError
    from landmarklabel.io.folders import find_images

    write_series(tmp_path / "s")
    sitk.WriteImage(sitk.Image(4, 5, 6, sitk.sitkInt16), str(tmp_path / "s" / "v.nii"))
    with pytest.raises(StudyError, match="4 DICOM files of one series .* lie beside other images; put them into a folder"):
        find_images([tmp_path / "s"])
    (tmp_path / "one").mkdir()
    first, *_ = sorted((tmp_path / "s").glob("*.dcm"))
    first.rename(tmp_path / "one" / "case7.dcm")
    (tmp_path / "one" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert list(find_images([tmp_path / "one"]).paths) == ["case7"]


def test_files_of_two_patients_under_one_series_are_refused(tmp_path):
    write_series(tmp_path / "s")
    path = sorted((tmp_path / "s").iterdir())[0]
    header = pydicom.dcmread(path)
    header.PatientID = "somebody else"
    header.save_as(path)
    with pytest.raises(ImageRejected, match="files are of different patients or frames of reference under one series"):
        read_image(tmp_path / "s")


@pytest.mark.parametrize("signed", (0, 1))
def test_a_negative_is_read_as_the_picture_that_it_is_of(tmp_path, signed):
    """As viewers show it: in MONOCHROME1 the smallest value is white."""
    kind = np.int16 if signed else np.uint16

    def change(header, number):
        header.PixelRepresentation, header.PhotometricInterpretation = signed, "MONOCHROME1"
        header.PixelData = np.abs(header.pixel_array).astype(kind).tobytes()

    paths = changed(tmp_path / "negative", change)
    stored = sorted((pydicom.dcmread(p) for p in paths), key=lambda h: float(h.ImagePositionPatient[2]))
    picture = read_image(tmp_path / "negative").pixels
    brightest = -1 if signed else 65535
    np.testing.assert_array_equal(picture, brightest - np.array([h.pixel_array for h in stored], int))
