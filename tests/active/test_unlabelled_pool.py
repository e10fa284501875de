"""What strategies look at: thumbnails that ignore how bright an image is, and what a model makes of an image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarklabel.active.configuration import PoolConfig
from landmarklabel.active.unlabelled_pool import (
    ImageAssessment,
    UnlabelledPool,
    assess_image,
    image_distances,
    thumbnail,
)
from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.networks import build
from landmarklabel.networks.presets import Preset, find_preset
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget

CONFIG = PoolConfig()
TASK = phantom_task(2, 6)
SIZE = (64, 96)


def small(key: str = "scn:default", dims: int = 2) -> Preset:
    """A 2D preset on a small grid, with small batches and crops."""
    preset = find_preset(key, dims)
    refine = replace(preset.refine, size={2: 32}, crops={2: 24}) if preset.refine.network == "shared" else preset.refine
    return replace(preset, grid_size={2: 64 * 96}, batch={2: 4}, refine=refine)


def _narrow(network, dims, n, *args, **options):
    *head, widths = args
    return network(dims, n, *head, tuple(max(8, w // 32 * 8) for w in widths), **options)


@pytest.fixture(autouse=True, scope="module")
def small_networks():
    """A quarter of the channels, one thread, and no look from all directions (nothing here is learned well enough to do without),
    so that these tests take seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DefaultSCN", "FineNet"):
            patch.setattr(build, name, partial(_narrow, getattr(build, name)))
        patch.setattr("landmarklabel.inference.orientation_search.candidate_orientations", lambda geometry, config: [])
        yield
    torch.set_num_threads(threads)


def phantom(seed: int, task: LandmarkTask = TASK, **options) -> Case:
    options = {"size": SIZE, "absent_fraction": 0.0, "noise": 0.5} | options
    drawn = draw_phantom(task, seed, **options)
    return Case(f"case{seed}", Image(drawn.geometry, drawn.pixels), drawn.landmarks)


def regraded(case: Case, a: float, b: float, dtype: type = np.float64) -> Case:
    """The same picture in other grey values; its window is measured anew."""
    return Case(case.image_id, Image(case.image.geometry, (a * case.image.pixels.astype(np.float64) + b).astype(dtype)))


# --- thumbnails ------------------------------------------------------------------------------------------------------


def volumes() -> list[Case]:
    task = phantom_task(3, 4)
    options = {"size": (30, 26, 22), "spacing": (3.0, 3.5, 4.5), "oblique": True}
    return [phantom(seed, task, **options) for seed in range(3)]


@settings(max_examples=40, deadline=None)
@given(a=st.floats(0.05, 200), b=st.floats(-5000, 5000), seed=st.integers(0, 3))
def test_a_thumbnail_ignores_brightness_and_contrast(a, b, seed):
    case = phantom(seed)
    np.testing.assert_allclose(thumbnail(regraded(case, a, b)), thumbnail(case), atol=0.02)


def test_a_thumbnail_ignores_how_grey_values_are_stored():
    for case in (phantom(0), volumes()[0]):
        for stored in (regraded(case, 1, 1000, np.int32), regraded(case, 3, -400, np.int16), regraded(case, 0.5, 7, np.float32)):
            np.testing.assert_allclose(thumbnail(stored), thumbnail(case), atol=0.002)


def test_a_thumbnail_is_a_small_vector_without_brightness_and_contrast():
    for case in (phantom(0), volumes()[0]):
        look = thumbnail(case)
        dims = case.image.geometry.dims
        assert (
            look.shape == ({2: CONFIG.thumbnail_edge_2d, 3: CONFIG.thumbnail_edge_3d}[dims] ** dims,) and look.dtype == np.float32
        )
        assert look.mean() == pytest.approx(0, abs=1e-5) and look.std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("cases", [[phantom(s) for s in range(3)], volumes()], ids=["2D", "3D"])
def test_images_differ_far_more_by_content_than_by_grey_values(cases):
    looks = [thumbnail(c) for c in cases]
    apart = [np.linalg.norm(x - y) for i, x in enumerate(looks) for y in looks[:i]]
    near = [np.linalg.norm(thumbnail(regraded(c, 2.5, -30)) - x) for c, x in zip(cases, looks, strict=True)]
    assert min(apart) > 20 * max(near) and min(apart) > 1


def test_a_mirrored_picture_looks_different():
    case = phantom(0)
    mirrored = Case("m", Image(case.image.geometry, np.ascontiguousarray(case.image.pixels[:, ::-1])))
    assert np.linalg.norm(thumbnail(mirrored) - thumbnail(case)) > 1


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 40)])
def test_a_picture_of_one_grey_value_has_a_finite_thumbnail(size):
    flat = Case("flat", Image(ImageGeometry.identity(size, 1.0), np.full(size[::-1], 7.0, np.float32)))
    assert np.isfinite(thumbnail(flat)).all() and np.abs(thumbnail(flat)).max() < 20


