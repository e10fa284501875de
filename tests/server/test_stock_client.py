"""The whole round with MONAI Label's own, unmodified client, in the order in which people work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from monailabel.client.client import MONAILabelClientException
from serving import APP, Material, is_alive, phantoms, wait_until

from landmarklabel.io.markups import read_markups
from landmarklabel.io.tables import read_table
from landmarklabel.landmarks import LandmarkTask, Status
from landmarklabel.networks.presets import find_preset
from landmarklabel.services.cases import load_cases
from landmarklabel.store.revision_json import same_landmarks
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_task
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import Decision, ModelRegistry


def hands(folder: Path, data: Path, count: int = 12) -> Material:
    """A study of real radiographs."""
    task, study = resolve_task("hand_xray"), folder / "study"
    study.mkdir(parents=True)
    table = read_table(data / "hand_xray" / "landmarks.csv", task)
    truth = {i: table[i] for i in sorted(table)[:count]}
    for image_id in truth:
        shutil.copy(data / "hand_xray" / "images" / f"{image_id}.jpg", study)
    return Material(study, APP / "tasks" / "hand_xray.json", task, truth)


@pytest.fixture(scope="module", params=["phantoms", pytest.param("hands", marks=pytest.mark.real_data)])
def material(request, tmp_path_factory) -> Material:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "phantoms":
        return phantoms(folder, 8)
    return hands(folder, request.getfixturevalue("data_dir"))


@pytest.fixture(scope="module")
def server(material, running_server):
    with running_server(material, entrance="monailabel") as server:
        yield server


@pytest.fixture(scope="module")
def ids(material) -> list[str]:
    return sorted(material.truth)


@pytest.fixture(scope="module")
def one_label(server, material, ids, tmp_path_factory) -> str:
    """The id of the only labelled image."""
    file = material.label_file(ids[0], tmp_path_factory.mktemp("labels"))
    answer = server.client.save_label(ids[0], str(file), tag="final", params={"user": "ann"})
    assert answer == {"image": ids[0], "label": ids[0]}
    return ids[0]


@pytest.fixture(scope="module")
def labelled(server, material, ids, one_label, tmp_path_factory) -> list[str]:
    """All but the last two images are labelled."""
    place = tmp_path_factory.mktemp("labels")
    for image_id in ids[1:-2]:
        server.client.save_label(image_id, str(material.label_file(image_id, place)), tag="final")
    return ids[:-2]


@pytest.fixture(scope="module")
def trained(server, material, labelled) -> dict:
    """Statistics of the first training, of two steps or so; a model that was hardly trained answers afterwards in any case."""
    stats = server.train({"max_epochs": 1})
    if not stats["published"]:
        publish_hardly_trained(material, "scn")
    return stats


def publish_hardly_trained(material: Material, method: str) -> None:
    """Let a model of two steps answer, which the gate would not."""
    study, preset = Study(material.study, material.task), find_preset(method, material.task.dims)
    cases, registry = load_cases(study, study.labelled()), ModelRegistry(material.study / ".landmarklabel" / "models" / method)
    study.close()
    config = FitConfig(preset, Budget(steps=2), device=torch.device("cpu"))
    fit(material.task, cases, [], config, registry.candidate)
    registry.finalize_candidate(Decision(True, "for the test"))


def positions(answer: dict, task: LandmarkTask) -> np.ndarray:
    """(n, dims) of an answer's landmarks, NaN where there is none; checks names and order."""
    assert [row["name"] for row in answer["landmarks"]] == list(task.names)
    nowhere = [np.nan] * task.dims
    return np.array([nowhere if row["position"] is None else row["position"] for row in answer["landmarks"]], float)


# --- before any label ------------------------------------------------------------------------------------------------


def test_info_describes_the_app(server, material, ids):
    info = server.client.info()
    model = info["models"]["scn"]
    assert model["type"] == "landmarks" and model["dimension"] == 2 and model["version"] == 0 and not model["trained"]
    assert info["labels"] == list(material.task.names)
    assert model["labels"] == {name: i for i, name in enumerate(material.task.names)}
    assert LandmarkTask.from_json(info["task"]).hash == material.task.hash
    assert set(info["models"]) == set(info["trainers"]) == {"scn", "global_local"}
    assert [info["models"][m]["preset"] for m in ("scn", "global_local")] == ["scn:default", "global_local:default"]
    assert "vote" in info["models"]["global_local"]["description"] and {"random", "first"} <= set(info["strategies"])
    assert info["datastore"]["total"] == len(ids) and info["datastore"]["completed"] == 0
    assert info["train_stats"] == {"scn": {}, "global_local": {}}


def test_without_labels_every_landmark_is_unset(server, material, ids):
    file, answer = server.client.infer("scn", ids[0], {})
    assert answer["origin"] == "none" and answer["model_version"] == 0 and answer["defined"] == 0
    assert {row["status"] for row in answer["landmarks"]} == {"unset"}
    assert np.isnan(positions(answer, material.task)).all()
    assert set(read_markups(file, material.task).status) == {Status.UNSET}


