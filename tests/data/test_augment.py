"""Image and points move together: the warp is inverted exactly, and blobs are where the batch says they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from landmarklabel.data.augment import AugmentRange, GreyChange, Warp, draw_grey, draw_warp, random_rotation
from landmarklabel.data.batches import crop_batch, whole_image_batch
from landmarklabel.data.cases import Case
from landmarklabel.data.crops import CropPlan
from landmarklabel.data.grids import GridPlan, centred_grid, grid_points, plan_grid, with_field
from landmarklabel.data.mirror import Mirror
from landmarklabel.data.presence import Presence, landmark_state
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.training.configuration import SamplingConfig

DIMS = pytest.mark.parametrize("dims", [2, 3])
NAN = float("nan")
MARGIN = SamplingConfig().field_margin
NO_GREY = {"gamma": 0.0, "contrast": 0.0, "brightness": 0.0, "noise": 0.0}
RANGES = {
    "usual": AugmentRange(**NO_GREY),
    "mirrored": AugmentRange(mirror=1.0, **NO_GREY),
    "all rotations": AugmentRange(all_rotations=True, mirror=0.5, **NO_GREY),
    "many nodes": AugmentRange(elastic=0.006, elastic_nodes=12, **NO_GREY),
}
KINDS = pytest.mark.parametrize("kind", RANGES)
FIELD = {2: ImageGeometry.identity((90, 130), 0.8, (-31, 77)), 3: ImageGeometry.identity((40, 50, 60), 1.3, (5, -200, 40))}


def field_points(field, n, seed):
    low, high = field.bounds_mm
    return np.random.default_rng(seed).uniform(low, high, (n, field.dims))


@DIMS
@KINDS
def test_the_inverse_undoes_the_warp(dims, kind):
    field = FIELD[dims]
    size = float(np.max(np.subtract(*reversed(field.bounds_mm))))
    for seed in range(80):
        warp = draw_warp(np.random.default_rng(seed), field, RANGES[kind])
        points = field_points(field, 60, seed)
        back = warp.inverse(warp.apply(points))
        assert np.abs(back - points).max() <= 1e-6 * size, seed
        assert warp.mirrored == (np.linalg.det(warp.matrix) < 0)


@DIMS
def test_the_inverse_keeps_nan_rows_and_does_not_let_them_disturb_others(dims):
    warp, points = draw_warp(np.random.default_rng(1), FIELD[dims], RANGES["usual"]), field_points(FIELD[dims], 5, 0)
    holed = points.copy()
    holed[2] = NAN
    back, whole = warp.inverse(holed), warp.inverse(points)
    assert np.isnan(back[2]).all()
    np.testing.assert_allclose(np.delete(back, 2, 0), np.delete(whole, 2, 0), atol=1e-6)


@DIMS
@KINDS
def test_on_grid_is_apply_at_the_samples(dims, kind):
    grid = centred_grid(FIELD[dims], 2.9, (13, 21, 17)[:dims])
    for seed in range(10):
        warp = draw_warp(np.random.default_rng(seed), FIELD[dims], RANGES[kind])
        wanted = warp.apply(grid_points(grid).reshape(-1, dims)).reshape(*grid.size[::-1], dims)
        assert np.abs(warp.on_grid(grid) - wanted).max() < 1e-3


@DIMS
def test_grid_points_are_the_samples_in_array_order(dims):
    grid = centred_grid(FIELD[dims], 2.9, (4, 5, 6)[:dims])
    points = grid_points(grid)
    index = np.argwhere(np.ones(grid.size[::-1]))
    np.testing.assert_allclose(points[tuple(index.T)], grid.index_to_world(index[:, ::-1]))


@DIMS
def test_the_identity_moves_nothing(dims):
    points = field_points(FIELD[dims], 10, 0)
    np.testing.assert_allclose(Warp.identity(FIELD[dims]).apply(points), points)


@DIMS
def test_draws_differ_are_repeatable_and_really_bend(dims):
    draw = lambda seed: draw_warp(np.random.default_rng(seed), FIELD[dims], RANGES["usual"])  # noqa: E731
    points = field_points(FIELD[dims], 50, 0)
    one, same, other = draw(1).apply(points), draw(1).apply(points), draw(2).apply(points)
    assert np.array_equal(one, same) and np.abs(one - other).max() > 1
    a = np.c_[points, np.ones(len(points))]
    bent = one - a @ np.linalg.lstsq(a, one, rcond=None)[0]
    assert np.abs(bent).max() > 0.2  # mm: not affine


@DIMS
def test_random_rotations_are_rotations_within_their_angle(dims):
    rng = np.random.default_rng(0)
    for limit in (0.3, None):
        drawn = [random_rotation(rng, dims, limit) for _ in range(200)]
        assert all(np.allclose(m @ m.T, np.eye(dims)) and np.linalg.det(m) > 0 for m in drawn)
        turn = [(np.trace(m) - 1) / 2 if dims == 3 else m[0, 0] for m in drawn]
        angles = np.arccos(np.clip(turn, -1, 1))
        assert angles.max() <= 0.3 + 1e-9 and angles.max() > 0.25 if limit else angles.max() > 2.8


# ------------------------------------------------------------------ image and points together, end to end

TASKS = {
    2: LandmarkTask("t", ("left", "mid", "right", "up"), 2, mirror_pairs=(("left", "right"),)),
    3: LandmarkTask("t", ("left", "mid", "right", "up"), 3, mirror_pairs=(("left", "right"),)),
}
HEIGHTS = np.array([40.0, 60.0, 80.0, 100.0])  # each landmark is told apart by its blob's brightness
PLACES = np.array([[-26.0, -8, 6], [0, 6, -9], [26, -4, 2], [-4, -34, -4]])
SIGMA_MM = 2.6


def blob_case(dims, image_id="blobs", status=(Status.PLACED,) * 4, offset=0.0):
    """One Gaussian blob a landmark on black, stored obliquely and anisotropically."""
    rng = np.random.default_rng(7)
    direction = random_rotation(rng, dims, None) @ np.diag((-1.0, 1.0, 1.0)[:dims])
    spacing = np.array((0.7, 0.9, 1.1)[:dims])
    size = tuple(int(s) for s in (np.array((150, 132, 70)[:dims]) * (1.0 if dims == 2 else 0.85)).round())
    centre = np.array((40.0, -60.0, 15.0)[:dims])
    geometry = ImageGeometry(size, spacing, centre - direction @ ((np.array(size) - 1) / 2 * spacing), direction)
    positions = centre + PLACES[:, :dims] * (1.0 if dims == 2 else 0.8) + offset
    samples = np.stack(np.meshgrid(*(np.arange(s) for s in size[::-1]), indexing="ij"), -1)[..., ::-1]
    world = geometry.index_to_world(samples)
    pixels = np.zeros(size[::-1], np.float32)
    for p, height in zip(positions, HEIGHTS, strict=True):
        pixels += height * np.exp(-0.5 * ((world - p) ** 2).sum(-1) / SIGMA_MM**2).astype(np.float32)
    known = [[*p] if s.has_position else [NAN] * dims for p, s in zip(positions, status, strict=True)]
    return Case(image_id, Image(geometry, pixels), LandmarkSet(TASKS[dims], known, status), window=(0.0, 100.0))


@pytest.fixture(scope="module")
def blobs():
    return {dims: blob_case(dims) for dims in (2, 3)}


PLANS = {2: GridPlan((112, 128), 1.0, 16), 3: GridPlan((80, 88, 64), 1.0, 8)}


def find_blob(image, at, radius):
    """(centroid, brightest value) of the samples within ``radius`` of ``at``, None where the image cuts that off."""
    low, high = np.floor(at - radius).astype(int), np.ceil(at + radius).astype(int) + 1
    if (low < 0).any() or (high > image.shape).any():
        return None
    box = image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    samples = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
    weight = box * (((samples - at) ** 2).sum(-1) <= radius**2)
    return (weight[..., None] * samples).reshape(-1, len(at)).sum(0) / weight.sum(), box.max()


@DIMS
@pytest.mark.parametrize("kind", ["plain", *RANGES])
def test_whole_images_have_their_blobs_where_the_index_says(blobs, dims, kind):
    checked, brightness = 0, HEIGHTS / 100
    for seed in range(12 if dims == 2 else 5):
        batch = whole_image_batch([blobs[dims]] * 2, PLANS[dims], RANGES.get(kind), [5, seed])
        assert batch.images.shape == (2, 1, *PLANS[dims].size[::-1]) and batch.images.dtype == torch.float32
        for image, index, state in zip(batch.images[:, 0].numpy(), batch.index.numpy(), batch.state, strict=True):
            for k in np.flatnonzero(state == Presence.PRESENT):
                found = find_blob(image, index[k], 3.2 * SIGMA_MM)
                if found is None:
                    continue
                assert np.abs(found[0] - index[k]).max() <= (0.25 if dims == 2 else 0.35), (seed, k)
                swapped = RANGES[kind].mirror == 1.0 if kind in RANGES else False
                owner = TASKS[dims].mirror_permutation()[k] if swapped else k
                if kind != "all rotations":  # there, mirroring is drawn for each image
                    assert found[1] == pytest.approx(brightness[owner], abs=0.08)
                checked += 1
    assert checked > 20


@DIMS
def test_mirrored_images_are_mirrored(blobs, dims):
    """Left and right swap names: the batch's ``left`` stays on the left of a mirrored image."""
    still = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0, "elastic": 0.0, **NO_GREY}
    plain, mirrored = (whole_image_batch([blobs[dims]], PLANS[dims], AugmentRange(**still, mirror=m), [0]) for m in (0.0, 1.0))
    np.testing.assert_allclose(mirrored.images.flip(-1), plain.images, atol=1e-4)
    order, width = TASKS[dims].mirror_permutation(), PLANS[dims].size[0]
    wanted = plain.index[:, order].clone()
    wanted[..., -1] = width - 1 - wanted[..., -1]
    np.testing.assert_allclose(mirrored.index, wanted, atol=1e-4)
    assert mirrored.index[0, 0, -1] < mirrored.index[0, 2, -1] and plain.index[0, 0, -1] < plain.index[0, 2, -1]


