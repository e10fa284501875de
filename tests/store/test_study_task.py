"""A study belongs to its task: another one is refused, one that only adds is taken up, names change by asking for it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.store.studies import execute, label_file, on_file, points

from landmarklabel.errors import Busy, StudyError, TaskMismatch
from landmarklabel.io.markups import read_markups, write_markups
from landmarklabel.landmarks import LandmarkTask, ScaleRule, Status
from landmarklabel.measurement_definitions import Measurement
from landmarklabel.store import study_changes, study_task
from landmarklabel.store.revision_json import same_landmarks
from landmarklabel.store.study import Study

WIDTH = Measurement("width", "distance", (("thumb",), ("wrist",)))
OTHERS = {
    "renamed": (("thumb", "Index", "wrist"), 2, "'Index' is the new name of 'index': landmarklabel study rename-landmark"),
    "fewer": (("thumb", "wrist"), 2, "only in the study: 'index'; nothing was changed; to give them up"),
    "reordered": (("index", "thumb", "wrist"), 2, "the same names in another order"),
    "other dims": (("thumb", "index", "wrist"), 3, "2D against 3D"),
    "all others": (("nasion",), 2, "only in the study: 'thumb', 'index', 'wrist'; only in the task given: 'nasion'"),
    "added and reordered": (("index", "thumb", "wrist", "tip"), 2, "only in the task given: 'tip'"),
}


def everything(folder):
    """Every file of a study with its content and time, but for the database's own."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("revisions.sqlite")]
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "older than records"])
def test_another_task_is_refused_with_both_named_and_nothing_is_touched(study, url, other, recorded):
    for image_id, value in (("a", 1), ("b", 2)):
        study.save(image_id, points(study.task, value))
    study.sync()
    write_markups(label_file(study, "a"), points(study.task, 7))  # a hand edit that nobody has taken in
    if not recorded:
        study_task.record_file(study.folder).unlink()
    before, (names, dims, says) = everything(study.folder), OTHERS[other]
    with pytest.raises(TaskMismatch) as caught:
        Study(study.folder, LandmarkTask("foot", names, dims=dims), url)
    text = str(caught.value)
    assert says in text and "nothing was changed" in text and "\n" not in text
    assert f"(3 landmarks, 2D), not to task 'foot' ({len(names)} landmarks, {dims}D)" in text
    assert everything(study.folder) == before
    again = Study(study.folder, study.task, url)
    assert again.sync() == [] and [r.source for r in again.history("a")] == ["annotation", "edited file"]
    assert same_landmarks(again.labels("a"), points(study.task, 7)) and same_landmarks(again.labels("b"), points(study.task, 2))


def test_definitions_pairs_and_scale_may_change(study, url):
    study.save("a", points(study.task, 1))
    before = label_file(study, "a").stat().st_mtime_ns
    pairs, scale = (("thumb", "index"),), ScaleRule("thumb", "wrist", 50)
    other = replace(study.task, name="hand2", definitions={"thumb": "its tip"}, mirror_pairs=pairs, scale=scale)
    again = Study(study.folder, other, url)
    assert again.notices == [
        f"the study's task was called {study.task.name!r} and is called 'hand2' now",
        "the study's scale rule changes (none before, 'thumb' to 'wrist' is 50 mm now): earlier figures in mm do not compare",
    ]
    assert again.sync() == [] and Study(study.folder, other, url).notices == []
    assert study_task.read_record(study.folder).task == other
    assert label_file(study, "a").stat().st_mtime_ns == before


def test_a_task_that_only_adds_is_taken_up_and_said_and_no_file_is_rewritten(study, url):
    study.save("a", points(study.task, 1))
    study.close()
    before = label_file(study, "a").read_bytes(), label_file(study, "a").stat().st_mtime_ns
    wider = LandmarkTask("hand", ("tip", "thumb", "index", "wrist"), dims=2)
    again = Study(study.folder, wider, url)
    assert again.notices == ["the study's task gains 1 landmarks, unset in the cases labelled so far: 'tip'"]
    assert again.sync() == [] and len(again.history("a")) == 1
    assert (label_file(study, "a").read_bytes(), label_file(study, "a").stat().st_mtime_ns) == before
    assert again.labels("a").status == (Status.UNSET, *[Status.PLACED] * 3)
    write_markups(label_file(study, "a"), points(study.task, 5))  # by a program that still has the old names
    assert again.sync() == []
    np.testing.assert_array_equal(again.labels("a").positions_mm[1:], points(study.task, 5).positions_mm)
    with pytest.raises(TaskMismatch):
        Study(study.folder, study.task, url)  # the narrower task would drop one
    with pytest.raises(TaskMismatch, match="changed by another program: the server has to be started again"):
        study.save("a", points(study.task, 9))  # a server that still runs with the old names
    assert Study(study.folder, wider, url).notices == []


