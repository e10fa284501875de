"""Which image a person is handed next where two reasons pull apart, and what is said of it: small pools with plain numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from landmarklabel.active.configuration import StrategyConfig
from landmarklabel.active.strategies import adaptive, diverse, uncertain
from landmarklabel.active.unlabelled_pool import ImageAssessment, UnlabelledPool

LABELLED = [f"l{k}" for k in range(StrategyConfig().cold_start_labels)]  # all look the same: like nothing


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def pool(images: dict[str, tuple[float | None, float | None]], error_correlation: float = 1.0, **more) -> UnlabelledPool:
    """Images by how far their looks are from those of the labelled ones, each in a direction of its own, and by the error
    that is expected; either may be unknown."""
    thumbnails = dict.fromkeys(LABELLED, np.zeros(8))
    thumbnails |= {i: far * np.eye(8)[k] for k, (i, (far, _)) in enumerate(images.items()) if far is not None}
    assessments = {i: ImageAssessment(error, 0.0, "tip") for i, (_, error) in images.items() if error is not None}
    return UnlabelledPool(list(images), LABELLED, thumbnails, assessments, error_correlation, **more)


def said(place: int, of: int, unlike: bool = False) -> str:
    return f"number {place} of {of} by uncertainty, highest at tip" + ", and looks unlike the labelled images" * unlike


# --- what is said ----------------------------------------------------------------------------------------------------


def test_of_images_equally_doubtful_the_first_by_name_is_number_one():
    assert uncertain(pool({"c": (None, 1.0), "b": (None, 2.0), "a": (None, 2.0)}), rng()) == ("a", said(1, 3))


@pytest.mark.parametrize(("share", "end"), [(0.0, ""), (0.02, ""), (0.03, "; 3% of the points contradict the others")])
def test_contradictions_are_named_from_more_than_a_fiftieth_of_the_points_on(share, end):
    assessments = {"a": ImageAssessment(1.0, share, "tip")}
    assert uncertain(UnlabelledPool(["a"], assessments=assessments), rng()) == ("a", said(1, 1) + end)


@pytest.mark.parametrize(("rank", "unlike"), [(0.4, True), (0.5, False), (0.6, False)])
def test_the_middle_one_of_three_is_unlike_the_labelled_ones_by_where_the_line_is_drawn(rank, unlike):
    images = {"near": (1.0, 1.0), "middle": (2.0, 5.0), "far": (3.0, 1.0)}
    chosen = adaptive(pool(images, config=StrategyConfig(unlike_rank=rank)), rng())
    assert chosen == ("middle", said(1, 3, unlike))


def test_the_further_of_two_is_unlike_and_the_nearer_one_and_a_last_one_are_not():
    assert adaptive(pool({"near": (1.0, 1.0), "far": (2.0, 1.0)}), rng()) == ("far", said(1, 2, unlike=True))
    assert adaptive(pool({"near": (1.0, 9.0), "far": (2.0, 1.0)}), rng()) == ("near", said(1, 2))
    assert adaptive(pool({"last": (1.0, 1.0)}), rng()) == ("last", said(1, 1))


# --- looks against doubt ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "error_correlation", "chosen"),
    [(2.0, 0.5, "far"), (2.0, 1.0, "near"), (2.0, 0.0, "far"), (3.0, 0.5, "near"), (0.1, -1.0, "far")],
)
def test_doubt_counts_as_far_as_it_has_come_true(error, error_correlation, chosen):
    """``far`` looks two and a half times as different. Doubt counts once where half of it came true, twice where all did,
    and not at all where the opposite did."""
    images = {"near": (1.0, error), "far": (2.5, 1.0)}
    assert adaptive(pool(images, error_correlation), rng()).image_id == chosen


def test_where_looks_say_nothing_doubt_decides():
    images = {"a": (0.0, 1.0), "b": (0.0, 3.0), "unseen": (None, 5.0)}
    assert adaptive(pool(images), rng()) == ("unseen", said(1, 3))
    del images["unseen"]
    assert adaptive(pool(images), rng()).image_id == "b"


def test_what_cannot_be_compared_is_not_handed_out_before_what_stands_for_something():
    assert adaptive(pool({"a": (0.1, 0.5), "unseen": (None, 9.0)}), rng()).image_id == "a"


def test_an_image_no_model_has_looked_at_counts_as_usually_doubtful_but_waits():
    """``a`` stands for ``like a`` as well, which makes up for the greater doubt in ``b``; alone it does not."""
    images = {"a": (1.0, 1.0), "b": (1.0, 1.9), "c": (0.1, 1.0)}
    assert adaptive(pool(images, 0.5), rng()).image_id == "b"
    known = pool(images | {"like a": (None, None)}, 0.5)
    known = replace(known, thumbnails={**known.thumbnails, "like a": known.thumbnails["a"]})
    assert adaptive(known, rng()) == ("a", said(2, 4))


# --- shapes ----------------------------------------------------------------------------------------------------------


def test_adaptive_goes_by_shapes_where_they_are_known_and_diverse_by_looks():
    """``odd look`` has the shape of the labelled images, ``odd shape`` their looks."""
    numbers, usual = np.random.default_rng(1), np.array([[0.0, 0], [10, 0], [0, 10], [10, 10], [5, 20]])
    shapes = {i: usual + numbers.normal(0, 0.1, usual.shape) for i in (*LABELLED, "odd look")}
    shapes["odd shape"] = usual * (1, 3)
    known = pool({"odd look": (9.0, 1.0), "odd shape": (0.0, 1.0)}, 0.0)
    assessments = {i: ImageAssessment(1.0, 0.0, "tip", tuple(map(tuple, shapes[i]))) for i in known.unlabelled}
    known = replace(known, assessments=assessments, labelled_positions={i: shapes[i] for i in LABELLED})
    assert adaptive(known, rng()).image_id == "odd shape"
    assert diverse(known, rng()).image_id == "odd look"


def test_labelled_images_that_cannot_be_compared_leave_the_choice_as_if_there_were_none():
    looks = {name: np.array([x, 0.0]) for name, x in (("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0), ("e", 4.0))}
    reason = "looks least like the 1 labelled image and stands for most others"
    assert diverse(UnlabelledPool(list(looks), ["unreadable"], looks), rng()) == ("c", reason)
