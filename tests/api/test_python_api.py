"""Load, train, predict and evaluate as a script does it: a study on disk, a model that was really trained."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import landmarklabel as ll
from landmarklabel.cli import main
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.errors import StudyError, TaskError, TaskMismatch, UsageError
from landmarklabel.io.images import write_image
from landmarklabel.io.tables import predictions_text
from landmarklabel.services import trainings
from landmarklabel.training.publishing import ModelRegistry, decide

PHANTOM = phantom_task(2, 5)
IDS = [f"p{seed}" for seed in range(5)]


def deciding(patch: pytest.MonkeyPatch, publish: bool) -> None:
    """Whichever model is the better one, the gate says this."""
    patch.setattr(trainings, "decide", lambda *given: replace(decide(*given), publish=publish))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Five phantoms with 0.5 mm spacing, a study of them, and a model of eight steps that was published in it."""
    folder = tmp_path_factory.mktemp("python_api")
    task = ll.LandmarkTask("phantom", PHANTOM.names, 2)
    images, truth = {}, {}
    with ll.Study.open(folder / "study", task=task) as study:
        for seed, image_id in enumerate(IDS):
            phantom = draw_phantom(PHANTOM, seed, size=(64, 80), spacing=0.5, absent_fraction=0)
            images[image_id] = folder / "images" / f"{image_id}.nrrd"
            write_image(images[image_id], ll.Image(phantom.geometry, phantom.pixels))
            study.add_image(image_id, images[image_id])
            truth[image_id] = ll.LandmarkSet.of_positions(task, phantom.landmarks.positions_mm)
            study.save(image_id, truth[image_id], author="somebody")
        heard: list[float] = []
        options = {"steps": 8, "minutes": None, "valid": ["p3", "p4"], "device": "cpu", "out": folder / "model"}
        with pytest.MonkeyPatch.context() as patch:
            deciding(patch, publish=True)
            model = ll.train(study, "scn", **options, on_progress=lambda p: heard.append(p.fraction))
        yield SimpleNamespace(folder=folder, task=task, study=study, images=images, truth=truth, model=model, heard=heard)


def test_training_gives_the_model_with_its_metrics_and_what_the_study_made_of_it(made):
    model = made.model
    assert isinstance(model, ll.Model) and model.task == made.task and model.name == "scn:default"
    assert model.metrics["n_images"] == 2 and model.unit == "mm" and model.folder == made.folder / "model"
    assert model.published and model.decision.startswith("published in study as scn version 1: ")
    assert made.heard == sorted(made.heard) and len(made.heard) == 8
    assert ModelRegistry(made.study.models_dir / "scn").live() == made.study.models_dir / "scn" / "versions" / "0001"


def test_a_model_that_the_gate_refuses_is_given_but_does_not_answer_in_the_study(made, monkeypatch):
    deciding(monkeypatch, publish=False)
    model = ll.train(made.study, "scn:single", minutes=None, steps=2, valid=["p3"], device="cpu")
    assert not model.published and model.decision.startswith("not published, the template stays live: ")
    assert model.folder is None and len(model.predict(made.images["p0"])) == 5
    registry = ModelRegistry(made.study.models_dir / "scn_single")
    assert registry.live() is None and registry.versions() == []


def test_what_was_trained_is_what_is_loaded(made):
    loaded = ll.load_model(made.folder / "model", device="cpu")
    assert loaded.predict(made.images["p4"]) == made.model.predict(made.images["p4"])
    assert loaded.metrics == made.model.metrics and loaded.unit == "mm" and not loaded.published
    assert repr(loaded).startswith("Model(scn:default of task 'phantom', 5 landmarks, 2D, validation MRE ")


def test_prediction_of_a_file_and_of_an_image_in_memory(made):
    image = ll.read_image(made.images["p0"])
    found = made.model.predict(image)
    assert found == made.model.predict(str(made.images["p0"])) and found.unit == "mm"
    name = made.task.names[0]
    assert found[name].position_mm.shape == (2,) and found[name].status in (ll.Status.PREDICTED, ll.Status.ABSENT)
    many = made.model.predict_many([image, made.images["p1"]])
    assert next(many) == found and next(many) == made.model.predict(made.images["p1"]) and not list(many)


def test_an_image_without_spacing_is_answered_in_pixels(made, tmp_path):
    write_image(tmp_path / "a.png", ll.Image(ll.ImageGeometry.identity((64, 80)), ll.read_image(made.images["p0"]).pixels))
    found = made.model.predict(tmp_path / "a.png")
    assert found.unit == "px" and "pixels" in repr(found)
    truth = ll.LandmarkSet.of_positions(made.task, found.positions_mm + [3, 4])
    assert ll.evaluate(found, truth).unit == "px"


