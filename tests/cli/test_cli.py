"""The command line from images and a table to a report, and what it says to mistakes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from landmarklabel.cli import main
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.io.images import Image, write_image
from landmarklabel.io.markups import read_markups, write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule, Status
from landmarklabel.store.study import Study

NAMES = phantom_task(2, 8).names
IDS = [f"p{i}" for i in range(6)]
WRIST_MM = 50.0
START_S, END_S = 240, 240  # deadlines, not expectations: a busy machine is slow
CONTRACT = {"n_images", "n_landmarks", "mre_mm", "median_mm", "sd_mm", "sdr", "outliers", "per_landmark"}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line that a mistake ends with."""
        assert self.code == 2, self
        assert self.err.startswith("landmarklabel: ") and self.err.count("\n") == 1 and self.err.endswith("\n"), self
        return self.err


def run(*words: object) -> Done:
    """One command, in this process."""
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(w) for w in words])
    except SystemExit as end:
        code = end.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Done(code, out.getvalue(), err.getvalue())


def ok(*words: object) -> Done:
    done = run(*words)
    assert done.code == 0, done
    return done


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "landmarklabel", *map(str, words)]


@dataclass(frozen=True)
class Material:
    folder: Path
    task: LandmarkTask
    truth: dict[str, LandmarkSet]

    def __getattr__(self, name: str) -> Path:  # images, table, task_file, study, model
        return self.folder / {"table": "points.csv", "task_file": "hand.json"}.get(name, name)

    @property
    def source(self) -> tuple:
        return "--task", self.task_file, "--images", self.images


def write_table(path: Path, truth: dict[str, LandmarkSet]) -> None:
    """One row an image, as in the seeds' data: an extra column, and ``absent`` for what is not there."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "split", *(f"{axis}{i}" for i in range(len(NAMES)) for axis in "xy")])
        for image_id, landmarks in truth.items():
            absent = [s is Status.ABSENT for s in landmarks.status]
            pairs = zip(absent, landmarks.positions_mm.tolist(), strict=True)
            rows.writerow([image_id, "train", *(cell for gone, p in pairs for cell in (["absent"] * 2 if gone else p))])


def write_names(folder: Path) -> Path:
    lines = [f"{NAMES[0]}\tFar end, on the left side", *NAMES[1:], ""]
    (folder / "names.txt").write_text("\n".join(lines))
    return folder / "names.txt"


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    """Six small phantoms, their table, a task made by the program, and a study with all of them."""
    folder = tmp_path_factory.mktemp("cli")
    scale = ("--scale", NAMES[0], NAMES[1], WRIST_MM)
    ok("task", "new", "hand", "--names", write_names(folder), "--dims", 2, *scale, "--out", folder / "hand.json")
    task, truth = LandmarkTask.load(folder / "hand.json"), {}
    (folder / "images").mkdir()
    for seed, image_id in enumerate(IDS):
        phantom = draw_phantom(phantom_task(2, len(NAMES)), seed, size=(80, 96), absent_fraction=0)
        write_image(folder / "images" / f"{image_id}.png", Image(phantom.geometry, phantom.pixels))
        truth[image_id] = LandmarkSet.of_positions(task, phantom.landmarks.positions_mm)
    truth["p5"] = truth["p5"].with_landmark(NAMES[-1], None, Status.ABSENT)
    made = Material(folder, task, truth)
    write_table(made.table, truth)
    ok("import", made.study, *made.source, "--table", made.table)
    return made


@pytest.fixture(scope="module")
def model(material) -> Path:
    """A model of four steps, with validation images."""
    (material.folder / "valid.txt").write_text("p4\np5.png  # by its file name\n")
    what = ("--task", material.task_file, "--model", "scn", "--valid", material.folder / "valid.txt")
    done = ok("train", material.study, *what, "--steps", 4, "--seed", 3, "--device", "cpu", "--out", material.model)
    assert "4 images, 2 for validation" in done.out and "MRE" in done.out
    return material.model


@pytest.fixture(scope="module")
def other_model(material) -> Path:
    folder = material.folder / "other"
    words = ("--model", "scn:single", "--steps", 2, "--device", "cpu", "--out", folder)
    ok("train", material.study, "--task", material.task_file, *words)
    return folder


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
    ok("task", "new", "other", "--from", example, "--dims", 2, "--out", tmp_path / "t.json")
    assert LandmarkTask.load(tmp_path / "t.json").hash == material.task.hash


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
    (tmp_path / "ids.txt").write_text("p5\n# a comment\np0.png\n")
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
    assert done.err == "landmarklabel: 1 labels have no image, for example 'p9'\n"


# --- train ---------------------------------------------------------------------------------------------------------


def test_train_writes_a_model_and_how_it_was_made(material, model, other_model):
    assert sorted(p.name for p in model.iterdir()) == ["model.json", "model.safetensors"]
    record = json.loads((model / "model.json").read_text())
    assert record["task_hash"] == material.task.hash and record["preset"] == "scn:default" and record["seed"] == 3
    assert LandmarkTask.from_json(record["task"]) == material.task
    assert record["valid_ids"] == ["p4", "p5"] and sorted(record["train_labels"]) == ["p0", "p1", "p2", "p3"]
    metrics = record["metrics"]
    assert metrics["n_images"] == 2 and metrics["n_landmarks"] == 8 and metrics["n_points"] == 15
    assert metrics.keys() >= CONTRACT and metrics["mre_mm"] > 0
    other = json.loads((other_model / "model.json").read_text())
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
        assert process.wait(END_S) == 130, stderr.read_text()
    finally:
        process.kill()
        process.wait()
    assert stderr.read_text() == "landmarklabel: stopped; the same command with --resume goes on from here\n"
    assert [p.name for p in (out / "state").glob("*.safetensors")] and not (out / "model.json").exists()
    assert "cannot resume" in run(*words, "--steps", 4, "--seed", 1, "--resume").error_line
    ok(*words, "--steps", 4, "--resume")
    assert sorted(p.name for p in out.iterdir()) == ["model.json", "model.safetensors"]


# --- predict -------------------------------------------------------------------------------------------------------


def times(out: Path) -> dict[str, int]:
    return {p.name.partition(".")[0]: p.stat().st_mtime_ns for p in out.glob("*.mrk.json")}


def made_by(out: Path, image_id: str) -> str:
    """The preset that a prediction's file names."""
    document = json.loads((out / f"{image_id}.mrk.json").read_text())
    return document["markups"][0]["measurements"][0]["description"]


