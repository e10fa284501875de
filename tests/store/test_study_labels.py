"""The labels of a study: saved, shown as files, restored, and read under a changed task."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.store.studies import label_file, on_file, points

from landmarklabel.errors import Conflict, LandmarkFileError, NotFound, StudyError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.store.database import StoreFault
from landmarklabel.store.revision_json import body_of, landmarks_of, same_landmarks

# --- labels ----------------------------------------------------------------------------------------------------------


def test_a_saved_label_comes_back_and_lies_in_labels_final(study):
    landmarks = points(study.task, 0.1).with_landmark("index", None, Status.ABSENT)
    revision = study.save("a", landmarks, author="ann")
    assert (revision.number, revision.author, revision.source) == (1, "ann", "annotation")
    for found in (study.labels("a"), on_file(study, "a")):
        assert found.status == landmarks.status
        np.testing.assert_array_equal(found.positions_mm, landmarks.positions_mm)
    assert study.labels("a").unit == "px" and "pixels" in repr(study.labels("a"))  # a picture that states no spacing
    assert study.labels("b") is None
    assert study.sync() == [] and len(study.history("a")) == 1


def test_labelled_has_only_images_where_a_person_said_something(study):
    study.save("a", points(study.task, 1, Status.PREDICTED))
    study.save("b", LandmarkSet.empty(study.task).with_landmark("thumb", None, Status.ABSENT))
    study.save("c", LandmarkSet.empty(study.task))
    assert list(study.labelled()) == ["b"]


def test_a_stale_base_is_a_conflict_and_the_file_keeps_the_newest(study):
    study.save("a", points(study.task, 1))
    study.save("a", points(study.task, 2), base_revision=1)
    with pytest.raises(Conflict):
        study.save("a", points(study.task, 3), base_revision=1)
    assert same_landmarks(on_file(study, "a"), points(study.task, 2))


def test_a_repeated_key_is_one_revision(study):
    first = study.save("a", points(study.task, 1), key="k")
    assert study.save("a", points(study.task, 1), key="k") == first
    assert len(study.history("a")) == 1


def test_landmarks_of_another_task_are_refused(study):
    other = LandmarkTask("other", ("x", "y"), dims=2)
    with pytest.raises(StudyError, match="of task 'other'"):
        study.save("a", points(other, 1))


def test_a_position_that_no_file_can_hold_is_refused_before_it_is_saved(study):
    with pytest.raises(LandmarkFileError):
        study.save("a", points(study.task, 1e9))
    assert study.history("a") == [] and not label_file(study, "a").exists()


def test_restoring_makes_a_new_revision_with_the_old_content(study):
    for value in (1, 2, 3):
        study.save("a", points(study.task, value))
    restored = study.restore("a", 1, author="ann")
    assert (restored.number, restored.author, restored.source) == (4, "ann", "restored revision 1")
    assert restored.body == study.history("a")[0].body
    assert same_landmarks(on_file(study, "a"), points(study.task, 1))
    with pytest.raises(NotFound):
        study.restore("a", 9, author="ann")


def test_a_label_file_that_cannot_be_written_is_said_and_written_later(study, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("landmarklabel.store.label_files.write_to_disk", refuse)
        with pytest.raises(StoreFault, match="revision 1 of a is saved, but its label file.*No space left") as caught:
            study.save("a", points(study.task, 1))
        assert caught.value.http_status == 507
        assert "No space left" in study.sync()[0]
    assert study.sync() == []
    assert same_landmarks(on_file(study, "a"), points(study.task, 1))


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{}, {"dims": 2}, {"dims": 2, "landmarks": [1]}, {"dims": 2, "landmarks": None}])
def test_a_body_that_is_no_label_is_one_clear_error(task, body):
    with pytest.raises(StudyError, match="cannot be read as landmarks"):
        landmarks_of(body, task)


def test_a_body_is_strict_json_and_comes_back_exactly(task):
    landmarks = points(task, 1 / 3).with_landmark("wrist", None, Status.UNSET)
    body = json.loads(json.dumps(body_of(landmarks), allow_nan=False))
    assert body["landmarks"][2] == {"name": "wrist", "status": "unset", "position": None}
    assert same_landmarks(landmarks_of(body, task), landmarks, 0)