def test_training_without_labels_fails_with_the_reason(server, ids):
    stats = server.train({"max_epochs": 1})
    assert stats["state"] == "failed" and "no labelled image" in stats["reason"]
    assert server.client.train_status()["status"] == "ERROR"
    assert server.client.info()["models"]["scn"]["version"] == 0


# --- with labels -----------------------------------------------------------------------------------------------------


def test_saving_a_label_makes_a_revision_and_a_file(server, material, one_label):
    file = material.study / "labels" / "final" / f"{one_label}.mrk.json"
    assert same_landmarks(read_markups(file, material.task), material.truth[one_label])
    newest = server.get(f"/landmarks/images/{one_label}")
    assert newest["revision"] == 1 and newest["author"] == "ann"
    assert np.allclose(positions(newest, material.task), material.truth[one_label].positions_mm, atol=1e-6)
    datastore = server.client.info()["datastore"]
    assert datastore["completed"] == 1 and datastore["label_tags"]["final"] == 1


def test_samples_are_unlabelled_and_have_a_reason(server, ids, one_label):
    first = server.client.next_sample("first", {})
    assert first["id"] == ids[1] and first["reason"] and Path(first["path"]).name.startswith(ids[1])
    drawn = [server.client.next_sample("random", {}) for _ in range(40)]
    assert all(sample["reason"] for sample in drawn)
    assert {sample["id"] for sample in drawn} <= set(ids) - {one_label}
    assert len({sample["id"] for sample in drawn}) > 1


def test_after_one_label_the_template_is_scaled_to_the_image(server, material, ids, one_label):
    other = ids[-1]
    _, answer = server.client.infer("scn", other, {})
    assert answer["origin"] == "template"
    (low, high), (to_low, to_high) = material.geometry(one_label).bounds_mm, material.geometry(other).bounds_mm
    shape = material.truth[one_label].positions_mm
    centre, scale = shape.mean(axis=0), (to_high - to_low).mean() / (high - low).mean()
    expected = to_low + (centre - low) / (high - low) * (to_high - to_low) + (shape - centre) * scale
    assert np.allclose(positions(answer, material.task), expected, atol=1e-6)
    assert {row["status"] for row in answer["landmarks"]} == {"predicted"}


def test_the_three_outputs_agree(server, material, ids, one_label):
    as_json = server.http("POST", "/infer/scn", params={"image": ids[-1], "output": "json"}).json()
    expected = positions(as_json, material.task)
    as_image = server.http("POST", "/infer/scn", params={"image": ids[-1], "output": "image"})
    assert as_image.status_code == 200 and ".mrk.json" in as_image.headers["content-disposition"]
    file = material.study.parent / "received.mrk.json"
    file.write_bytes(as_image.content)
    assert np.allclose(read_markups(file, material.task).positions_mm, expected)
    both, answer = server.client.infer("scn", ids[-1], {})
    assert both.endswith(".mrk.json")
    assert np.allclose(read_markups(both, material.task).positions_mm, expected)
    assert np.allclose(positions(answer, material.task), expected)


def test_an_uploaded_file_and_a_session_answer_like_the_image(server, material, ids, one_label):
    path, client = str(material.image(ids[-1])), server.client
    expected = positions(client.infer("scn", ids[-1], {})[1], material.task)
    assert np.allclose(positions(client.infer("scn", "", {}, file=path)[1], material.task), expected)
    session = client.create_session(path)["session_id"]
    assert client.get_session(session)["name"] == session
    assert np.allclose(positions(client.infer("scn", "", {}, session_id=session)[1], material.task), expected)
    client.remove_session(session)
    with pytest.raises(MONAILabelClientException) as gone:
        client.get_session(session)
    assert gone.value.status_code == 404
    assert server.http("POST", "/infer/scn", params={"session_id": session}).status_code == 404
    assert client.info()["datastore"]["total"] == len(ids)  # nothing was added to the study


# --- training --------------------------------------------------------------------------------------------------------


def test_the_first_training_is_held_against_the_template(server, trained):
    assert server.client.train_status(check_if_running=True) is False
    assert trained["state"] == "done" and trained["version"] == int(trained["published"])
    assert any(text in trained["reason"] for text in ("better than the template", "unvalidated"))
    assert trained["epoch"] == trained["total_epochs"] == 100 and 0 <= trained["best_metric"] <= 1
    assert server.client.train_status()["status"] == "DONE"
    model = server.client.info()["models"]["scn"]
    assert model["version"] == 1 and model["trained"]


def test_a_trained_model_answers(server, material, ids, trained):
    file, answer = server.client.infer("scn", ids[-1], {"device": "cuda"})  # what Slicer sends by default
    assert answer["origin"] == "model" and answer["model_version"] == 1
    assert (
        answer["cautions"][0].startswith("the model was hardly trained (")
        and ": for trying things out only" in answer["cautions"][0]
    )
    assert answer["defined"] == np.isfinite(positions(answer, material.task)).all(axis=1).sum()
    assert {row["status"] for row in answer["landmarks"]} <= {"predicted", "absent", "unset"}
    low, high = material.geometry(ids[-1]).bounds_mm
    found = positions(answer, material.task)
    found = found[np.isfinite(found).all(axis=1)]
    assert (found > low - 0.5 * (high - low)).all() and (found < high + 0.5 * (high - low)).all()
    assert np.allclose(read_markups(file, material.task).positions_mm, positions(answer, material.task), equal_nan=True)


