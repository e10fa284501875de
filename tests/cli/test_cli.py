"""The command line from images and a table to a report."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from program import END_S, IDS, NAMES, START_S, WRIST_MM, command, ok, run, write_table

from landmarklabel.inference.model_record import read_record
from landmarklabel.io.markups import read_markups, write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule, Status
from landmarklabel.services import trainings
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_task

CONTRACT = {"n_images", "n_landmarks", "mre_mm", "median_mm", "sd_mm", "sdr", "outliers", "per_landmark"}


def opened(folder: Path, task: LandmarkTask) -> tuple[dict[str, int], dict[str, LandmarkSet]]:
    """Revision numbers and newest landmarks of a study."""
    study = Study(folder, task)
    numbers, labels = study.revisions.numbers(), study.labelled()
    study.close()
    return numbers, labels


def assert_same(one: LandmarkSet, other: LandmarkSet) -> None:
    assert one.status == other.status
    np.testing.assert_allclose(one.positions_mm, other.positions_mm, atol=1e-9)


# --- task new ------------------------------------------------------------------------------------------------------


def test_task_from_names(material):
    assert material.task.name == "hand" and material.task.names == NAMES and material.task.dims == 2
    assert material.task.definitions == {NAMES[0]: "Far end, on the left side"}
    assert material.task.scale == ScaleRule(NAMES[0], NAMES[1], WRIST_MM)


def test_task_from_an_example(material, tmp_path):
    example = material.study / "labels" / "final" / "p5.mrk.json"
    done = ok("task", "new", "other", "--from", example, "--out", tmp_path / "t.json")
    task = LandmarkTask.load(tmp_path / "t.json")
    assert task.names == NAMES and task.dims == 3 and task.scale is None and "8 landmarks in 3D" in done.out
    ok("task", "new", "other", "--from", example, "--dims", 2, "--out", tmp_path / "flat.json")
    assert LandmarkTask.load(tmp_path / "flat.json").hash == material.task.hash


def test_another_tasks_file_is_not_written_over(material, tmp_path):
    names = tmp_path / "three.txt"
    names.write_text("a\nb\nc\n", encoding="utf-8")
    before = material.task_file.read_bytes()
    done = run("task", "new", "hand", "--names", names, "--dims", 2, "--out", material.task_file)
    assert done.code == 2 and f"{material.task_file} has another task, 'hand' with 8 landmarks: give another file" in done.err
    assert material.task_file.read_bytes() == before
    names.write_text("no task", encoding="utf-8")
    assert "is there already and is no task" in run("task", "new", "x", "--names", names, "--out", names).err
    assert names.read_text(encoding="utf-8") == "no task"


def test_a_task_is_shown_as_tables_have_to_call_its_landmarks():
    done = run("task", "show", "cephalogram")
    names = [line.split("  ")[1] for line in done.out.splitlines()[1:20]]
    assert (
        done.code == 0
        and done.out.startswith("cephalogram: 19 landmarks in 2D\n")
        and tuple(names) == resolve_task("cephalogram").names
    )
    assert re.search(r"\n  SNA +angle of sella, nasion, A point; .*; usual 82, Steiner 1953\n", done.out)
    assert re.search(r"\n  ANB +sum of \+1 SNA, -1 SNB; ", done.out)
    assert "no task called 'nothing'" in run("task", "show", "nothing").err


# --- import --------------------------------------------------------------------------------------------------------


def test_import_takes_images_as_they_are_and_all_landmarks(material):
    numbers, labels = opened(material.study, material.task)
    assert numbers == dict.fromkeys(IDS, 1) and sorted(labels) == IDS
    for image_id in IDS:
        name = f"{image_id}.png"
        assert (material.study / name).read_bytes() == (material.images / name).read_bytes()
        assert_same(labels[image_id], material.truth[image_id])
        file = material.study / "labels" / "final" / f"{image_id}.mrk.json"
        assert_same(read_markups(file, material.task), material.truth[image_id])


def test_import_again_changes_nothing_and_a_changed_row_is_a_revision(material, tmp_path):
    table = tmp_path / "points.csv"
    write_table(table, material.truth)
    words = ("import", tmp_path / "study", *material.source, "--table", table)
    assert "(6 new or changed)" in ok(*words).out
    assert "(0 new or changed)" in ok(*words).out
    assert opened(tmp_path / "study", material.task)[0] == dict.fromkeys(IDS, 1)
    moved = material.truth["p1"].with_landmark(NAMES[2], (1.5, 2.25))
    write_table(table, {**material.truth, "p1": moved})
    assert "(1 new or changed)" in ok(*words).out
    numbers, labels = opened(tmp_path / "study", material.task)
    assert numbers == {**dict.fromkeys(IDS, 1), "p1": 2}
    assert_same(labels["p1"], moved)
    assert_same(read_markups(tmp_path / "study" / "labels" / "final" / "p1.mrk.json", material.task), moved)


def test_import_of_some_images_with_markups(material, tmp_path):
    (tmp_path / "ids.txt").write_text("p5\n# a comment\np0.png\n", encoding="utf-8")
    markups = ("--markups", material.study / "labels" / "final", "--only", tmp_path / "ids.txt")
    done = ok("import", tmp_path / "study", *material.source, *markups)
    assert "2 images, 2 labelled (2 new or changed)" in done.out and not done.err
    numbers, labels = opened(tmp_path / "study", material.task)
    assert numbers == {"p0": 1, "p5": 1} and not (tmp_path / "study" / "p1.png").exists()
    for image_id, landmarks in labels.items():
        assert_same(landmarks, material.truth[image_id])


def test_import_without_landmarks_and_landmarks_without_image(material, tmp_path):
    assert "6 images, 0 labelled" in ok("import", tmp_path / "study", *material.source).out
    write_table(tmp_path / "points.csv", {**material.truth, "p9": material.truth["p0"]})
    done = ok("import", tmp_path / "study", *material.source, "--table", tmp_path / "points.csv")
    assert done.err == "landmarklabel: 1 labels have no image, for example p9\n"


# --- train ---------------------------------------------------------------------------------------------------------


def test_train_writes_a_model_and_how_it_was_made(material, model, other_model):
    assert sorted(p.name for p in model.iterdir()) == ["MODEL_CARD.md", "model.json", "model.safetensors"]
    record = json.loads((model / "model.json").read_text(encoding="utf-8"))
    assert record["task_hash"] == material.task.hash and record["preset"] == "scn:default" and record["seed"] == 3
    assert LandmarkTask.from_json(record["task"]) == material.task
    assert record["valid_ids"] == ["p4", "p5"] and sorted(record["train_labels"]) == ["p0", "p1", "p2", "p3"]
    metrics = record["metrics"]
    assert metrics["n_images"] == 2 and metrics["n_landmarks"] == 8 and metrics["n_points"] == 15
    assert metrics.keys() >= CONTRACT and metrics["mre_mm"] > 0
    other = json.loads((other_model / "model.json").read_text(encoding="utf-8"))
    assert other["preset"] == "scn:single" and other["seed"] == 0
    assert sorted([*other["train_labels"], *other["valid_ids"]]) == IDS


def test_train_stops_at_ctrl_c_and_goes_on(material, tmp_path):
    out = tmp_path / "model"
    words = ("train", material.study, "--task", material.task_file, "--model", "scn", "--device", "cpu", "--out", out)
    stderr = tmp_path / "stderr"
    with stderr.open("wb") as file:
        process = subprocess.Popen(command(*words, "--steps", 100_000), stdout=subprocess.DEVNULL, stderr=file)
    try:
        deadline = time.monotonic() + START_S
        while not (out / "state" / "run.json").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(END_S) == 130, stderr.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()
    assert stderr.read_text(encoding="utf-8") == "landmarklabel: stopped; the same command with --resume goes on from here\n"
    assert [p.name for p in (out / "state").glob("*.safetensors")] and not (out / "model.json").exists()
    assert "cannot resume" in run(*words, "--steps", 4, "--seed", 1, "--resume").error_line
    ok(*words, "--steps", 4, "--resume")
    assert sorted(p.name for p in out.iterdir()) == ["MODEL_CARD.md", "model.json", "model.safetensors"]


def test_a_training_that_ends_while_its_model_is_tried_goes_on_there(material, tmp_path, monkeypatch):
    study, out = tmp_path / "study", tmp_path / "model"
    shutil.copytree(material.study, study)
    words = ("train", study, "--model", "scn:single", "--device", "cpu", "--steps", 3, "--out", out, "--resume")
    with monkeypatch.context() as patched:
        patched.setattr(trainings, "decide", lambda *_: signal.raise_signal(signal.SIGINT) or signal.raise_signal(signal.SIGINT))
        begun = run(*words)
    assert begun.code == 130 and f"landmarklabel: no stopped training was found in {out}: one begins\n" in begun.err
    done = ok(*words)
    assert "locate step" in begun.out and "locate step" not in done.out and "in study as scn_single version" in done.out
    assert read_record(out)["steps"] == {"locate": 3} and not (out / "state").exists()
    refused = f"landmarklabel: cannot resume: {out} has a whole model and no stopped training; without --resume that model gets"
    assert run(*words).error_line.startswith(refused) and read_record(out)["steps"] == {"locate": 3}


# --- predict -------------------------------------------------------------------------------------------------------


def times(out: Path) -> dict[str, int]:
    return {p.name.partition(".")[0]: p.stat().st_mtime_ns for p in out.glob("*.mrk.json")}


def made_by(out: Path, image_id: str) -> str:
    """The preset that a prediction's file names."""
    document = json.loads((out / f"{image_id}.mrk.json").read_text(encoding="utf-8"))
    return document["markups"][0]["measurements"][0]["description"]