def test_predict_files_and_folders_once_a_model(material, model, other_model, tmp_path):
    more, out = tmp_path / "more", tmp_path / "out"
    more.mkdir()
    for name in ("p2.png", "p3.png"):
        shutil.copy(material.images / name, more)
    images = (material.images / "p0.png", material.images / "p1.png", more)
    assert "4 images" in ok("predict", model, *images, "--out", out).out
    for image_id in IDS[:4]:
        document = json.loads((out / f"{image_id}.mrk.json").read_text())
        points = document["markups"][0]["controlPoints"]
        assert [p["label"] for p in points] == list(NAMES)
        found = read_markups(out / f"{image_id}.mrk.json", material.task)
        assert set(found.status) <= {Status.PREDICTED, Status.ABSENT} and made_by(out, image_id) == "scn:default"
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == IDS[:4]
    for i, name in enumerate(NAMES):
        status, x = rows[3][f"{name}_status"], rows[3][f"{name}_x"]
        assert status == found.status[i].value and (float(x) if x else None) == (found.positions_mm[i, 0] if x else None)

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
    lines = done.err.splitlines()
    assert all(line.startswith("landmarklabel: ") for line in lines) and len(lines) == 2
    assert [line for line in lines if "p3.png" in line] == [lines[0]] and "truncated" in lines[0]
    assert "1 of 2" not in lines[1] and "1 of 3 images could not be predicted" in lines[1]
    with (out / "predictions.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["p0", "p5"]


# --- evaluate ------------------------------------------------------------------------------------------------------


@pytest.fixture
def predictions(material, tmp_path) -> Path:
    """The truth moved by (3, 4) pixels, with one landmark of p0 not found."""
    for image_id, landmarks in material.truth.items():
        moved = LandmarkSet.of_positions(material.task, landmarks.positions_mm + (3.0, 4.0), Status.PREDICTED)
        moved = moved.with_landmark(NAMES[3], None, Status.ABSENT) if image_id == "p0" else moved
        write_markups(tmp_path / "predictions" / f"{image_id}.mrk.json", moved)
    return tmp_path / "predictions"


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
    (tmp_path / "plain.json").write_text(json.dumps(plain.to_json()))
    metrics = json.loads(ok("evaluate", predictions, material.study, "--task", tmp_path / "plain.json", "--json").out)
    assert metrics["mre_mm"] == pytest.approx(5) and metrics["sd_mm"] == pytest.approx(0, abs=1e-9)
    assert metrics["sdr"] == {"2": 0, "2.5": 0, "3": 0, "4": 0} and metrics["outliers"] == {"2": 47, "4": 47, "10": 1}


def test_evaluate_writes_a_page(material, predictions, tmp_path):
    page = tmp_path / "report.html"
    done = ok("evaluate", predictions, material.study, "--task", material.task_file, "--report", page)
    assert f"report: {page}" in done.out and "6 images: MRE" in done.out
    text = page.read_text()
    assert text.count("data:image/png") >= 3 and all(name in text for name in NAMES) and "50 mm apart" in text


# --- doctor and help -----------------------------------------------------------------------------------------------


def test_doctor():
    done = subprocess.run(command("doctor", "--json"), capture_output=True, text=True, timeout=START_S)
    report = json.loads(done.stdout)
    assert report["ok"] == all(c["ok"] for c in report["checks"]) == (done.returncode == 0), report
    assert {"python", "torch", "server", "compute", "disk"} <= {c["what"] for c in report["checks"]}
    assert all(c.keys() == {"what", "ok", "found", "mend"} for c in report["checks"])


HELP = {
    "task new": "NAME --names --from --dims --scale --out",
    "import": "STUDY --task --images --table --markups --only",
    "train": "STUDY --task --model --out --minutes --steps --device --seed --valid --resume scn:default scn:payer2019",
    "predict": "MODEL_DIR IMAGE_OR_DIR --out --device",
    "evaluate": "PREDICTIONS_DIR TRUTH_DIR --task --json --report",
    "serve": "--studies --task --models --host --port",
    "doctor": "--json",
    "demo": "--out --minutes --keep",
    "": "task import train predict evaluate serve doctor demo --version",
}


@pytest.mark.parametrize(("verb", "options"), HELP.items(), ids=[verb or "program" for verb in HELP])
def test_help_names_every_option(verb, options):
    done = run(*verb.split(), "--help")
    assert done.code == 0 and not done.err
    assert [o for o in options.split() if o not in done.out] == []


# --- mistakes ------------------------------------------------------------------------------------------------------

TRAIN = "train {study} --task {task} --model scn --out {tmp}/m"
MISTAKES = {
    "model misspelt": ("train {study} --task {task} --model snc --out {tmp}/m", "no model called 'snc'; did you mean 'scn:"),
    "preset misspelt": (
        "train {study} --task {task} --model scn:payer2018 --out {tmp}/m",
        "no model called 'scn:payer2018'; did you mean 'scn:payer201",
    ),
    "model for 2D": ("train {study} --task {task3d} --model scn:payer2016 --out {tmp}/m", "made for 2D images"),
    "no study": ("train {tmp}/none --task {task} --model scn --out {tmp}/m", "none: no such study folder"),
    "study is a file": ("import {task} --task {task} --images {images}", "cannot be a study"),
    "task unknown": (TRAIN.replace("{task}", "nosuch"), "no task called 'nosuch'"),
    "task file missing": (TRAIN.replace("{task}", "{tmp}/none.json"), "none.json: no such task file"),
    "task file of other content": (TRAIN.replace("{task}", "{other}"), "not a task file"),
    "task file is a table": (TRAIN.replace("{task}", "{table}"), "points.csv: not readable as JSON"),
    "no minutes": (TRAIN + " --minutes 0", "--minutes and --steps must be positive"),
    "minutes nan": (TRAIN + " --minutes nan", "--minutes and --steps must be positive"),
    "no steps": (TRAIN + " --steps 0", "--minutes and --steps must be positive"),
    "negative seed": (TRAIN + " --steps 1 --seed -1", "--seed -1 must be from 0"),
    "device unknown": (TRAIN + " --steps 1 --device tpu", "device 'tpu' is not known"),
    "valid unknown": (TRAIN + " --valid {ids}", "--valid names 1 images without labels in the study, first 'p77'"),
    "out is a file": (TRAIN.replace("{tmp}/m", "{table}") + " --steps 1", "points.csv"),
    "no images": ("import {tmp}/s --task {task} --images {empty}", "no images in"),
    "no image folder": ("import {tmp}/s --task {task} --images {tmp}/none", "none: no such file or folder"),
    "only unknown": ("import {tmp}/s --task {task} --images {images} --only {ids}", "for example 'p77'"),
    "no table": ("import {tmp}/s --task {task} --images {images} --table {tmp}/no.csv", "no.csv: no such file"),
    "no markups": ("import {tmp}/s --task {task} --images {images} --markups {tmp}/none", "none is not a folder"),
    "no model": ("predict {tmp}/none {images} --out {tmp}/o", "none: no trained model here"),
    "weights damaged": ("predict {damaged} {images} --out {tmp}/o", "model.safetensors"),
    "nothing to predict": ("predict {model} {empty} --out {tmp}/o", "no images in"),
    "image missing": ("predict {model} {tmp}/none.png --out {tmp}/o", "none.png: no such file or folder"),
    "predictions into a file": ("predict {model} {images} --out {table}", "points.csv"),
    "no predictions": ("evaluate {tmp}/none {study} --task {task}", "none is not a folder"),
    "nothing in common": ("evaluate {empty} {study} --task {task}", "no image of"),
    "task name": ("task new a/b --names {names} --out {tmp}/t.json", "name 'a/b' must be"),
    "names missing": ("task new a --names {tmp}/no.txt --out {tmp}/t.json", "no.txt: cannot be read as a list"),
    "name twice": ("task new a --names {twice} --out {tmp}/t.json", "landmark name 'a' appears twice"),
    "example is no markups file": ("task new a --from {other} --out {tmp}/t.json", "must end in .mrk.json"),
    "scale of no number": ("task new a --names {names} --scale a b x --out {tmp}/t.json", "'x' is not a number"),
    "scale of no landmark": ("task new a --names {names} --scale a b 5 --out {tmp}/t.json", "scale names 'a'"),
    "task into a file": ("task new a --names {names} --out {table}/t.json", "points.csv"),
    "port in use": ("serve --studies {study} --task {task} --port {port}", "cannot listen on 127.0.0.1:"),
    "no port": ("serve --studies {study} --task {task} --port 99999", "cannot listen on 127.0.0.1:99999"),
    "serve an unknown model": ("serve --studies {study} --task {task} --models scn,snc", "did you mean 'scn:"),
    "serve no model": ("serve --studies {study} --task {task} --models ,", "no model named"),
    "serve an unknown task": ("serve --studies {study} --task nosuch", "no task called 'nosuch'"),
    "serve a file": ("serve --studies {table} --task {task}", "points.csv is not a folder"),
    "demo without time": ("demo --out {tmp}/d --minutes 0", "--minutes must be positive"),
    "demo over other files": ("demo --out {images}", "is not empty and is no earlier demo"),
}
if not torch.cuda.is_available():
    MISTAKES["train without cuda"] = (TRAIN + " --steps 1 --device cuda", "no usable CUDA device")
    MISTAKES["predict without cuda"] = ("predict {model} {images} --out {tmp}/o --device cuda", "no usable CUDA device")


@pytest.fixture(scope="module")
def places(material, model, tmp_path_factory):
    """What the words in braces stand for."""
    tmp = tmp_path_factory.mktemp("mistakes")
    (tmp / "empty").mkdir()
    for name, content in {"other.json": '{"a": 1}', "ids.txt": "p77\n", "twice.txt": "a\nb\na\n"}.items():
        (tmp / name).write_text(content)
    (tmp / "3d.json").write_text(json.dumps(phantom_task(3).to_json()))
    shutil.copytree(model, tmp / "damaged")
    os.truncate(tmp / "damaged" / "model.safetensors", 1000)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield {
            **{"tmp": tmp, "study": material.study, "images": material.images, "table": material.table, "model": model},
            **{"task": material.task_file, "task3d": tmp / "3d.json", "names": material.folder / "names.txt"},
            **{"other": tmp / "other.json", "ids": tmp / "ids.txt", "twice": tmp / "twice.txt", "empty": tmp / "empty"},
            **{"damaged": tmp / "damaged", "port": listener.getsockname()[1]},
        }


@pytest.mark.parametrize(("words", "text"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_ends_with_one_line(words, text, places):
    assert text in run(*(word.format(**places) for word in words.split())).error_line


def test_a_mistake_as_a_program(material):
    words = ("import", material.folder / "s", "--task", "nosuch", "--images", material.images)
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=START_S)
    assert "nosuch" in Done(done.returncode, done.stdout, done.stderr).error_line


@pytest.mark.parametrize(
    "words",
    ["", "trian", "train s --task t --model scn", "task", "task new a --out b", "import s --task t", "doctor --jsno"]
    + ["task new a --names b --from c --out d", "task new a --names b --dims 4 --out c", "serve --studies s --task t --port x"],
)
def test_wrong_usage(words):
    done = run(*words.split())
    assert done.code == 2 and done.err.startswith("usage: landmarklabel") and "Traceback" not in done.err