def test_a_study_without_labels_takes_another_task_and_says_so(study, url):
    other = LandmarkTask("foot", ("heel",), dims=2)
    assert Study(study.folder, other, url).notices == ["the study had no labels yet: it now belongs to task 'foot'"]
    with pytest.raises(TaskMismatch):
        write_markups(label_file(study, "a"), points(other, 1))
        Study(study.folder, study.task, url)  # a label file that no revision knows yet counts as well


def test_a_record_that_was_deleted_comes_back_from_the_labels(study, url):
    study.save("a", points(study.task, 1))
    study_task.record_file(study.folder).unlink()
    study.save("a", points(study.task, 2))
    assert study_task.read_record(study.folder).task == study.task


@pytest.mark.parametrize("content, says", [("{", "cannot be read"), ('{"format": 1}', "cannot be read"), (None, "newer version")])
def test_a_damaged_or_newer_record_is_said(study, url, content, says):
    path = study_task.record_file(study.folder)
    path.write_text(content or json.dumps({**json.loads(path.read_text(encoding="utf-8")), "version": 2}), encoding="utf-8")
    with pytest.raises(StudyError, match=says):
        Study(study.folder, study.task, url)


# --- changes of names ------------------------------------------------------------------------------------------------


def test_a_renamed_landmark_keeps_its_points_in_revisions_and_files(study, url):
    study.save("a", points(study.task, 1))
    study.save("a", points(study.task, 2))
    study.save("b", points(study.task, 3))
    study.save_repeat("b", points(study.task, 4))
    record = study_task.renamed(study_task.read_record(study.folder), "index", "index tip")
    renamed = record.task
    again = study_changes.change_names(study, record, author="ann", what="'index' renamed", url=url)
    assert again.task.names == ("thumb", "index tip", "wrist") and again.sync() == []
    for image_id, value in (("a", 2), ("b", 3)):
        np.testing.assert_array_equal(again.labels(image_id).positions_mm, points(study.task, value).positions_mm)
        assert same_landmarks(read_markups(label_file(study, image_id), renamed), again.labels(image_id))
        newest = again.history(image_id)[-1]
        assert (newest.author, newest.source) == ("ann", "landmark 'index' renamed")
    restored = again.restore("a", 1, author="ann")  # from before the rename
    np.testing.assert_array_equal(again.read(restored).positions_mm, points(study.task, 1).positions_mm)
    assert again.read(restored).status == (Status.PLACED,) * 3
    np.testing.assert_array_equal(again.read(again.repeats()["b"][-1]).positions_mm, points(study.task, 4).positions_mm)
    assert Study(study.folder, renamed, url).sync() == []


def test_a_dropped_landmark_stays_in_the_history(study, url):
    study.save("a", points(study.task, 1))
    dropped = study_task.without(study_task.read_record(study.folder), "index")
    again = study_changes.change_names(study, dropped, author="ann", what="'index' dropped", url=url)
    assert on_file(again, "a").task.names == ("thumb", "wrist") and again.sync() == []
    assert {row["name"] for row in again.history("a")[0].body["landmarks"]} == {"thumb", "index", "wrist"}


