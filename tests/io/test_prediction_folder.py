"""A folder of predictions: what is kept, what is written anew, what is left to the person who made it, also after a stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from landmarklabel.errors import StudyError, UsageError
from landmarklabel.io.files import write_json
from landmarklabel.io.markups import read_markups, write_markups
from landmarklabel.io.prediction_folder import LONG_TABLE, NOTES, TABLE, Found, PredictionFolder
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

TASK = LandmarkTask("pair", ("tip", "base"), 2)


def landmarks(x: float) -> LandmarkSet:
    positions = np.array([[x, 1 / 3], [np.nan, np.nan]])
    return LandmarkSet(TASK, positions, (Status.PREDICTED, Status.ABSENT), np.array([0.5, np.nan]))


def predicted(out: Path, x: float = 1.0, model: str = "m", pixels: str = "p", image_id: str = "a") -> None:
    """As predict does: write what is missing or other."""
    with PredictionFolder(out, model) as folder:
        if folder.find(image_id, pixels) in (Found.NOTHING, Found.OTHER):
            folder.write(image_id, pixels, landmarks(x), "scn:default")
        folder.write_tables({image_id: read_markups(folder.path(image_id), TASK)})


def found(out: Path, model: str = "m", pixels: str = "p", image_id: str = "a") -> Found:
    with PredictionFolder(out, model) as folder:
        return folder.find(image_id, pixels)


def change_by_hand(out: Path) -> bytes:
    write_markups(out / "a.mrk.json", landmarks(77).with_landmark("tip", (5, 6)))
    return (out / "a.mrk.json").read_bytes()


def test_only_the_same_model_and_pixels_are_the_same(tmp_path):
    assert found(tmp_path) is Found.NOTHING
    predicted(tmp_path)
    assert found(tmp_path) is Found.SAME
    assert found(tmp_path, pixels="q") is found(tmp_path, model="n") is Found.OTHER
    predicted(tmp_path, 2.0, pixels="q")
    assert found(tmp_path) is Found.OTHER and found(tmp_path, pixels="q") is Found.SAME
    predicted(tmp_path, 1.0)  # back again: the same content as the first time
    assert found(tmp_path) is Found.SAME and found(tmp_path, pixels="q") is Found.OTHER
    (tmp_path / "a.mrk.json").unlink()
    assert found(tmp_path) is Found.NOTHING


def test_a_file_changed_by_hand_is_known_as_such_and_not_written(tmp_path):
    predicted(tmp_path)
    content = change_by_hand(tmp_path)
    assert found(tmp_path) is found(tmp_path, model="n") is Found.CHANGED
    assert found(tmp_path, pixels="q") is Found.CHANGED_OTHER
    with PredictionFolder(tmp_path, "m") as folder, pytest.raises(StudyError, match="a.mrk.json was changed since predict wrote"):
        folder.write("a", "p", landmarks(3), "scn")
    assert (tmp_path / "a.mrk.json").read_bytes() == content


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder"])
def test_what_predict_did_not_write_is_never_touched(tmp_path, kind):
    out = tmp_path / "out"
    out.mkdir()
    write_markups(tmp_path / "mine.mrk.json", landmarks(9))
    target = out / "a.mrk.json"
    if kind == "file":
        target.write_bytes((tmp_path / "mine.mrk.json").read_bytes())
    elif kind == "folder":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / ("mine.mrk.json" if kind == "link" else "nowhere"))
    with PredictionFolder(out, "m") as folder:
        for act in (lambda: folder.find("a", "p"), lambda: folder.write("a", "p", landmarks(3), "scn")):
            with pytest.raises(StudyError, match="a.mrk.json was not written by predict and is left alone; move it away"):
                act()
        (out / TABLE).write_text("id,mine\n", encoding="utf-8")
        with pytest.raises(StudyError, match="predictions.csv was not written by predict"):
            folder.write_tables({})
    assert (out / TABLE).read_text(encoding="utf-8") == "id,mine\n"


def test_a_stop_at_any_byte_of_a_note_changes_nothing(tmp_path):
    """A line is written before its file: whatever was torn, going on gives the same files as never having stopped."""
    whole = tmp_path / "whole"
    predicted(whole)
    predicted(whole, 2.0, pixels="q")
    first = (whole / NOTES).read_bytes().splitlines(keepends=True)
    assert len(first) == 6  # a markups file and two tables, twice
    for lines in range(6):
        for cut in (0, 1, len(first[lines]) // 2, len(first[lines]) - 1, len(first[lines])):
            out = tmp_path / f"{lines}-{cut}"
            out.mkdir()
            (out / NOTES).write_bytes(b"".join(first[:lines]) + first[lines][:cut])
            if lines >= 3:  # the files of the first call are there
                with PredictionFolder(tmp_path / f"{lines}-{cut}-first", "m") as folder:
                    folder.write("a", "p", landmarks(1.0), "scn:default")
                    folder.write_tables({"a": read_markups(folder.path("a"), TASK)})
                for name in ("a.mrk.json", TABLE, LONG_TABLE):
                    (out / name).write_bytes((folder.folder / name).read_bytes())
            predicted(out, 2.0, pixels="q")
            for name in ("a.mrk.json", TABLE, LONG_TABLE):
                assert (out / name).read_bytes() == (whole / name).read_bytes(), (lines, cut)
            assert found(out, pixels="q") is Found.SAME


def test_what_a_stop_left_half_written_is_removed_and_nothing_else(tmp_path):
    predicted(tmp_path)
    theirs = ("b.mrk.json.abcdefgh", ".b.mrk.json.abcdefgh", ".notes.textfile", ".a.mrk.json.back")
    for name in (".a.mrk.json.x_12abcd", ".predictions.csv.00000000", *theirs):
        (tmp_path / name).write_text("{", encoding="utf-8")
    assert found(tmp_path) is Found.SAME
    assert {p.name for p in tmp_path.iterdir()} == {"a.mrk.json", TABLE, LONG_TABLE, NOTES, *theirs}


def test_lines_that_are_no_notes_are_ignored(tmp_path):
    predicted(tmp_path)
    with (tmp_path / NOTES).open("ab") as file:
        file.write(b'\xff\n[]\n{"file": 1}\nnull\n\n' + b"[" * 100_000 + b'\n{"file": "a.mrk.json", "sha2')
    assert found(tmp_path) is Found.SAME
    predicted(tmp_path, 2.0, pixels="q")
    assert found(tmp_path, pixels="q") is Found.SAME


def test_one_process_at_a_time(tmp_path):
    with PredictionFolder(tmp_path, "m"), pytest.raises(StudyError, match="another predict is writing there; wait for its end"):
        PredictionFolder(tmp_path, "m")
    with PredictionFolder(tmp_path, "m"):
        pass


@pytest.mark.parametrize("inside", ["labels", "labels/final", "labels/new/deep", ".landmarklabel/models"])
def test_the_labels_of_a_study_are_no_place_for_predictions(tmp_path, inside):
    (tmp_path / "study" / ".landmarklabel").mkdir(parents=True)
    with pytest.raises(StudyError, match="inside the .* folder of a study, which is for labels; give another folder"):
        PredictionFolder(tmp_path / "study" / inside, "m")
    (tmp_path / "link").symlink_to(tmp_path / "study" / inside)
    with pytest.raises(StudyError, match="folder of a study"):
        PredictionFolder(tmp_path / "link", "m")
    assert not (tmp_path / "study" / "labels").exists()
    PredictionFolder(tmp_path / "study" / "predictions", "m").__exit__()
    PredictionFolder(tmp_path / "labels", "m").__exit__()  # of no study


def test_an_id_that_cannot_name_a_file_is_refused(tmp_path):
    with PredictionFolder(tmp_path, "m") as folder, pytest.raises(UsageError, match="is not allowed"):
        folder.find("../a", "p")


def test_a_folder_of_an_earlier_version_is_predicted_anew_but_what_people_changed_stays(tmp_path):
    write_json(tmp_path / ".model.json", {"weights_sha256": "0" * 64})
    for image_id in ("a", "b"):
        write_markups(tmp_path / f"{image_id}.mrk.json", landmarks(1.0), "scn:default")
    without_radii = replace(landmarks(1.0), radius95_mm=np.full(2, np.nan))  # of a model with few validation cases
    write_markups(tmp_path / "d.mrk.json", without_radii, "scn:default")
    (tmp_path / TABLE).write_text("id\n", encoding="utf-8")
    write_markups(tmp_path / "b.mrk.json", landmarks(1.0).with_landmark("tip", (5, 6)), "scn:default")  # moved in Slicer
    text = json.loads((tmp_path / "a.mrk.json").read_text(encoding="utf-8"))
    (tmp_path / "c.mrk.json").write_text(json.dumps(text, indent=2), encoding="utf-8")  # saved by another program
    assert found(tmp_path) is found(tmp_path, image_id="d") is Found.OTHER and not (tmp_path / ".model.json").exists()
    for theirs in ("b", "c"):
        with pytest.raises(StudyError, match="was not written by predict"):
            found(tmp_path, image_id=theirs)
    predicted(tmp_path, 4.0)
    assert found(tmp_path) is Found.SAME and read_markups(tmp_path / "a.mrk.json", TASK).positions_mm[0, 0] == 4.0
    assert (tmp_path / TABLE).read_text(encoding="utf-8").startswith("id,tip_x")


def test_ten_thousand_images_are_noted_and_found_quickly(tmp_path):
    note = {"sha256": "0" * 64, "model": "m" * 64, "pixels": "p" * 64}
    lines = [json.dumps({"file": f"case{i}.mrk.json", **note}) for i in range(10_000)]
    (tmp_path / NOTES).write_text("\n".join(lines) + "\n", encoding="utf-8")
    start = process_time()
    with PredictionFolder(tmp_path, "m") as folder:
        assert all(folder.find(f"case{i}", "p") is Found.NOTHING for i in range(10_000))
    assert process_time() - start < 5  # under a second on an idle core