def test_the_other_method_is_trained_and_answers_beside_it(server, material, ids, trained):
    stats = server.train({"max_epochs": 1}, "global_local")
    assert stats["state"] == "done" and stats["version"] == int(stats["published"])
    if not stats["published"]:
        publish_hardly_trained(material, "global_local")
    _, answer = server.client.infer("global_local", ids[-1], {})
    assert answer["origin"] == "model" and len(positions(answer, material.task)) == len(material.task)
    models = server.client.info()["models"]
    assert models["global_local"]["trained"] and models["scn"]["version"] == 1


def test_fixed_and_absent_come_back_unchanged(server, material, ids, trained):
    fixed, absent = material.task.names[1], material.task.names[2]
    params = {"fixed": {fixed: [12.345678901, 67.0987654321, 0.0]}, "absent": [absent]}
    file, answer = server.client.infer("scn", ids[-1], params)
    assert answer["origin"] == "model"
    rows = {row["name"]: row for row in answer["landmarks"]}
    assert rows[fixed]["position"] == [12.345678901, 67.0987654321] and rows[fixed]["status"] == "placed"
    assert rows[absent]["position"] is None and rows[absent]["status"] == "absent"
    points = {p["label"]: p for p in json.loads(Path(file).read_text(encoding="utf-8"))["markups"][0]["controlPoints"]}
    assert points[fixed]["position"] == [12.345678901, 67.0987654321, 0.0]
    assert points[absent]["positionStatus"] == "missing"


def test_a_prediction_can_be_stored_but_never_as_final(server, material, ids, trained):
    client, image_id = server.client, ids[-1]
    assert client.datastore()["objects"][image_id]["labels"] == {}
    _, answer = client.infer("scn", image_id, {"save_label": True})
    stored = material.study / "labels" / "original" / f"{image_id}.mrk.json"
    expected = positions(answer, material.task)
    assert np.allclose(read_markups(stored, material.task).positions_mm, expected, equal_nan=True)
    received = client.download_label(image_id, "original")
    assert Path(received).read_bytes() == stored.read_bytes() and received.endswith(".mrk.json")
    objects = client.datastore()["objects"]
    assert set(objects) == set(ids) and set(objects[image_id]["labels"]) == {"original"}
    assert set(objects[ids[0]]["labels"]) == {"final"}
    assert client.info()["datastore"]["completed"] == len(ids) - 2
    with pytest.raises(MONAILabelClientException, match="400"):
        client.infer("scn", image_id, {"save_label": True, "label_tag": "final"})
    assert server.get(f"/landmarks/images/{image_id}")["revision"] == 0


def test_batch_inference_labels_what_is_unlabelled(server, material, ids, trained):
    answer = server.http("POST", "/batch/infer/scn", params={"images": "unlabeled"}, json={"label_tag": "batch"})
    assert answer.status_code == 200, answer.text
    server.wait_for_end("/batch/infer")
    assert server.get("/batch/infer")["status"] == "DONE"
    stored = sorted(p.name for p in (material.study / "labels" / "batch").iterdir())
    assert stored == [f"{i}.mrk.json" for i in ids[-2:]]
    for image_id in ids[-2:]:
        read_markups(material.study / "labels" / "batch" / f"{image_id}.mrk.json", material.task)


def test_a_stopped_training_leaves_nothing_behind_and_a_new_one_decides(server, material, trained):
    client = server.client
    client.train_start("scn", {"minutes": 5})
    processes = server.wait_for_training()
    assert processes and all(p.pid != server.process.pid for p in processes)
    with pytest.raises(MONAILabelClientException, match="429"):  # one at a time
        client.train_start("scn", {"minutes": 5})
    client.train_stop()
    wait_until(lambda: not any(map(is_alive, processes)), 20, "the training process to end")
    assert not client.train_status(check_if_running=True)
    wait_until(lambda: server.stats()["state"] == "stopped", 10, "the training to be reported as stopped")
    assert server.stats()["reason"]
    with material.registry.training_lock():  # free again; raises StudyError otherwise
        pass
    assert psutil.Process(server.process.pid).children(recursive=True) == []
    before = client.info()["models"]["scn"]["version"]
    stats = server.train({"max_epochs": 1})
    assert stats["state"] == "done" and "validation" in stats["reason"]
    live = client.info()["models"]["scn"]["version"]
    assert stats["version"] == live == before + stats["published"]
    assert material.registry.record()["version"] == live and material.registry.versions()[-1] == live
    assert material.registry.record()["history"][-1]["what"] == ("published" if stats["published"] else "kept")
    assert not (material.registry.candidate / "state").exists()