def test_an_array_whose_pixels_are_not_all_finite_is_read_as_a_file_of_them_is(made):
    image = ll.read_image(made.images["p4"], 2)
    pixels = np.asarray(image.pixels, np.float32).copy()
    pixels[5, 5] = pixels.min()
    plain, holed = made.model.predict(ll.Image(image.geometry, pixels.copy())), pixels.copy()
    holed[5, 5] = np.nan
    assert made.model.predict(ll.Image(image.geometry, holed)) == plain and plain.defined.all()
    with pytest.raises(ll.LandmarkLabelError, match=r"the image: all \d+ pixels are NaN or infinite"):
        made.model.predict(ll.Image(image.geometry, np.full_like(pixels, np.nan)))


def test_what_is_no_image_is_refused_in_words(made):
    pixels = np.asarray(ll.read_image(made.images["p4"], 2).pixels)
    for wrong in (pixels, None, [made.images["p4"]]):
        with pytest.raises(UsageError, match=r"is no image: give a file, or an array with its geometry, ll\.Image"):
            made.model.predict(wrong)
    for wrong in (made.images["p4"], str(made.images["p4"]), made.images):
        with pytest.raises(UsageError, match="give a list of images; predict is for one"):
            made.model.predict_many(wrong)


def test_a_stopped_training_says_so_by_an_exception_of_its_own(made, tmp_path):
    with pytest.raises(ll.Cancelled):
        ll.train(made.study, minutes=None, steps=50, device="cpu", out=tmp_path / "m", publish=False, should_stop=lambda: True)


def test_a_study_that_moves_meanwhile_is_not_made_anew(made, tmp_path):
    study, elsewhere = shutil.copytree(made.study.folder, tmp_path / "study"), tmp_path / "elsewhere"

    def move(_: object) -> None:
        if study.exists():
            study.rename(elsewhere)

    with pytest.raises(ll.LandmarkLabelError, match="the training has ended, and resumes where the study is now"):
        ll.train(study, minutes=None, steps=50, device="cpu", on_progress=move)
    assert elsewhere.exists() and not study.exists()


def test_an_image_of_other_dimensions_is_refused(made):
    volume = ll.Image(ll.ImageGeometry.identity((4, 4, 4)), np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(UsageError, match="a 3D image; task 'phantom' needs 2D"):
        made.model.predict(volume)
    with pytest.raises(ll.LandmarkLabelError, match="no such image file"):
        made.model.predict("nothing.nrrd")


def test_training_without_publishing_leaves_the_study_alone_and_keeps_nothing_on_disk(made, caplog):
    before = sorted(made.study.models_dir.rglob("*"))
    with caplog.at_level(logging.INFO):
        model = ll.train(made.study.folder, "scn", minutes=None, steps=2, publish=False, device="cpu")
    assert model.folder is None and model.decision == "" and not model.published
    assert len(model.predict(made.images["p0"])) == 5
    assert sorted(made.study.models_dir.rglob("*")) == before
    assert any("training scn:default on" in text for text in caplog.messages)
    assert any("hardly trained" in text for text in caplog.messages)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"minutes": None}, UsageError, "minutes or steps must say"),
        ({"minutes": 0}, UsageError, "must be positive"),
        ({"steps": 0}, UsageError, "must be positive"),
        ({"seed": -1}, UsageError, "seed=-1 must be"),
        ({"model": "scm"}, UsageError, "did you mean 'scn:default'"),
        ({"device": "tpu"}, UsageError, "device 'tpu' is not known"),
        ({"minutes": "5"}, UsageError, "must be numbers"),
        ({"minutes": float("inf")}, UsageError, "must be finite"),
        ({"steps": 2.5}, UsageError, "steps=2.5 and seed=0 whole numbers"),
        ({"steps": True}, UsageError, "must be numbers"),
        ({"seed": 1.5}, UsageError, "seed=1.5 whole numbers"),
        ({"valid": ["nobody"], "steps": 1}, StudyError, "'nobody'"),
        ({"valid": "p3", "steps": 1}, UsageError, "valid='p3' must be a list of image ids"),
        ({"valid": IDS, "steps": 1}, StudyError, "all labelled images are validation cases"),
    ],
    ids=str,
)
def test_a_training_that_cannot_be_is_refused_before_it_begins(made, given, error, text):
    with pytest.raises(error, match=text):
        ll.train(made.study, **given)