@pytest.mark.parametrize("step", ["save_all", "write_record", "show"])
def test_a_rename_that_is_killed_anywhere_is_done_or_not_done(study, url, monkeypatch, step):
    study.save("a", points(study.task, 1))
    record = study_task.renamed(study_task.read_record(study.folder), "index", "tip")
    renamed = record.task

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if step == "write_record":  # the second time: after the database
            write, times = study_task.write_record, []
            patch.setattr(study_task, "write_record", lambda *a: write(*a) if not times and not times.append(1) else killed())
        else:
            where = "revisions.RevisionStore.save_all" if step == "save_all" else "label_files.LabelFiles.show"
            patch.setattr(f"landmarklabel.store.{where}", killed)
        study_changes.change_names(study, record, author="ann", what="renamed", url=url)
    done = step != "save_all"
    right, wrong = (renamed, study.task) if done else (study.task, renamed)
    with pytest.raises(TaskMismatch):
        Study(study.folder, wrong, url)
    again = Study(study.folder, right, url)
    assert again.sync() == [] and len(again.history("a")) == 1 + done
    np.testing.assert_array_equal(again.labels("a").positions_mm, points(study.task, 1).positions_mm)
    assert same_landmarks(read_markups(label_file(study, "a"), right), again.labels("a"))


def test_names_that_earlier_labels_have_for_other_points_are_not_used_again(study, url):
    study.save("a", points(study.task, 1))
    record = study_task.renamed(study_task.read_record(study.folder), "index", "tip")
    again = study_changes.change_names(study, record, author="", what="renamed", url=url)
    again = study_changes.change_names(again, study_task.without(record, "wrist"), author="", what="dropped", url=url)
    record = study_task.read_record(study.folder)
    for used in ("index", "wrist"):
        with pytest.raises(StudyError, match=f"'{used}' was the name of another landmark before"):
            study_task.renamed(record, "thumb", used)
    with pytest.raises(TaskMismatch, match="'index' cannot be added: labels from before it was renamed to 'tip'"):
        Study(study.folder, replace(again.task, names=("thumb", "tip", "index")), url)


def test_a_change_of_names_that_cannot_be_saved_leaves_everything_as_it_was(study, url, monkeypatch):
    study.save("a", points(study.task, 1))
    before = study_task.read_record(study.folder)

    def busy(*_, **__):
        raise Busy("busy")

    with monkeypatch.context() as patch, pytest.raises(Busy):
        patch.setattr("landmarklabel.store.revisions.RevisionStore.save_all", busy)
        study_changes.change_names(study, study_task.renamed(before, "index", "tip"), author="", what="renamed", url=url)
    assert study_task.read_record(study.folder) == before
    assert study.save("a", points(study.task, 2)).number == 2  # who has it open goes on


def test_a_damaged_label_stops_a_change_of_names(study, url):
    study.save("a", points(study.task, 1))
    study.sync()
    execute(url, "UPDATE revisions SET body = '{}'")
    with pytest.raises(StudyError, match="because a label would be lost"):
        study_changes.change_names(study, study_task.without(study_task.read_record(study.folder), "index"), author="", what="d")
    assert study_task.read_record(study.folder).task == study.task


def test_a_study_whose_revisions_are_elsewhere_is_not_opened_without_them(study, url):
    if url.startswith("sqlite"):
        pytest.skip("only a database server is elsewhere")
    study.save("a", points(study.task, 1))
    with pytest.raises(StudyError, match="in a database of their own: say which with --store URL"):
        Study(study.folder, study.task)
    assert not (study.folder / ".landmarklabel" / "revisions.sqlite").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [({"scale": ScaleRule("thumb", "wrist", 60)}, "scale rule was"), ({"measurements": (WIDTH,)}, "measurements were")],
    ids=["scale", "measurements"],
)
def test_a_program_that_has_an_older_scale_rule_or_other_measurements_saves_nothing_more(study, url, change, what):
    study.save("a", points(study.task, 1))
    Study(study.folder, replace(study.task, **change), url).close()
    with pytest.raises(TaskMismatch, match=f"the study's {what} changed by another program: the server has to be started again"):
        study.save("a", points(study.task, 2))
    again = Study(study.folder, replace(study.task, **change), url)
    assert again.revisions.head("a").number == 1 and again.save("a", points(again.task, 2)).number == 2


def test_what_a_landmark_is_said_to_be_may_change_while_others_save(study, url):
    Study(study.folder, replace(study.task, definitions={"thumb": "its tip"}), url).close()
    assert study.save("a", points(study.task, 1)).number == 1
