"""Index and world agree with SimpleITK everywhere; the working grid depends on the volume, not on how it is stored."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from landmarklabel.errors import FaultsError
from landmarklabel.geometry import ImageGeometry, SlicePlane, axis_aligned_grid

DIMS = pytest.mark.parametrize("dims", [2, 3])
NAN = float("nan")


def random_geometry(seed, dims):
    """Oblique, anisotropic, far from the origin, right- or left-handed."""
    rng = np.random.default_rng([seed, dims])
    direction = np.linalg.qr(rng.normal(size=(dims, dims)))[0] * rng.choice((-1, 1), dims)
    size = tuple(int(s) for s in rng.integers(1, 40, dims))
    return ImageGeometry(size, np.exp(rng.uniform(-2, 2, dims)), rng.uniform(-500, 500, dims), direction)


def itk_image(geometry):
    image = sitk.Image(list(geometry.size), sitk.sitkUInt8)
    image.SetSpacing(geometry.spacing.tolist())
    image.SetOrigin(geometry.origin.tolist())
    image.SetDirection(geometry.direction.ravel().tolist())
    return image


@DIMS
def test_index_and_world_agree_with_simpleitk(dims):
    handed = set()
    for seed in range(25):
        geometry, rng = random_geometry(seed, dims), np.random.default_rng(seed)
        image = itk_image(geometry)
        handed.add(np.linalg.det(geometry.direction) > 0)
        whole = rng.integers(-50, 50, (10, dims))
        points = np.array([image.TransformIndexToPhysicalPoint(i.tolist()) for i in whole])
        scale = np.abs(points).max()
        assert np.abs(geometry.index_to_world(whole) - points).max() <= 1e-9 * scale
        index = rng.uniform(-50, 50, (10, dims))
        points = np.array([image.TransformContinuousIndexToPhysicalPoint(i.tolist()) for i in index])
        assert np.abs(geometry.index_to_world(index) - points).max() <= 1e-9 * scale
        back = np.array([image.TransformPhysicalPointToContinuousIndex(p.tolist()) for p in points])
        assert np.abs(geometry.world_to_index(points) - back).max() <= 1e-8
    assert handed == {True, False}


@DIMS
def test_round_trip_keeps_shape_values_and_nan(dims):
    for seed in range(25):
        geometry = random_geometry(seed, dims)
        index = np.random.default_rng(seed).uniform(-100, 100, (4, 3, dims))
        index[0, 0] = NAN
        back = geometry.world_to_index(geometry.index_to_world(index))
        np.testing.assert_allclose(back, index, atol=1e-7)


@DIMS
def test_contains_reaches_half_a_sample_around_the_centres(dims):
    geometry = random_geometry(3, dims)
    last = np.array(geometry.size) - 1.0
    inside = geometry.index_to_world(np.stack([np.full(dims, -0.49), last + 0.49, last / 2]))
    outside = geometry.index_to_world(np.stack([np.full(dims, -0.51), last + 0.51]))
    assert geometry.contains(inside).all() and not geometry.contains(outside).any()
    assert not geometry.contains(inside[:2], margin=0).any()
    assert not geometry.contains(np.full((1, dims), NAN)).any()


@DIMS
def test_bounds_are_those_of_the_outer_sample_edges(dims):
    for seed in range(10):
        geometry = random_geometry(seed, dims)
        edges = list(product(*((-0.5, s - 0.5) for s in geometry.size)))
        image = itk_image(geometry)
        corners = np.array([image.TransformContinuousIndexToPhysicalPoint(e) for e in edges])
        low, high = geometry.bounds_mm
        np.testing.assert_allclose(low, corners.min(axis=0), rtol=1e-9)
        np.testing.assert_allclose(high, corners.max(axis=0), rtol=1e-9)


EYE = np.eye(3)


@pytest.mark.parametrize(
    "size, spacing, origin, direction, text",
    [
        ((4, 4, 4), (1, 0, 1), (0, 0, 0), EYE, "spacing [1.0, 0.0, 1.0] must be finite and positive"),
        ((4, 4, 4), (1, -1, 1), (0, 0, 0), EYE, "must be finite and positive"),
        ((4, 4, 4), (1, NAN, 1), (0, 0, 0), EYE, "must be finite and positive"),
        ((4, 4, 4), (1, 1, 1), (0, NAN, 0), EYE, "origin [0.0, nan, 0.0] and direction must be finite"),
        ((4, 4, 4), (1, 1, 1), (0, 0, 0), EYE * NAN, "direction must be finite"),
        ((4, 4, 4), (1, 1, 1), (0, 0, 0), np.diag([1, 1, 0]), "is singular or not orthonormal"),
        ((4, 4, 4), (1, 1, 1), (0, 0, 0), EYE * 2, "is singular or not orthonormal"),
        ((4, 4, 4), (1, 1, 1), (0, 0, 0), EYE + 0.01 * np.eye(3, k=1), "is singular or not orthonormal"),
        ((4, 0, 4), (1, 1, 1), (0, 0, 0), EYE, "size (4, 0, 4) must be positive"),
        ((4,), (1,), (0,), [[1]], "1 dimensions; allowed are 2 and 3"),
        ((4, 4), (1, 1, 1), (0, 0, 0), EYE, "do not have 2 dimensions"),
    ],
)
def test_unusable_geometry_is_refused_by_text(size, spacing, origin, direction, text):
    with pytest.raises(FaultsError) as caught:
        ImageGeometry(size, spacing, origin, direction)
    assert text in str(caught.value)


def stored_otherwise(geometry, order, flips):
    """The same volume with its index axes in another order, some of them running backwards."""
    size = np.array(geometry.size)
    first = np.where(flips, size - 1, 0)
    signs = np.where(flips, -1, 1)
    order = list(order)
    return ImageGeometry(
        tuple(size[order]),
        geometry.spacing[order],
        geometry.index_to_world(first),
        (geometry.direction * signs)[:, order],
    )


@pytest.mark.parametrize("oblique", [False, True])
def test_the_working_grid_is_the_same_for_all_48_axis_orders(oblique):
    direction = random_geometry(8, 3).direction if oblique else EYE
    geometry = ImageGeometry((17, 9, 23), (0.7, 3.1, 1.3), (-40, 12, 700), direction)
    wanted = axis_aligned_grid(geometry, 1.7)
    orders = [(o, f) for o in permutations(range(3)) for f in product((False, True), repeat=3)]
    assert len(orders) == 48
    for order, flips in orders:
        grid = axis_aligned_grid(stored_otherwise(geometry, order, flips), 1.7)
        assert grid.size == wanted.size
        np.testing.assert_allclose(grid.origin, wanted.origin, rtol=1e-12)
        assert np.array_equal(grid.direction, EYE) and np.array_equal(grid.spacing, wanted.spacing)


@DIMS
def test_the_working_grid_covers_the_image_and_no_more_than_it_must(dims):
    for seed in range(20):
        geometry, spacing = random_geometry(seed, dims), 0.9
        grid = axis_aligned_grid(geometry, spacing)
        (low, high), (grid_low, grid_high) = geometry.bounds_mm, grid.bounds_mm
        assert (grid_low <= low + 1e-5).all() and (grid_high >= high - 1e-5).all()
        assert (grid_high - grid_low < high - low + spacing + 1e-5).all()
        np.testing.assert_allclose((grid_low + grid_high) / 2, (low + high) / 2, atol=1e-9)


def test_a_grid_of_the_images_own_spacing_is_the_image():
    geometry = ImageGeometry.identity((30, 20), 0.3, (5.0, -7.0))
    grid = axis_aligned_grid(geometry, 0.3)
    assert grid.size == geometry.size
    np.testing.assert_allclose(grid.origin, geometry.origin, atol=1e-9)


def test_a_slice_keeps_its_plane():
    geometry = ImageGeometry((5, 6, 1), (1, 2, 3), (4, 5, 6), np.diag([1, -1, -1]))
    flat = SlicePlane.of(geometry).flat
    assert flat.size == (5, 6)
    index = np.array([3.0, 4.0])
    np.testing.assert_allclose(flat.index_to_world(index), geometry.index_to_world([3, 4, 0])[:2])