@DIMS
@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
def test_crops_have_their_blob_where_the_index_says_at_every_scale(blobs, dims, turned):
    rotation = random_rotation(np.random.default_rng(2), dims, None) if turned else None
    case = replace(blobs[dims], rotation=rotation)
    plan = CropPlan(size=40 if dims == 2 else 36, zoom=1.3, scales=2, step=2.0, jitter=2.0, outlier_jitter=5.0)
    fine_mm, checked = 1.0 / plan.zoom, 0
    ranges = AugmentRange(rotation=0.6, scale=0.14, shear=0.06, **NO_GREY)
    for seed in range(6 if dims == 2 else 3):
        batch = crop_batch([case], PLANS[dims], plan, ranges, 8, [seed])
        assert batch.images.shape == (8, 2, *(plan.size,) * dims) and sorted(set(batch.landmark.tolist())) == [0, 1, 2, 3]
        for image, index, k in zip(batch.images.numpy(), batch.index[:, 0].numpy(), batch.landmark, strict=True):
            middle = (plan.size - 1) / 2
            for scale, step in enumerate((1.0, plan.step)):
                at = (index - middle) / step + middle
                found = find_blob(image[scale], at, 2.7 * SIGMA_MM / (fine_mm * step))
                if found is None:
                    continue
                assert np.abs(found[0] - at).max() <= 0.25, (seed, k, scale)
                assert found[1] == pytest.approx(HEIGHTS[k] / 100, rel=0.18)
                checked += 1
    assert checked > 20


