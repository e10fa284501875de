"""Which of two predictions is nearer: the figures, the interval and the test are of the same mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.metrics import summarize
from landmarklabel.services.evaluations import Comparison
from landmarklabel.services.paired_comparison import comparison_lines, paired_comparison

TASK = LandmarkTask("two", ("a", "b"), 2)


def predicted(errors: np.ndarray, units: dict[str, str] | None = None) -> Comparison:
    """Of (cases, 2) errors; NaN: not found."""
    truth = LandmarkSet(TASK, np.zeros((2, 2)), (Status.PLACED,) * 2)
    pairs = {}
    for number, row in enumerate(errors):
        positions = np.stack([row, np.where(np.isnan(row), np.nan, 0.0)], axis=1)
        status = tuple(Status.ABSENT if np.isnan(e) else Status.PREDICTED for e in row)
        pairs[f"case{number:03d}"] = (LandmarkSet(TASK, positions, status), truth)
    return Comparison(pairs, summarize(list(pairs.values()), bootstrap=0), (), units or {})


@pytest.mark.parametrize("count", [9, 40])  # all flips of signs, and some of them
def test_p_is_that_of_scipy_and_the_interval_that_of_the_mean(count):
    rng = np.random.default_rng(1)
    a, b = (np.abs(rng.normal(m, 0.5, (count, 2))) for m in (3.0, 2.8))
    found, each = paired_comparison(predicted(a), predicted(b)), (b - a).mean(axis=1)
    options = {"permutation_type": "samples", "n_resamples": np.inf if count < 10 else 20_000, "vectorized": True}
    theirs = permutation_test((each,), lambda x, axis: x.mean(axis), **options).pvalue
    assert found["p_value"] == pytest.approx(theirs, abs=1e-9 if count < 10 else 0.015)
    assert found["difference"] == pytest.approx((b - a).mean()) and found["n_points"] == 2 * count
    interval = bootstrap((each,), np.mean, n_resamples=100_000, method="percentile", rng=1).confidence_interval
    assert found["confidence_95"] == pytest.approx(list(interval), abs=0.05 * (interval.high - interval.low) / 2)


def test_a_few_images_that_are_far_off_make_no_winner_of_the_others():
    a = np.full((100, 2), 30.0)
    b = a - 0.1
    b[:15] += 15
    found = paired_comparison(predicted(a), predicted(b))
    assert found["difference"] > 2 and "A is nearer to the truth" in comparison_lines(found)[-1]
    b[3:15] -= 15  # three of them: on the mean B is worse, by chance
    assert comparison_lines(paired_comparison(predicted(a), predicted(b)))[-1].endswith("this may be chance")


def test_rates_are_those_of_each_alone_and_a_missed_point_is_a_failure():
    a, b = np.full((7, 2), 1.0), np.full((7, 2), 3.0)
    a[0, 0], b[1:, 1] = 30.0, np.nan
    one, other = predicted(a), predicted(b)
    found = paired_comparison(one, other)
    for side, alone in (("a", one), ("b", other)):
        assert found[side]["sdr"] == alone.metrics["sdr"] and found[side]["outliers"] == alone.metrics["outliers"]
    assert found["a"]["outliers"]["10"] == 1 and found["b"]["outliers"]["10"] == 6
    lines = comparison_lines(paired_comparison(predicted(a[1:]), predicted(b[1:])))
    assert "within 2 mm 0.0 %, beyond 10 mm 6, missed 6" in lines[2] and lines[3].endswith(
        "nearer to the truth, where both have found a point"
    )


def test_pixels_of_one_image_make_all_figures_pixels():
    errors = np.ones((6, 2))
    assert paired_comparison(predicted(errors), predicted(errors, {"case003": "px"}))["unit"] == "px"
    assert paired_comparison(predicted(errors, {"elsewhere": "px"}), predicted(errors))["unit"] == "mm"


def test_a_p_that_so_few_draws_cannot_tell_is_not_said():
    a = np.full((40, 2), 3.0)
    assert "p < 0.001: B is nearer" in comparison_lines(paired_comparison(predicted(a), predicted(a - 1)))[-1]


def test_points_that_one_has_missed_count_as_missed_and_not_in_the_mean():
    a, b = np.full((7, 2), 2.0), np.full((7, 2), 1.0)
    a[0, 0] = b[1, 1] = b[2, 1] = np.nan
    found = paired_comparison(predicted(a), predicted(b))
    assert (found["n_points"], found["a"]["missed"], found["b"]["missed"]) == (11, 1, 2)
    assert found["difference"] == -1.0 and found["confidence_95"] == [-1.0, -1.0] and found["p_value"] == 2 / 2**7
    assert found["per_landmark"]["b"]["n_points"] == 5 and found["per_landmark"]["a"]["mre_b"] == 1.0
