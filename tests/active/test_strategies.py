"""Strategies choose from what is there, for a reason they state: on made-up pools whose right answer is plain to see."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarklabel.active.configuration import StrategyConfig
from landmarklabel.active.strategies import STRATEGIES, adaptive, diverse, first, random, uncertain
from landmarklabel.active.unlabelled_pool import ImageAssessment, UnlabelledPool

COLD, EVERY = StrategyConfig().cold_start_labels, StrategyConfig().validation_every


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clusters(*sizes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Thumbnails: cluster ``k`` has images ``k-0``, ``k-1`` …, far from all others and equally far from each cluster."""
    corners = 10 * np.eye(len(sizes), 8)
    noise = rng(seed)
    return {f"{k}-{j}": corners[k] + noise.normal(0, 0.05, 8) for k, n in enumerate(sizes) for j in range(n)}


def labelled_in_turn(thumbnails: dict[str, np.ndarray], count: int) -> list[str]:
    """What ``diverse`` chooses, case after case."""
    done: list[str] = []
    for _ in range(count):
        done.append(diverse(UnlabelledPool([i for i in thumbnails if i not in done], done, thumbnails), rng()).image_id)
    return done


def opposed(error_correlation: float) -> UnlabelledPool:
    """The model doubts ``u0`` most and ``u5`` least; ``u5`` looks least like the labelled images and ``u0`` most."""
    ids, labelled = [f"u{k}" for k in range(6)], [f"l{k}" for k in range(COLD)]
    thumbnails = {i: (10.0 + k) * np.eye(8)[k] for k, i in enumerate(ids)} | {
        i: 0.01 * k * np.eye(8)[7] for k, i in enumerate(labelled)
    }
    return UnlabelledPool(
        ids, labelled, thumbnails, {i: ImageAssessment(6.0 - k, 0.0, "tip") for k, i in enumerate(ids)}, error_correlation
    )


# --- first and random ------------------------------------------------------------------------------------------------


def test_first_takes_the_first_by_name():
    assert first(UnlabelledPool(["c", "a", "b"]), rng()) == ("a", "first by name of 3 images without landmarks")


def test_random_takes_each_equally_often_whatever_the_order_and_repeats_with_its_seed():
    ids = ["c", "a", "b", "d"]
    drawn = [random(UnlabelledPool(ids), rng(seed)) for seed in range(400)]
    counts = Counter(choice.image_id for choice in drawn)
    assert set(counts) == set(ids) and min(counts.values()) > 60  # of 100 each; 60 is 4.6 standard deviations off
    assert {choice.reason for choice in drawn} == {"drawn at random from 4 images without landmarks"}
    assert drawn == [random(UnlabelledPool(sorted(ids)), rng(seed)) for seed in range(400)]


# --- diverse ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(2, 6), min_size=2, max_size=8), seed=st.integers(0, 99))
def test_diverse_covers_all_clusters_before_it_returns_to_one(sizes, seed):
    done = labelled_in_turn(clusters(*sizes, seed=seed), len(sizes))
    assert len({i.split("-")[0] for i in done}) == len(sizes)


def test_diverse_takes_first_what_stands_for_most_others():
    thumbnails = clusters(3, 9, 2, 6)
    assert [i.split("-")[0] for i in labelled_in_turn(thumbnails, 4)] == ["1", "3", "0", "2"]


