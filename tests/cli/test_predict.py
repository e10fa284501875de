"""``predict`` into a folder that is there: the image counts, not its name and times; nothing of a person's is written over."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from program import IDS, START_S, command, ok, run

from landmarklabel.inference.model_folder import load_model
from landmarklabel.io.images import read_image, write_image
from landmarklabel.io.markups import read_markups, write_markups


@pytest.fixture
def images(material, tmp_path) -> Path:
    """Three of the phantoms, to be changed by a test."""
    (tmp_path / "images").mkdir()
    for image_id in IDS[:3]:
        shutil.copy(material.images / f"{image_id}.png", tmp_path / "images")
    return tmp_path / "images"


def contents(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if p.name != ".predictions.jsonl"}


def times(out: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in out.glob("*.mrk.json")}


def assert_table_says_what_the_files_say(out: Path, task, ids=IDS[:3]) -> None:
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(ids)
    for row in rows:
        landmarks = read_markups(out / f"{row['id']}.mrk.json", task)
        for name, position, status in zip(task.names, landmarks.positions_mm, landmarks.status, strict=True):
            cells = [row[f"{name}_{axis}"] for axis in "xy"]
            assert row[f"{name}_status"] == status.value
            assert [float(c or "nan") for c in cells] == pytest.approx(position.tolist(), abs=5e-4, nan_ok=True)


def test_another_image_of_the_same_name_and_time_is_predicted_anew(material, model, images, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    ok("predict", model, images, "--out", out)
    before, target = contents(out), images / "p1.png"
    stamp = target.stat()
    shutil.copy(material.images / "p4.png", target)
    os.utime(target, ns=(stamp.st_atime_ns, stamp.st_mtime_ns - 10**12))  # older than its prediction
    ok("predict", model, images, "--out", out)
    ok("predict", model, images, "--out", fresh)
    assert contents(out) == contents(fresh)
    changed = {name for name, content in contents(out).items() if content != before[name]}
    assert changed == {"p1.mrk.json", "predictions.csv", "predictions_long.csv"}
    assert_table_says_what_the_files_say(out, material.task)


def test_one_changed_pixel_counts_and_another_compression_does_not(material, model, images, tmp_path):
    out = tmp_path / "out"
    ok("predict", model, images, "--out", out)
    before = times(out)
    pixels = np.array(PIL.Image.open(images / "p0.png"))
    PIL.Image.fromarray(pixels).save(images / "p0.png", compress_level=1)
    write_image(images / "p1.nii.gz", read_image(images / "p1.png"))
    (images / "p1.png").unlink()
    pixels = np.array(PIL.Image.open(images / "p2.png"))
    pixels[0, 0] ^= 1
    PIL.Image.fromarray(pixels).save(images / "p2.png")
    ok("predict", model, images, "--out", out)
    assert {name for name, at in times(out).items() if at != before[name]} == {"p2.mrk.json"}


def test_what_a_person_changed_is_kept_and_said(material, model, other_model, images, tmp_path):
    out = tmp_path / "out"
    ok("predict", model, images, "--out", out)
    moved = read_markups(out / "p1.mrk.json", material.task).with_landmark(material.task.names[0], (5, 6))
    write_markups(out / "p1.mrk.json", moved)
    content = (out / "p1.mrk.json").read_bytes()
    for which in (model, other_model):
        done = ok("predict", which, images, "--out", out)
        said = [line for line in done.err.splitlines() if not line.startswith("predict: ")]  # of a busy computer
        *cautions, kept = [line for line in said if "look at these" not in line]
        assert kept == f"landmarklabel: {out}/p1.mrk.json kept: changed by hand since"
        assert len(cautions) == 2 and all("kept" not in text for text in cautions)
        assert (out / "p1.mrk.json").read_bytes() == content
        assert_table_says_what_the_files_say(out, material.task)
    shutil.copy(material.images / "p4.png", images / "p1.png")
    done = run("predict", model, images, "--out", out)
    assert done.code == 2 and (out / "p1.mrk.json").read_bytes() == content
    assert "p1.mrk.json is of another image and was changed by hand since; move it away to predict this one" in done.err
    assert_table_says_what_the_files_say(out, material.task, ["p0", "p2"])


def test_files_that_predict_did_not_write_are_refused_by_name(material, model, images, tmp_path):
    out = tmp_path / "out"
    write_markups(out / "p1.mrk.json", material.truth["p1"])
    content = (out / "p1.mrk.json").read_bytes()
    done = run("predict", model, images, "--out", out)
    assert done.code == 2 and (out / "p1.mrk.json").read_bytes() == content
    assert f"{out}/p1.mrk.json was not written by predict and is left alone; move it away, or give another --out" in done.err
    assert "1 of 3 images could not be predicted" in done.err
    assert_table_says_what_the_files_say(out, material.task, ["p0", "p2"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "predictions.csv").write_text("id,mine\n", encoding="utf-8")
    assert "predictions.csv was not written by predict" in run("predict", model, images, "--out", tmp_path / "other").error_line
    assert [p.name for p in (tmp_path / "other").glob("*.mrk.json")] == []


@pytest.mark.parametrize("table", ["predictions.csv", "predictions_long.csv"])
def test_a_table_that_a_person_changed_is_said_before_anything_is_predicted(material, model, images, tmp_path, table):
    out = tmp_path / "out"
    ok("predict", model, images / "p0.png", "--out", out)
    (out / table).write_text((out / table).read_text(encoding="utf-8") + "mine\n", encoding="utf-8")
    assert (
        f"{table} was changed since predict wrote it and is left alone" in run("predict", model, images, "--out", out).error_line
    )
    assert sorted(times(out)) == ["p0.mrk.json"] and (out / table).read_text(encoding="utf-8").endswith("mine\n")


def test_the_labels_of_a_study_are_no_place_for_predictions(material, model, images):
    before = contents(material.study / "labels" / "final")
    for place in ("labels", "labels/final", "labels/predicted"):
        line = run("predict", model, images, "--out", material.study / place).error_line
        assert "is inside the labels folder of a study, which is for labels; give another folder" in line
    assert contents(material.study / "labels" / "final") == before and not (material.study / "labels" / "predicted").exists()


def test_an_image_that_can_no_longer_be_read_says_what_stays(material, model, images, tmp_path):
    out = tmp_path / "out"
    ok("predict", model, images, "--out", out)
    (images / "p1.png").write_bytes(b"damaged")
    done = run("predict", model, images, "--out", out)
    assert done.code == 2 and "wrong magic" in done.err
    assert f"(its earlier prediction stays in {out}/p1.mrk.json)" in done.err
    assert "predictions.csv has no row for images that could not be predicted now" in done.err
    assert_table_says_what_the_files_say(out, material.task, ["p0", "p2"])


def test_a_call_in_which_nothing_could_be_predicted_leaves_the_table(material, model, images, tmp_path):
    out = tmp_path / "out"
    ok("predict", model, images, "--out", out)
    before = contents(out)
    for name in ("p0", "p1", "p2"):
        (images / f"{name}.png").write_bytes(b"damaged")
    done = run("predict", model, images, "--out", out)
    assert done.code == 2 and "no image could be predicted: predictions.csv, if there was one, stays as it was" in done.err
    assert contents(out) == before


def test_predictions_among_the_images_are_mentioned(model, images):
    done = ok("predict", model, images, "--out", images)
    says = f"landmarklabel: {images}: what is predicted lies among the images: an import of that folder will name it as left out"
    assert says in done.err.splitlines() and (images / "p0.mrk.json").is_file()


def test_an_image_whose_name_is_no_id_does_not_stop_the_others(material, model, images, tmp_path):
    shutil.copy(images / "p0.png", images / "=1+1.png")
    done = run("predict", model, images, "--out", tmp_path / "out")
    assert done.code == 2 and "image id '=1+1' is not allowed" in done.err
    assert_table_says_what_the_files_say(tmp_path / "out", material.task)


def test_a_folder_of_an_earlier_version_is_predicted_anew(material, model, images, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    ok("predict", model, images, "--out", fresh)
    shutil.copytree(fresh, out)
    for newer in (".predictions.jsonl", "predictions_long.csv"):
        (out / newer).unlink()
    shutil.copy(out / "p0.mrk.json", out / "p2.mrk.json")  # the fault: another image's landmarks
    sha256 = json.loads((model / "model.json").read_text(encoding="utf-8"))["weights_sha256"]
    (out / ".model.json").write_text(json.dumps({"weights_sha256": sha256}), encoding="utf-8")
    ok("predict", model, images, "--out", out)
    assert contents(out) == contents(fresh)


def test_killed_in_the_middle_and_called_again_gives_the_same(material, model, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    ok("predict", model, material.images, "--out", whole)
    words = ("predict", model, material.images, "--out", out, "--device", "cpu")
    for noted in (1, 3):
        process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        notes = out / ".predictions.jsonl"
        while not (notes.exists() and notes.read_bytes().count(b"\n") >= noted):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.wait()
        assert not (out / "predictions.csv").exists()
    before = times(out)
    ok(*words)
    assert contents(out) == contents(whole)
    kept = [name for name, at in before.items() if times(out)[name] == at]
    assert len(kept) == len(before)  # nothing was done twice


@pytest.fixture(scope="module")
def predicted(material, model):
    """The predictions of all images, and a study in which one picture has been replaced since."""
    out, study = material.folder / "predicted", material.folder / "replaced"
    ok("predict", model, material.images, "--out", out)
    shutil.copytree(material.study, study)
    shutil.copyfile(study / f"{IDS[1]}.png", study / f"{IDS[0]}.png")
    left_out = f"landmarklabel: {IDS[0]}: the image was changed since it was labelled, and is left out until"
    for words in (
        ("evaluate", out, study, "--include-training"),
        ("shapes", study, "--out", study / "shapes"),
    ):
        assert left_out in run(*words).err, words
    ok("study", "keep-labels", study, IDS[0], "--yes")
    return out, study


def test_evaluate_and_compare_name_pictures_that_were_exchanged(material, predicted):
    out, study = predicted
    said = f"1 images are not the ones that were predicted: their pixels are others, so their figures mean nothing: {IDS[0]}\n"
    assert f"landmarklabel: {said}" in run("evaluate", out, study, "--include-training").err
    done = run("compare", out, out, study, "--include-training", "--json")
    assert f"landmarklabel: A: {said}" in done.err and f"landmarklabel: B: {said}" in done.err and done.code == 0


def test_of_the_pictures_that_were_predicted_nothing_is_said(material, predicted):
    out, _ = predicted
    assert "predicted: their pixels" not in run("evaluate", out, material.study, "--include-training").err
    done = run("evaluate", out, material.table, *material.source, "--include-training")
    assert done.code == 0 and "their pixels" not in done.err


def test_what_contradicts_its_image_is_said_also_of_what_was_predicted_before(material, model, images, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, np.asarray(PIL.Image.open(images / "p1.png")).shape)
    PIL.Image.fromarray(noise.astype(np.uint8)).save(images / "noise.png")
    localizer = load_model(model)
    told = {}
    for path in sorted(images.iterdir()):
        flagged = localizer.propose(read_image(path, 2)).flagged
        told[path.stem] = [name for name, is_flagged in zip(material.task.names, flagged, strict=True) if is_flagged]
    assert told["noise"]
    for _ in range(2):
        done = run("predict", model, images, "--out", tmp_path / "out")
        (line,) = [line for line in done.err.splitlines() if "whose points contradict the others of their image" in line]
        assert [i for i, names in told.items() if f"{i} ({', '.join(names)})" in line] == [i for i in told if told[i]]
        assert [i for i in told if f"{i} (" in line] == [i for i in told if told[i]]