def test_predict_files_and_folders_once_a_model(material, model, other_model, tmp_path):
    more, out = tmp_path / "more", tmp_path / "out"
    more.mkdir()
    for name in ("p2.png", "p3.png"):
        shutil.copy(material.images / name, more)
    images = (material.images / "p0.png", material.images / "p1.png", more)
    assert "4 images" in ok("predict", model, *images, "--out", out).out
    for image_id in IDS[:4]:
        document = json.loads((out / f"{image_id}.mrk.json").read_text(encoding="utf-8"))
        points = document["markups"][0]["controlPoints"]
        assert [p["label"] for p in points] == list(NAMES)
        found = read_markups(out / f"{image_id}.mrk.json", material.task)
        assert set(found.status) <= {Status.PREDICTED, Status.ABSENT} and made_by(out, image_id) == "scn:default"
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == IDS[:4]
    for i, name in enumerate(NAMES):
        status, x = rows[3][f"{name}_status"], rows[3][f"{name}_x"]
        assert status == found.status[i].value
        assert float(x or "nan") == pytest.approx(found.positions_mm[i, 0], abs=5e-4, nan_ok=True)

    before = times(out)
    ok("predict", model, *images, "--out", out)
    assert times(out) == before
    (out / "p1.mrk.json").unlink()
    ok("predict", model, *images, "--out", out)
    assert {i for i, at in times(out).items() if at != before[i]} == {"p1"}

    ok("predict", other_model, material.images / "p0.png", "--out", out)  # as if stopped after the first image
    ok("predict", other_model, *images, "--out", out)
    assert [made_by(out, i) for i in IDS[:4]] == ["scn:single"] * 4