@DIMS
def test_mirrored_crops_show_the_partner(blobs, dims):
    """Where the study's shape has a mirror, a mirrored crop of ``left`` is one of ``right``; ``up`` has no partner here."""
    mirror = Mirror(np.array([2, 1, 0, -1]), np.eye(dims)[0])
    still = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, **NO_GREY}
    plan = CropPlan(size=24, zoom=1.3, scales=2, jitter=0.0, outlier_share=0.0)
    plain, mirrored = (
        crop_batch([replace(blobs[dims], mirror=mirror)], PLANS[dims], plan, AugmentRange(mirror=m, **still), 8, [1])
        for m in (0.0, 1.0)
    )
    for before, after, k, partner in zip(plain.images, mirrored.images, plain.landmark, mirrored.landmark, strict=True):
        alone = int(k) == 3
        assert int(partner) == (3 if alone else mirror.order[k])
        np.testing.assert_allclose(after, before if alone else before.flip(-1), atol=1e-4)


def test_a_landmark_without_partner_is_unknown_in_a_mirrored_image(blobs):
    case = replace(blobs[2], mirror=Mirror(np.array([2, 1, 0, -1]), np.array([1.0, 0.0])))
    batch = whole_image_batch([case], PLANS[2], AugmentRange(mirror=1.0, shift=0.0, **NO_GREY), [0])
    assert (
        batch.state[0].tolist() == [Presence.PRESENT, Presence.PRESENT, Presence.PRESENT, Presence.UNKNOWN]
        and torch.isnan(batch.index[0, 3]).all()
    )


