"""A task states the size of its pictures' pixels: lengths and errors are in millimetres, and the pictures stay as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from html import unescape

import numpy as np
import pandas
import pytest
import SimpleITK as sitk
from program import ok, run

import landmarklabel as ll
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.errors import ImageRejected, NotFound
from landmarklabel.io.images import Image, write_image
from landmarklabel.io.markups import write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.scale_rules import PixelSize
from landmarklabel.services.cases import load_cases
from landmarklabel.services.datastore import StudyDatastore
from landmarklabel.services.quality import StudyQuality
from landmarklabel.store.study import Study

PLACES = np.array([[10.0, 20], [70, 20], [70, 60], [30, 50]])


def write_picture(path, spacing=None):
    image = sitk.Image(100, 80, sitk.sitkUInt8)
    if spacing:
        image.SetSpacing((spacing, spacing))
    sitk.WriteImage(image, str(path))


@pytest.fixture()
def place(tmp_path):
    """Three pictures with points in pixels, and a task that says 0.2 mm a pixel."""
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\n", encoding="utf-8")
    ok("task", "new", "flat", "--names", names, "--dims", 2, "--pixel-size", 0.2, "--out", tmp_path / "task.json")
    content = json.loads((tmp_path / "task.json").read_text())
    content["measurements"] = [
        {"name": "width", "kind": "distance", "points": ["a", "b"]},
        {"name": "opening", "kind": "angle", "points": ["a", "b", "c"]},
    ]
    (tmp_path / "task.json").write_text(json.dumps(content))
    (tmp_path / "images").mkdir()
    lines = ["id,x0,y0,x1,y1,x2,y2,x3,y3"]
    for number in range(3):
        write_picture(tmp_path / "images" / f"i{number}.png")
        lines.append(f"i{number}," + ",".join(f"{v:g}" for v in (PLACES + number).ravel()))
    (tmp_path / "points.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def imported(place, *more, task="task.json", table="points.csv"):
    source = ("--images", place / "images", "--table", place / table)
    return run("import", place / "study", "--task", place / task, *source, *more)


def test_lengths_are_in_millimetres_and_the_pictures_and_points_as_they_were(place):
    assert imported(place).code == 0
    ok("measure", place / "study", "--out", place / "measured.csv")
    rows = pandas.read_csv(place / "measured.csv").set_index(["id", "measurement"])
    assert [rows.loc[("i1", m), "unit"] for m in ("width", "opening")] == ["mm", "°"]
    assert [rows.loc[("i1", m), "value"] for m in ("width", "opening")] == pytest.approx([12, 90])
    stored = json.loads((place / "study" / "labels" / "final" / "i1.mrk.json").read_text())
    assert stored["markups"][0]["controlPoints"][1]["position"][:2] == [71, 21]  # Slicer shows the picture with spacing 1
    assert (place / "study" / "i1.png").read_bytes() == (place / "images" / "i1.png").read_bytes()


def test_errors_are_in_millimetres(place):
    assert imported(place).code == 0
    task = LandmarkTask.load(place / "task.json")
    (place / "predictions").mkdir()
    for number in range(3):
        write_markups(place / "predictions" / f"i{number}.mrk.json", LandmarkSet.of_positions(task, PLACES + number + [5, 0]))
    done = ok("evaluate", place / "predictions", place / "study", "--json", "--report", place / "report.html")
    metrics = json.loads(done.out)
    assert (metrics["unit"], metrics["mre_mm"], metrics["sdr"]["2"]) == ("mm", pytest.approx(1.0), 100)
    assert "Millimetres by the task's scale rule: a pixel is 0.2 mm." in unescape(
        (place / "report.html").read_text(encoding="utf-8")
    )


def test_a_table_in_millimetres_is_noticed(place):
    rows = [line.split(",") for line in (place / "points.csv").read_text(encoding="utf-8").splitlines()]
    (place / "points.csv").replace(place / "right.csv")
    in_mm = [rows[0], *([i, *(f"{float(v) * 0.2:g}" for v in values)] for i, *values in rows[1:])]
    (place / "points.csv").write_text("\n".join(map(",".join, in_mm)) + "\n", encoding="utf-8")
    assert "all points lie" not in imported(place, "--replace", table="right.csv").err
    done = imported(place, "--replace")
    assert "all points lie near its first corner, and are taken as pixels: if they are in mm, divide them by the" in done.err
    assert "i0, i1, i2" in done.err


def test_another_scale_rule_than_the_studys_is_said(place):
    assert imported(place).code == 0
    task = LandmarkTask.load(place / "task.json")
    (place / "none.json").write_text(json.dumps(replace(task, scale=None).to_json()))
    done = ok("measure", place / "study", "--task", place / "none.json")
    assert "the scale rule of --task counts (none), not the study's own (a pixel is 0.2 mm)" in done.err
    assert "scale rule" not in ok("measure", place / "study", "--task", place / "task.json").err


def test_tables_for_geometric_morphometrics_say_the_scale(place):
    assert imported(place).code == 0
    ok("shapes", place / "study", "--out", place / "shapes")
    specimens = (place / "shapes" / "specimens.tps").read_text(encoding="utf-8").splitlines()
    assert specimens[:7] == ["LM=4", "10.000000 20.000000", *specimens[2:5], "ID=i0", "SCALE=0.2"]
    sizes = pandas.read_csv(place / "shapes" / "centroid_sizes.csv")
    size_px = np.linalg.norm(PLACES - PLACES.mean(0))
    assert set(sizes["unit"]) == {"mm"} and sizes["centroid_size"].to_list() == pytest.approx([0.2 * size_px] * 3)


def test_the_quality_of_labels_is_said_in_the_unit_of_errors(tmp_path):
    plain = phantom_task(2)
    offs = {}
    for unit, rule in (("px", None), ("mm", PixelSize(0.2))):
        study = Study(tmp_path / unit, replace(plain, scale=rule))
        for seed in range(10):
            phantom = draw_phantom(plain, seed, absent_fraction=0)
            write_image(study.folder / f"i{seed}.png", Image(phantom.geometry, phantom.pixels))
            study.save(f"i{seed}", replace(phantom.landmarks, task=study.task), author="ann", source="import")
        found = StudyQuality(study).points(1, also_checked=True)
        offs[unit] = {(row["image"], row["landmark"]): row["off"] for row in found["rows"]}
        table = StudyQuality(study).table().splitlines()
        assert found["unit"] == unit and table[1].split(",")[3:5] == [f"{found['rows'][0]['off']:g}", unit]
        study.close()
    assert offs["mm"] == {key: pytest.approx(0.2 * off, abs=1e-3) for key, off in offs["px"].items()}


def test_an_image_that_states_its_own_spacing_is_refused_by_import_and_training(place):
    write_picture(place / "images" / "i3.mha", spacing=0.3)
    for more in ((), ("--preview", place / "sheet.html")):
        done = imported(place, *more)
        assert (
            done.code == 2
            and (
                "i3: it states its own pixel spacing, and the task's scale rule is for pictures without (a pixel is 0.2 mm): "
                "use a task without that rule for it"
            )
            in done.err
        )
    assert not (place / "study" / "i3.mha").exists() and (place / "study" / "i0.png").is_file()
    write_picture(place / "study" / "i3.mha", spacing=0.3)  # put there by hand
    study = Study(place / "study", LandmarkTask.load(place / "task.json"))
    with pytest.raises(NotFound, match="i3.mha is left out: it states its own pixel spacing"):
        load_cases(study, {"i3": LandmarkSet.of_positions(study.task, PLACES * 0.3)})
    study.close()


OWN_SPACING = "it states its own pixel spacing, and the task's scale rule is for pictures without (a pixel is 0.2 mm)"


@pytest.fixture()
def in_mm(place):
    """A study of three images with a spacing, whose task has no rule, and predictions of them in a folder."""
    task = replace(LandmarkTask.load(place / "task.json"), scale=None)
    (place / "before.json").write_text(json.dumps(task.to_json()))
    (place / "predictions").mkdir()
    study = Study(place / "mm", task)
    for number in range(3):
        write_picture(place / "mm" / f"m{number}.mha", spacing=0.3)
        study.save(f"m{number}", LandmarkSet.of_positions(task, PLACES * 0.3), author="ann", source="import")
        write_markups(place / "predictions" / f"m{number}.mrk.json", LandmarkSet.of_positions(task, PLACES * 0.3))
    study.close()
    return place


def test_a_study_of_images_with_a_spacing_does_not_get_the_rule(in_mm):
    done = run("import", in_mm / "mm", "--task", in_mm / "task.json", "--images", in_mm / "images")
    assert done.code == 2 and f"m0: {OWN_SPACING}" in done.err
    assert "scale" not in ok("study", "status", in_mm / "mm").out and not (in_mm / "mm" / "i0.png").exists()
    assert "width,18.0" in ok("measure", in_mm / "mm").out  # 60 pixels of 0.3 mm, once


@pytest.mark.parametrize(
    "words",
    [
        ("measure", "predictions", "--images", "mm"),
        ("measure", "mm"),
        ("shapes", "predictions", "--images", "mm", "--out", "shapes"),
        ("evaluate", "predictions", "mm"),
        ("compare", "predictions", "predictions", "mm"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_is_in_millimetres_is_not_scaled_a_second_time(in_mm, monkeypatch, words):
    monkeypatch.chdir(in_mm)
    done = run(*words, "--task", "task.json")
    assert done.code == 2 and f"m0: {OWN_SPACING}" in done.err and not done.out


def test_an_image_with_a_spacing_is_not_taken_by_the_server_either(place, tmp_path):
    assert imported(place).code == 0
    write_picture(tmp_path / "m.mha", spacing=0.3)
    study = Study(place / "study", LandmarkTask.load(place / "task.json"))
    with pytest.raises(ImageRejected, match="m: it states its own pixel spacing"):
        StudyDatastore(study).add_image("m", str(tmp_path / "m.mha"), {})
    assert sorted(study.images()) == ["i0", "i1", "i2"]
    study.close()


def test_an_image_with_a_spacing_that_is_put_into_the_study_is_left_out_and_named(place):
    assert imported(place).code == 0
    write_picture(place / "study" / "m.mha", spacing=0.3)
    study = Study(place / "study", LandmarkTask.load(place / "task.json"))
    assert sorted(study.images()) == ["i0", "i1", "i2"]
    with pytest.raises(NotFound, match="m.mha is left out: it states its own pixel spacing"):
        study.save("m", LandmarkSet.of_positions(study.task, PLACES), author="ann")
    study.close()
    assert "m.mha is left out: it states its own pixel spacing" in run("doctor", place / "study").out
    assert "width,12.0" in ok("measure", place / "study").out


def test_a_damaged_picture_is_not_said_to_state_a_spacing(place):
    assert imported(place).code == 0
    (place / "study" / "i2.png").write_bytes(b"no picture")
    done = ok("measure", place / "study")
    assert "pixel spacing" not in done.err and "width,12.0" in done.out


def test_points_without_their_images_are_said_to_be_taken_as_pixels(place):
    done = ok("measure", place / "points.csv", "--task", place / "task.json")
    assert "the unit of 3 cases is not known (i0, i1, i2): their points are taken as pixels, and a pixel is 0.2 mm" in done.err
    assert "width,12.0" in done.out and "unit not sure" in done.out


def test_a_task_that_also_gains_a_landmark_brings_the_rule_to_no_images_with_a_spacing(in_mm):
    content = json.loads((in_mm / "task.json").read_text())
    content["landmarks"].append({"name": "e"})
    (in_mm / "more.json").write_text(json.dumps(content))
    done = run("import", in_mm / "mm", "--task", in_mm / "more.json", "--images", in_mm / "images")
    assert done.code == 2 and f"m0: {OWN_SPACING}" in done.err
    assert "4 landmarks" in ok("study", "status", in_mm / "mm").out


def test_the_truths_rule_counts_where_predictions_were_made_without(place):
    task = LandmarkTask.load(place / "task.json")
    truth = {f"i{k}": LandmarkSet.of_positions(task, PLACES + k) for k in range(3)}
    predicted = {i: replace(x, task=replace(task, scale=None), positions_mm=x.positions_mm + [5, 0]) for i, x in truth.items()}
    found = ll.evaluate(predicted, truth)
    assert (found.unit, found.mre) == ("mm", pytest.approx(1.0))
    assert found.metrics["measurements"]["width"]["mean_absolute_error"] == pytest.approx(0)


def test_a_study_takes_the_pixel_size_up_later_and_says_so(place):
    task = LandmarkTask.load(place / "task.json")
    (place / "before.json").write_text(json.dumps(replace(task, scale=None).to_json()))
    assert imported(place, task="before.json").code == 0
    assert "width,60.0" in ok("measure", place / "study").out
    done = imported(place)
    assert "the study's scale rule changes (none before, a pixel is 0.2 mm now)" in done.err
    assert "width,12.0" in ok("measure", place / "study").out


def test_a_task_is_taken_from_a_shipped_one_or_a_file_with_all_that_it_has(place):
    shipped = ok("task", "new", "ours", "--from", "cephalogram", "--pixel-size", 0.1, "--out", place / "ours.json")
    ours = LandmarkTask.load(place / "ours.json")
    assert "with 19 landmarks in 2D; scale: a pixel is 0.1 mm" in shipped.out
    assert "scale: a pixel is 0.1 mm" in ok("task", "show", place / "ours.json").out
    ok("task", "new", "finer", "--from", place / "ours.json", "--pixel-size", 0.05, "--out", place / "finer.json")
    finer = LandmarkTask.load(place / "finer.json")
    assert replace(finer, name="ours", scale=ours.scale) == ours and ours.measurements
    wrong = run("task", "new", "x", "--from", "cephalogramme", "--out", place / "x.json")
    assert wrong.code == 2 and "no task called 'cephalogramme'" in wrong.err
    for size, said in ((0, "must be a positive number"), ("wide", "argument --pixel-size: invalid float value: 'wide'")):
        done = run("task", "new", "x", "--from", "cephalogram", "--pixel-size", size, "--out", place / "x.json")
        assert done.code == 2 and said in done.err and not (place / "x.json").exists()
