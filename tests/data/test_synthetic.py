"""Phantoms: exact positions on any grid, really missing structures, look-alike joints, repeatable by seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from landmarklabel.data.synthetic import Part, PhantomScene, big_phantom, draw_phantom, draw_scene, phantom_task
from landmarklabel.errors import TaskError, UsageError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.landmarks import LandmarkTask, Status

DIMS = pytest.mark.parametrize("dims", [2, 3])
OBLIQUE = np.linalg.qr(np.array([[0.2, -1.0, 0.1], [0.1, 0.2, 1.0], [-1.0, -0.1, 0.3]]))[0]


def grid(dims, spacing, direction=None, extent_mm=128.0):
    """A grid about the world's origin."""
    spacing = np.broadcast_to(np.asarray(spacing, float), (dims,))
    direction = np.eye(dims) if direction is None else direction[:dims, :dims]
    size = tuple(int(s) for s in np.ceil(extent_mm / spacing))
    return ImageGeometry(size, spacing, -direction @ ((np.array(size) - 1) / 2 * spacing), direction)


def sample(phantom, positions_mm):
    """Linear interpolation of the pixels at world positions (…, d)."""
    index = phantom.geometry.world_to_index(positions_mm)
    return map_coordinates(phantom.pixels.astype(float), np.moveaxis(index, -1, 0)[::-1], order=1, mode="nearest")


def patch(phantom, name, radius):
    at = phantom.landmarks.positions_mm[phantom.landmarks.task.index(name)]
    centre = np.rint(phantom.geometry.world_to_index(at)).astype(int)[::-1]
    return phantom.pixels[tuple(slice(c - radius, c + radius + 1) for c in centre)].astype(float)


@DIMS
def test_same_seed_same_phantom(dims):
    task = phantom_task(dims)
    one, same, other = (draw_phantom(task, seed, size=40, spacing=3) for seed in (4, 4, 5))
    assert np.array_equal(one.pixels, same.pixels)
    assert np.array_equal(one.landmarks.positions_mm, same.landmarks.positions_mm, equal_nan=True)
    assert one.landmarks.status == same.landmarks.status
    assert not np.array_equal(one.pixels, other.pixels)


def test_defaults():
    hand, spine = draw_phantom(phantom_task(2), 0), draw_phantom(phantom_task(3), 0)
    assert hand.pixels.dtype == np.uint8 and hand.pixels.shape == (160, 128) == hand.geometry.size[::-1]
    assert spine.pixels.dtype == np.int16 and spine.pixels.shape == (48, 48, 48)
    assert np.array_equal(hand.geometry.direction, np.eye(2)) and np.array_equal(hand.geometry.origin, [0, 0])


@DIMS
def test_task_names_every_landmark(dims):
    task = phantom_task(dims)
    assert 10 <= len(task) <= 16 and task.name == f"phantom{dims}d"
    assert set(task.definitions) == set(task.names) and len(set(task.definitions.values())) == len(task)
    assert task.mirror_pairs
    for n in (1, 2, 7, 60):
        assert len(phantom_task(dims, n)) == n
        assert draw_phantom(phantom_task(dims, n), 0, size=32, spacing=4, absent_fraction=0).landmarks.defined.all()


@DIMS
@pytest.mark.parametrize("oblique", [False, True])
def test_all_landmarks_inside_when_none_is_to_be_absent(dims, oblique):
    task, spacing = phantom_task(dims), (6.0, 5.0, 9.0)[:dims]
    for seed in range(60):
        phantom = draw_phantom(task, seed, size=20, spacing=spacing, absent_fraction=0, oblique=oblique)
        assert set(phantom.landmarks.status) == {Status.PLACED}
        assert phantom.geometry.contains(phantom.landmarks.positions_mm, margin=0).all()


@DIMS
def test_a_landmark_outside_the_field_of_view_is_absent(dims):
    scene = draw_scene(phantom_task(dims), 1, grid(dims, 4), absent_fraction=0, pose=0)
    whole, part = scene.render(grid(dims, 4)), scene.render(grid(dims, 4, extent_mm=60))
    inside = part.geometry.contains(whole.landmarks.positions_mm, margin=0)
    assert 0 < inside.sum() < len(inside)
    assert np.array_equal(part.landmarks.defined, inside)
    assert {s for s, i in zip(part.landmarks.status, inside, strict=True) if not i} == {Status.ABSENT}


@pytest.mark.parametrize("spacing, direction", [(1.0, None), ((0.8, 1.1, 1.9), OBLIQUE)])
def test_an_isolated_ball_is_centred_where_it_was_put(spacing, direction):
    centre = np.array([3.21, -7.77, 5.05])
    ball = Part(centre, np.eye(3), 0.0, np.full(3, 9.0), bony=False)
    scene = PhantomScene(phantom_task(3), (ball,), 0, (0.0, 200.0, 0.0), np.zeros((0, 5)), 1.5, 0.0)
    phantom = scene.render(grid(3, spacing, direction, 60))
    index = np.argwhere(phantom.pixels > 0)
    weight = phantom.pixels[tuple(index.T)].astype(float)
    found = phantom.geometry.index_to_world((index[:, ::-1] * weight[:, None]).sum(0) / weight.sum())
    assert np.abs(found - centre).max() < 0.02