def test_a_model_is_not_written_over_what_is_published_nor_into_a_study(made, tmp_path):
    live = ModelRegistry(made.study.models_dir / "scn").live()
    before = (live / "model.safetensors").read_bytes()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for out, text in (
        (live, "inside of a study's own folder"),
        (made.study.folder, "is a study"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(UsageError, match=text):
            ll.train(made.study, minutes=None, steps=1, device="cpu", out=out, publish=False)
    assert (live / "model.safetensors").read_bytes() == before


def test_an_image_that_is_not_there_cannot_be_added(made):
    with pytest.raises(ll.LandmarkLabelError, match="q.png: no such image file"):
        made.study.add_image("q", "nowhere/q.png")


def test_folders_that_are_not_there_are_refused_in_words(tmp_path):
    with pytest.raises(StudyError, match="no such study folder"):
        ll.train(tmp_path / "nowhere")
    with pytest.raises(StudyError, match="give the task"):
        ll.Study.open(tmp_path)
    with pytest.raises(ll.LandmarkLabelError, match="no trained model here"):
        ll.load_model(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_study_knows_its_task(made):
    with ll.Study.open(made.study.folder) as study:
        assert study.task == made.task and repr(study) == f"Study({str(study.folder)!r}, task 'phantom', 5 landmarks, 2D)"
        assert study.labelled() == made.truth
    with pytest.raises(TaskMismatch):
        ll.Study.open(made.study.folder, task=ll.LandmarkTask("other", ("a",), 2))


def shifted(landmarks: ll.LandmarkSet, by_mm: float) -> ll.LandmarkSet:
    return ll.LandmarkSet.of_positions(landmarks.task, landmarks.positions_mm + [by_mm, 0], ll.Status.PREDICTED)


def test_figures_of_an_evaluation(made):
    predictions = {i: shifted(made.truth[i], 2.2 if i == "p0" else 1.0) for i in IDS}
    result = ll.evaluate(predictions, made.truth)
    assert result.mre == pytest.approx((2.2 + 4 * 1.0) / 5) and result.unit == "mm"
    assert result.sdr[2] == pytest.approx(80) and result.sdr[2.5] == 100 and [*result.sdr] == [2, 2.5, 3, 4]
    assert result.per_landmark[made.task.names[0]]["mre_mm"] == pytest.approx(result.mre)
    assert repr(result).startswith("Evaluation of 5 images, 5 landmarks: MRE 1.240 mm")
    assert json.loads(json.dumps(result.to_dict()))["n_images"] == 5


def test_an_evaluation_as_a_data_frame(made):
    pytest.importorskip("pandas")
    frame = ll.evaluate({i: shifted(made.truth[i], 3.0) for i in IDS}, made.study).to_dataframe()
    assert list(frame.index) == [*made.task.names] and frame["mre"].tolist() == pytest.approx([3.0] * 5)
    assert frame.loc[made.task.names[0], ["sdr_2", "sdr_4", "outliers_2"]].tolist() == [0, 100, 5] and frame.attrs["unit"] == "mm"


def test_every_way_of_giving_predictions_and_truth_gives_the_same_figures(made, tmp_path, capsys):
    assert main(["predict", str(made.folder / "model"), str(made.folder / "images"), "--out", str(tmp_path / "out")]) == 0
    model = ll.load_model(made.folder / "model")
    in_memory = dict(zip(IDS, model.predict_many(made.images.values()), strict=True))
    table = tmp_path / "truth.csv"
    table.write_text(predictions_text(made.truth), encoding="utf-8")
    figures = [
        ll.evaluate(tmp_path / "out", made.study, include_training=True),
        ll.evaluate(tmp_path / "out", made.study.folder, include_training=True),
        ll.evaluate(tmp_path / "out" / "predictions.csv", table, made.task),
        ll.evaluate(in_memory, table),
        ll.evaluate(in_memory, made.study),
    ]
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "out"), str(made.study.folder), "--include-training", "--json"]) == 0
    verb = json.loads(capsys.readouterr().out)
    assert figures[0].to_dict() == verb
    assert [f.mre for f in figures] == pytest.approx([verb["mre_mm"]] * 5, rel=1e-4)
    held_out = ll.evaluate(tmp_path / "out", made.study)
    assert held_out.metrics["n_images"] == 2 and any("trained on are left out" in text for text in held_out.remarks)


def test_what_cannot_be_evaluated_is_refused_in_words(made, tmp_path):
    other = ll.LandmarkTask("other", tuple("abcde"), 2)
    with pytest.raises(TaskMismatch, match="p0: landmarks of task 'other'"):
        ll.evaluate({"p0": ll.LandmarkSet.of_positions(other, np.zeros((5, 2)))}, made.truth, made.task)
    with pytest.raises(StudyError, match="no image of the predictions has landmarks in the truth"):
        ll.evaluate({"x": made.truth["p0"]}, made.truth)
    (tmp_path / "a.csv").write_text("a,1,2\n", encoding="utf-8")
    with pytest.raises(UsageError, match="which landmarks"):
        ll.evaluate(tmp_path / "a.csv", tmp_path / "a.csv")
    with pytest.raises(StudyError, match="no such file or folder"):
        ll.evaluate(tmp_path / "gone", made.truth)


def test_tasks_and_landmark_files(made, tmp_path):
    assert len(ll.load_task("hand_xray")) == 37
    (tmp_path / "own.json").write_text(json.dumps(made.task.to_json()), encoding="utf-8")
    assert ll.load_task(tmp_path / "own.json") == made.task
    with pytest.raises(UsageError, match="no task called"):
        ll.load_task("nothing")
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TaskError, match="not a task file"):
        ll.load_task(tmp_path / "bad.json")
    Path(tmp_path / "p0.mrk.json").write_text(made.truth["p0"].to_markups(), encoding="utf-8")
    assert ll.read_landmarks(tmp_path / "p0.mrk.json", made.task) == made.truth["p0"]
