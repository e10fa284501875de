"""How far a point lies from where the other points of its case expect it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from landmarklabel.data.shape_outliers import OutlierConfig, score_shapes, shape_outliers, swapped_with, worst_first
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

NAMES = ("a", "b", "c", "d", "e", "f")
PLACES = np.array([[0, 0, 0], [80, 0, 10], [80, 60, 0], [0, 60, 20], [40, 30, 40], [20, 90, 5.0]])


def cases(count: int, dims: int, moved: dict[int, dict[str, float]] | None = None) -> np.ndarray:
    """(n, k, d) similar shapes in which c and d move together, each case turned, moved and enlarged.

    ``moved``: by case, which landmarks lie how many mm beside their place.
    """
    rng = np.random.default_rng(0)
    shapes = PLACES[:, :dims] + rng.normal(0, 0.3, (count, len(NAMES), dims))
    shapes[:, 2:4] += rng.normal(0, 1.5, (count, 1, dims))
    for n, points in (moved or {}).items():
        shapes[n] = PLACES[:, :dims]
        for name, mm in points.items():
            shapes[n, NAMES.index(name), 0] += mm
    for n, angle in enumerate(rng.uniform(-0.3, 0.3, count)):
        turn = np.eye(dims)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        shapes[n] = shapes[n] @ turn.T + rng.uniform(-100, 100, dims)
    return shapes


def labelled(shapes: np.ndarray) -> dict[str, LandmarkSet]:
    task = LandmarkTask("six", NAMES, shapes.shape[2])
    return {
        f"case{n:03d}": LandmarkSet(task, x, tuple(Status.PLACED if np.isfinite(p).all() else Status.UNSET for p in x))
        for n, x in enumerate(shapes)
    }


@pytest.mark.parametrize("dims", [2, 3])
def test_a_point_is_expected_where_those_that_move_with_it_say(dims):
    """c is 4 mm beside its usual place in two cases; in one d has gone along, and only in the other it is odd."""
    scores = score_shapes(labelled(cases(100, dims, {0: {"c": 4}, 1: {"c": 4, "d": 4}})))
    assert set(worst_first(scores.score)[:2]) == {(0, 2), (0, 3)} and scores.score[0, 2] > 4 > 3 > scores.score[1, 2]
    assert scores.off_mm[0, 2] == pytest.approx(4, abs=0.5) and scores.off_mm[1, 2] < 0.8


def test_distances_are_those_of_the_image_and_not_of_the_mean_shape():
    far = cases(60, 2, {5: {"e": 15}})
    as_is, larger = score_shapes(labelled(far)), score_shapes(labelled(far * 3))
    assert np.allclose(larger.off_mm, 3 * as_is.off_mm, rtol=1e-6) and np.allclose(larger.score, as_is.score, rtol=1e-6)
    assert as_is.off_mm[5, 4] == pytest.approx(15, abs=0.5)
    assert np.linalg.norm(as_is.expected[5, 4] - as_is.aligned[5, 4]) > 5


def test_swapped_names_stand_out_and_nothing_else_does():
    shapes = cases(30, 3)
    shapes[7, [0, 5]] = shapes[7, [5, 0]]
    found = shape_outliers(labelled(shapes))
    assert {(o.image_id, o.name) for o in found} == {("case007", "a"), ("case007", "f")}
    assert all(o.off_mm > 50 > 5 > o.typical_mm for o in found)
    assert shape_outliers(labelled(cases(30, 3))) == []


def test_of_two_swapped_names_each_is_told_the_other():
    shapes = cases(30, 2)
    shapes[7, [0, 5]] = shapes[7, [5, 0]]
    shapes[9, 2] += 25
    scores = score_shapes(labelled(shapes))
    assert (swapped_with(scores, 7, 0), swapped_with(scores, 7, 5), swapped_with(scores, 9, 2)) == (5, 0, None)
    told = [(i, k) for i in range(30) for k in range(6) if swapped_with(scores, i, k) is not None]
    assert told == [(7, 0), (7, 5)]


def test_points_that_cases_lack_have_no_score_and_keep_nobody_from_one():
    shapes = cases(60, 2)
    shapes[::4, 3] = np.nan
    shapes[5, 2] += 25
    scores = score_shapes(labelled(shapes))
    assert np.isnan(scores.score[::4, 3]).all() and np.isfinite(np.delete(scores.score, 3, axis=1)).all()
    assert worst_first(scores.score)[0] == (5, 2) and len(worst_first(scores.score)) == 60 * 6 - 15
    without = shapes.copy()
    without[:, 3] = np.nan  # a landmark that nobody has placed yet
    assert np.isnan(score_shapes(labelled(without)).score[:, 3]).all()


def alike(dims: int) -> np.ndarray:
    return np.tile(PLACES[:, :dims], (20, 1, 1))


def on_a_line() -> np.ndarray:
    shapes = alike(2)
    shapes[..., 1] = 0
    return shapes


def with_a_case_in_one_point() -> np.ndarray:
    shapes = cases(20, 2)
    shapes[4] = shapes[4, 0]
    return shapes


def mirrored() -> np.ndarray:
    shapes = cases(20, 2)
    shapes[3, :, 0] *= -1
    return shapes


@pytest.mark.parametrize(
    ("shapes", "odd"),
    [(alike(2), None), (alike(3), None), (on_a_line(), None), (with_a_case_in_one_point(), 4), (mirrored(), 3)],
    ids=["alike 2D", "alike 3D", "on a line", "a case in one point", "a mirrored case"],
)
def test_shapes_that_nobody_would_expect_are_scored_all_the_same(shapes, odd):
    scores = score_shapes(labelled(shapes))
    assert np.isfinite(scores.score).all() and (scores.off_mm < 20 * np.median(scores.size_mm)).all()
    assert {o.image_id for o in shape_outliers(labelled(shapes))} == ({f"case{odd:03d}"} if odd else set())


def test_where_cases_are_copies_a_point_that_is_not_stands_out():
    shapes = alike(2)
    shapes[3, 2] += 5
    assert [(o.image_id, o.name) for o in shape_outliers(labelled(shapes))] == [("case003", "c")]


def test_a_point_is_odd_though_its_companion_is_missing():
    """c and d move together; without d the others still tell how far c is off, if less surely."""
    shapes = cases(60, 2, {0: {"c": 6}, 1: {"c": 6}})
    shapes[1, 3] = np.nan
    scores = score_shapes(labelled(shapes))
    assert scores.off_mm[:2, 2] == pytest.approx(6, abs=0.5) and scores.score[0, 2] > scores.score[1, 2] > 3


def test_a_landmark_that_few_cases_have_says_nothing_yet():
    shapes = cases(60, 2)
    shapes[2:, 4] = np.nan
    shapes[0, 4] += 30
    scores = score_shapes(labelled(shapes))
    assert np.isnan(scores.score[:, 4]).all() and np.nanmax(scores.score[0]) < 4
    shapes = cases(60, 2)
    shapes[10:, 4] = np.nan
    shapes[0, 4] += 30
    scores = score_shapes(labelled(shapes))
    assert worst_first(scores.score)[0] == (0, 4) and np.nanmax(scores.score[0, :4]) < 4


@pytest.mark.parametrize("count", [0, 7])
def test_few_cases_say_nothing(count):
    assert score_shapes(labelled(cases(count, 2))) is None and shape_outliers(labelled(cases(count, 2))) == []


def test_two_points_are_no_shape():
    task = LandmarkTask("two", ("a", "b"), 2)
    sets = {str(n): LandmarkSet.of_positions(task, [[0, n], [50, 0]], Status.PLACED) for n in range(20)}
    assert score_shapes(sets) is None


def test_ten_thousand_cases_take_seconds():
    sets = labelled(np.tile(cases(500, 2), (20, 1, 1)))
    started = time.monotonic()
    assert len(score_shapes(sets, OutlierConfig()).image_ids) == 10_000
    assert time.monotonic() - started < 30
