"""What points measure, over HTTP: values and intervals as the library has them, reasons, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import requests
from serving import phantoms, serving
from tests.inference.saved_models import untrained

from landmarklabel.inference.model_folder import save_model
from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.measurements import measure
from landmarklabel.services.measuring import BY_SHAPE, NOT_LEARNED
from landmarklabel.training.publishing import Decision, ModelRegistry

EYE = [[4.0, 1.0], [1.0, 2.0]]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    made = phantoms(folder, 1, n_landmarks=8)
    names = made.task.names
    content = made.task.to_json() | {
        "measurements": [
            {"name": "length", "kind": "distance", "points": [names[0], names[3]], "norm": {"mean": 30, "source": "a book"}},
            {"name": "opening", "kind": "angle", "points": [names[1], names[0], [names[2], names[3]]]},
        ]
    }
    write_json(made.task_file, content)
    made = replace(made, task=LandmarkTask.from_json(content))
    with serving(made) as server:
        yield made, server


def rows(made, covariance=None) -> list[dict]:
    places = made.truth["phantom00"].positions_mm.tolist()
    more = {} if covariance is None else {"covariance": covariance}
    return [{"name": n, "status": "predicted", "position": p, **more} for n, p in zip(made.task.names, places, strict=True)]


def ask(server, landmarks: object, **more) -> requests.Response:
    return server.http("POST", "/landmarks/images/phantom00/measurements", json={"landmarks": landmarks, **more})


def test_values_and_intervals_are_the_librarys(served):
    made, server = served
    answer = ask(server, rows(made, EYE)).json()
    covariance = np.broadcast_to(EYE, (8, 2, 2))
    known = LandmarkSet(
        made.task, made.truth["phantom00"].positions_mm, (Status.PREDICTED,) * 8, covariance_mm2=covariance, unit="px"
    )
    for told, m in zip(answer["measurements"], measure(known), strict=True):
        assert (told["name"], told["unit"]) == (m.name, m.unit)
        assert [told[k] for k in ("value", "low", "high", "sd")] == pytest.approx([m.value, m.low, m.high, m.sd])
        assert told["interval_reason"] == BY_SHAPE  # no model answers yet
    assert (
        answer["measurements"][0]["unit"] == "px" and answer["measurements"][0]["norm"] is None
    )  # a norm in mm says nothing of px
    assert server.get("/landmarks/images/phantom00")["revision"] == 0  # nothing is kept


def test_what_is_not_available_says_why(served):
    made, server = served
    points = rows(made)
    points[3] = {"name": made.task.names[3], "status": "absent"}
    length, opening = ask(server, points).json()["measurements"]
    assert length["value"] is None and length["reason"] == f"{made.task.names[3]} is absent"
    assert opening["value"] is None and opening["reason"] == f"{made.task.names[3]} is absent"
    length, _ = ask(server, rows(made)).json()["measurements"]
    assert length["value"] > 0 and length["low"] is None and "it is not known how far off" in length["interval_reason"]


@pytest.mark.parametrize(
    ("covariance", "said"),
    [
        (1, "covariance must be 2 rows of 2 finite numbers"),
        ([[1, 0, 0], [0, 1, 0]], "covariance must be 2 rows of 2 finite numbers"),
        ([[1, True], [0, 1]], "covariance must be 2 rows of 2 finite numbers"),
        ([[1e300, 0], [0, 1]], "covariance must be 2 rows of 2 finite numbers"),
        ([[1, 2], [2, 1]], "covariance has a negative variance, or is not symmetric"),
        ([[1, 1], [0, 1]], "covariance has a negative variance, or is not symmetric"),
    ],
)
def test_what_is_no_covariance_is_refused_in_words(served, covariance, said):
    made, server = served
    answer = ask(server, rows(made, covariance))
    assert answer.status_code in (400, 422) and said in answer.text


def test_unknown_parts_and_images_are_refused_in_words(served):
    made, server = served
    assert "unknown keys kind; allowed are landmarks and model" in ask(server, rows(made), kind="scn").text
    assert "must be a list" in ask(server, "all").text
    answer = server.http("POST", "/landmarks/images/nobody/measurements", json={"landmarks": rows(made)})
    assert answer.status_code == 404


def test_intervals_are_as_wide_as_the_model_has_learned(served, tmp_path):
    made, server = served
    plain = ask(server, rows(made, EYE)).json()["measurements"]
    model = untrained()
    model.task = made.task
    model.calibrate(replace(model.calibration, interval_factors={"length": 0.5}))
    save_model(tmp_path / "model", model, {})
    ModelRegistry(made.study / ".landmarklabel" / "models" / "scn").publish_copy(tmp_path / "model", Decision(True, "a test"))
    for more in ({}, {"model": "scn"}):  # the first one when none is named
        length, opening = ask(server, rows(made, EYE), **more).json()["measurements"]
        assert length["high"] - length["value"] == pytest.approx((plain[0]["high"] - plain[0]["value"]) / 2)
        assert opening["value"] == plain[1]["value"] and opening["low"] is opening["high"] is opening["sd"] is None
        assert opening["interval_reason"] == NOT_LEARNED  # no factor was learned for it
    refused = ask(server, rows(made, EYE), model="nobody")
    assert refused.status_code == 404 and "there is no model 'nobody'; served are scn" in refused.text
