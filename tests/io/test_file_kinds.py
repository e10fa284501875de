"""A file with the name of another kind is refused in words that say what it is."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image as Picture

from landmarklabel.errors import ImageRejected
from landmarklabel.io.images import read_image


def packed(content: bytes) -> bytes:
    """Without the time of packing: it would be a part of the test's name, and two workers would find different tests."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("scan.png", "jpeg", "this is not a PNG file: its content is that of a JPEG picture"),
        ("scan.nii.gz", "jpeg", "this is not a .nii.gz file: its content is that of a JPEG picture"),
        ("scan.nii", b"\x1f\x8b" + bytes(600), "this is not a NIfTI file: its content is that of a file packed by gzip"),
        ("scan.nii.gz", packed(b"NRRD0004\ntype: short\n\n" + bytes(600)), "its content is that of an NRRD file"),
        (
            "scan.mha",
            b"<html>log in first</html>" + bytes(600),
            "this is not a .mha file: its content is that of a web page or XML",
        ),
        ("scan.nii.gz", packed(b""), "this is not a NIfTI file: it is empty"),
        ("scan.nrrd", bytes(600), "this is not an NRRD file: was it renamed, or copied in part?"),
    ],
)
def test_what_it_is_instead(tmp_path, name, content, says):
    path = tmp_path / name
    if content == "jpeg":
        Picture.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "it.jpg")
        content = (tmp_path / "it.jpg").read_bytes()
    path.write_bytes(content)
    with pytest.raises(ImageRejected, match="wrong magic b") as refused:
        read_image(path, 2)
    assert says in str(refused.value)
