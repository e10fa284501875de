"""Whose points count as a reading of an image, and what tables and imports say of points that are not there."""

from __future__ import annotations

import numpy as np
import pandas
import SimpleITK as sitk
from measured_task import NAMES, a_task
from program import run

from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.services.label_folders import read_readers
from landmarklabel.store.study import Study
from landmarklabel.store.study_changes import keep_labels


def picture(path, value=0):
    image = sitk.Image(80, 60, sitk.sitkUInt8) + value
    sitk.WriteImage(image, str(path))


def test_what_was_read_on_another_image_is_no_reading_of_the_one_in_its_place(tmp_path):
    task, study = a_task(2), Study(tmp_path / "study", a_task(2))
    for image_id in ("i", "kept"):
        picture(tmp_path / "study" / f"{image_id}.png")
        study.save(image_id, LandmarkSet.of_positions(task, np.ones((3, 2))), author="ann")
        study.save_repeat(image_id, LandmarkSet.of_positions(task, np.full((3, 2), 2)), author="bob")
        picture(tmp_path / "study" / f"{image_id}.png", 9)
    study.verify()
    study.save("i", LandmarkSet.of_positions(task, np.full((3, 2), 40)), author="ann")
    keep_labels(study, "kept", author="ann")
    study.close()
    read = read_readers(tmp_path / "study", task, {})
    assert {who: sorted(sets) for who, sets in read.items()} == {"ann": ["i", "kept"], "bob": ["kept"]}
    assert read["ann"]["i"].positions_mm[0, 0] == 40 and read["bob"]["kept"].positions_mm[0, 0] == 2


def test_a_command_that_reads_leaves_the_studys_task_as_it_is(tmp_path):
    task, study = a_task(2), Study(tmp_path / "study", a_task(2))
    picture(tmp_path / "study" / "i.png")
    study.save("i", LandmarkSet.of_positions(task, np.eye(3, 2) * 40), author="ann")
    study.save_repeat("i", LandmarkSet.of_positions(task, np.eye(3, 2) * 41), author="bob")
    before = (tmp_path / "study" / ".landmarklabel" / "study.json").read_bytes()
    write_json(tmp_path / "other.json", task.to_json() | {"scale": {"mm_per_pixel": 0.5}})
    words = (tmp_path / "study", "--task", tmp_path / "other.json")
    done = run("measure", *words, "--readers")
    run("shapes", *words, "--out", tmp_path / "shapes")
    assert done.code == 0 and (tmp_path / "study" / ".landmarklabel" / "study.json").read_bytes() == before
    assert study.save("i", LandmarkSet.of_positions(task, np.eye(3, 2) * 42), author="ann").number == 2
    assert "length,mm,ann,bob,1," in done.out  # by the rule that was given
    study.close()


def test_readings_of_a_label_from_before_pixels_were_noted_count(tmp_path):
    task, study = a_task(2), Study(tmp_path / "study", a_task(2))
    picture(tmp_path / "study" / "i.png")
    head = study.save("i", LandmarkSet.of_positions(task, np.ones((3, 2))), author="ann")
    study.revisions.save("i", {k: v for k, v in head.body.items() if k != "pixels"}, author="ann")  # as earlier versions did
    study.save_repeat("i", LandmarkSet.of_positions(task, np.full((3, 2), 2)), author="bob")
    study.close()
    assert sorted(read_readers(tmp_path / "study", task, {})) == ["ann", "bob"]


def test_rows_of_a_table_that_a_model_predicted_are_nobodys_reading(tmp_path):
    rows = ["id,label,x,y,annotator,status"]
    for who, status in (("ann", "placed"), ("model", "predicted")):
        rows += [f"i,{name},{k},2,{who},{status}" for k, name in enumerate(NAMES)]
    (tmp_path / "t.csv").write_text("\n".join([*rows, "j,a,1,2,,placed"]) + "\n", encoding="utf-8")
    assert {who: sorted(sets) for who, sets in read_readers(tmp_path / "t.csv", a_task(2), {}).items()} == {
        "ann": ["i"],
        "nobody named": ["j"],
    }


