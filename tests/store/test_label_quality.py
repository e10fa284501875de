"""Which points somebody has called right, whatever happens to the label and the task afterwards; what is listed meanwhile."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import SimpleITK as sitk

from landmarklabel.data.shape_outliers import score_shapes
from landmarklabel.errors import Conflict, UsageError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.services.quality import CHECK, StudyQuality
from landmarklabel.store.study import Study
from landmarklabel.store.study_changes import change_names
from landmarklabel.store.study_task import read_record, renamed

NAMES = ("a", "b", "c", "d", "e")
PLACES = np.array([[10, 10], [80, 12], [70, 60], [30, 80], [50, 40.0]])


@pytest.fixture()
def study(tmp_path):
    """Twenty cases; b of case03 lies 20 px aside, and of case05 it is a proposal nobody has looked at."""
    made = Study(tmp_path / "study", LandmarkTask("five", NAMES, 2))
    rng = np.random.default_rng(0)
    for n in range(20):
        sitk.WriteImage(sitk.Image(100, 100, sitk.sitkUInt8), str(tmp_path / "study" / f"case{n:02d}.png"))
        points, status = PLACES + rng.normal(0, 0.5, PLACES.shape), [Status.PLACED] * 5
        if n == 3:
            points[1, 1] += 20
        if n == 5:
            points[1, 1] += 20
            status[1] = Status.PREDICTED
        made.save(f"case{n:02d}", LandmarkSet(made.task, points, tuple(status)), author="ann")
    yield made
    made.close()


def first(quality: StudyQuality, also_checked: bool = False) -> tuple[str, str]:
    row = quality.points(1, also_checked)["rows"][0]
    return row["image"], row["landmark"]


def call_right(study: Study, image_id: str, name: str, author: str = "bob", is_right: bool = True) -> None:
    study.save(image_id, study.labels(image_id), author=author, source=CHECK, checked={name: is_right})


def test_what_is_called_right_leaves_the_list_until_it_is_moved(study):
    quality = StudyQuality(study)
    assert first(quality) == ("case03", "b") and quality.points(1, False)["points"] == 99  # the proposal is no label
    call_right(study, "case03", "b")
    assert first(quality)[0] != "case03" and quality.points(1, False)["points"] == 98
    assert quality.points(1, True)["rows"][0]["checked"]["author"] == "bob"
    head = study.labels("case03")
    other = head.positions_mm.copy()
    other[4] += 3  # another point is mended afterwards: what was said of b still holds
    study.save("case03", LandmarkSet(study.task, other, head.status), author="ann")
    assert study.checked("case03").keys() == {"b"} and first(quality) == ("case03", "e")
    other[1, 1] += 5  # b is moved: somebody has to look again
    study.save("case03", LandmarkSet(study.task, other, head.status), author="ann")
    assert study.checked("case03") == {} and first(quality) == ("case03", "b")


def test_what_was_called_right_can_be_taken_back_and_said_again(study):
    quality = StudyQuality(study)
    call_right(study, "case03", "b")
    call_right(study, "case03", "e")
    call_right(study, "case03", "b", "carl", is_right=False)
    assert study.checked("case03").keys() == {"e"} and first(quality) == ("case03", "b")
    call_right(study, "case03", "b", "carl")
    assert {name: r.author for name, r in study.checked("case03").items()} == {"e": "bob", "b": "carl"}


def test_whoever_has_the_case_open_submits_over_what_only_called_points_right(study):
    head, base = study.labels("case03"), study.history("case03")[-1].number
    call_right(study, "case03", "b")
    call_right(study, "case03", "b", is_right=False)
    mine = head.positions_mm.copy()
    mine[4] += 3
    saved = study.save("case03", LandmarkSet(study.task, mine, head.status), author="ann", base_revision=base, key="mine")
    assert saved.number == base + 3
    assert study.save("case03", LandmarkSet(study.task, mine, head.status), author="ann", base_revision=base, key="mine") == saved


@pytest.mark.parametrize("how", ["moved", "moved and called right", "called right on a revision that moved"])
def test_a_point_that_was_moved_meanwhile_is_a_conflict_whatever_else_was_said(study, how):
    head, base = study.labels("case03"), study.history("case03")[-1].number
    other = head.positions_mm.copy()
    other[4] += 3
    said = {"b": True} if how == "moved and called right" else None
    study.save("case03", LandmarkSet(study.task, other, head.status), author="ann", checked=said)
    if how == "called right on a revision that moved":
        call_right(study, "case03", "b")
    with pytest.raises(Conflict):
        study.save("case03", head, author="carl", base_revision=base)


def test_a_point_moved_there_and_back_is_looked_at_again(study):
    call_right(study, "case03", "b")
    head = study.labels("case03")
    moved = head.positions_mm.copy()
    moved[1] += 2
    study.save("case03", LandmarkSet(study.task, moved, head.status), author="ann")
    study.save("case03", head, author="ann")
    assert study.checked("case03") == {}


def test_a_name_given_later_keeps_what_was_said(study):
    call_right(study, "case03", "b")
    after = change_names(study, renamed(read_record(study.folder), "b", "wrist"), author="ann", what="rename")
    assert {name: r.author for name, r in after.checked("case03").items()} == {"wrist": "bob"}
    assert first(StudyQuality(after), also_checked=True) == ("case03", "wrist")
    after.close()


def test_a_call_that_changes_no_point_needs_no_new_look(study, monkeypatch):
    quality, looks, real = StudyQuality(study), [], score_shapes
    monkeypatch.setattr("landmarklabel.services.quality.score_shapes", lambda x: looks.append(1) or real(x))
    quality.points(1, False)
    quality.table()
    call_right(study, "case03", "b")
    quality.points(1, False)
    assert len(looks) == 1
    study.save("case04", study.labels("case05"), author="ann")
    quality.points(1, False)
    assert len(looks) == 2


def test_the_table_has_every_point_and_who_called_it_right(study):
    call_right(study, "case03", "b", "=cmd")
    rows = list(csv.DictReader(StudyQuality(study).table().splitlines()))
    assert len(rows) == 99 and (rows[0]["id"], rows[0]["landmark"], rows[0]["checked_by"]) == ("case03", "b", "'=cmd")
    assert float(rows[0]["off"]) == pytest.approx(20, abs=2) and rows[0]["unit"] == "px"
    assert [float(r["times_median"]) for r in rows] == sorted((float(r["times_median"]) for r in rows), reverse=True)


def test_a_landmark_that_is_not_there_cannot_be_left_out(study, tmp_path):
    quality = StudyQuality(study)
    with (tmp_path / "x.zip").open("wb") as file, pytest.raises(UsageError, match="the task has no landmark 'x' to leave out"):
        quality.write_specimens(file, ["x"])
    with (tmp_path / "x.zip").open("wb") as file, pytest.raises(UsageError, match="all landmarks are left out"):
        quality.write_specimens(file, NAMES)