def test_diverse_takes_the_middle_of_what_looks_alike():
    thumbnails = {name: np.array([x, 0.0]) for name, x in (("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0), ("e", 4.0))}
    assert diverse(UnlabelledPool(list(thumbnails), [], thumbnails), rng()).image_id == "c"


def test_diverse_counts_what_was_labelled_before_in_whatever_order():
    thumbnails = clusters(4, 4, 4)
    done = ["2-1", "0-3"]
    left = [i for i in thumbnails if i not in done]
    for order in (left, left[::-1]):
        assert diverse(UnlabelledPool(order, done, thumbnails), rng()).image_id.startswith("1-")


def test_diverse_says_why():
    thumbnails = clusters(3, 3)
    assert (
        diverse(UnlabelledPool(list(thumbnails), [], thumbnails), rng()).reason
        == "looks most like all 6 images without landmarks"
    )
    left = [i for i in thumbnails if i not in ("0-0", "1-0")]
    reason = diverse(UnlabelledPool(left, ["0-0", "1-0"], thumbnails), rng()).reason
    assert reason == "looks least like the 2 labelled images and stands for most others"


def test_diverse_without_thumbnails_is_random_and_says_so():
    pool = UnlabelledPool(["b", "a", "c"])
    assert diverse(pool, rng(5)) == random(pool, rng(5))


# --- uncertain -------------------------------------------------------------------------------------------------------


def test_uncertain_takes_the_largest_expected_error_and_says_where():
    assessments = {
        "a": ImageAssessment(2.0, 0.0, "wrist"),
        "b": ImageAssessment(5.0, 0.0, "thumb_tip"),
        "c": ImageAssessment(3.0, 0.02, "elbow"),
    }
    choice = uncertain(UnlabelledPool(["a", "b", "c", "d"], ["e"], assessments=assessments), rng())
    assert choice == ("b", "number 1 of 4 by uncertainty, highest at thumb_tip")


def test_uncertain_takes_contradictions_for_worse_than_width():
    assessments = {"a": ImageAssessment(5.0, 0.0, "wrist"), "b": ImageAssessment(3.0, 0.25, "tip")}
    assert assessments["a"].uncertainty == 5.0 and assessments["b"].uncertainty == 5.25
    choice = uncertain(UnlabelledPool(["a", "b"], assessments=assessments), rng())
    assert choice == ("b", "number 1 of 2 by uncertainty, highest at tip; 25% of the points contradict the others")


def test_uncertain_ignores_what_is_no_longer_to_be_labelled():
    assessments = {
        "gone": ImageAssessment(9.0, 0.5, "x"),
        "a": ImageAssessment(1.0, 0.0, "y"),
        "b": ImageAssessment(2.0, 0.0, "z"),
    }
    assert uncertain(UnlabelledPool(["a", "b"], ["gone"], assessments=assessments), rng()) == (
        "b",
        "number 1 of 2 by uncertainty, highest at z",
    )


def test_uncertain_is_diverse_while_no_model_has_looked():
    thumbnails = clusters(2, 5)
    for assessments in ({}, {"gone": ImageAssessment(9.0, 0.5, "x")}):
        choice = uncertain(UnlabelledPool(list(thumbnails), [], thumbnails, assessments), rng())
        assert choice.image_id == diverse(UnlabelledPool(list(thumbnails), [], thumbnails), rng()).image_id
        reason = "looks most like all 7 images without landmarks (no model has looked at the images yet)"
        assert choice.reason == reason


# --- adaptive --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", range(COLD))
def test_adaptive_is_diverse_while_cold(labelled):
    pool = opposed(error_correlation=1.0)
    pool = replace(pool, labelled=pool.labelled[:labelled])
    assert adaptive(pool, rng()) == diverse(pool, rng()) != uncertain(pool, rng())


def test_adaptive_is_diverse_without_a_model():
    pool = replace(opposed(error_correlation=1.0), assessments={})
    assert adaptive(pool, rng()) == diverse(pool, rng())


def test_adaptive_follows_a_model_that_was_right_and_looks_where_it_was_wrong():
    assert adaptive(opposed(error_correlation=1.0), rng()) == ("u0", "number 1 of 6 by uncertainty, highest at tip")
    reason = "number 6 of 6 by uncertainty, highest at tip, and looks unlike the labelled images"
    for error_correlation in (-1.0, 0.0):
        assert adaptive(opposed(error_correlation), rng()) == ("u5", reason)


def test_adaptive_prefers_what_stands_for_much_doubt_to_one_odd_image():
    thumbnails = clusters(5, 1)
    assessments = {i: ImageAssessment(5.0 if i == "1-0" else 3.0, 0.0, "tip") for i in thumbnails}
    labelled = {f"l{k}": np.zeros(8) for k in range(COLD)}
    pool = UnlabelledPool(list(thumbnails), list(labelled), thumbnails | labelled, assessments, error_correlation=0.5)
    assert uncertain(pool, rng()).image_id == "1-0"
    assert adaptive(pool, rng()).image_id.startswith("0-")


@pytest.mark.parametrize("error_correlation", [-1.0, 0.5, 1.0])
def test_adaptive_takes_what_is_both_doubtful_and_unlike(error_correlation):
    pool = opposed(error_correlation)
    pool = replace(pool, assessments={**pool.assessments, "u5": ImageAssessment(99.0, 0.5, "wrist")})
    reason = "number 1 of 6 by uncertainty, highest at wrist; 50% of the points contradict the others"
    assert adaptive(pool, rng()) == ("u5", reason + ", and looks unlike the labelled images")


def with_validation(labelled: int, error_correlation: float = 1.0) -> UnlabelledPool:
    """The two images that one criterion or the other likes best are kept for validation."""
    return replace(opposed(error_correlation), labelled=[f"l{i}" for i in range(labelled)], validation=frozenset(("u0", "u5")))


@pytest.mark.parametrize("labelled", [EVERY - 1, 2 * EVERY - 1, 7 * EVERY - 1])
def test_adaptive_draws_every_fifth_case_from_those_that_measure_the_model(labelled):
    pool = with_validation(labelled)
    drawn = [adaptive(pool, rng(seed)) for seed in range(40)]
    counts = Counter(choice.image_id for choice in drawn)
    assert set(counts) == pool.validation and min(counts.values()) > 8
    assert {choice.reason for choice in drawn} == {"drawn at random: every 5th case measures the model fairly"}


@pytest.mark.parametrize("error_correlation", [1.0, -1.0])
@pytest.mark.parametrize("labelled", [n for n in range(2 * EVERY + 2) if n % EVERY != EVERY - 1])
def test_adaptive_leaves_them_alone_in_between(labelled, error_correlation):
    pool = with_validation(labelled, error_correlation)
    for assessments in (pool.assessments, {}):
        choice = adaptive(replace(pool, assessments=assessments), rng())
        assert choice.image_id not in pool.validation
        assert not choice.reason.startswith("drawn at random")


def test_adaptive_takes_them_when_nothing_else_is_left():
    for labelled in range(2 * EVERY + 2):
        pool = with_validation(labelled)
        pool = replace(pool, unlabelled=sorted(pool.validation))
        assert adaptive(pool, rng()).image_id in pool.validation


def test_adaptive_draws_none_where_nothing_is_kept_for_validation():
    pool = replace(with_validation(3 * EVERY - 1), validation=frozenset())
    assert adaptive(pool, rng()) == ("u0", "number 1 of 6 by uncertainty, highest at tip")


@pytest.mark.parametrize("seen", ["u0", "labelled meanwhile"])
def test_adaptive_waits_for_no_model_that_has_seen_only_other_images(seen):
    """The background look has come to images kept for validation, or to some that are labelled by now, and to no others."""
    pool = replace(with_validation(COLD + 1), assessments={seen: ImageAssessment(3.0, 0.1, "tip")})
    assert adaptive(pool, rng()).image_id in set(pool.unlabelled) - pool.validation


# --- all -------------------------------------------------------------------------------------------------------------


@st.composite
def pools(draw) -> UnlabelledPool:
    """Any pool the server can be in: thumbnails, assessments and images kept for validation may be missing or stale."""
    unlabelled = [f"u{i}" for i in draw(st.permutations(range(draw(st.integers(1, 8)))))]
    labelled = [f"l{i}" for i in range(draw(st.integers(0, 12)))]
    some = lambda ids: st.sets(st.sampled_from(ids)) if ids else st.just(set())  # noqa: E731
    numbers = rng(draw(st.integers(0, 999)))
    flat = draw(st.booleans())  # images may all look the same
    thumbnails = {
        i: np.zeros(4, np.float32) if flat else numbers.normal(size=4).astype(np.float32)
        for i in draw(some(unlabelled + labelled))
    }
    assessments = {
        i: ImageAssessment(float(numbers.integers(0, 5)), float(numbers.choice([0, 0.3, 1])), "tip")
        for i in draw(some(unlabelled + labelled))
    }
    return UnlabelledPool(
        unlabelled, labelled, thumbnails, assessments, draw(st.floats(-1, 1)), frozenset(draw(some(unlabelled)))
    )


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=150, deadline=None)
@given(pool=pools(), seed=st.integers(0, 9))
def test_every_choice_is_an_unlabelled_image_with_a_reason_and_comes_again(name, pool, seed):
    choice = STRATEGIES[name](pool, rng(seed))
    assert choice.image_id in pool.unlabelled
    assert choice.reason == choice.reason.strip() != ""
    assert STRATEGIES[name](pool, rng(seed)) == choice
    known = [pool.assessments[i].uncertainty for i in pool.unlabelled if i in pool.assessments]
    if name == "uncertain" and known:
        assert pool.assessments[choice.image_id].uncertainty == max(known)
    if name == "adaptive" and set(pool.unlabelled) - pool.validation:
        drawn = bool(pool.validation) and len(pool.labelled) % EVERY == EVERY - 1
        assert (choice.image_id in pool.validation) == drawn