@DIMS
def test_landmarks_lie_on_the_same_structure_on_every_grid(dims):
    """Profiles along the bones' axes agree between two grids, and fall most steeply at the landmark."""
    extent = 130.0 if dims == 2 else 60.0
    scene = draw_scene(phantom_task(dims), 3, grid(dims, 1, None, extent), absent_fraction=0, noise=0)
    scene = replace(scene, blur_mm=2.0 if dims == 2 else 1.2)
    turned = np.array([[0.6, -0.8], [0.8, 0.6]]) if dims == 2 else OBLIQUE
    plain = scene.render(grid(dims, 0.5, None, extent))
    oblique = scene.render(grid(dims, (0.4, 0.55, 0.7)[:dims], turned, extent * 1.5))
    assert np.allclose(plain.landmarks.positions_mm, oblique.landmarks.positions_mm)
    steps = np.linspace(-2.5, 2.5, 51) * scene.blur_mm
    for name, at in zip(scene.task.names, plain.landmarks.positions_mm, strict=True):
        axis = next(part.frame[:, 0] for part in scene.parts if part.name == name)
        line = at + steps[:, None] * axis
        a, b = sample(plain, line), sample(oblique, line)
        assert np.abs(a - b).max() < 0.12 * np.ptp(a), name
        for profile in (a, b):
            edge = np.abs(steps) < 1.2 * scene.blur_mm
            smooth = np.convolve(profile, np.ones(5) / 5, "same")
            steepest = steps[edge][np.gradient(smooth, steps)[edge].argmin()]
            assert abs(steepest) < 0.5 * scene.blur_mm, (name, steepest)


@DIMS
def test_absent_landmarks_are_really_missing(dims):
    task, missing = phantom_task(dims), 0
    for seed in range(4):
        options = {"noise": 0, "size": 64, "spacing": 2.0} if dims == 2 else {"noise": 0}
        whole, lossy = (draw_phantom(task, seed, absent_fraction=f, **options) for f in (0, 0.3))
        contrast = np.ptp(whole.pixels.astype(float))
        defined = lossy.landmarks.defined
        assert np.array_equal(lossy.landmarks.positions_mm[defined], whole.landmarks.positions_mm[defined])
        for name in np.array(task.names)[~defined]:
            change = patch(whole, name, 2)
            at = whole.landmarks.positions_mm[task.index(name)]
            centre = np.rint(whole.geometry.world_to_index(at)).astype(int)[::-1]
            change = change - lossy.pixels[tuple(slice(c - 2, c + 3) for c in centre)]
            assert change.max() > 0.12 * contrast, (seed, name)
            missing += 1
    assert missing


@DIMS
@pytest.mark.parametrize("fraction", [0.1, 0.4])
def test_the_asked_fraction_is_absent(dims, fraction):
    task = phantom_task(dims)
    defined = [draw_phantom(task, seed, size=12, spacing=12, absent_fraction=fraction).landmarks.defined for seed in range(200)]
    assert abs(1 - np.mean(defined) - fraction) < 0.025


@DIMS
def test_neighbouring_joints_look_alike(dims):
    phantom = draw_phantom(phantom_task(dims), 8, absent_fraction=0, pose=0, noise=0)
    pairs = {
        2: [("middle_joint1", "ring_joint1"), ("middle_knuckle", "middle_joint1"), ("middle_tip", "ring_tip")],
        3: [("v1_left", "v2_left"), ("v2_left", "v3_left"), ("v2_right", "v3_right"), ("v2_back", "v3_back")],
    }[dims]
    at = dict(zip(phantom.landmarks.task.names, phantom.landmarks.positions_mm, strict=True))
    axis = np.linspace(-6, 6, 13)
    window = np.stack(np.meshgrid(*[axis] * dims, indexing="ij"), axis=-1)
    for a, b in pairs:
        alike = np.corrcoef(sample(phantom, at[a] + window).ravel(), sample(phantom, at[b] + window).ravel())[0, 1]
        assert alike > 0.8, (a, b, alike)


def test_left_is_left_in_lps():
    phantom = draw_phantom(phantom_task(3), 2, absent_fraction=0, pose=0)
    at = dict(zip(phantom.landmarks.task.names, phantom.landmarks.positions_mm, strict=True))
    assert at["v2_left"][0] > at["v2_back"][0] > at["v2_right"][0]
    assert at["dens_tip"][2] > at["v1_left"][2] > at["v4_left"][2] > at["coccyx_tip"][2]
    assert at["v2_back"][1] > at["v2_left"][1]


def test_big_phantom_does_not_depend_on_the_slabs():
    phantom = big_phantom(160, 40, 1)
    assert phantom.pixels.shape == (160,) * 3 and phantom.pixels.dtype == np.uint8
    assert len(phantom.landmarks.task) == 40 and phantom.landmarks.defined.sum() > 25
    geometry = ImageGeometry.identity((40, 40, 40), 4.0)
    scene = draw_scene(phantom_task(3), 0, geometry)
    whole = scene.render(geometry)
    assert np.array_equal(whole.pixels, scene.render(geometry, slab_samples=7 * 1600).pixels)


def test_faults_are_named():
    with pytest.raises(TaskError, match="dims 4"):
        phantom_task(4)
    with pytest.raises(TaskError, match="n_landmarks 0"):
        phantom_task(2, 0)
    with pytest.raises(TaskError, match="nose"):
        draw_phantom(LandmarkTask("face", ("nose",), 2), 0)
    with pytest.raises(UsageError, match="absent_fraction 1.5"):
        draw_phantom(phantom_task(2), 0, absent_fraction=1.5)
    with pytest.raises(UsageError, match="seed=-1"):
        draw_phantom(phantom_task(2), -1)
