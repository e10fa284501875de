"""``crossval`` predicts every labelled case by a model that has not seen it; ``compare`` says which predictions are better."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from program import END_S, IDS, Done, command, ok, run

from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.errors import ImageRejected, StudyError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_record import read_record
from landmarklabel.io.checkpoints import load_tensors
from landmarklabel.io.image_array import Image
from landmarklabel.io.markups import read_markups, write_markups
from landmarklabel.io.pixels import pixel_hash
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.metrics import point_errors_mm
from landmarklabel.services.crossvalidation import deal
from landmarklabel.store.study import Study


@pytest.fixture(scope="module")
def words(material) -> tuple:
    return (material.study, "--model", "scn:single", "--steps", 12, "--folds", 3, "--device", "cpu")


@pytest.fixture(scope="module")
def crossed(material, words, tmp_path_factory) -> tuple[Path, Done]:
    out = tmp_path_factory.mktemp("crossed") / "out"
    return out, ok("crossval", *words, "--out", out, "--json")


def test_every_case_is_predicted_by_a_model_that_has_not_seen_it(crossed, material):
    out, done = crossed
    found, held = json.loads(done.out), []
    for number in (1, 2, 3):
        seen = set(read_record(out / f"fold{number}")["train_labels"])
        assert len(seen) == 4 and seen < set(IDS)
        held += sorted(set(IDS) - seen)
    assert (
        sorted(held) == IDS and sorted(p.name.removesuffix(".mrk.json") for p in (out / "predictions").glob("*.mrk.json")) == IDS
    )
    errors = [point_errors_mm(read_markups(out / "predictions" / f"{i}.mrk.json", material.task), material.truth[i]) for i in IDS]
    assert found["mre_mm"] == pytest.approx(np.nanmean(errors), abs=1e-3) and found["n_images"] == 6
    assert [f["n_images"] for f in found["folds"]] == [
        2,
        2,
        2,
    ] and "6 labelled images in 3 folds, 12 steps of training" in done.err


def test_called_again_nothing_is_trained_or_predicted_anew(crossed, words):
    out, done = crossed
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.suffix in (".json", ".safetensors")}
    again = ok("crossval", *words, "--out", out)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert (
        f"all folds: 6 images: MRE {json.loads(done.out)['mre_mm']:.3f} mm" in again.out and "fold 3: 2 images, MRE" in again.out
    )


def test_another_recipe_or_folder_is_refused(crossed, words, tmp_path):
    out, _ = crossed
    said = run("crossval", *words[:-1], "cpu", "--seed", 4, "--out", out).err.splitlines()[-1]
    assert said == f"landmarklabel: {out} has a cross-validation with other seed: give another --out"
    (tmp_path / "mine.txt").touch()
    assert "is there already, and not empty: give another --out" in run("crossval", *words, "--out", tmp_path).error_line
    assert "--folds 1 must be at least 2" in run("crossval", *words, "--folds", 1, "--out", tmp_path / "x").error_line
    assert (
        "6 labelled images cannot be divided into 7 folds" in run("crossval", *words, "--folds", 7, "--out", tmp_path / "x").err
    )


def test_predictions_changed_by_hand_are_no_figure_of_the_models(crossed, words, material, tmp_path):
    out = shutil.copytree(crossed[0], tmp_path / "out")
    file = out / "predictions" / f"{IDS[2]}.mrk.json"
    write_markups(file, material.truth[IDS[2]])
    by_hand = file.read_bytes()
    done = ok("crossval", *words, "--out", out, "--json")
    left_out = "predictions changed by hand are no figure of the models and are left out; move their files away, and the same"
    assert f"landmarklabel: {left_out} command predicts them anew: {IDS[2]}\n" in done.err and file.read_bytes() == by_hand
    assert "have no prediction" not in done.err
    ids = [i for i in IDS if i != IDS[2]]
    errors = [point_errors_mm(read_markups(out / "predictions" / f"{i}.mrk.json", material.task), material.truth[i]) for i in ids]
    found = json.loads(done.out)
    assert found["n_images"] == 5 and found["mre_mm"] == pytest.approx(np.nanmean(errors), abs=1e-3)
    file.unlink()
    again = ok("crossval", *words, "--out", out, "--json")
    assert json.loads(again.out)["mre_mm"] == pytest.approx(json.loads(crossed[1].out)["mre_mm"], abs=1e-6)


def test_evaluate_and_compare_leave_out_what_a_person_changed(crossed, material, tmp_path):
    changed = shutil.copytree(crossed[0] / "predictions", tmp_path / "changed")
    write_markups(changed / f"{IDS[2]}.mrk.json", material.truth[IDS[2]])
    left_out = f"not written by predict, or changed since, and left out: {IDS[2]}\n"
    done = ok("evaluate", changed, material.study, "--json")
    assert json.loads(done.out)["n_images"] == 5 and f"landmarklabel: {left_out}" in done.err
    done = ok("compare", crossed[0] / "predictions", changed, material.study, "--json")
    assert json.loads(done.out)["n_images"] == 5 and json.loads(done.out)["difference"] == 0
    assert f"landmarklabel: B: {left_out}" in done.err and "A: not written" not in done.err
    for image_id in IDS:
        write_markups(changed / f"{image_id}.mrk.json", material.truth[image_id])
    said = run("evaluate", changed, material.study).err.splitlines()[-1]
    assert said.startswith(f"landmarklabel: {changed}: predict did not write these files, or they were changed since, so none")


def test_predictions_of_two_models_are_not_called_one(crossed, material, tmp_path):
    out, words = tmp_path / "mixed", ("evaluate", tmp_path / "mixed", material.study, "--include-training")
    ok("predict", crossed[0] / "fold1", material.images, "--out", out)
    assert "different models" not in ok(*words).err
    ok("predict", crossed[0] / "fold2", material.images / f"{IDS[0]}.png", "--out", out)
    assert "landmarklabel: these are predictions of 2 different models\n" in ok(*words).err


def test_one_image_under_two_ids_is_in_one_fold():
    drawn = [draw_phantom(phantom_task(2, 4), seed, size=(24, 24)) for seed in range(4)]
    cases = [Case(f"c{n}", Image(drawn[n % 4].geometry, drawn[n % 4].pixels), drawn[n % 4].landmarks) for n in range(7)]
    folds = deal(cases, 3)
    assert sorted(c.image_id for fold in folds for c in fold.held) == [f"c{n}" for n in range(7)]
    for fold in folds:
        train, held = ({pixel_hash(c.image) for c in part} for part in (fold.train, fold.held))
        assert not train & held and len(fold.train) + len(fold.held) == 7
    with pytest.raises(StudyError, match="4 labelled images cannot be divided into 5 folds"):
        deal(cases, 5)


def test_label_files_that_were_edited_by_hand_count(material, tmp_path):
    study = shutil.copytree(material.study, tmp_path / "study")
    file = study / "labels" / "final" / f"{IDS[0]}.mrk.json"
    write_markups(file, material.truth[IDS[0]].with_landmark(material.task.names[2], [1.0, 2.0]))
    shutil.copy(file, file.with_name("nobody.mrk.json"))
    done = run("crossval", study, "--folds", 7, "--out", tmp_path / "x")
    assert "nobody" in done.err.splitlines()[0] and "cannot be divided into 7 folds" in done.err
    with Study(study, material.task) as opened:
        assert opened.labelled()[IDS[0]].positions_mm[2].tolist() == [1.0, 2.0]


def test_a_study_whose_revisions_are_elsewhere(material, tmp_path):
    study, store = tmp_path / "study", ("--store", f"sqlite:///{tmp_path / 'revisions.sqlite'}")
    ok("import", study, *material.source, "--table", material.table, *store)
    said = run("crossval", study, "--folds", 7, "--out", tmp_path / "x", *store).error_line
    assert "6 labelled images cannot be divided into 7 folds" in said
    assert not (study / ".landmarklabel" / "revisions.sqlite").exists()


def test_an_image_that_a_model_refuses_holds_up_no_other(crossed, words, tmp_path, monkeypatch):
    out, predict = shutil.copytree(crossed[0], tmp_path / "out"), Localizer.predict
    (out / "predictions" / f"{IDS[0]}.mrk.json").unlink()

    def or_refuse(self, case):
        if case.image_id == IDS[0]:
            raise ImageRejected(IDS[0], ["far larger than the training images"])
        return predict(self, case)

    monkeypatch.setattr(Localizer, "predict", or_refuse)
    done = ok("crossval", *words, "--out", out, "--json")
    why = f"{IDS[0]} was not predicted: {IDS[0]}: far larger than the training images"
    assert json.loads(done.out)["n_images"] == 5 and why in done.err


def test_models_of_other_folds_predict_nothing(crossed, words, tmp_path):
    out = shutil.copytree(crossed[0], tmp_path / "out")
    shutil.rmtree(out / "predictions")
    (out / "fold1").rename(out / "aside")
    (out / "fold2").rename(out / "fold1")
    (out / "aside").rename(out / "fold2")
    said = run("crossval", *words, "--out", out).err.splitlines()[-1]
    why = f"the model in {out / 'fold1'} was not trained on the cases of this fold as they are now"
    assert said == f"landmarklabel: {why}: move it away, and the same command trains one"
    assert not list((out / "predictions").glob("*.mrk.json"))


def test_ctrl_c_ends_it_and_it_goes_on(words, tmp_path):
    line = command("crossval", *words, "--out", tmp_path / "out")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "0 %: locate step" not in (said := process.stderr.readline()):
        assert said
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=END_S)
    assert process.returncode == 130 and said.splitlines()[-1] == "landmarklabel: stopped; the same command goes on from here"
    stopped = load_tensors(tmp_path / "out" / "fold1" / "state" / "locate.safetensors")[1]["step"]
    again = ok("crossval", *words, "--out", tmp_path / "out")
    assert f"locate step {stopped + 1}," in again.err and "all folds: 6 images" in again.out
    assert read_record(tmp_path / "out" / "fold1")["steps"] == {"locate": 12}


def moved(folder: Path, material, to: Path, by: float) -> Path:
    """Predictions that lie ``by`` times as far from the truth."""
    shutil.copytree(folder, to)
    for file in to.glob("*.mrk.json"):
        truth = material.truth[file.name.removesuffix(".mrk.json")]
        found = read_markups(file, material.task)
        positions = truth.positions_mm + by * (found.positions_mm - truth.positions_mm)
        positions = np.where(np.isfinite(positions), positions, found.positions_mm)  # of a landmark that is truly absent
        write_markups(file, LandmarkSet(found.task, positions, found.status))
    (to / ".predictions.jsonl").unlink()  # label files from somewhere
    return to


def test_predictions_that_are_nearer_are_found_to_be(crossed, material, tmp_path):
    out, _ = crossed
    nearer = moved(out / "predictions", material, tmp_path / "nearer", 0.8)
    found = json.loads(ok("compare", out / "predictions", nearer, material.study, "--json").out)
    assert found["difference"] == pytest.approx(-0.2 * found["a"]["mre"], rel=1e-3) and found["confidence_95"][1] < 0
    assert found["p_value"] == pytest.approx(2 / 2**6) and found["n_images"] == 6  # all six cases are better: exact
    assert set(found["per_landmark"]) == set(material.task.names)
    said = ok("compare", nearer, out / "predictions", material.study).out
    assert "B minus A: +" in said and "p 0.031: A is nearer to the truth" in said
    same = ok("compare", nearer, nearer, material.study).out
    assert "B minus A: +0.000 mm (95 % interval +0.000 to +0.000); p 1: this may be chance" in same


def test_few_images_and_none_are_said(crossed, material, tmp_path):
    out, _ = crossed
    few = shutil.copytree(out / "predictions", tmp_path / "few")
    for image_id in IDS[2:]:
        os.remove(few / f"{image_id}.mrk.json")
    done = ok("compare", few, out / "predictions", material.study)
    assert "2 images, " in done.out and "too few images to tell from chance: 6 are needed" in done.out
    other = shutil.copytree(out / "predictions", tmp_path / "other")
    for image_id in IDS[:2]:
        os.remove(other / f"{image_id}.mrk.json")
    assert run("compare", few, other, material.study).err.splitlines()[-1] == "landmarklabel: no image was predicted by both"


def test_the_models_of_the_folds_answer_together(crossed, material, tmp_path):
    out, _ = crossed
    models = [out / f"fold{number}" for number in (1, 2, 3)]
    also = [word for model in models[1:] for word in ("--also", model)]
    twice = run("predict", models[0], material.images, *also, "--also", models[1], "--out", tmp_path / "all")
    assert twice.error_line == f"landmarklabel: --also {models[1]}: this model is named twice; give each once\n"
    ok("predict", models[0], material.images, *also, "--out", tmp_path / "all")
    for number, model in enumerate(models):
        ok("predict", model, material.images, "--out", tmp_path / str(number))
    name = f"{IDS[0]}.mrk.json"
    each = np.stack([read_markups(tmp_path / str(n) / name, material.task).positions_mm for n in range(3)])
    found = read_markups(tmp_path / "all" / name, material.task).positions_mm
    assert found == pytest.approx(each.mean(axis=0), abs=1e-3)  # none is calibrated: all weigh alike
    assert "3 models" in ok("predict", models[0], material.images, *also, "--out", tmp_path / "all").out
    said = run("evaluate", tmp_path / "all", material.study).err  # each image was in the training of two of the models
    assert "all 6 images were used to train the model" in said
