"""Metrics against an example small enough to be computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule, Status
from landmarklabel.metrics import point_errors_mm, summarize, unit_of
from landmarklabel.scale_rules import PixelSize

NAN = float("nan")
TASK = LandmarkTask("t", ("a", "b", "c"), 2)
P, A, U, G = Status.PLACED, Status.ABSENT, Status.UNSET, Status.PREDICTED


def marks(positions, status=P, task=TASK):
    """A set from x offsets: (x, 0), or a status where a landmark has no position."""
    rows = [(NAN, NAN) if isinstance(x, Status) else (x, 0.0) for x in positions]
    return LandmarkSet(task, rows, tuple(x if isinstance(x, Status) else status for x in positions))


# Errors: image 1 has 1 and 3 mm and misses c; image 2 has 12 mm, b is wrongly found, c has 2 mm exactly.
PAIRS = [
    (marks([1, 13, A], G), marks([0, 10, 20])),
    (marks([12, 10, 22], G), marks([0, A, 20])),
]


def test_point_errors_are_nan_where_either_side_has_no_position():
    errors = np.stack([point_errors_mm(p, t) for p, t in PAIRS])
    np.testing.assert_allclose(errors, [[1, 3, NAN], [12, NAN, 2]])


def test_the_hand_computed_example():
    out = summarize(PAIRS, bootstrap=0)
    assert (out["n_images"], out["n_landmarks"], out["n_points"], out["n_missed"]) == (2, 3, 5, 1)
    assert out["mre_mm"] == pytest.approx((1 + 3 + 12 + 2) / 4)
    assert out["median_mm"] == pytest.approx(2.5)
    assert out["sd_mm"] == pytest.approx(np.sqrt((3.5**2 + 1.5**2 + 7.5**2 + 2.5**2) / 4))
    assert out["max_mm"] == 12
    # Of 5 points: within 2 mm are 1 and 2 (the radius belongs to it), within 3 mm also 3; the missed one never is.
    assert out["sdr"] == pytest.approx({"2": 40, "2.5": 40, "3": 60, "4": 60})
    assert out["outliers"] == {"2": 3, "4": 2, "10": 2}
    assert out["image_point_error_mm"] == pytest.approx({"mean": (2 + 7) / 2, "median": 4.5, "sd": 2.5})
    assert out["presence"] == pytest.approx(
        {"f1": 2 * 4 / (2 * 4 + 1 + 1), "true_present": 4, "false_present": 1, "false_absent": 1}
    )
    assert "confidence_95" not in out


def test_each_landmark_has_its_own_numbers():
    per = summarize(PAIRS, bootstrap=0)["per_landmark"]
    assert list(per) == ["a", "b", "c"]
    assert per["a"]["mre_mm"] == 6.5 and per["a"]["outliers"] == {"2": 1, "4": 1, "10": 1}
    assert per["b"]["mre_mm"] == 3 and per["b"]["sdr"] == {"2": 0, "2.5": 0, "3": 100, "4": 100}
    assert per["c"]["mre_mm"] == 2 and per["c"]["sdr"]["4"] == 50 and per["c"]["outliers"]["10"] == 1


def test_presence_counts_only_what_a_person_has_said():
    pairs = [(marks([1, 2, A], G), marks([U, A, U]))]
    assert summarize(pairs)["presence"] == {"f1": 0.0, "true_present": 0, "false_present": 1, "false_absent": 0}
    nothing = [(marks([A, A, A]), marks([A, A, A]))]
    assert summarize(nothing)["presence"]["f1"] is None


def test_everything_missed_is_a_failure_without_a_mean():
    out = summarize([(marks([A, A, U]), marks([0, 10, 20]))] * 2)
    assert out["mre_mm"] is None and out["median_mm"] is None and out["max_mm"] is None
    assert out["n_missed"] == 6 and out["sdr"] == {"2": 0, "2.5": 0, "3": 0, "4": 0} and out["outliers"]["10"] == 6
    assert out["image_point_error_mm"] == {"mean": None, "median": None, "sd": None}


def numbers(content):
    if isinstance(content, dict):
        for value in content.values():
            yield from numbers(value)
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from numbers(value)
    elif content is not None and not isinstance(content, str):
        yield content


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "pairs",
    [
        [(marks([A, A, A]), marks([0, 1, 2]))] * 3,
        [(marks([1, 2, 3], G), marks([A, U, A]))] * 3,
        [(marks([U, U, U]), marks([U, U, U]))] * 3,
        [(marks([A, A, A]), marks([0, 1, 2]))] * 3 + [(marks([0, 1, 2], G), marks([0, 1, 2]))],
    ],
    ids=["all missed", "none in the truth", "nothing at all", "one image of four found"],
)
def test_metrics_can_always_be_written_as_strict_json(pairs):
    assert np.isfinite(list(numbers(summarize(pairs, bootstrap=50)))).all()


def test_a_landmark_that_is_never_there_has_no_rate():
    out = summarize([(marks([0, 0, A], G), marks([0, 0, A]))])
    assert out["per_landmark"]["c"]["sdr"]["2"] is None and out["sdr"]["2"] == 100


def test_the_scale_rule_turns_pixels_into_millimetres():
    task = LandmarkTask("t", ("a", "b", "c"), 2, scale=ScaleRule("a", "b", 50))
    truth = marks([0, 100, 300], task=task)  # half a millimetre a pixel
    assert point_errors_mm(marks([4, 100, 290], G, task), truth) == pytest.approx([2, 0, 5])
    # The truth's own distance counts, not the prediction's.
    assert point_errors_mm(marks([0, 1, 300], G, task), truth) == pytest.approx([0, 49.5, 0])
    assert np.isnan(point_errors_mm(truth, marks([0, A, 300], task=task))).all()


def test_a_pixel_size_turns_pixels_into_millimetres_whatever_is_missing():
    task = replace(TASK, scale=PixelSize(0.1))
    truth = marks([0, A, 300], task=task)
    np.testing.assert_allclose(point_errors_mm(marks([4, 100, 290], G, task), truth), [0.4, NAN, 1])
    assert unit_of(task, ["px"]) == "mm"


def test_confidence_intervals_hold_the_true_mean_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(0), 0
    for seed in range(60):
        pairs = [(marks(rng.exponential(2.0, 3), G), marks([0, 0, 0])) for _ in range(25)]
        low, high = summarize(pairs, bootstrap=200, seed=seed)["confidence_95"]["mre_mm"]
        hits += low < 2.0 < high
    assert 50 <= hits <= 60


def test_confidence_intervals_are_repeatable_and_need_two_images():
    one = summarize(PAIRS, bootstrap=100, seed=3)["confidence_95"]
    assert one == summarize(PAIRS, bootstrap=100, seed=3)["confidence_95"]
    assert one["mre_mm"][0] == 2.0 and one["mre_mm"][1] == 7.0
    assert "confidence_95" not in summarize(PAIRS[:1])
