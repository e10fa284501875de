"""The app's own methods, as MONAI Label and programs built on it call them, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from serving import APP, phantoms

from landmarklabel.errors import NotFound, UsageError
from landmarklabel.io.markups import read_markups
from landmarklabel.server.monailabel import LandmarkApp
from landmarklabel.store.study import Study


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    made = phantoms(tmp_path_factory.mktemp("interfaces"), 6)
    with Study(made.study, made.task) as study:
        for image_id in sorted(made.truth)[:4]:
            study.save(image_id, made.truth[image_id])
    return made


@pytest.fixture(scope="module")
def app(material):
    return LandmarkApp(str(APP), str(material.study), {"task": str(material.task_file), "models": "scn"})


def test_it_is_what_monai_label_asks_for(app):
    assert isinstance(app, MONAILabelApp) and isinstance(app.datastore(), Datastore)
    for made, kind in ((app._infers, InferTask), (app._trainers, TrainTask), (app._strategies, Strategy)):
        assert made and all(isinstance(one, kind) for one in made.values())
    assert set(app._infers) == set(app._trainers) == {"scn"}


def test_info_has_monai_labels_keys_and_the_tasks_say_the_same(app, material):
    info = app.info()
    keys = {"name", "description", "version", "labels", "models", "trainers", "strategies", "scoring", "train_stats", "datastore"}
    assert keys <= set(info) and info["labels"] == list(material.task.names)
    assert info["models"] == {name: one.info() for name, one in app._infers.items()}
    assert info["trainers"] == {name: one.info() for name, one in app._trainers.items()}
    assert info["strategies"] == {name: one.info() for name, one in app._strategies.items()}
    json.dumps(info)


def test_infer_gives_a_file_and_its_parameters(app, material):
    result = app.infer({"model": "scn", "image": "phantom05"})
    assert {"label", "tag", "file", "params"} <= set(result)
    found = read_markups(result["file"], material.task)
    assert [row["name"] for row in result["params"]["landmarks"]] == list(material.task.names)
    assert found.defined.all() and result["params"]["origin"] == "template"
    Path(result["file"]).unlink()
    file, params = app._infers["scn"]({"image": app.datastore().get_image_uri("phantom05")})
    assert params["landmarks"] == result["params"]["landmarks"]
    Path(file).unlink()
    with pytest.raises(NotFound, match="there is no model 'other'; served are scn"):
        app.infer({"model": "other", "image": "phantom05"})


def test_a_prediction_can_be_kept_but_never_as_a_final_label(app, material):
    result = app.infer({"model": "scn", "image": "phantom05", "save_label": True, "label_tag": "mine"})
    Path(result["file"]).unlink()
    store = app.datastore()
    assert store.get_labels_by_image_id("phantom05").keys() == {"mine"} and "phantom05" in store.get_unlabeled_images()
    assert read_markups(store.get_label_uri("phantom05", "mine"), material.task).defined.all()
    with pytest.raises(UsageError, match="a prediction is not a final label"):
        app.infer({"model": "scn", "image": "phantom05", "save_label": True, "label_tag": "final"})


def test_next_sample_and_batch_infer(app):
    chosen = app.next_sample({"strategy": "first", "client_id": "me"})
    assert chosen["id"] == "phantom04" and Path(chosen["path"]).is_file()
    with pytest.raises(NotFound, match="there is no strategy 'none'"):
        app.next_sample({"strategy": "none"})
    result = app.batch_infer({"model": "scn", "images": "unlabeled", "label_tag": "batch", "device": "cpu", "max_workers": 1})
    assert set(result) == {"phantom04", "phantom05"} and all("error" not in one for one in result.values())
    assert app.datastore().get_labels_by_image_id("phantom04").keys() == {"batch"}


@pytest.mark.slow
def test_train_trains_to_the_end_and_says_what_became_of_it(app, material):
    stats = app.train({"model": "scn", "max_epochs": 1, "device": "cpu"})
    assert stats["state"] == "done" and stats["train_cases"] + stats["valid_cases"] == 4
    assert app.info()["train_stats"]["scn"]["state"] == "done" and app._trainers["scn"].stats() == stats
    with pytest.raises(NotFound, match="there is no model 'other' to train"):
        app.train({"model": "other"})
