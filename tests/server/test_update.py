"""One correction moves the rest, over HTTP: before there is a model, and with one."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from serving import Material, phantoms, wait_until

import landmarklabel
from landmarklabel.networks.presets import find_preset
from landmarklabel.services.cases import load_cases
from landmarklabel.store.study import Study
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import Decision

SCHEMA = json.loads((Path(landmarklabel.__file__).parent / "server/schemas/landmarks.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    return phantoms(tmp_path_factory.mktemp("update"), 9, n_landmarks=12)


@pytest.fixture(scope="module")
def server(material, running_server, tmp_path_factory):
    """Seven of nine cases are labelled; there is no model yet."""
    place = tmp_path_factory.mktemp("labels")
    with running_server(material) as server:
        for image_id in sorted(material.truth)[:7]:
            server.client.save_label(image_id, str(material.label_file(image_id, place)), tag="final")
        yield server


@pytest.fixture(scope="module")
def other(material) -> str:
    """An image nobody has labelled."""
    return sorted(material.truth)[-1]


def update(server, image_id: str, body: dict) -> dict:
    answer = server.http("POST", f"/landmarks/images/{image_id}/update", json=body)
    assert answer.status_code == 200, answer.text
    jsonschema.validate(answer.json(), {**SCHEMA, "$ref": "#/definitions/suggestion"})
    return answer.json()


def errors(answer: dict, material: Material, image_id: str) -> np.ndarray:
    rows = [[np.nan] * 2 if r["position"] is None else r["position"] for r in answer["landmarks"]]
    return np.linalg.norm(np.array(rows, float) - material.truth[image_id].positions_mm, axis=1)


def test_without_a_model_every_placed_point_brings_the_others_nearer(server, material, other):
    truth = dict(zip(material.task.names, material.truth[other].positions_mm.tolist(), strict=True))
    fixed, mean, answer = {}, [], update(server, other, {})
    for _ in range(5):
        assert answer["origin"] == "template" and answer["next"] not in fixed
        mean.append(errors(answer, material, other).mean())
        fixed[answer["next"]] = truth[answer["next"]]
        answer = update(server, other, {"fixed": fixed})
        rows = {r["name"]: r for r in answer["landmarks"]}
        assert all(rows[n]["position"] == p and rows[n]["status"] == "placed" for n, p in fixed.items())
        assert all(r["expected_error_mm"] > 0 for n, r in rows.items() if n not in fixed)
    assert mean[1] < mean[0] and mean[2] < 0.6 * mean[0] and mean[4] < 0.4 * mean[0]


def test_a_case_is_no_teacher_of_itself(server, material):
    """A second reading must not be shown the first."""

    def save(image_id: str, rows: list[dict], base: int) -> None:
        body = {"landmarks": [{k: r[k] for k in ("name", "position", "status")} for r in rows], "base_revision": base}
        answer = server.http("PUT", f"/landmarks/images/{image_id}", json=body)
        assert answer.status_code == 200, answer.text

    new, known = sorted(material.truth)[-2], sorted(material.truth)[0]
    proposed = update(server, new, {})["landmarks"]
    save(new, [{"name": material.task.names[0], "position": [1.0, 2.0], "status": "placed"}], 0)
    assert update(server, new, {})["landmarks"] == proposed
    proposed, newest = update(server, known, {})["landmarks"], server.get(f"/landmarks/images/{known}")
    save(known, [{**row, "position": [20.0 + n, 30.0]} for n, row in enumerate(newest["landmarks"])], newest["revision"])
    assert update(server, known, {})["landmarks"] == proposed and all(row["position"] for row in proposed)
    save(known, newest["landmarks"], newest["revision"] + 1)


def test_a_case_that_is_corrected_once_more_still_teaches(server, material, other):
    """The same cases are labelled as before, with other points."""
    before = update(server, other, {})
    image_id = sorted(material.truth)[0]
    newest = server.get(f"/landmarks/images/{image_id}")
    rows = [{**row, "position": [row["position"][0] + 4, row["position"][1]]} for row in newest["landmarks"]]
    body = {"landmarks": [{k: r[k] for k in ("name", "position", "status")} for r in rows], "base_revision": newest["revision"]}
    assert server.http("PUT", f"/landmarks/images/{image_id}", json=body).status_code == 200
    assert update(server, other, {})["landmarks"] != before["landmarks"]


def test_absent_landmarks_stay_absent_and_are_never_asked_for(server, material, other):
    first, second = material.task.names[:2]
    answer = update(server, other, {"absent": [first, second], "fixed": {material.task.names[5]: [40.0, 50.0, 0.0]}})
    rows = {r["name"]: r for r in answer["landmarks"]}
    assert rows[first]["status"] == rows[second]["status"] == "absent" and rows[first]["position"] is None
    assert rows[material.task.names[5]]["position"] == [40.0, 50.0] and answer["next"] not in (first, second)


@pytest.mark.parametrize(
    "body, text",
    [
        ({"fixed": {"nose": [1, 2]}}, "has no landmark 'nose'"),
        ({"fixed": {"thumb_tip": [1]}}, "must be 2 finite numbers"),
        ({"fixed": {"thumb_tip": [1, 2]}, "absent": ["thumb_tip"]}, "'thumb_tip' is both fixed and absent"),
        ({"fixed": [1, 2]}, '"fixed" must be {name: [x, y, z]}'),
        ({"absent": [["thumb_tip"]]}, "has no landmark"),
        ({"points": {}}, "unknown keys points; allowed are fixed, absent and model"),
        ({"model": "unheard-of"}, "there is no model 'unheard-of'"),
        ({"model": 5}, "there is no model '5'"),
    ],
)
def test_a_faulty_request_is_refused_by_text(server, other, body, text):
    answer = server.http("POST", f"/landmarks/images/{other}/update", json=body)
    assert 400 <= answer.status_code < 500 and text in answer.json()["detail"]


def test_an_unknown_image_is_not_found(server):
    answer = server.http("POST", "/landmarks/images/nobody/update", json={})
    assert answer.status_code == 404 and "nobody" in answer.json()["detail"]


@pytest.fixture(scope="module")
def trained(material, server) -> None:
    """A model that has learned a little, made live under the running server."""
    study = Study(material.study, material.task)
    cases = load_cases(study, study.labelled())
    study.close()
    config = FitConfig(find_preset("scn", 2), Budget(steps=60), device=torch.device("cpu"))
    fit(material.task, cases[:5], cases[5:], config, material.registry.candidate)
    assert material.registry.finalize_candidate(Decision(True, "for the test")) == 1


def test_with_a_model_points_of_a_person_never_move_and_the_others_follow(server, material, other, trained):
    names, truth = material.task.names, material.truth[other].positions_mm
    before = update(server, other, {})
    assert before["origin"] == "model" and before["model_version"] == 1
    fixed = {n: p.tolist() for n, p in zip(names[:9], truth[:9], strict=True)}
    after = update(server, other, {"fixed": fixed})
    assert [r["position"] for r in after["landmarks"][:9]] == list(fixed.values())
    assert np.nanmean(errors(after, material, other)[9:]) < np.nanmean(errors(before, material, other)[9:])
    assert after["regions"]["case_factor"] is None  # two validation cases support no 95 % region
    assert all(r["radius95_mm"] is None for r in after["landmarks"])


def test_infer_with_fixed_points_agrees_with_update_after_its_second_pass(server, material, other, trained):
    fixed = {material.task.names[3]: material.truth[other].positions_mm[3].tolist()}

    def settled() -> bool:
        return not update(server, other, {"fixed": fixed})["second_pass"]

    wait_until(settled, 20, "the second pass to end")
    updated = update(server, other, {"fixed": fixed})
    _, inferred = server.client.infer("scn", other, {"fixed": fixed})
    both = ([r["position"] or [0, 0] for r in answer["landmarks"]] for answer in (inferred, updated))
    assert np.allclose(*both, atol=0.5)  # pixels: agreement is found step by step, and not from the same start