def test_a_damaged_image_does_not_stop_the_others(material, model, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in ("p0.png", "p5.png"):
        shutil.copy(material.images / name, images)
    (images / "p3.png").write_bytes((material.images / "p3.png").read_bytes()[:-40])
    done = run("predict", model, images, "--out", out)
    assert done.code == 2 and sorted(times(out)) == ["p0", "p5"]
    said = [line for line in done.err.splitlines() if "look at these" not in line]  # of a model that was hardly trained
    cautions, lines = said[:2], said[2:]
    assert "hardly trained" in cautions[0] and "measured on 2 cases only" in cautions[1]
    assert all(line.startswith("landmarklabel: ") for line in lines) and len(lines) == 2
    assert [line for line in lines if "p3.png" in line] == [lines[0]] and "truncated" in lines[0]
    assert "1 of 2" not in lines[1] and "1 of 3 images could not be predicted" in lines[1]
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["p0", "p5"]


# --- evaluate ------------------------------------------------------------------------------------------------------


def expected_errors(truth: dict[str, LandmarkSet]) -> dict[str, list[float]]:
    """Errors in mm by landmark, after the rule that the first two landmarks are WRIST_MM apart; inf for the missed."""
    errors: dict[str, list[float]] = {name: [] for name in NAMES}
    for image_id, landmarks in truth.items():
        a, b = landmarks.positions_mm[:2]
        mm = 5.0 * WRIST_MM / float(np.hypot(*(a - b)))
        for i, name in enumerate(NAMES):
            if landmarks.status[i] is not Status.ABSENT:
                errors[name].append(np.inf if (image_id, i) == ("p0", 3) else mm)
    return errors


def assert_metrics(metrics: dict, errors: list[float]) -> None:
    values = np.array(errors)
    found = values[np.isfinite(values)]
    assert metrics["mre_mm"] == pytest.approx(found.mean()) and metrics["median_mm"] == pytest.approx(np.median(found))
    assert metrics["sd_mm"] == pytest.approx(found.std(), abs=1e-9)
    assert metrics["sdr"] == {r: pytest.approx(100 * (values <= float(r)).mean()) for r in ("2", "2.5", "3", "4")}
    assert metrics["outliers"] == {r: (values > float(r)).sum() for r in ("2", "4", "10")}


def test_evaluate_against_a_study_and_a_folder(material, predictions, tmp_path):
    words = ("evaluate", predictions, material.study, "--task", material.task_file, "--json")
    metrics = json.loads(ok(*words).out)
    errors = expected_errors(material.truth)
    assert metrics.keys() >= CONTRACT and metrics["n_images"] == 6 and metrics["n_landmarks"] == 8
    assert_metrics(metrics, [e for own in errors.values() for e in own])
    assert list(metrics["per_landmark"]) == list(NAMES)
    for name in NAMES:
        assert_metrics(metrics["per_landmark"][name], errors[name])
    assert metrics["n_points"] == 47 and metrics["n_missed"] == 1
    for image_id, landmarks in material.truth.items():
        write_markups(tmp_path / "truth" / f"{image_id}.mrk.json", landmarks)
    assert json.loads(ok(*words[:2], tmp_path / "truth", *words[3:]).out) == metrics
    (tmp_path / "truth" / "p2.mrk.json").unlink()
    done = ok(*words[:2], tmp_path / "truth", *words[3:])
    assert json.loads(done.out)["n_images"] == 5 and done.err == "landmarklabel: 1 predicted images have no truth\n"


def test_evaluate_exact_numbers_without_a_scale_rule(material, predictions, tmp_path):
    plain = replace(material.task, scale=None)
    (tmp_path / "plain.json").write_text(json.dumps(plain.to_json()), encoding="utf-8")
    metrics = json.loads(ok("evaluate", predictions, material.study, "--task", tmp_path / "plain.json", "--json").out)
    assert metrics["mre_mm"] == pytest.approx(5) and metrics["sd_mm"] == pytest.approx(0, abs=1e-9)
    assert metrics["sdr"] == {"2": 0, "2.5": 0, "3": 0, "4": 0} and metrics["outliers"] == {"2": 47, "4": 47, "10": 1}


def test_evaluate_writes_a_page(material, predictions, tmp_path):
    page = tmp_path / "report.html"
    done = ok("evaluate", predictions, material.study, "--task", material.task_file, "--report", page)
    assert f"report: {page}" in done.out and "6 images: MRE" in done.out
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/") >= 3 and all(name in text for name in NAMES) and " is 50 mm." in text


def test_evaluate_takes_the_truth_as_a_table(material, predictions, tmp_path):
    """A wide one and a long one; with new scans there is no study."""
    words = ("--task", material.task_file, "--json")
    whole = json.loads(ok("evaluate", predictions, material.study, *words).out)
    write_table(tmp_path / "truth.csv", material.truth)
    assert json.loads(ok("evaluate", predictions, tmp_path / "truth.csv", *words).out) == whole | {"unit": "mm"}
    rows = ["id,label,x,y,annotator"]
    for image_id, landmarks in material.truth.items():
        for name, status, p in zip(NAMES, landmarks.status, landmarks.positions_mm, strict=True):
            cells = ("absent", "absent") if status is Status.ABSENT else p
            rows.append(",".join(map(str, (image_id, name, *cells, "ann"))))
    (tmp_path / "long.csv").write_text("\n".join(rows), encoding="utf-8")
    metrics = json.loads(ok("evaluate", predictions, tmp_path / "long.csv", *words).out)
    assert metrics["mre_mm"] == pytest.approx(whole["mre_mm"]) and metrics["n_points"] == whole["n_points"]


def test_errors_of_pictures_without_a_scale_rule_are_pixels(material, predictions, tmp_path):
    plain = replace(material.task, scale=None)
    (tmp_path / "plain.json").write_text(json.dumps(plain.to_json()), encoding="utf-8")
    words = ("evaluate", predictions, material.study, "--task", tmp_path / "plain.json")
    assert "MRE 5.000 px, median 5.000, within 2/2.5/3/4 px" in ok(*words).out
    assert json.loads(ok(*words, "--json").out)["unit"] == "px"
    page = tmp_path / "report.html"
    ok(*words, "--report", page)
    text = re.sub(r"base64,[^\"]*", "", page.read_text(encoding="utf-8"))
    assert "(px)" in text and "Within 2 px" in text and "(mm)" not in text and " mm" not in text


def test_pixels_are_known_from_the_notes_of_predict_where_no_image_is(material, model, tmp_path):
    plain = replace(material.task, scale=None)
    (tmp_path / "plain.json").write_text(json.dumps(plain.to_json()), encoding="utf-8")
    ok("predict", model, material.images, "--out", tmp_path / "out")
    write_table(tmp_path / "truth.csv", material.truth)
    words = ("evaluate", tmp_path / "out", tmp_path / "truth.csv", "--task", tmp_path / "plain.json", "--include-training")
    assert json.loads(ok(*words, "--json").out)["unit"] == "px"
    (tmp_path / "out" / "p0.mrk.json").unlink()
    assert "1 images of the truth have no prediction and do not count: p0" in ok(*words).err


def test_evaluation_leaves_out_what_the_model_was_trained_on(material, model, tmp_path):
    """Told by the pixels, whatever the images are called now."""
    images, out, truth = tmp_path / "images", tmp_path / "out", tmp_path / "truth"
    images.mkdir()
    for image_id in IDS:  # p4 and p5 were the validation images
        shutil.copy(material.images / f"{image_id}.png", images / f"x{image_id}.png")
        write_markups(truth / f"x{image_id}.mrk.json", material.truth[image_id])
    ok("predict", model, images, "--out", out)
    words = ("evaluate", out, truth, "--task", material.task_file)
    done = ok(*words, "--json")
    metrics = json.loads(done.out)
    assert metrics["n_images"] == 2 and metrics["training_images"] == ["xp0", "xp1", "xp2", "xp3"]
    all_six = ", ".join(f"x{i}" for i in IDS)
    assert done.err.splitlines() == [
        f"landmarklabel: 6 of 6 predictions ({all_six}) are of a model that was hardly trained: for trying things out only",
        "landmarklabel: 4 images that the model was trained on are left out (--include-training has them): xp0, xp1, xp2, xp3",
    ]
    page = tmp_path / "report.html"
    done = ok(*words, "--include-training", "--images", images, "--report", page)
    assert done.out.startswith("6 images: ") and "4 images that the model was trained on are among these: xp0" in done.err
    html = page.read_text(encoding="utf-8")
    assert "are of a model that was hardly trained: for trying things out only." in html
    assert "xp0 (training image)" in html and "xp4 (training image)" not in html and "4 images among them served to train" in html
    assert html.count("data:image/jpeg") == 6
    for image_id in ("xp4", "xp5"):
        (truth / f"{image_id}.mrk.json").unlink()
    assert "all 4 images were used to train the model that predicted them" in run(*words).error_line


def test_a_row_a_point_beside_the_wide_table(material, model, tmp_path):
    ok("predict", model, material.images / "p0.png", "--out", tmp_path / "out")
    with (tmp_path / "out" / "predictions_long.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "landmark", "x", "y", "z", "status", "expected_error"]
    assert [row["landmark"] for row in rows] == list(NAMES) and {row["id"] for row in rows} == {"p0"}
    landmarks = read_markups(tmp_path / "out" / "p0.mrk.json", material.task)
    for i, row in enumerate(rows):
        assert row["status"] == landmarks.status[i].value and row["z"] == ""
        if landmarks.defined[i]:
            assert [float(row["x"]), float(row["y"])] == pytest.approx(landmarks.positions_mm[i].tolist(), abs=5e-4)
            assert len(row["x"].partition(".")[2]) <= 4 and len(row["expected_error"].partition(".")[2]) <= 4
    metrics = json.loads(ok("evaluate", tmp_path / "out", material.study, "--task", material.task_file, "--json",
                            "--include-training").out)  # fmt: skip
    done = ok("import", tmp_path / "again", *material.source, "--table", tmp_path / "out" / "predictions_long.csv")
    assert "0 labelled" in done.out  # a model's points become nobody's by an import
    assert metrics["n_images"] == 1
