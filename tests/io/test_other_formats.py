"""What people bring: formats, headers and habits of other programs, read as those programs show them or refused in words."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture

from landmarklabel.errors import ImageRejected
from landmarklabel.io.images import describe_image, read_image

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 250, (30, 40)).astype(np.uint8)
VOLUME = RNG.integers(-500, 500, (4, 5, 6)).astype(np.int16)  # x, y, z as nibabel has it
AFFINE = np.array([[0.5, 0, 0, 10], [0, 1, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]])


def nifti(path: Path, sform=AFFINE, qform=AFFINE, codes=(1, 1), kind=nibabel.Nifti1Image, data=VOLUME) -> Path:
    image = kind(data, sform)
    image.set_qform(qform, codes[1])
    image.set_sform(sform, codes[0])
    nibabel.save(image, path)
    return path


# --- NIfTI ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 2), (4, 1), (4, 4)])
def test_transforms_that_differ_are_refused_whatever_their_codes(codes, tmp_path):
    moved = AFFINE.copy()
    moved[:3, 3] += 4, -3, 2
    path = nifti(tmp_path / "a.nii.gz", AFFINE, moved, codes)
    with pytest.raises(ImageRejected, match=r"sform and qform put the image in different places, up to \[-4, 3, -2\] mm apart"):
        read_image(path)


def test_transforms_that_are_turned_about_the_first_sample_are_refused(tmp_path):
    turned, angle = AFFINE.copy(), np.radians(10)
    turned[:2, :2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ AFFINE[:2, :2]
    with pytest.raises(ImageRejected, match="sform and qform put the image in different places"):
        read_image(nifti(tmp_path / "a.nii", AFFINE, turned))


def test_transforms_that_mirror_each_other_are_refused(tmp_path):
    with pytest.raises(ImageRejected, match="sform and qform put the image in different places"):
        read_image(nifti(tmp_path / "a.nii", AFFINE, np.diag([-1, 1, 1, 1]) @ AFFINE))


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 0), (0, 2)])
def test_one_transform_alone_counts(codes, tmp_path):
    moved = AFFINE.copy()
    moved[:3, 3] += 4, -3, 2
    path = nifti(tmp_path / "a.nii", AFFINE, moved, codes)
    geometry = read_image(path).geometry
    np.testing.assert_allclose(geometry.index_to_world([1, 2, 3]), (nibabel.load(path).affine @ [1, 2, 3, 1])[:3] * (-1, -1, 1))


def test_rounding_apart_is_no_difference(tmp_path):
    oblique = AFFINE.copy()
    oblique[:3, :3] = np.linalg.qr(RNG.normal(size=(3, 3)))[0] * [0.5, 1, 2]
    path = nifti(tmp_path / "a.nii", oblique + 1e-4 * np.eye(4)[[0, 1, 2, 2]], oblique)
    geometry = read_image(path).geometry
    np.testing.assert_allclose(geometry.index_to_world([1, 2, 3]), (oblique @ [1, 2, 3, 1])[:3] * (-1, -1, 1), atol=1e-3)


def test_a_file_that_does_not_say_where_it_lies_says_so(tmp_path):
    path = nifti(tmp_path / "a.nii", codes=(0, 0))
    assert describe_image(path).remarks == (
        "the file does not say where it lies (sform and qform codes 0): its first sample is put at 0",
    )
    np.testing.assert_array_equal(read_image(path).geometry.origin, sitk.ReadImage(str(path)).GetOrigin())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [np.int16, np.float32, np.uint8])
def test_nifti_2_lies_where_nibabel_puts_it(suffix, kind, tmp_path):
    path = nifti(tmp_path / f"a{suffix}", kind=nibabel.Nifti2Image, data=VOLUME.astype(kind))
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, nibabel.load(path).get_fdata().T)
    np.testing.assert_allclose(image.geometry.index_to_world([1, 2, 3]), (AFFINE @ [1, 2, 3, 1])[:3] * (-1, -1, 1))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ImageRejected, match="truncated|damaged"):
        read_image(path)


# --- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.tiff", "A.TIF"])
def test_pictures_of_other_formats(name, tmp_path):
    Picture.fromarray(GREY).save(tmp_path / name, dpi=(300, 300))
    image, about = read_image(tmp_path / name), describe_image(tmp_path / name)
    np.testing.assert_array_equal(image.pixels, GREY)
    assert about.unit == "px" and about.geometry.spacing.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["uint16", "float32", "int32"])
def test_deep_tiff(kind, tmp_path):
    values = GREY.astype(kind) * 200
    Picture.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, values)


def test_colours_of_bmp_and_tiff_become_luminance_as_those_of_png(tmp_path):
    colours = Picture.fromarray(RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8))
    for name in ("a.png", "b.bmp", "c.tif"):
        colours.save(tmp_path / name)
    first, *others = (read_image(path).pixels for path in sorted(tmp_path.iterdir()))
    assert all((first == pixels).all() for pixels in others)


def test_pages_and_damage_are_refused(tmp_path):
    page = Picture.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(ImageRejected, match="3 pages in one file; allowed is one"):
        read_image(tmp_path / "a.tif")
    exif = Picture.Exif()
    exif[0x0112] = 6
    page.save(tmp_path / "turned.tif", exif=exif)
    with pytest.raises(ImageRejected, match="orientation 6: readers disagree on turned TIFF files; save it upright"):
        read_image(tmp_path / "turned.tif")
    page.save(tmp_path / "b.bmp")
    (tmp_path / "b.bmp").write_bytes((tmp_path / "b.bmp").read_bytes()[:900])
    with pytest.raises(ImageRejected, match="truncated or damaged"):
        read_image(tmp_path / "b.bmp")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_is_turned_as_its_exif_orientation_says(orientation, suffix, tmp_path):
    from PIL import ImageOps

    stored = Picture.fromarray(np.kron(RNG.integers(0, 250, (3, 4)), np.ones((8, 8))).astype(np.uint8))
    exif = Picture.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    stored.save(path, exif=exif)
    with Picture.open(path) as opened:
        shown = np.asarray(ImageOps.exif_transpose(opened))
    image = read_image(path)
    assert image.geometry.size == shown.shape[::-1]
    assert np.abs(image.pixels.astype(int) - shown).max() <= 2
    says = (f"turned as its EXIF orientation ({orientation}) says, as viewers show it",)
    assert describe_image(path).remarks == (says if orientation > 1 else ())


def test_a_picture_that_is_all_alpha_is_refused(tmp_path):
    drawn = np.zeros((20, 30, 4), np.uint8)
    drawn[5:9, :, 3] = 255
    Picture.fromarray(drawn).save(tmp_path / "a.png")
    with pytest.raises(ImageRejected, match="the whole picture is in its alpha channel"):
        read_image(tmp_path / "a.png")


# --- text headers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_header_with_its_data_beside_it(suffix, compress, tmp_path):
    volume = sitk.GetImageFromArray(VOLUME)
    volume.SetSpacing((0.5, 1, 2))
    sitk.WriteImage(volume, str(tmp_path / f"a{suffix}"), compress)
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(image.pixels, VOLUME)
    assert image.geometry.spacing.tolist() == [0.5, 1, 2]
    data = next(p for p in tmp_path.iterdir() if p.suffix != suffix)
    whole = data.read_bytes()
    data.write_bytes(whole[:-60])
    with pytest.raises(ImageRejected, match="truncated"):
        read_image(tmp_path / f"a{suffix}")
    data.unlink()
    with pytest.raises(ImageRejected, match="there is no such file beside"):
        read_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("name", ["../x.raw", "/etc/passwd", "LIST", "a%03d.raw 1 3 1", "sub/x.raw", ".hidden"])
def test_a_header_reads_no_file_but_one_beside_it(name, tmp_path):
    head = "ObjectType = Image\nNDims = 2\nBinaryData = True\nDimSize = 3 4\nElementType = MET_UCHAR\nElementDataFile = "
    (tmp_path / "a.mhd").write_text(head + name + "\n", encoding="utf-8")
    with pytest.raises(ImageRejected, match="must be the plain name of one file beside a.mhd"):
        read_image(tmp_path / "a.mhd")


def test_a_link_is_no_data_file(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(12))
    (tmp_path / "a.raw").symlink_to(tmp_path / "secret")
    head = "ObjectType = Image\nNDims = 2\nBinaryData = True\nDimSize = 3 4\nElementType = MET_UCHAR\nElementDataFile = a.raw\n"
    (tmp_path / "a.mhd").write_text(head, encoding="utf-8")
    with pytest.raises(ImageRejected, match="there is no such file beside a.mhd"):
        read_image(tmp_path / "a.mhd")


@pytest.mark.parametrize("units", ['"um" "um" "um"', '"microns" "microns" "microns"', '"cm" "mm" "mm"'])
def test_units_that_other_programs_ignore_are_refused(units, tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(tmp_path / "a.nrrd"))
    head, data = (tmp_path / "a.nrrd").read_bytes().split(b"\n\n", 1)
    (tmp_path / "a.nrrd").write_bytes(head + b'\nspace units: "mm" "mm" "mm"\n\n' + data)
    read_image(tmp_path / "a.nrrd")
    (tmp_path / "a.nrrd").write_bytes(head + b"\nspace units: " + units.encode() + b"\n\n" + data)
    with pytest.raises(ImageRejected, match="space units .* allowed is mm"):
        read_image(tmp_path / "a.nrrd")


def test_a_2d_file_elsewhere_than_on_the_axial_plane_is_refused(tmp_path):
    """SimpleITK makes a mirrored axial image of a coronal one, and drops where an axial one lies."""
    flat, coronal = VOLUME[:, :, 0], np.array([[1, 0, 0, 5], [0, 0, 1, 6], [0, 1, 0, 7], [0, 0, 0, 1.0]])
    lifted = np.diag([1, 1, 1, 1.0])
    lifted[2, 3] = 30
    for number, affine in enumerate((coronal, lifted)):
        path = nifti(tmp_path / f"{number}.nii", affine, affine, data=flat)
        with pytest.raises(ImageRejected, match="does not lie on the axial plane z = 0.*volume of one slice"):
            read_image(path, 2)
    axial = np.diag([2.0, 3, 1, 1])
    read_image(nifti(tmp_path / "axial.nii", axial, axial, data=flat), 2)


def test_spaces_that_programs_read_differently(tmp_path):
    image = sitk.GetImageFromArray(VOLUME.T)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    content = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "b.nrrd").write_bytes(content.replace(b"space: left-posterior-superior", b"space: scanner-xyz"))
    with pytest.raises(ImageRejected, match="space 'scanner-xyz' does not say where left, back and up are"):
        read_image(tmp_path / "b.nrrd")
    (tmp_path / "c.nrrd").write_bytes(content.replace(b"space: left-posterior-superior", b"space dimension: 3"))
    assert describe_image(tmp_path / "c.nrrd").remarks[0].startswith("it does not say in which space its axes are: read as LPS")


def write_tiff(path: Path, grey: np.ndarray, photometric: int = 1, sample_format: int = 1) -> Path:
    """A bare little-endian TIFF file with one strip, tag by tag. Source: TIFF 6.0, section 8."""
    rows, columns = grey.shape
    tags = {256: columns, 257: rows, 258: 8 * grey.itemsize, 259: 1, 262: photometric}
    tags |= {273: 0, 277: 1, 278: rows, 279: grey.nbytes, 339: sample_format}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in sorted(tags.items()))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4 + grey.tobytes())
    return path


def test_greys_of_tiff_files_that_readers_change_are_refused(tmp_path):
    np.testing.assert_array_equal(read_image(write_tiff(tmp_path / "plain.tif", GREY)).pixels, GREY)
    wide = write_tiff(tmp_path / "wide.tif", GREY.astype("<u2") * 100)
    np.testing.assert_array_equal(read_image(wide).pixels, GREY.astype(np.uint16) * 100)
    for name, grey, tags, says in (
        ("white", GREY.astype("<u2"), {"photometric": 0}, "white is its smallest value"),
        ("signed", GREY.astype("i1"), {"sample_format": 2}, "its 8-bit signed values are not read rightly"),
        ("long", GREY.astype("<u4"), {}, "its 32-bit unsigned values are not read rightly"),
    ):
        with pytest.raises(ImageRejected, match=says):
            read_image(write_tiff(tmp_path / f"{name}.tif", grey, **tags))
