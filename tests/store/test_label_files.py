"""Label files that people edit, add or damage, and what a crash leaves of them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from tests.store.studies import execute, label_file, on_file, points

from landmarklabel.errors import Conflict
from landmarklabel.io.markups import write_markups
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.revision_json import body_of, same_landmarks
from landmarklabel.store.study import Study

# --- files that people touch -----------------------------------------------------------------------------------------


def test_a_hand_edited_file_becomes_a_revision(study):
    study.save("a", points(study.task, 1))
    write_markups(label_file(study, "a"), points(study.task, 2))
    assert study.sync() == []
    newest = study.history("a")[-1]
    assert (newest.number, newest.author, newest.source) == (2, "file", "edited file")
    assert same_landmarks(study.labels("a"), points(study.task, 2))
    assert study.sync() == [] and len(study.history("a")) == 2


def test_a_hand_added_file_becomes_the_first_revision(study):
    write_markups(label_file(study, "b"), points(study.task, 2))
    assert study.sync() == []
    assert [r.author for r in study.history("b")] == ["file"]
    assert list(study.labelled()) == ["b"]


def test_a_file_saved_by_slicer_without_a_change_is_no_revision(study):
    study.save("a", points(study.task, 0.1))
    path = label_file(study, "a")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["markups"][0]["display"] = {"visibility": True}
    for point in content["markups"][0]["controlPoints"]:
        point["position"] = [x + 1e-9 for x in point["position"]]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert study.sync() == [] and len(study.history("a")) == 1
    assert "display" in path.read_text(encoding="utf-8")


def test_a_predicted_point_that_a_person_moved_is_placed(study):
    predicted = points(study.task, 1, Status.PREDICTED)
    study.save("a", predicted)
    write_markups(label_file(study, "a"), predicted.with_landmark("index", (50, 60), Status.PREDICTED))
    assert study.sync() == []
    assert study.labels("a").status == (Status.PREDICTED, Status.PLACED, Status.PREDICTED)
    assert study.sync() == [] and len(study.history("a")) == 2


def test_a_new_prediction_put_there_as_a_file_stays_predicted(study):
    study.save("a", points(study.task, 1, Status.PREDICTED))
    better = points(study.task, 2, Status.PREDICTED)
    better = LandmarkSet(study.task, better.positions_mm, better.status, np.ones(3))
    write_markups(label_file(study, "a"), better)
    assert study.sync() == []
    assert set(study.labels("a").status) == {Status.PREDICTED}


def test_saving_keeps_a_hand_edit_that_nobody_synced(study):
    study.save("a", points(study.task, 1))
    write_markups(label_file(study, "a"), points(study.task, 2))
    with pytest.raises(Conflict):
        study.save("a", points(study.task, 3), base_revision=1)
    assert study.save("a", points(study.task, 3)).number == 3
    assert [r.author for r in study.history("a")] == ["", "file", ""]
    assert same_landmarks(on_file(study, "a"), points(study.task, 3))


def test_saving_over_an_unreadable_file_keeps_it_in_the_trash(study):
    label_file(study, "a").write_text("{ my notes", encoding="utf-8")
    study.save("a", points(study.task, 1))
    assert [p.read_text(encoding="utf-8") for p in (study.folder / ".landmarklabel" / "trash").iterdir()] == ["{ my notes"]
    assert same_landmarks(on_file(study, "a"), points(study.task, 1))


@pytest.mark.parametrize("labelled", [False, True])
def test_an_unreadable_hand_made_file_is_reported_every_time_and_left(study, labelled):
    if labelled:
        study.save("a", points(study.task, 1))
    path = label_file(study, "a")
    path.write_text('{"markups": "nonsense"}', encoding="utf-8")
    for _ in range(2):
        (problem,) = study.sync()
        assert problem.startswith("labels/final/a.mrk.json: ")
    assert path.read_text(encoding="utf-8") == '{"markups": "nonsense"}'
    assert len(study.history("a")) == labelled
    write_markups(path, points(study.task, 4))
    assert study.sync() == []
    assert same_landmarks(study.labels("a"), points(study.task, 4))


def test_a_label_without_an_image_is_reported_until_the_image_comes(study, write_image):
    write_markups(label_file(study, "later"), points(study.task, 1))
    assert [text for text in study.sync() if "no such image" in text]
    write_image(study.folder / "later.png")
    assert study.sync() == []
    assert len(study.history("later")) == 1


def test_a_label_file_whose_name_cannot_be_an_id_is_reported(study):
    write_markups(study.folder / "labels" / "final" / "a #1.mrk.json", points(study.task, 1))
    (problem,) = study.sync()
    assert "a #1" in problem and "not allowed" in problem


# --- what a crash leaves ---------------------------------------------------------------------------------------------


def test_a_crash_between_commit_and_write_is_finished(study):
    study.save("a", points(study.task, 1))
    study.sync()
    study.revisions.save("a", body_of(points(study.task, 2)))
    assert study.sync() == []
    assert same_landmarks(on_file(study, "a"), points(study.task, 2))
    assert len(study.history("a")) == 2


def test_a_file_that_is_several_revisions_behind_is_written_again(study):
    study.save("a", points(study.task, 1))
    for value in (2, 3):
        study.revisions.save("a", body_of(points(study.task, value)))
    assert study.sync() == []
    assert same_landmarks(on_file(study, "a"), points(study.task, 3)) and len(study.history("a")) == 3


def test_an_earlier_state_that_a_person_put_back_is_a_revision(study):
    study.save("a", points(study.task, 1))
    old = label_file(study, "a").read_bytes()
    study.save("a", points(study.task, 2))
    study.sync()  # file and newest revision agree: from here on only a person can set the file back
    label_file(study, "a").write_bytes(old)
    assert study.sync() == []
    assert [r.author for r in study.history("a")] == ["", "", "file"]
    assert same_landmarks(study.labels("a"), points(study.task, 1))


@pytest.mark.parametrize("part", ["missing", "empty", "half", "zeros", "half and zeros"])
def test_a_missing_or_half_written_file_is_written_again(study, part):
    study.save("a", points(study.task, 1))
    path = label_file(study, "a")
    whole = path.read_bytes()
    half = whole[: len(whole) // 2]
    pieces = {"empty": b"", "half": half, "zeros": bytes(len(whole)), "half and zeros": half + bytes(len(half))}
    path.unlink() if part == "missing" else path.write_bytes(pieces[part])
    assert study.sync() == []
    assert path.read_bytes() == whole and len(study.history("a")) == 1


def test_a_folder_among_the_replaced_files_keeps_nothing_from_working_and_is_said(study, url):
    study.save("a", points(study.task, 1))
    label_file(study, "a").unlink()
    label_file(study, "a").mkdir()
    (label_file(study, "a") / "inside").touch()
    study.save("a", points(study.task, 2))  # the folder makes way for the label
    assert same_landmarks(on_file(study, "a"), points(study.task, 2))
    write_markups(label_file(study, "b"), points(study.task, 3))
    for opened in (study, Study(study.folder, study.task, url)):
        (problem,) = opened.sync()
        assert re.fullmatch(r"replaced/[0-9a-f]{8}-a.mrk.json is no label file and cannot be looked at: move it away", problem)
    assert same_landmarks(study.labels("b"), points(study.task, 3))


def test_a_broken_edit_that_a_submission_replaced_is_said_until_somebody_takes_it_from_the_trash(study, monkeypatch):
    study.save("a", points(study.task, 1))
    label_file(study, "a").write_text("{ not JSON", encoding="utf-8")
    study.save("a", points(study.task, 2))
    let_all_be_old(monkeypatch)
    for _ in range(2):
        (problem,) = study.sync()
        assert re.fullmatch(
            r"labels/final: \S+Z-a.mrk.json could not be read, and is kept in .landmarklabel/trash until .*", problem
        )
    for path in (study.folder / ".landmarklabel" / "trash").iterdir():
        assert path.read_text(encoding="utf-8") == "{ not JSON"
        path.unlink()
    assert study.sync() == []


def test_what_somebody_may_be_writing_is_left_alone_by_a_look_at_leisure(study, monkeypatch):
    study.save("a", points(study.task, 1))
    path = label_file(study, "a")
    whole = path.read_bytes()
    for part in (b"", whole[:40]):
        path.write_bytes(part)
        assert study.take_in_edits(at_leisure=True) == [] and path.read_bytes() == part
    with monkeypatch.context() as patch:
        let_all_be_old(patch)
        assert study.take_in_edits(at_leisure=True) == [] and path.read_bytes() == whole
    path.write_bytes(whole[:40])
    assert study.sync() == [] and path.read_bytes() == whole


def let_all_be_old(monkeypatch):
    """As if all files had lain there for a while."""
    monkeypatch.setattr("landmarklabel.store.label_files.CONFIG", replace(CONFIG, editor_idle_ns=0, replaced_kept_ns=0))


@pytest.mark.parametrize("name", [".a.mrk.json.swp", ".a.mrk.json.Xq3fT0", ".#a.mrk.json", "a.mrk.json~", ".a.mrk.json.autosave"])
def test_what_editors_and_copying_programs_keep_beside_a_label_is_theirs(study, monkeypatch, name):
    study.save("a", points(study.task, 1))
    theirs = study.folder / "labels" / "final" / name
    theirs.write_text("unsaved work", encoding="utf-8")
    let_all_be_old(monkeypatch)
    assert study.sync() == [] and theirs.read_text(encoding="utf-8") == "unsaved work"


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "a.mrk.json", "-.mrk.json"])
def test_other_programs_files_among_the_replaced_ones_are_no_stumbling_block(study, monkeypatch, name):
    study.save("a", points(study.task, 1))
    theirs = study.folder / ".landmarklabel" / "replaced" / name
    theirs.write_text("x", encoding="utf-8")
    let_all_be_old(monkeypatch)
    assert study.sync() == [] and theirs.exists() and study.recheck_replaced() == []


def test_a_leftover_that_another_process_swept_is_no_stumbling_block(study, monkeypatch):
    incoming = study.folder / ".landmarklabel" / "incoming"
    for name in "xyz":
        (incoming / name).touch()
        os.utime(incoming / name, (0, 0))
    monkeypatch.setattr("landmarklabel.store.image_files.delete", lambda _: [p.unlink() for p in incoming.iterdir()])
    assert study.sync() == [] and list(incoming.iterdir()) == []


def test_a_lost_database_is_rebuilt_from_the_files(study, url):
    study.save("a", points(study.task, 1))
    study.close()
    for table in ("audit", "revisions"):
        execute(url, f"DROP TABLE {table}")
    again = Study(study.folder, study.task, url)
    assert again.sync() == []
    assert same_landmarks(again.labelled()["a"], points(study.task, 1))


def test_a_damaged_memory_of_the_files_costs_only_time(study):
    study.save("a", points(study.task, 1))
    study.sync()
    for content in ("{", "[]", '{"task": 1, "files": {"a": 1}}'):
        (study.cache_dir / "label_files.json").write_text(content, encoding="utf-8")
        assert study.sync() == []
    assert len(study.history("a")) == 1


def test_files_that_did_not_change_are_not_read_again(study, monkeypatch):
    study.save("a", points(study.task, 1))
    monkeypatch.setattr("landmarklabel.store.label_files.CONFIG", replace(CONFIG, mtime_settled_ns=0))
    assert study.sync() == []
    read = []
    monkeypatch.setattr(study._files, "_examine", lambda image_id, head: read.append(image_id))
    assert study.sync() == [] and read == []