# --- distances -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), labelled=st.integers(0, 5), unlabelled=st.integers(0, 5), missing=st.integers(0, 3))
def test_distances_are_those_of_the_thumbnails_symmetric_with_a_zero_diagonal(seed, labelled, unlabelled, missing):
    old, new = [f"l{i}" for i in range(labelled)], [f"u{i}" for i in range(unlabelled)]
    numbers = np.random.default_rng(seed)
    looks = {i: numbers.normal(size=256).astype(np.float32) for i in (old + new)[missing:]}
    ids, apart = image_distances(UnlabelledPool(new, old, {**looks, "gone": np.ones(256, np.float32)}))
    assert ids == (old + new)[missing:]
    assert apart.shape == (len(ids), len(ids))
    np.testing.assert_allclose(apart, apart.T, rtol=1e-6)
    np.testing.assert_allclose(np.diag(apart), 0, atol=0.05)  # of about 22 between any two, in single precision
    for i, one in enumerate(ids):
        for j, other in enumerate(ids[:i]):
            assert apart[i, j] == pytest.approx(np.linalg.norm(looks[one] - looks[other]), rel=1e-3)


def shapes(count: int, seed: int, n: int = 12) -> dict[str, np.ndarray]:
    """Configurations of two kinds, ``a…`` round and ``b…`` long, each turned, scaled and moved as it likes."""
    numbers = np.random.default_rng(seed)
    base = numbers.normal(size=(n, 2))
    out = {}
    for k in range(count):
        kind, angle = "ab"[k % 2], numbers.uniform(-3, 3)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = base * (1, 1 if kind == "a" else 1.8) + numbers.normal(0, 0.02, (n, 2))
        out[f"{kind}{k}"] = numbers.uniform(5, 50) * points @ turn.T + numbers.uniform(-99, 99, 2)
    return out


def of_shapes(points: dict[str, np.ndarray], labelled: int) -> UnlabelledPool:
    """Images that all look the same but for noise; the first ones are labelled, the others were seen by a model."""
    ids, noise = list(points), np.random.default_rng(7)
    assessments = {i: ImageAssessment(1.0, 0.0, "tip", tuple(tuple(map(float, p)) for p in points[i])) for i in ids[labelled:]}
    looks = {i: noise.normal(size=64).astype(np.float32) for i in ids}
    return UnlabelledPool(
        ids[labelled:], ids[:labelled], looks, assessments, labelled_positions={i: points[i] for i in ids[:labelled]}
    )


@pytest.mark.parametrize("labelled", [0, 6, 12])
def test_shapes_tell_images_apart_that_look_alike_however_they_lie(labelled):
    ids, apart = image_distances(of_shapes(shapes(12, seed=3), labelled), shapes=True)
    same = np.array([[i[0] == j[0] for j in ids] for i in ids])
    assert apart[same].max() < apart[~same].min()
    np.testing.assert_allclose(apart, apart.T, rtol=1e-6)


def test_landmarks_not_found_and_images_not_yet_seen_do_no_harm():
    points = shapes(16, seed=4)
    for i, which in zip(points, np.random.default_rng(0).integers(0, 12, (16, 3)), strict=True):
        points[i][which] = np.nan
    points["a2"][:] = np.nan
    pool = of_shapes(points, 8)
    pool = replace(pool, assessments={i: s for i, s in pool.assessments.items() if i not in ("a10", "b11")})
    ids, apart = image_distances(pool, shapes=True)
    known = [k for k, i in enumerate(ids) if i not in ("a2", "a10", "b11")]
    same = np.array([[ids[j][0] == ids[k][0] for j in known] for k in known])
    apart_known = apart[np.ix_(known, known)]
    assert np.isfinite(apart).all() and apart_known[same].max() < apart_known[~same].min()


def test_few_shapes_say_nothing_yet():
    pool = of_shapes(shapes(CONFIG.min_observed, seed=5), 2)
    assert np.array_equal(image_distances(pool, shapes=True)[1], image_distances(pool)[1])


