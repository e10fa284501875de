"""The hash of decoded pixels: one for the same image in any file, another for any change."""

from __future__ import annotations

import gzip
import time
import tracemalloc

import numpy as np
import pytest
from image_corpus import PIXELS, nifti, raster

from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.images import Image, read_image, write_image
from landmarklabel.io.pixels import pixel_hash

GREY = np.random.default_rng(3).integers(0, 256, (40, 50)).astype(np.uint8)
TURN = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
OBLIQUE = ImageGeometry((6, 5, 4), (0.4, 1.3, 2.7), (11.5, -203.25, 77.1), TURN)
GOLDEN = ["acdcc24d0b48f1d7", "4248960e722102ca", "62b1143d8e5a49c4", "13f18818446225f3"]


def hash_of(pixels: np.ndarray, geometry: ImageGeometry | None = None) -> str:
    return pixel_hash(Image(geometry or ImageGeometry.identity(pixels.shape[::-1]), pixels))


def test_the_same_pixels_hash_alike_in_any_container_and_compression(tmp_path):
    for level in (0, 9):
        (tmp_path / f"{level}.png").write_bytes(raster("PNG", GREY, compress_level=level))
    found = {pixel_hash(read_image(tmp_path / f"{level}.png")) for level in (0, 9)}
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha"):
        write_image(tmp_path / f"a{suffix}", read_image(tmp_path / "0.png"))
        found.add(pixel_hash(read_image(tmp_path / f"a{suffix}", 2)))
    plain = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    for level in (1, 9):
        (tmp_path / f"{level}.nii.gz").write_bytes(gzip.compress(plain, level))
        found.add(pixel_hash(read_image(tmp_path / f"{level}.nii.gz", 2)))
    assert len(found) == 1


def test_an_oblique_volume_hashes_alike_through_every_format(tmp_path):
    found = {hash_of(PIXELS, OBLIQUE)}
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha"):
        write_image(tmp_path / f"a{suffix}", Image(OBLIQUE, PIXELS))
        found.add(pixel_hash(read_image(tmp_path / f"a{suffix}")))
    assert len(found) == 1


def test_type_byte_order_and_memory_layout_do_not_matter(tmp_path):
    kinds = ("i2", ">i2", "u2", "i4", "i8", ">u8", "f4", ">f4", "f8")
    assert len({hash_of(PIXELS.astype(kind)) for kind in kinds}) == 1
    assert hash_of(np.asfortranarray(PIXELS)) == hash_of(PIXELS) == hash_of(PIXELS[::-1].copy()[::-1])
    halves = PIXELS + 0.5
    assert hash_of(halves.astype("f4")) == hash_of(halves) == hash_of(halves.astype(">f8"))
    assert hash_of(np.array([[0.0, 0.5]])) == hash_of(np.array([[-0.0, 0.5]]))
    (tmp_path / "little.nii").write_bytes(nifti())
    (tmp_path / "big.nii").write_bytes(nifti(order=">"))
    assert pixel_hash(read_image(tmp_path / "little.nii")) == pixel_hash(read_image(tmp_path / "big.nii"))


@pytest.mark.parametrize("kind", ["u1", "i2", "i8", "u8", "f4", "f8"])
def test_one_changed_value_shows(kind):
    base = GREY.astype(kind) + (np.array(2**60, kind) if kind[1] == "8" and kind != "f8" else np.array(0, kind))
    changed = base.copy()
    changed[-1, -1] += np.array(1, kind)
    assert hash_of(base) != hash_of(changed)
    if kind[0] == "f":
        changed = base.copy()
        changed[0, 0] += np.spacing(changed[0, 0])
        assert hash_of(base) != hash_of(changed)


def changes(geometry: ImageGeometry) -> list[ImageGeometry]:
    g, turn = geometry, np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])
    small = np.eye(3) @ [[1, -2e-4, 0], [2e-4, 1, 0], [0, 0, 1]]
    return [
        ImageGeometry(g.size, g.spacing * (1, 1, 1.0001), g.origin, g.direction),
        ImageGeometry(g.size, g.spacing, g.origin + (0, 0.002, 0), g.direction),
        ImageGeometry(g.size, g.spacing, g.origin, g.direction @ turn),
        ImageGeometry(g.size, g.spacing, g.origin, g.direction @ small),
        ImageGeometry(g.size, g.spacing, g.origin, -g.direction),
    ]


def test_spacing_origin_direction_shape_and_flips_show():
    found = [hash_of(PIXELS, g) for g in (OBLIQUE, *changes(OBLIQUE))]
    found += [hash_of(PIXELS[::-1], OBLIQUE), hash_of(PIXELS[:, :, ::-1], OBLIQUE), hash_of(PIXELS)]
    found += [hash_of(PIXELS.reshape(4, 6, 5)), hash_of(PIXELS[0]), hash_of(PIXELS[:1]), hash_of(PIXELS.astype(bool))]
    assert len(set(found)) == len(found)


def test_less_than_a_format_can_hold_does_not_show():
    g = OBLIQUE
    near = ImageGeometry(g.size, np.float32(g.spacing), g.origin + 1e-6, g.direction + 1e-8)
    assert hash_of(PIXELS, near) == hash_of(PIXELS, g)
    zero = ImageGeometry((6, 5, 4), (1, 1, 1), (-0.0, 0, -1e-9), np.array([[1, -0.0, 0], [0, 1, 0], [-1e-9, 0, 1]]))
    assert hash_of(PIXELS, zero) == hash_of(PIXELS)


@pytest.mark.parametrize("layout", ["plain", "flipped"])
def test_a_big_volume_is_hashed_quickly_and_without_a_copy(layout):
    pixels = np.random.default_rng(0).integers(-1000, 3000, (64, 512, 512), dtype=np.int32).astype(np.float32)  # 67 MB
    pixels = pixels if layout == "plain" else pixels[::-1, ::-1]
    tracemalloc.start()
    try:
        start = time.process_time()
        hash_of(pixels)
        seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8e6  # a few pieces of 2^18 samples and one slice
    assert pixels.nbytes / 1e6 / seconds > 30  # MB/s; an idle core makes ten times that


def test_the_hash_of_an_image_never_changes():
    """Label revisions and notes of predictions keep these: other rules need another version in what is hashed."""
    ramp = np.arange(24).reshape(2, 3, 4)
    place = ImageGeometry((4, 3, 2), (0.5, 0.75, 2), (1, -2.5, 3), np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
    found = [hash_of(ramp, place), hash_of(ramp / 7, place), hash_of(np.float32(ramp / 8), place), hash_of(ramp * 2**40)]
    assert [x[:16] for x in found] == GOLDEN
