"""Points put onto the surface that a volume of distances shows, and how the file of such a volume is told from any other."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import read_image, write_image
from landmarklabel.io.stored_form import stored_copy
from landmarklabel.io.surface_volumes import VolumeSurface, onto_surface, shows_surface, surface_at, write_surface_volume
from landmarklabel.io.surfaces import CONFIG, Surface, distance_volume, write_surface
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

CENTRE, RADII = np.array([30.0, -4.0, 12.0]), np.array([18.0, 25.0, 12.0])


def egg(turns: int = 90) -> Surface:
    """Closed, its triangles facing outwards."""
    up, around = np.linspace(0, np.pi, turns // 2 + 1), np.arange(turns) * 2 * np.pi / turns
    u, a = np.meshgrid(up, around, indexing="ij")
    directions = np.stack([np.sin(u) * np.cos(a), np.sin(u) * np.sin(a), np.cos(u)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(turns // 2), np.arange(turns), indexing="ij")
    here, beside = i * turns + j, i * turns + (j + 1) % turns
    faces = np.concatenate([np.stack([here, here + turns, beside], -1), np.stack([beside, here + turns, beside + turns], -1)])
    return Surface(CENTRE + RADII * directions, faces.reshape(-1, 3))


@pytest.fixture(scope="module")
def volume() -> Image:
    return distance_volume(egg())


def places(far_mm: float, n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(3)
    direction = rng.normal(size=(n, 3))
    on_it = CENTRE + RADII * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return on_it + rng.uniform(-far_mm, far_mm, (n, 3))


@pytest.mark.parametrize("far_mm", [0.0, 0.2, 1.5, 8.0])
def test_the_place_found_is_that_of_the_triangles(volume, far_mm):
    sample, wanted = volume.geometry.spacing[0], places(far_mm)
    exact, off = egg().nearest(wanted)
    found, moved = VolumeSurface(volume, CONFIG.band).nearest(wanted)
    assert egg().nearest(found)[1].max() < 0.05 * sample
    assert np.abs(moved - off).max() < 0.05 * sample
    if far_mm < 2:  # farther off, places that are as near lie far from one another
        assert np.linalg.norm(found - exact, axis=1).max() < 0.25 * sample


def test_behind_the_band_of_an_open_surface_there_is_none(volume):
    closed = egg()
    bowl = Surface(closed.vertices, closed.faces[closed.vertices[closed.faces].mean(1)[:, 2] < CENTRE[2]])
    open_volume = distance_volume(bowl)
    behind = CENTRE - (0, 0, RADII[2]) + np.array([0, 0, CONFIG.band + 1]) * open_volume.geometry.spacing  # they jump
    found, moved = VolumeSurface(open_volume, CONFIG.band).nearest([behind])
    assert moved[0] == pytest.approx(bowl.nearest([behind])[1][0], abs=0.1 * open_volume.geometry.spacing[0])
    assert found[0][2] == pytest.approx(CENTRE[2] - RADII[2], abs=0.1)


def test_turned_and_moved_volumes_are_read_where_they_lie(volume):
    half = np.sqrt(0.5)
    direction = np.array([[half, -half, 0], [half, half, 0], [0, 0, 1]])
    turned = Image(ImageGeometry(volume.geometry.size, volume.geometry.spacing, np.array([7.0, 8, 9]), direction), volume.pixels)
    wanted = places(0.5)
    index = volume.geometry.world_to_index(wanted)
    found, _ = VolumeSurface(turned, CONFIG.band).nearest(turned.geometry.index_to_world(index))
    straight, _ = VolumeSurface(volume, CONFIG.band).nearest(wanted)
    np.testing.assert_allclose(turned.geometry.world_to_index(found), volume.geometry.world_to_index(straight), atol=1e-6)


def test_a_volume_with_the_mark_that_shows_no_surface_is_as_any_other(tmp_path, volume):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 60)).astype(np.uint8)
    others = {
        "dark": np.zeros((30, 30, 30), np.uint8),
        "noise": noise,
        "float": volume.pixels.astype(np.float32),
        "slice": volume.pixels[80:81],
    }
    for name, pixels in others.items():
        size = tuple(pixels.shape[::-1])
        write_surface_volume(path := tmp_path / f"{name}.nrrd", Image(ImageGeometry.identity(size), pixels))
        assert shows_surface(path) and surface_at(path) is None, name
    write_surface_volume(tmp_path / "egg.nrrd", volume)
    assert surface_at(tmp_path / "egg.nrrd") is not None


def test_the_stored_form_of_a_surface_says_what_it_is_and_other_programs_read_it(tmp_path):
    write_surface(tmp_path / "egg.ply", egg())
    (tmp_path / "kept").mkdir()
    kept = stored_copy(tmp_path / "egg.ply", tmp_path / "kept")
    assert kept.suffix == ".nrrd" and shows_surface(kept) and isinstance(surface_at(kept), VolumeSurface)
    by_another = sitk.ReadImage(str(kept))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(by_another), read_image(tmp_path / "egg.ply").pixels)
    assert by_another.GetMetaData("LandmarkLabelSurfaceBand") == "4"
    write_image(tmp_path / "plain.nrrd", read_image(kept))
    assert not shows_surface(tmp_path / "plain.nrrd") and surface_at(tmp_path / "plain.nrrd") is None
    assert shows_surface(tmp_path / "egg.ply") and isinstance(surface_at(tmp_path / "egg.ply"), Surface)


def test_what_lies_in_the_data_of_another_volume_says_nothing(tmp_path):
    line = np.frombuffer(b"\nLandmarkLabelSurfaceBand:=4\n" * 100, np.uint8)
    write_image(tmp_path / "x.mha", Image(ImageGeometry.identity((29, 10, 10)), line[:2900].reshape(10, 10, 29)))
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "x.mha")), str(tmp_path / "x.nrrd"), useCompression=False)
    assert b"LandmarkLabelSurfaceBand" in (tmp_path / "x.nrrd").read_bytes() and not shows_surface(tmp_path / "x.nrrd")


def test_only_what_is_predicted_moves(volume):
    task = LandmarkTask("egg", ("a", "b", "c", "d", "e"), 3)
    positions = np.vstack([places(1.0)[:3], np.full((2, 3), np.nan)])
    status = (Status.PREDICTED, Status.PLACED, Status.ACCEPTED, Status.ABSENT, Status.UNSET)
    landmarks, surface = LandmarkSet(task, positions, status), VolumeSurface(volume, CONFIG.band)
    put, moved = onto_surface(landmarks, surface)
    assert np.isfinite(moved).tolist() == [True, False, False, False, False]
    assert egg().nearest(put.positions_mm[:1])[1][0] < 0.02 and put.status == status
    np.testing.assert_array_equal(put.positions_mm[1:], positions[1:])
    same, nothing = onto_surface(landmarks, None)
    assert same is landmarks and np.isnan(nothing).all()