@pytest.mark.parametrize("labelled", [3, CONFIG.max_compared // 2, CONFIG.max_compared + 7])
def test_of_a_hundred_thousand_images_some_are_compared(labelled):
    most, ids = CONFIG.max_compared, [f"{k:06d}" for k in range(100_000)]
    look = dict.fromkeys(ids, np.ones(2, np.float32))
    compared, apart = image_distances(UnlabelledPool(ids[labelled:], ids[:labelled], look))
    assert most // 2 <= len(compared) <= most and apart.shape == (len(compared),) * 2
    old = [i for i in compared if i < ids[labelled]]
    assert old == ids[:labelled][-most // 2 :] and compared[len(old)] == ids[labelled] and compared[-1] > ids[-1000]


# --- what a model makes of an image ----------------------------------------------------------------------------------


TRAIN, VALID = [phantom(s) for s in range(6)], [phantom(s) for s in range(100, 106)]


@pytest.fixture(scope="module", params=[True, False], ids=["calibrated", "uncalibrated"])
def model(request, tmp_path_factory):
    """Has learned a little; without validation images it cannot say how far off it is."""
    config = FitConfig(small(), Budget(steps=40), seed=1)
    return fit(TASK, TRAIN, VALID if request.param else [], config, tmp_path_factory.mktemp("model"))[0]


@pytest.fixture(scope="module")
def seen(model):
    return [assess_image(model, model.case(c.image_id, c.image)) for c in VALID]


def test_what_a_model_sees_is_complete(seen):
    for one in seen:
        assert one.worst in TASK.names
        assert 0 <= one.disagreement <= 1
        assert 0 < one.expected_error < 100
        assert np.array(one.positions_mm).shape == (6, 2)
        assert one.uncertainty == pytest.approx(one.expected_error * (1 + 3 * one.disagreement))
        assert {type(x) for x in (one.expected_error, one.disagreement, one.uncertainty)} == {float}


def test_what_a_model_sees_tells_images_apart(seen):
    """The point of looking: with equal uncertainties the choice would be the first by name."""
    values = [one.uncertainty for one in seen]
    assert min(values) > 0 and len(set(values)) == len(values)


def test_looking_changes_nothing_and_repeats(model, seen):
    again = assess_image(model, model.case(VALID[0].image_id, VALID[0].image))
    np.testing.assert_equal(vars(again), vars(seen[0]))


class Says:
    """A model that proposes given points with given expected errors, each found (mass 1) or torn (mass 0.2)."""

    def __init__(self, positions, errors, torn=(), flagged=()):
        self.task, n = TASK, len(TASK)
        marks = LandmarkSet.of_positions(TASK, np.array(positions, float))
        mass = np.where(np.isin(np.arange(n), torn), 0.2, 1.0)
        covariance = np.tile(np.eye(2), (n, 1, 1))
        landmarks = replace(marks, expected_error_mm=np.array(errors, float), covariance_mm2=covariance)
        self.evidence = type("E", (), {"peak_mass": mass, "covariance_mm2": covariance})()
        self.said = type("S", (), {"landmarks": landmarks, "flagged": np.isin(np.arange(n), flagged)})()

    def detect(self, case):
        return self.evidence

    def suggest(self, evidence, geometry):
        assert evidence is self.evidence
        return self.said


RING = 10.0 * np.stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)], axis=1)  # of size 10


def test_positions_lie_where_the_model_proposes_the_points():
    """Those of ``suggest``, in the task's order; without a place where it proposes none."""
    proposed = np.array([[4.5, -6.0], [0.25, 9.0], [np.nan, np.nan], [33.0, 1.0], [7.0, 8.0], [-2.0, 5.5]])
    one = assess_image(Says(proposed, [1] * 6), VALID[0])
    wanted = ((4.5, -6.0), (0.25, 9.0), (None, None), (33.0, 1.0), (7.0, 8.0), (-2.0, 5.5))
    assert one.positions_mm == wanted
    np.testing.assert_array_equal(one.points, proposed)


def test_expected_errors_are_hundredths_of_the_shapes_size_and_the_worst_is_named():
    one = assess_image(Says(RING, [1, 1, 1, 4, 1, 1]), VALID[0])
    assert one.expected_error == pytest.approx(15.0) and one.worst == TASK.names[3] and one.disagreement == 0
    larger = assess_image(Says(3 * RING + 50, [3, 3, 3, 12, 3, 3]), VALID[0])
    assert larger.expected_error == pytest.approx(15.0)


def test_disagreement_is_the_share_that_is_torn_or_contradicts_the_others():
    assert assess_image(Says(RING, [1] * 6, torn=(0, 1), flagged=(1, 2)), VALID[0]).disagreement == pytest.approx(0.5)


def test_points_that_are_not_found_count_in_no_mean():
    positions = RING.copy()
    positions[[1, 4]] = np.nan
    one = assess_image(Says(positions, [1, np.nan, 1, 2, np.nan, 1], torn=(1,)), VALID[0])
    size = np.sqrt(((positions[[0, 2, 3, 5]] - positions[[0, 2, 3, 5]].mean(0)) ** 2).sum(1).mean())
    assert one.expected_error == pytest.approx(100 * 1.25 / size) and one.worst == TASK.names[3] and one.disagreement == 0
    assert np.isnan(np.array(one.positions_mm, float)).any(axis=1).tolist() == [False, True, False, False, True, False]


def test_an_image_in_which_nothing_is_found_is_most_uncertain():
    nothing = assess_image(Says(np.full((6, 2), np.nan), [np.nan] * 6), VALID[0])
    assert nothing.expected_error == 100.0 and nothing.disagreement == 0 and nothing.uncertainty == 100.0
    assert nothing.worst == TASK.names[0] and nothing.positions_mm == ((None, None),) * 6
    torn = assess_image(Says(np.full((6, 2), np.nan), [np.nan] * 6, torn=(1, 4)), VALID[0])
    assert torn.disagreement == 0  # of what is not found nothing is torn
