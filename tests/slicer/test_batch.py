"""Batches into a folder: read back by Slicer's MRML and by pandas."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import slicer
from batch_material import NAMES, POINTS, TASK, Counting, Fake, files_below, in_slicer, put, ras
from LandmarkLabelLib import batch_folder as batch
from LandmarkLabelLib.batch import images_in, predict_files
from LandmarkLabelLib.batch_folder import COLUMNS, markups_text, safe_name
from LandmarkLabelLib.client import Client, Refused, Unreachable
from LandmarkLabelLib.wire import ACCEPTED, PLACED, PREDICTED, Point, WireError
from serving import serving

from landmarklabel.io.markups import read_markups


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("LandmarkLabelLib.batch.AGAIN_AFTER_S", 0.0)


# --- a real server ---------------------------------------------------------------------------------------------------


def test_a_batch_that_was_stopped_goes_on_and_asks_for_nothing_twice(server, material, scene, tmp_path):
    client = Counting(server.url)
    task = client.task()
    files = [(i, material.image(i)) for i in sorted(material.truth)[:4]]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    files.insert(1, ("broken", broken))
    out, seen = tmp_path / "out", []

    def step(done: int, total: int, name: str) -> None:
        seen.append((done, total, name))
        assert (out / "phantom00.mrk.json").exists() == (done > 0)  # a result is there at once

    two = predict_files(client, "scn", task, files, out, step, lambda: len(client.asked) == 2)
    assert two.stopped and two.left == ["phantom01", "phantom02", "phantom03"] and two.predicted == ["phantom00"]
    assert seen == [(0, 5, "phantom00"), (1, 5, "broken")] and client.asked == ["phantom00.png", "broken.png"]
    assert set(pandas.read_csv(out / "predictions.csv")["image"]) == {"phantom00"}
    client.asked.clear()
    rest = predict_files(client, "scn", task, files, out)
    assert client.asked == ["broken.png", "phantom01.png", "phantom02.png", "phantom03.png"]
    assert (rest.kept, rest.predicted) == (["phantom00"], ["phantom01", "phantom02", "phantom03"]) and not rest.stopped
    assert rest.template == ["phantom00", "phantom01", "phantom02", "phantom03"]  # five labelled cases and no training
    client.asked.clear()
    predict_files(client, "scn", task, files[:1], out)
    assert client.asked == [] and len(pandas.read_csv(out / "failures.csv")) == 0

    table = pandas.read_csv(out / "predictions.csv")
    assert tuple(table.columns) == COLUMNS and len(table) == 4 * len(task.names)
    assert set(table["status"]) == {"predicted"} and set(table["unit"]) <= {"mm", "px"} and table["flagged"].dtype == bool
    for image_id, path in files[:1] + files[2:]:
        answer = server.http("POST", "/infer/scn?output=json", files={"file": ("a.png", path.read_bytes())}).json()["landmarks"]
        said = np.array([[*row["position"], 0.0][:3] for row in answer])
        assert [row["name"] for row in answer] == list(task.names)
        rows = table[table["image"] == image_id]
        assert list(rows["landmark"]) == list(task.names)
        np.testing.assert_allclose(rows[["x", "y", "z"]].to_numpy(), said, atol=6e-4)
        node = in_slicer(scene, out / f"{image_id}.mrk.json")
        np.testing.assert_allclose([ras(node, i) for i in range(len(said))], said * (-1, -1, 1), atol=1e-9)
        back = read_markups(out / f"{image_id}.mrk.json", material.task)
        np.testing.assert_allclose(back.positions_mm, said[:, :2], atol=1e-9)
        assert {s.value for s in back.status} == {"predicted"}


def test_a_broken_image_is_said_and_the_others_are_predicted(server, material, tmp_path):
    client = Client(server.url)
    broken, text = tmp_path / "Erika Mustermann.png", tmp_path / "notes.txt"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    text.write_text("no image")
    files = [("broken", broken), ("notes", text), ("gone", tmp_path / "gone.png"), ("good", material.image("phantom05"))]
    summary = predict_files(client, "scn", client.task(), files, tmp_path / "out")
    assert summary.predicted == ["good"] and not summary.ended_by
    reasons = dict(summary.failed)
    assert reasons["broken"].startswith("image.png: truncated: the PNG data does not end with its end marker")
    assert "Erika" not in reasons["broken"]  # the file's own name was not sent
    assert reasons["notes"].startswith("the uploaded file is no image: allowed are .nii.gz")
    assert reasons["gone"] == "the file cannot be read (No such file or directory)"
    table = pandas.read_csv(tmp_path / "out" / "failures.csv")
    assert list(table["image"]) == ["broken", "notes", "gone"] and list(table["reason"]) == list(reasons.values())
    assert list(table["file"]) == [str(broken), str(text), str(tmp_path / "gone.png")]


def test_a_server_that_dies_in_the_middle_is_said_and_a_new_one_is_asked_for_the_rest(server, material, tmp_path):
    """``server`` lives on; the one that dies serves a copy of the study."""
    files = [(i, material.image(i)) for i in sorted(material.truth)[:4]]
    out = tmp_path / "out"
    with serving(material_of_its_own(material, tmp_path)) as mortal:
        client = Counting(mortal.url)
        task = client.task()

        def kill_before_the_third(done: int, total: int, name: str) -> None:
            if done == 2:
                mortal.process.kill()
                mortal.process.wait()

        summary = predict_files(client, "scn", task, files, out, kill_before_the_third)
    gone = f"{client.url} does not answer (ConnectionError)"
    assert summary.predicted == ["phantom00", "phantom01"] and summary.ended_by == gone and not summary.stopped
    assert summary.failed == [("phantom02", f"{gone} (tried twice)"), ("phantom03", f"not asked for: {gone}")]
    assert client.asked == ["phantom00.png", "phantom01.png", "phantom02.png", "phantom02.png"]
    assert list(pandas.read_csv(out / "failures.csv")["image"]) == ["phantom02", "phantom03"]
    assert len(pandas.read_csv(out / "predictions.csv")) == 2 * len(task.names)
    with pytest.raises(Unreachable):
        predict_files(client, "scn", task, files, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    again = Counting(server.url)
    assert again.info()["models"]["scn"]["version"] == 0
    assert predict_files(again, "scn", task, files, out).failed == []
    assert again.asked == ["phantom02.png", "phantom03.png"]


def material_of_its_own(material, folder: Path):
    """The same study with its labels in another place."""
    study = folder / "served" / "study"
    shutil.copytree(material.study, study, ignore=shutil.ignore_patterns("server-*.log"))
    return replace(material, study=study)


def test_an_unknown_model_is_refused_before_the_first_file(server, tmp_path):
    client = Client(server.url)
    with pytest.raises(Refused, match=r"^the server has no model 'nothere'$"):
        predict_files(client, "nothere", client.task(), put(tmp_path, "a"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- what stays and what is asked again ------------------------------------------------------------------------------


def test_a_changed_image_and_a_new_version_are_asked_for_again(tmp_path):
    files, out, client = put(tmp_path / "in", "a", "b"), tmp_path / "out", Fake()
    predict_files(client, "scn", TASK, files, out)
    files[0][1].write_bytes(b"other")
    assert predict_files(client, "scn", TASK, files, out).predicted == ["a"]
    os.utime(files[1][1], ns=(5, 5))
    assert predict_files(client, "scn", TASK, files, out).predicted == ["b"]
    (out / "a.mrk.json").unlink()
    assert predict_files(client, "scn", TASK, files, out).predicted == ["a"]
    client.version = 4
    assert predict_files(client, "scn", TASK, files, out).predicted == ["a", "b"]
    assert predict_files(client, "scn", TASK, files, out).kept == ["a", "b"]
    assert files_below(out) == {"a.mrk.json", "b.mrk.json", "batch.json", "predictions.csv", "failures.csv"}
    notes = json.loads((out / "batch.json").read_text())["cases"]["a"]
    assert (notes["model"], notes["version"], notes["size"]) == ("scn", 4, 5)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_kill_around_the_writing_of_a_result_leaves_nothing_that_looks_like_a_persons(tmp_path, monkeypatch, is_there):
    files, out, client = put(tmp_path / "in", "a", "b"), tmp_path / "out", Fake()
    predict_files(client, "scn", TASK, files[:1], out)
    client.version, real = 4, batch.write_file

    def killed(path: Path, text: str) -> None:
        if is_there or not path.name.endswith(".mrk.json"):
            real(path, text)
        if path.name.endswith(".mrk.json"):
            raise KeyboardInterrupt

    monkeypatch.setattr(batch, "write_file", killed)
    for some in (files[:1], files[1:]):  # one with an earlier result, and one without
        with pytest.raises(KeyboardInterrupt):
            predict_files(client, "scn", TASK, some, out)
    monkeypatch.setattr(batch, "write_file", real)
    rows = len(pandas.read_csv(out / "predictions.csv"))
    assert rows == (2 * len(NAMES) if is_there else 0)  # the earlier version's result is not this one's
    summary = predict_files(client, "scn", TASK, files, out)
    assert (summary.kept if is_there else summary.predicted) == ["a", "b"]


def test_what_a_person_changed_is_in_the_table_and_never_written_over(tmp_path, scene):
    files, out, client = put(tmp_path / "in", "a"), tmp_path / "out", Fake()
    predict_files(client, "scn", TASK, files, out)
    node = in_slicer(scene, out / "a.mrk.json")
    node.SetNthControlPointPositionWorld(2, 10, 20, 30)
    node.SetNthControlPointDescription(2, "placed")
    storage = scene.AddNode(slicer.vtkMRMLMarkupsJsonStorageNode())
    storage.SetFileName(str(out / "a.mrk.json"))
    assert storage.WriteData(node) == 1
    by_hand = (out / "a.mrk.json").read_bytes()
    assert predict_files(client, "scn", TASK, files, out).kept == ["a"]
    row = pandas.read_csv(out / "predictions.csv").set_index("landmark").loc["menton"]
    assert (row["status"], row["x"], row["y"], row["z"]) == ("placed", -10, -20, 30)
    files[0][1].write_bytes(b"another image")
    assert predict_files(client, "scn", TASK, files, out).predicted == ["a_2"]
    assert predict_files(client, "scn", TASK, files, out).kept == ["a_2"]
    assert (out / "a.mrk.json").read_bytes() == by_hand
    (out / "a_2.mrk.json").write_text("{", encoding="utf-8")
    summary = predict_files(client, "scn", TASK, files, out)
    said = f"{out / 'a_2.mrk.json'} was changed by hand and cannot be read (JSONDecodeError("
    assert len(summary.failed) == 1 and summary.failed[0][1].startswith(said)


def test_a_result_that_is_there_is_found_when_one_before_it_was_deleted(tmp_path):
    files, out, client = put(tmp_path / "in", "a"), tmp_path / "out", Fake()
    predict_files(client, "scn", TASK, files, out)
    (out / "a.mrk.json").write_text(markups_text(POINTS[:1]), encoding="utf-8")
    client.version = 4
    assert predict_files(client, "scn", TASK, files, out).predicted == ["a_2"]
    (out / "a.mrk.json").unlink()
    assert predict_files(client, "scn", TASK, files, out).kept == ["a_2"]


def test_a_file_that_was_saved_again_in_ras_is_in_the_table_in_lps(tmp_path):
    files, out, client = put(tmp_path / "in", "a"), tmp_path / "out", Fake()
    predict_files(client, "scn", TASK, files, out)
    text = markups_text([Point("nasion", ACCEPTED, (1.0, 2.0, 3.0))], errors=False).replace('"LPS"', '"RAS"')
    (out / "a.mrk.json").write_text(text.replace('"description": "accepted"', '"description": "mine"'), encoding="utf-8")
    assert predict_files(client, "scn", TASK, files, out).kept == ["a"]
    table = pandas.read_csv(out / "predictions.csv")
    assert list(table["status"]) == ["accepted", "unset", "unset", "unset"]
    assert list(table[["x", "y", "z"]].iloc[0]) == [-1, -2, 3] and not table["flagged"].any()


def test_a_file_of_somebody_else_keeps_its_name(tmp_path):
    files, out = put(tmp_path / "in", "a"), tmp_path / "out"
    out.mkdir()
    (out / "a.mrk.json").write_text("mine", encoding="utf-8")
    assert predict_files(Fake(), "scn", TASK, files, out).predicted == ["a_2"]
    assert (out / "a.mrk.json").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("predictions.csv", "id\n", "has a predictions.csv of something else: choose another folder"),
        ("failures.csv", "", "has a failures.csv of something else: choose another folder"),
        ("batch.json", "{}", "batch.json is not as a batch leaves it: choose another folder"),
        ("batch.json", '{"made_by": "LandmarkLabel batch 1"', "batch.json is not as a batch leaves it: choose another folder"),
        (
            "batch.json",
            '{"made_by": "LandmarkLabel batch 1", "landmarks": [], "cases": {"../x": {}}}',
            "batch.json is not as a batch leaves it: choose another folder",
        ),
        (
            "batch.json",
            '{"made_by": "LandmarkLabel batch 1", "landmarks": ["a"], "cases": {}}',
            "has results of other landmarks: choose another folder",
        ),
    ],
)
def test_a_folder_in_use_for_something_else_is_refused(tmp_path, name, content, text):
    out, client = tmp_path / "out", Fake()
    out.mkdir()
    (out / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(text) + "$"):
        predict_files(client, "scn", TASK, put(tmp_path / "in", "a"), out)
    assert client.asked == [] and files_below(out) == {name} and (out / name).read_text(encoding="utf-8") == content


# --- names -----------------------------------------------------------------------------------------------------------


def test_files_of_one_name_keep_their_results_in_whatever_order_they_come(tmp_path):
    first, second = put(tmp_path / "one", "a")[0], put(tmp_path / "two", "a")[0]
    upper, out = put(tmp_path / "three", "A")[0], tmp_path / "out"
    client = Fake(A=[Point("nasion", PREDICTED, (9.0, 9.0, 9.0)), *POINTS[1:]])
    assert predict_files(client, "scn", TASK, [first, second, upper, first], out).predicted == ["a", "a_2", "A_3"]
    for files, kept in (([second, upper, first], ["a_2", "A_3", "a"]), ([second], ["a_2"])):
        assert predict_files(client, "scn", TASK, files, out).kept == kept
    assert len(client.asked) == 3
    notes = json.loads((out / "batch.json").read_text())["cases"]
    assert [notes[n]["file"] for n in ("a", "a_2", "A_3")] == [str(p) for _, p in (first, second, upper)]
    table = pandas.read_csv(out / "predictions.csv")
    assert predict_files(client, "scn", TASK, put(tmp_path / "four", "A_2"), out).predicted == [
        "A_2_2"
    ]  # one file on some systems
    assert list(table["image"].unique()) == ["a", "a_2", "A_3"] and table[table["image"] == "A_3"]["x"].iloc[0] == 9


def test_a_volume_sent_again_through_another_temporary_file_has_its_result_replaced(tmp_path):
    out, client = tmp_path / "out", Fake()
    for place in ("x", "y"):
        files = put(tmp_path / place, "CT")
        assert predict_files(client, "scn", TASK, files, out).predicted == ["CT"]
        files[0][1].unlink()
    (out / "CT.mrk.json").write_text(markups_text([Point("nasion", PLACED, (1.0, 2.0, 3.0))]), encoding="utf-8")
    assert predict_files(client, "scn", TASK, put(tmp_path / "z", "CT"), out).predicted == ["CT_2"]  # a person changed it


HOSTILE = {
    "../../outside": "_",
    "/etc/passwd": "_",
    "..": "_",
    "": "_",
    "a/b\\c:d": "a_b_c_d",
    ".hidden": "hidden",
    "CON": "_CON",
    "nul.x": "_nul.x",
    "-rf": "_-rf",
    "=1+1": "_=1+1",
    "x\0y\nz": "x_y_z",
    "\udcff": "_",
    "trailing. ": "trailing",
    "schädel (2)": "schädel (2)",
    "a" * 500: "a" * 180,
    "é" * 500: "é" * 90,
}


def test_no_name_leaves_the_folder(tmp_path):
    place = tmp_path / "deep" / "er"
    source = put(tmp_path / "in", "image")[0][1]
    files = [(name, source) for name in HOSTILE]
    before = files_below(tmp_path)
    summary = predict_files(Fake(), "scn", TASK, files, place / "out")
    assert len(summary.predicted) == len(set(summary.predicted)) == len(HOSTILE) and not summary.failed
    made = {f"{name}.mrk.json" for name in summary.predicted} | {"batch.json", "predictions.csv", "failures.csv"}
    assert files_below(place / "out") == made
    assert files_below(tmp_path) - before == {f"deep/er/out/{name}" for name in made}
    assert all(len(name.encode()) < 256 for name in made)
    for name, begins in HOSTILE.items():
        assert safe_name(name).startswith(begins) and safe_name(safe_name(name)) == safe_name(name), name
    assert predict_files(Fake(), "scn", TASK, files, place / "out").kept == summary.predicted


def test_no_cell_is_run_by_a_spreadsheet(tmp_path):
    files = put(tmp_path / "in", "a", "@SUM(A1)", "+1;=2")
    out = tmp_path / "out"
    predict_files(Fake(**{"a": POINTS, "@SUM(A1)": WireError("=HYPERLINK(1)\r=2;-3")}), "scn", TASK, files, out)
    for name in ("predictions.csv", "failures.csv"):
        cells = pandas.read_csv(out / name, dtype=str, keep_default_na=False).to_numpy().ravel()
        texts = [c for c in cells if not re.fullmatch(r"-?[\d.]+", c)]
        assert not [c for c in texts if re.search(r"(^|[;\t\r\n])[\s]*[=+\-@]", c)], name
    table = pandas.read_csv(out / "predictions.csv")
    assert "'" + NAMES[3] in set(table["landmark"]) and table["x"].dtype == float and -4.0 in set(table["x"])
    assert pandas.read_csv(out / "failures.csv")["reason"][0] == "'=HYPERLINK(1)\r'=2;'-3"


def test_images_of_a_folder(tmp_path):
    for name in ("b.nii.gz", "a.PNG", "c.NRRD", "skull.seg.nrrd", "._a.png", ".png", "notes.txt", "d.mrk.json"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert images_in(tmp_path) == [("a", tmp_path / "a.PNG"), ("b", tmp_path / "b.nii.gz"), ("c", tmp_path / "c.NRRD")]
    with pytest.raises(ValueError, match=r"nothere cannot be read \(No such file or directory\)$"):
        images_in(tmp_path / "nothere")
