"""The advice on when to stop: told from falling and flat curves, with noise, outliers and gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarklabel.active.advice import Advice, advise
from landmarklabel.active.configuration import AdviceConfig

LEAST, AHEAD = AdviceConfig().min_cases, AdviceConfig().labels_ahead
LABELS = np.arange(5, 30)
SHAPES = {"falling": lambda n: 1 + 12 / n, "flat": lambda n: 2 + 0 * n, "rising": lambda n: 3 - 6 / n}


def noisy(shape: str, labels: np.ndarray = LABELS, seed: int = 0) -> np.ndarray:
    return SHAPES[shape](labels.astype(float)) * np.random.default_rng(seed).normal(1, 0.05, len(labels))


def test_a_curve_that_falls_goes_on_to_pay():
    advice = advise(LABELS, 1 + 12 / LABELS)
    now, then = 1 + 12 / 29, 1 + 12 / 39
    assert advice.enough is False
    assert (advice.now_mm, advice.then_mm) == (pytest.approx(now, rel=1e-3), pytest.approx(then, rel=1e-3))
    assert advice.text == "more labels still help: proposals are about 1.41 mm off now, 1.31 mm after 10 more labels"


def test_a_flat_curve_is_enough():
    advice = advise(LABELS, np.full(len(LABELS), 2.0))
    assert advice.enough is True
    assert (advice.now_mm, advice.then_mm) == (pytest.approx(2.0, rel=1e-3), pytest.approx(2.0, rel=1e-3))
    assert advice.text == "more labels would hardly help: proposals are about 2.00 mm off now, 2.00 mm after 10 more labels"


def test_cases_chosen_for_their_doubt_do_not_count_beside_enough_drawn_ones():
    fair = np.arange(len(LABELS)) % 3 == 0
    falling, doubtful = 1 + 12 / LABELS, np.linspace(3, 9, len(LABELS))  # ever odder images are chosen
    told = advise(LABELS, np.where(fair, falling, doubtful), fair)
    assert told.enough is False
    assert (told.now_mm, told.then_mm) == (pytest.approx(1 + 12 / 29, rel=1e-3), pytest.approx(1 + 12 / 39, rel=1e-3))
    assert advise(LABELS, np.where(fair, falling, doubtful)).now_mm > 3
    few = np.arange(len(LABELS)) < LEAST - 1
    assert advise(LABELS, falling, few) == advise(LABELS, falling)


def test_the_same_curve_pays_early_and_no_longer_late():
    def said(upto):
        labels = np.arange(3, upto)
        return advise(labels, 1 + 5 / labels).enough

    assert said(15) is False and said(60) is True


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape, enough", [("falling", False), ("flat", True), ("rising", True)])
def test_noise_does_not_change_the_verdict(shape, enough, seed):
    advice = advise(LABELS, noisy(shape, seed=seed))
    assert advice.enough is enough
    assert 0 < advice.then_mm <= advice.now_mm
    assert advice.now_mm == pytest.approx(SHAPES[shape](29.0), rel=0.1)


@pytest.mark.parametrize("count", range(LEAST - 1))
def test_too_few_cases_say_nothing_yet_and_how_many_are_wanting(count):
    text = f"label {LEAST - count} more cases with a model at work before it can be said how much labels still help"
    assert advise(LABELS[:count], np.ones(count)) == Advice(text, None, None, None)


def test_cases_that_were_all_labelled_at_once_say_nothing_yet():
    advice = advise([5] * 20, np.ones(20))
    assert advice.enough is None and "before it can be said how much labels still help" in advice.text
    assert advise(range(5, 5 + LEAST), np.ones(LEAST)).enough is True


@pytest.mark.parametrize("error", [0.0, 60.0])
@pytest.mark.parametrize("at", range(len(LABELS)))
@pytest.mark.parametrize("shape, enough", [("falling", False), ("flat", True)])
def test_one_gross_outlier_does_not_change_the_verdict(shape, enough, at, error):
    errors = noisy(shape)
    clean = advise(LABELS, errors)
    errors[at] = error
    advice = advise(LABELS, errors)
    assert advice.enough is enough
    assert advice.now_mm == pytest.approx(clean.now_mm, rel=0.1) and advice.then_mm == pytest.approx(clean.then_mm, rel=0.1)


@pytest.mark.parametrize("gap", [np.nan, np.inf, -np.inf])
def test_cases_without_an_error_are_ignored(gap):
    errors = noisy("falling")
    labels = np.concatenate([LABELS[:4], [9, 500], LABELS[4:]])
    with_gaps = np.concatenate([errors[:4], [gap, gap], errors[4:]])
    assert advise(labels, with_gaps) == advise(LABELS, errors)
    few = advise(LABELS, np.where(np.arange(len(LABELS)) < 3, errors, gap))
    assert few.enough is None and few.text.startswith("label 5 more cases")


def test_cases_seen_before_any_was_labelled_are_ignored():
    errors = noisy("falling")
    assert advise([0, 0, *LABELS], [50.0, 70.0, *errors]) == advise(LABELS, errors)


def test_nothing_at_all_is_no_mistake():
    assert advise([], []).text.startswith("label 8 more cases")
    assert advise(LABELS, np.zeros(len(LABELS))).enough is True


@settings(max_examples=100, deadline=None)
@given(
    level=st.floats(0.1, 5), gain=st.floats(0, 30), begin=st.integers(2, 8), count=st.integers(10, 40), unit=st.floats(0.01, 100)
)
def test_on_an_exact_curve_the_forecast_is_the_curve_in_any_unit_and_order(level, gain, begin, count, unit):
    labels = np.arange(begin, begin + count)
    order = np.random.default_rng(count).permutation(count)
    curve = lambda n: unit * (level + gain / n)  # noqa: E731
    advice = advise(labels[order], curve(labels)[order])
    now, then = curve(labels[-1]), curve(labels[-1] + AHEAD)
    assert (advice.now_mm, advice.then_mm) == (pytest.approx(now, rel=0.01), pytest.approx(then, rel=0.01))
    if abs((now - then) / now - 0.03) > 0.005:
        assert advice.enough is bool((now - then) / now < 0.03)


@settings(max_examples=100, deadline=None)
@given(
    first=st.floats(1, 20), last=st.floats(0, 1), begin=st.integers(1, 8), count=st.integers(LEAST, 30), bend=st.floats(0.3, 3)
)
def test_no_forecast_is_below_zero_however_fast_the_errors_fell(first, last, begin, count, bend):
    """A curve that falls more steeply than the model of it can."""
    errors = last + (first - last) * (1 - np.linspace(0, 1, count) ** bend)
    advice = advise(np.arange(begin, begin + count), errors)
    assert 0 <= advice.then_mm <= advice.now_mm
