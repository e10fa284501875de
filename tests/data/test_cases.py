"""Sampling agrees with SimpleITK anywhere in the world; coarse copies stay where the image is."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from landmarklabel.data.cases import Case, grey_window, sample_linear, shrink
from landmarklabel.data.grids import centred_grid, grid_points, small_copy
from landmarklabel.errors import NotFound
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.services.cases import load_cases
from landmarklabel.store.study import Study

DIMS = pytest.mark.parametrize("dims", [2, 3])


def oblique(dims, size=(23, 31, 19), spacing=(0.6, 1.3, 2.1), seed=0):
    rng = np.random.default_rng([seed, dims])
    direction = np.linalg.qr(rng.normal(size=(dims, dims)))[0] * rng.choice((-1, 1), dims)
    return ImageGeometry(size[:dims], spacing[:dims], rng.uniform(-300, 300, dims), direction)


def itk(geometry, pixels):
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing(geometry.spacing.tolist())
    image.SetOrigin(geometry.origin.tolist())
    image.SetDirection(geometry.direction.ravel().tolist())
    return image


def random_inside(geometry, n, seed=0):
    index = np.random.default_rng(seed).uniform(0, np.array(geometry.size) - 1, (n, geometry.dims))
    return geometry.index_to_world(index)


@DIMS
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_sampling_agrees_with_simpleitk_inside(dims, dtype):
    for seed in range(4):
        geometry = oblique(dims, seed=seed)
        pixels = np.random.default_rng(seed).integers(0, 200, geometry.size[::-1]).astype(dtype)
        case, points = Case("a", Image(geometry, pixels), window=(20.0, 180.0)), random_inside(geometry, 100, seed)
        image = itk(geometry, pixels.astype(np.float64))
        wanted = np.array([image.EvaluateAtPhysicalPoint(p.tolist(), sitk.sitkLinear) for p in points])
        found = case.sample(points, float(geometry.spacing.min()))
        assert np.abs(found - (wanted - 20) / 160).max() < 1e-3
        as_grid = case.sample(points.reshape(10, 5, 2, dims), float(geometry.spacing.min()))
        np.testing.assert_allclose(as_grid.ravel(), found, atol=1e-5)


@DIMS
def test_a_sample_centre_gives_the_sample_and_beyond_the_border_there_is_nothing(dims):
    geometry = oblique(dims)
    pixels = np.random.default_rng(0).uniform(0.2, 1, geometry.size[::-1]).astype(np.float32)
    case, last = Case("a", Image(geometry, pixels), window=(0.0, 1.0)), np.array(geometry.size) - 1
    step = float(geometry.spacing.min())
    corners = case.sample(geometry.corners_mm, step)
    assert sorted(corners) == pytest.approx(sorted(pixels[(np.ix_(*[[0, -1]] * dims))].ravel()), abs=1e-4)
    for axis in range(dims):
        for way in (-1.01, 1.01):
            index = last / 2.0
            index[axis] = way if way < 0 else last[axis] + way
            outside = geometry.index_to_world(index[None])
            assert case.sample(outside, step) == 0, "alone"
            blend_presence = np.concatenate([outside, geometry.corners_mm])
            assert case.sample(blend_presence, step)[0] == 0, "with others"
    assert (case.sample(geometry.origin + np.full((3, dims), 1e4), step) == 0).all()


@DIMS
def test_a_value_does_not_depend_on_the_other_positions_of_the_call(dims):
    geometry = oblique(dims)
    pixels = np.random.default_rng(1).uniform(0, 1, geometry.size[::-1]).astype(np.float32)
    index = np.random.default_rng(2).uniform(-3, np.array(geometry.size) + 2, (200, dims))
    points = geometry.index_to_world(index)
    together = sample_linear(pixels, geometry, points, 0.3)
    alone = np.concatenate([sample_linear(pixels, geometry, p[None], 0.3) for p in points])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@DIMS
def test_grids_that_lie_far_apart_are_read_one_by_one_with_the_same_values(dims):
    geometry = oblique(dims, size=(300, 200, 50))
    pixels = np.random.default_rng(1).uniform(0, 1, geometry.size[::-1]).astype(np.float32)
    corners = random_inside(geometry, 4)[(slice(None), *(None,) * dims)]
    points = corners + np.random.default_rng(3).normal(0, 1, (4, *(3,) * dims, dims))
    together = sample_linear(pixels, geometry, points, 0.0)
    assert together.shape == points.shape[:-1]
    np.testing.assert_allclose(together, [sample_linear(pixels, geometry, p, 0.0) for p in points], atol=1e-3)
    empty = sample_linear(pixels, geometry, points + 1e5, 0.25)
    assert empty.shape == together.shape and (empty == 0.25).all()


def test_a_single_slice_is_seen_within_half_a_slice_only():
    geometry = ImageGeometry((6, 5, 1), (1, 1, 4), (10, 20, 30), np.eye(3))
    pixels = np.ones((1, 5, 6), np.float32)
    z = 30 + np.array([-100, -2.1, -1.9, 0, 1.9, 2.1, 100])
    points = np.stack([np.full(7, 12.5), np.full(7, 22.5), z], -1)
    assert sample_linear(pixels, geometry, points, 0.0).tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_float32_positions_are_as_good_for_images(dims=3):
    geometry = oblique(dims)
    pixels = np.random.default_rng(1).uniform(0, 1, geometry.size[::-1]).astype(np.float32)
    points = random_inside(geometry, 100)
    a, b = (sample_linear(pixels, geometry, points.astype(t), 0.0) for t in (np.float32, np.float64))
    np.testing.assert_allclose(a, b, atol=2e-3)


@DIMS
def test_shrinking_keeps_a_blob_where_it_is(dims):
    geometry = oblique(dims, size=(60, 45, 37), spacing=(0.5, 1.0, 1.7))
    at_index = np.array([31.3, 20.8, 18.4])[:dims]
    index = np.stack(np.meshgrid(*(np.arange(s) for s in geometry.size[::-1]), indexing="ij"), -1)[..., ::-1]
    pixels = np.exp(-0.5 * ((index - at_index) ** 2).sum(-1) / 4.0**2).astype(np.float32)
    for factors in [(2, 2, 2), (4, 2, 1), (1, 3, 4)]:
        small, coarse = shrink(pixels, geometry, factors[:dims])
        assert coarse.size == tuple(s // f for s, f in zip(geometry.size, factors[:dims], strict=True))
        assert small.shape == coarse.size[::-1]
        samples = np.argwhere(np.ones_like(small))
        weight = small.ravel()[:, None].astype(float)
        centroid = coarse.index_to_world((samples[:, ::-1] * weight).sum(0) / weight.sum())
        assert np.abs(geometry.world_to_index(centroid) - at_index).max() < 0.1, factors
    assert shrink(pixels, geometry, (1,) * dims)[0] is pixels


def test_shrunken_pixels_are_block_means():
    geometry = ImageGeometry.identity((5, 4), (1.0, 2.0), (7.0, 9.0))
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    small, coarse = shrink(pixels, geometry, (2, 2))
    assert small.tolist() == [[3.0, 5.0], [13.0, 15.0]]
    assert coarse.spacing.tolist() == [2, 4] and coarse.origin.tolist() == [7.5, 10]


@DIMS
def test_coarse_sampling_averages_instead_of_aliasing(dims):
    size = (64, 64, 64)[:dims]
    checks = (np.indices(size).sum(0) % 2).astype(np.float32)  # a checkerboard: grey from afar
    case = Case("a", Image(ImageGeometry.identity(size), checks), window=(0.0, 1.0))
    points = np.random.default_rng(0).uniform(8, 56, (50, dims))
    assert np.ptp(case.sample(points.round(), 1.0)) == 1
    np.testing.assert_allclose(case.sample(points.round(), 4.0), 0.5, atol=1e-5)
    assert case.coarse(4.0)[1].spacing.max() <= 4.0
    assert case.coarse(1e6)[0].size >= 1


@DIMS
def test_the_window_maps_to_0_and_1_and_bounds_the_rest(dims):
    geometry = ImageGeometry.identity((9,) * dims)
    pixels = np.linspace(-1000, 3000, 9**dims).reshape((9,) * dims)
    case = Case("a", Image(geometry, pixels), window=(0.0, 100.0))
    values = case.sample(geometry.index_to_world(np.argwhere(pixels < np.inf)[:, ::-1]), 1.0)
    assert values.min() == -0.5 and values.max() == 1.5
    low, high = grey_window(pixels)
    assert low == pytest.approx(-920, abs=10) and high == pytest.approx(2920, abs=10)


@pytest.mark.parametrize("value", [0, 7, -1024, 1e6])
def test_a_constant_image_has_a_window_and_values(value):
    pixels = np.full((6, 7), value, np.float32)
    low, high = grey_window(pixels)
    assert low == value and high > low
    case = Case("a", Image(ImageGeometry.identity((7, 6)), pixels))
    assert np.isfinite(case.sample(np.array([[2.0, 3.0], [50.0, 50.0]]), 1.0)).all()


def test_cases_of_a_study_are_read_sorted(tmp_path):
    task, pixels = LandmarkTask("t", ("a",), 2), np.arange(42, dtype=np.uint8).reshape(6, 7)
    for name in ("b", "a"):
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(tmp_path / f"{name}.png"))
    labels = {name: LandmarkSet.of_positions(task, [[1.0, 2.0]]) for name in ("b", "a")}
    study = Study(tmp_path, task)
    try:
        cases = load_cases(study, labels)
        assert [c.image_id for c in cases] == ["a", "b"] and cases[0].landmarks is labels["a"]
        np.testing.assert_array_equal(cases[1].image.pixels, pixels)
        with pytest.raises(NotFound):
            load_cases(study, {"z": labels["a"]})
    finally:
        study.close()


@DIMS
def test_a_small_copy_is_what_networks_would_be_shown_of_the_image(dims):
    geometry = oblique(dims)
    pixels = np.random.default_rng(3).integers(0, 200, geometry.size[::-1]).astype(np.int16)
    case = Case("a", Image(geometry, pixels), window=(-50.0, 250.0))
    for spacing in (0.4, 3.0):  # finer and coarser than the image; parts of both grids lie outside
        grid = centred_grid(geometry, spacing, (24, 20, 16)[:dims])
        copy = small_copy(case, grid)
        assert copy.shape == grid.size[::-1]
        np.testing.assert_allclose((copy + 50) / 300, case.sample(grid_points(grid), spacing), atol=2e-4)