def test_a_reader_with_the_name_of_the_mean_is_refused_where_both_are_kept_and_one_without_a_name_is_kept(tmp_path):
    write_json(tmp_path / "task.json", a_task(2).to_json())
    (tmp_path / "images").mkdir()
    picture(tmp_path / "images" / "i.png")
    for number, name in enumerate(("import", "")):
        rows = [
            f"i,{label},{k * 9 + shift},{5 * k},{who}" for who, shift in (("ann", 1), (name, 2)) for k, label in enumerate(NAMES)
        ]
        (tmp_path / f"{number}.csv").write_text("\n".join(["id,label,x,y,annotator", *rows]) + "\n", encoding="utf-8")
    words = [
        "import",
        tmp_path / "study",
        "--task",
        tmp_path / "task.json",
        "--images",
        tmp_path / "images",
        "--annotators",
        "both",
    ]
    refused = run(*words, "--table", tmp_path / "0.csv")
    assert refused.code == 2 and "has a reader called 'import', as the mean of the readers is called here" in refused.err
    assert run(*words, "--table", tmp_path / "1.csv").code == 0
    assert sorted(read_readers(tmp_path / "study", a_task(2), {})) == ["ann", "nobody named"]


def test_tables_do_not_call_mm_what_nobody_knows_to_be(tmp_path):
    write_json(tmp_path / "task.json", a_task(2).to_json())
    rng = np.random.default_rng(0)
    rows = [
        f"i{i},{label},{x},{y},{who}"
        for i in range(4)
        for who in ("ann", "bob")
        for label, (x, y) in zip(NAMES, rng.normal(size=(3, 2)) + [[0, 0], [40, 0], [40, 30]], strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["id,label,x,y,annotator", *rows]) + "\n", encoding="utf-8")
    words = [tmp_path / "t.csv", "--task", tmp_path / "task.json"]
    assert run("measure", *words, "--readers", "--out", tmp_path / "agreement.csv").code == 0
    assert list(pandas.read_csv(tmp_path / "agreement.csv")["unit"]) == ["mm or px", "°"]
    assert run("shapes", *words, "--out", tmp_path / "shapes").code == 0
    for name in ("centroid_sizes.csv", "repeatability.csv"):
        assert set(pandas.read_csv(tmp_path / "shapes" / name)["unit"]) == {"mm or px"}


def test_import_says_of_which_landmarks_its_labels_say_nothing(tmp_path):
    write_json(tmp_path / "task.json", a_task(2).to_json())
    (tmp_path / "images").mkdir()
    for image_id in "ijk":
        picture(tmp_path / "images" / f"{image_id}.png", ord(image_id))
    rows = ["id,label,x,y", "i,a,1,2", "i,b,absent,absent", "j,a,3,4", "j,b,5,6", "j,c,7,8"]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    words = ["--task", tmp_path / "task.json", "--images", tmp_path / "images", "--table", tmp_path / "t.csv"]
    done = run("import", tmp_path / "study", *words)
    assert done.code == 0 and "left unset, as the labels say nothing of them: 'c' in 1 case" in done.err
    (tmp_path / "t.csv").write_text("\n".join(rows[:2] + rows[3:4]) + "\n", encoding="utf-8")  # of j's three points, one
    done = run("import", tmp_path / "study", *words)
    assert "left unset, as the labels say nothing of them: 'c' in 1 case" in done.err
    assert "no longer labelled, as the labels say nothing of them: 'b' in 2 cases, 'c' in 1 case; earlier revisions" in done.err


def test_two_readers_without_all_points_of_any_measurement_are_told_from_none(tmp_path):
    write_json(tmp_path / "task.json", a_task(2).to_json())
    rows = ["id,label,x,y,annotator", *(f"i,c,{k},2,{who}" for k, who in enumerate(("ann", "bob")))]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    done = run("measure", tmp_path / "t.csv", "--task", tmp_path / "task.json", "--readers")
    assert done.code == 2 and "two people have read 1 case, none with all points of a measurement" in done.err


def test_shapes_names_the_specimens_without_the_landmarks_of_the_scale(tmp_path):
    content = a_task(2).to_json() | {"scale": {"from": "a", "to": "b", "mm": 50}}
    write_json(tmp_path / "task.json", content)
    rows = ["id,x0,y0,x1,y1,x2,y2", "whole,0,0,40,0,40,30", "other,0,0,41,0,40,31", "lacks,,,40,0,40,30"]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    done = run("shapes", tmp_path / "t.csv", "--task", tmp_path / "task.json", "--out", tmp_path / "shapes")
    assert done.code == 0 and "no size in mm, which takes 'a' and 'b' at two places: 1 specimen (lacks)" in done.err