def test_crops_are_jittered_and_about_evenly_shared(blobs):
    plan = CropPlan(size=40, zoom=1.3)
    batch = crop_batch([blobs[2], blob_case(2, "b")], PLANS[2], plan, AugmentRange(), 64, [3])
    assert len(batch.images) == 64 and set(np.bincount(batch.landmark).tolist()) == {16}
    offsets = batch.index[:, 0] - (plan.size - 1) / 2
    assert offsets.std() > 2 and offsets.abs().max() <= 0.45 * plan.size + 1e-3


@pytest.mark.parametrize("make", ["whole", "crop"])
def test_a_batch_is_a_function_of_its_seed(blobs, make):
    def batch(seed):
        if make == "whole":
            return whole_image_batch([blobs[2]] * 2, PLANS[2], AugmentRange(), seed)
        return crop_batch([blobs[2]], PLANS[2], CropPlan(16, 1.5), AugmentRange(), 6, seed)

    one, same, other = batch([1, 2, 3]), batch([1, 2, 3]), batch([1, 2, 4])
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not torch.equal(one.images, other.images) and not torch.equal(one.index, other.index)
    if make == "whole":
        assert not torch.equal(one.images[0], one.images[1])  # the same case twice is drawn twice


@DIMS
def test_what_lies_beyond_a_cut_is_black_and_its_landmarks_unknown(blobs, dims):
    seen = set()
    for seed in range(12):
        plain, cut = (whole_image_batch([blobs[dims]], PLANS[dims], AugmentRange(cut=c, **NO_GREY), [seed]) for c in (0, 1.0))
        gone = (plain.images != cut.images)[0, 0]
        assert (cut.images[0, 0][gone] == 0).all()
        for k in range(4):
            if cut.state[0, k] == Presence.PRESENT:
                assert torch.equal(cut.index[0, k], plain.index[0, k])
            elif plain.state[0, k] == Presence.PRESENT:
                at = plain.index[0, k].round().long()
                assert (
                    cut.images[0, 0][tuple(at)] == 0
                    and cut.state[0, k] == Presence.UNKNOWN
                    and torch.isnan(cut.index[0, k]).all()
                )
        seen |= set(cut.state[0].tolist())
    assert {Presence.PRESENT, Presence.UNKNOWN} <= seen


@DIMS
def test_points_that_leave_the_field_become_absent(blobs, dims):
    ranges = AugmentRange(shift=0.7, **NO_GREY)
    seen = set()
    for seed in range(12):
        batch = whole_image_batch([blobs[dims]], PLANS[dims], ranges, [seed])
        index, state = batch.index[0], batch.state[0]
        assert torch.equal(torch.isnan(index).any(-1), state != Presence.PRESENT)
        limit = torch.tensor(PLANS[dims].size[::-1]) - 0.5
        assert ((index > -0.5) & (index < limit)).all(-1)[state == Presence.PRESENT].all()
        if (state == Presence.ABSENT).all():  # nothing is left of any blob but a tail at the border
            inner = batch.images[0, 0][(slice(8, -8),) * dims]
            assert inner.max() < 0.2
        seen |= set(state.tolist())
    assert seen == {Presence.PRESENT, Presence.ABSENT}


