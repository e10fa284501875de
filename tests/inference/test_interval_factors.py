"""Intervals of measurements hold what they promise where errors of neighbouring landmarks go together, and models keep how."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from saved_models import content_of, untrained, with_record

from landmarklabel.errors import LandmarkFileError, ModelError
from landmarklabel.inference.calibration import cases_needed, fit_interval_factors
from landmarklabel.inference.model_folder import load_model, save_model
from landmarklabel.io.markups import dump_markups, parse_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.measurement_definitions import Measurement
from landmarklabel.measurements import measure

TASK = LandmarkTask(
    "jaw",
    ("a", "b", "c"),
    2,
    measurements=(
        Measurement("width", "distance", (("a",), ("b",))),
        Measurement("opening", "angle", (("a",), ("b",), ("c",))),
    ),
)
PLACES = np.array([[0.0, 0.0], [40.0, 0.0], [40.0, 30.0]])
SHARED, OWN = 1.5, 0.5  # mm: standard deviations of an error that a case's landmarks share, and of each one's own


def cases(count: int, seed: int) -> tuple[list[LandmarkSet], list[LandmarkSet]]:
    """Predictions and truth; each point's covariance is right, but most of its error is the whole case's."""
    rng = np.random.default_rng(seed)
    truth = PLACES + rng.normal(size=(count, 3, 2)) * 3
    found = truth + rng.normal(size=(count, 1, 2)) * SHARED + rng.normal(size=(count, 3, 2)) * OWN
    covariance = np.broadcast_to(np.eye(2) * (SHARED**2 + OWN**2), (3, 2, 2))
    predicted = [LandmarkSet(TASK, p, (Status.PREDICTED,) * 3, covariance_mm2=covariance) for p in found]
    return predicted, [LandmarkSet.of_positions(TASK, t) for t in truth]


def held(predicted: list[LandmarkSet], truth: list[LandmarkSet]) -> np.ndarray:
    """Share of the true values in the intervals, by measurement."""
    pairs = [[*zip(measure(p), measure(t), strict=True)] for p, t in zip(predicted, truth, strict=True)]
    return np.mean([[m.low <= t.value <= m.high for m, t in pair] for pair in pairs], axis=0)


def test_intervals_of_new_cases_hold_what_they_promise():
    factors = fit_interval_factors(*cases(200, 0), 0.95)
    predicted, truth = cases(500, 1)
    assert (held(predicted, truth) > 0.995).all()  # first-order intervals are too wide
    assert factors.keys() == {"width", "opening"} and all(0.2 < factor < 0.6 for factor in factors.values())
    widened = [replace(p, interval_factors=factors) for p in predicted]
    assert (held(widened, truth) > 0.92).all() and (held(widened, truth) < 0.98).all()


def test_where_a_person_placed_some_points_the_interval_of_the_rest_is_not_made_narrower():
    factors = fit_interval_factors(*cases(200, 0), 0.95)
    assert max(factors.values()) < 0.6  # most errors are shared, and cancel
    predicted, truth = cases(1000, 1)
    status = (Status.PLACED, Status.PREDICTED, Status.PREDICTED)
    placed = [np.vstack([t.positions_mm[:1], p.positions_mm[1:]]) for p, t in zip(predicted, truth, strict=True)]
    mixed = [
        replace(p, positions_mm=at, status=status, interval_factors=factors) for p, at in zip(predicted, placed, strict=True)
    ]
    assert (held(mixed, truth) > 0.93).all()


def test_few_cases_say_nothing():
    enough = cases_needed(0.95)
    assert fit_interval_factors(*cases(enough - 1, 0), 0.95) == {}
    assert fit_interval_factors(*cases(enough, 0), 0.95).keys() == {"width", "opening"}
    predicted, truth = cases(enough, 0)
    predicted[0] = predicted[0].with_landmark("c", None, Status.ABSENT)
    assert fit_interval_factors(predicted, truth, 0.95).keys() == {"width"}
    bare = LandmarkTask("jaw", ("a", "b", "c"), 2)
    assert fit_interval_factors([replace(p, task=bare) for p in predicted], [replace(t, task=bare) for t in truth], 0.95) == {}


def test_a_model_keeps_them(folder):
    model = untrained()
    save_model(folder, model, {})
    assert "interval_factors" not in content_of(folder)["calibration"]  # as records of earlier versions
    model.calibrate(replace(model.calibration, interval_factors={"width": 0.4}))
    save_model(folder, model, {})
    assert load_model(folder).calibration.interval_factors == {"width": 0.4}
    content = content_of(folder)
    content["calibration"]["interval_factors"] = {"width": -1.0}
    with_record(folder, content)
    with pytest.raises(ModelError, match="a factor of an interval that is not positive"):
        load_model(folder)


def test_a_landmark_file_keeps_them():
    made = replace(cases(1, 0)[0][0], interval_factors={"width": 0.4, "opening": 1.5})
    read = parse_markups(dump_markups(made, "a model"), TASK, "x")
    assert read.interval_factors == made.interval_factors
    assert [m.low for m in measure(read)] == pytest.approx([m.low for m in measure(made)])


@pytest.mark.parametrize("value", [0, -1, True, "1", None, [1], 10**400])
def test_what_is_no_factor_is_refused_in_words(value):
    file = json.loads(dump_markups(replace(cases(1, 0)[0][0], interval_factors={"width": 0.4})))
    file["markups"][0]["measurements"][-1]["value"] = value
    with pytest.raises(LandmarkFileError, match="'interval_factor width' .* must be a positive number"):
        parse_markups(json.dumps(file), TASK, "x")


def test_a_factor_that_is_given_twice_is_refused():
    file = json.loads(dump_markups(replace(cases(1, 0)[0][0], interval_factors={"width": 0.4})))
    file["markups"][0]["measurements"] *= 2
    with pytest.raises(LandmarkFileError, match="'interval_factor width' is given twice"):
        parse_markups(json.dumps(file), TASK, "x")