@DIMS
def test_what_nobody_said_stays_unknown_and_absent_stays_absent(dims):
    status = (Status.PREDICTED, Status.ABSENT, Status.ACCEPTED, Status.UNSET)
    case = blob_case(dims, status=status)
    assert landmark_state(case.landmarks).tolist() == [Presence.UNKNOWN, Presence.ABSENT, Presence.PRESENT, Presence.UNKNOWN]
    assert whole_image_batch([case], PLANS[dims], None, [0]).state.tolist() == [
        [Presence.UNKNOWN, Presence.ABSENT, Presence.PRESENT, Presence.UNKNOWN]
    ]
    mirrored = whole_image_batch([case], PLANS[dims], AugmentRange(mirror=1.0, shift=0, scale=0, elastic=0), [0])
    assert mirrored.state.tolist() == [[Presence.PRESENT, Presence.ABSENT, Presence.UNKNOWN, Presence.UNKNOWN]]
    assert torch.isnan(mirrored.index[0, 1:]).all()
    assert set(crop_batch([case], PLANS[dims], CropPlan(8, 1.5), AugmentRange(), 5, [0]).landmark.tolist()) == {2}


def test_grey_changes_keep_points_and_are_replayed():
    image = np.random.default_rng(0).random((20, 30), np.float32)
    change = draw_grey(np.random.default_rng(4), AugmentRange())
    np.testing.assert_array_equal(change.apply(image), change.apply(image))
    assert not np.allclose(change.apply(image), image)
    np.testing.assert_array_equal(GreyChange().apply(image), image)
    plain = replace(change, noise=0.0).apply(image)
    np.testing.assert_allclose(plain, image**change.gamma * change.gain + change.offset, atol=1e-5)


# ------------------------------------------------------------------ the plan of the working grid


@DIMS
def test_a_planned_grid_has_about_the_samples_asked_for_and_covers_every_image(dims):
    geometries = [ImageGeometry.identity(s[:dims], 0.5) for s in [(300, 200, 100), (260, 240, 120)]]
    plan = plan_grid(geometries, 60_000, 8, fit_each=False)
    assert all(s % 8 == 0 for s in plan.size) and 30_000 < np.prod(plan.size) < 120_000
    for g in geometries:
        low, high = g.bounds_mm
        assert (np.array(plan.size) * plan.spacing_for(g) >= high - low - 1e-6).all()
        grid = plan.grid(g)
        assert all(s % 8 == 0 for s in grid.size) and grid.contains(g.corners_mm).all()


def test_a_planned_grid_is_never_finer_than_the_images():
    plan = plan_grid([ImageGeometry.identity((50, 40), 2.0)], 10**6, 8, fit_each=False)
    assert 2.0 <= plan.spacing_mm < 2.5


def test_images_without_spacing_are_fitted_one_by_one():
    geometries = [ImageGeometry.identity(s) for s in [(1000, 800), (500, 400)]]
    plan = plan_grid(geometries, 80 * 100, 8, fit_each=True)
    assert plan.spacing_mm is None and plan.spacing_for(geometries[0]) == pytest.approx(2 * plan.spacing_for(geometries[1]))
    for g in geometries:
        assert plan.grid(g).size == plan.training_grid(g).size == plan.size
        assert plan.grid(g).contains(g.corners_mm).all()


def _case_with_landmarks(places):
    task = LandmarkTask("field", tuple("abc"), 3)
    landmarks = LandmarkSet.of_positions(task, np.array(places, float))
    return Case("a", Image(ImageGeometry.identity((48, 48, 48), 1.0), np.zeros((48, 48, 48), np.uint8)), landmarks)


def test_the_field_of_training_holds_all_landmarks_a_tenth_from_its_border():
    plan = GridPlan((48, 48, 48), 1.0, 8)
    case = _case_with_landmarks([(20, 22, 6), (26, 23, 40), (23, 25, 20)])
    field = with_field(plan, [case], MARGIN)
    assert field.size == plan.size and field.field == (16, 8, 48)
    index = field.training_grid(case.image.geometry).world_to_index(case.landmarks.positions_mm)
    share = (index + 0.5) / np.array(field.field)
    assert (share >= 0.1 - 1e-9).all() and (share <= 0.9 + 1e-9).all()


def test_landmarks_all_over_the_images_leave_the_plan_without_a_field():
    plan = GridPlan((48, 48, 48), 1.0, 8)
    assert with_field(plan, [_case_with_landmarks([(1, 1, 1), (46, 46, 46), (20, 20, 20)])], MARGIN) == plan
