"""A study folder: its images, its labels, and label files that people may edit, add or damage."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from landmarklabel.errors import Conflict, ImageRejected, LandmarkFileError, NotFound, StudyError, UsageError
from landmarklabel.io.markups import dump_markups, read_markups, write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.store.bodies import body_of, landmarks_of, same_landmarks
from landmarklabel.store.database import StoreFault
from landmarklabel.store.study import Study


def points(task, value, status=Status.PLACED):
    """Landmarks that differ with ``value``."""
    positions = np.arange(len(task) * task.dims, dtype=float).reshape(len(task), task.dims) + value
    return LandmarkSet.of_positions(task, positions, status)


def label_file(study, image_id):
    return study.folder / "labels" / "final" / f"{image_id}.mrk.json"


def on_file(study, image_id):
    return read_markups(label_file(study, image_id), study.task)


def age(path, seconds=60):
    """As if a file or folder had been changed a while ago."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def write_dicom(folder, slices=3, name="slice"):
    folder.mkdir(parents=True)
    series, study_uid, frame = generate_uid(), generate_uid(), generate_uid()
    for i in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{name}{i}"
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study_uid, frame
        data.Modality, data.PatientID, data.PatientName, data.InstanceNumber = "CT", "1", "A", i + 1
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.0 * i]
        data.PixelSpacing, data.SliceThickness = [1, 1], 2
        data.Rows = data.Columns = 8
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.RescaleIntercept, data.RescaleSlope = 15, 0, 0, 1
        data.PixelData = np.full((8, 8), i, np.uint16).tobytes()
        pydicom.dcmwrite(path, data, write_like_original=False)
    return folder


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_study_creates_its_folders(tmp_path, task):
    study = Study(tmp_path / "new" / "study", task)
    assert (study.folder / "labels" / "final").is_dir() and study.models_dir.is_dir() and study.cache_dir.is_dir()
    assert study.models_dir == study.folder / ".landmarklabel" / "models"
    assert (study.images(), study.labelled(), study.sync()) == ({}, {}, [])


def test_a_file_is_no_study(tmp_path, task):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StudyError, match="cannot be a study"):
        Study(tmp_path / "file", task)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_no_study(tmp_path, task):
    tmp_path.chmod(0o500)
    with pytest.raises(StudyError, match="cannot be a study"):
        Study(tmp_path / "study", task)


def test_a_folder_name_with_special_characters_holds_its_store(tmp_path, task, write_image):
    study = Study(tmp_path / "q? #1 %20", task)
    write_image(study.folder / "a.png")
    study.save("a", points(task, 1))
    assert (study.folder / ".landmarklabel" / "revisions.sqlite").is_file()


# --- images ----------------------------------------------------------------------------------------------------------


def test_images_are_listed_by_id_in_order(study, write_image):
    write_image(study.folder / "B2.PNG")
    (study.folder / "notes.txt").write_text("no image")
    (study.folder / ".hidden.png").write_bytes(b"x")
    (study.folder / "._a.png").write_bytes(b"x")
    (study.folder / "empty folder").mkdir()
    (study.folder / "labels" / "x.png").write_bytes(b"x")
    assert list(study.images()) == ["B2", "a", "b", "c"]
    assert study.images()["B2"] == study.folder / "B2.PNG" == study.image_path("B2")


def test_a_folder_of_dicom_files_is_one_image(study):
    write_dicom(study.folder / "series 1")
    assert study.images()["series 1"] == study.folder / "series 1"


def test_a_folder_that_becomes_dicom_later_is_noticed(study, tmp_path):
    (study.folder / "series").mkdir()
    assert "series" not in study.images()
    os.replace(write_dicom(tmp_path / "s", 1) / "slice0", study.folder / "series" / "slice0")
    assert "series" in study.images()


def test_two_files_with_one_id_are_refused_by_name(study):
    (study.folder / "x.nii.gz").write_bytes(b"")
    (study.folder / "x.nrrd").write_bytes(b"")
    with pytest.raises(StudyError, match=r"x\.nii\.gz and x\.nrrd would both be image 'x'"):
        study.images()


def test_a_name_that_cannot_be_an_id_is_left_out_and_reported(study):
    (study.folder / "scan (1).png").write_bytes(b"")
    assert list(study.images()) == ["a", "b", "c"]
    assert [text.split(":")[0] for text in study.sync()] == ["scan (1).png is left out"]


@pytest.mark.parametrize("image_id", ["none", "../a", "", "a.png", ".landmarklabel", "labels"])
def test_an_unknown_image_is_not_found(study, image_id):
    with pytest.raises(NotFound):
        study.image_path(image_id)
    with pytest.raises(NotFound):
        study.save(image_id, points(study.task, 1))


def test_an_image_is_added_under_its_id_and_adding_it_again_changes_nothing(study, tmp_path, write_image):
    source = write_image(tmp_path / "elsewhere.png", 7)
    added = study.add_image("new", source)
    assert added == study.folder / "new.png" == study.image_path("new")
    assert added.read_bytes() == source.read_bytes()
    stamp = added.stat().st_mtime_ns
    assert study.add_image("new", source) == added and added.stat().st_mtime_ns == stamp
    assert list((study.folder / ".landmarklabel" / "incoming").iterdir()) == []


def test_an_id_with_other_content_is_refused_and_keeps_its_image(study, tmp_path, write_image):
    before = study.image_path("a").read_bytes()
    for other in ("other.png", "other.nrrd"):
        with pytest.raises(StudyError, match=r"a\.png exists with other content"):
            study.add_image("a", write_image(tmp_path / other, 9))
    assert study.image_path("a").read_bytes() == before


def test_an_image_can_be_moved_in(study, tmp_path, write_image):
    source = write_image(tmp_path / "elsewhere.png", 7)
    content = source.read_bytes()
    assert study.add_image("new", source, copy=False).read_bytes() == content
    assert not source.exists()


def test_what_is_no_image_is_refused(study, tmp_path):
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    for source, error in (("x.txt", StudyError), ("folder", StudyError), ("broken.png", ImageRejected)):
        with pytest.raises(error):
            study.add_image("new", tmp_path / source)
    assert list(study.images()) == ["a", "b", "c"]


@pytest.mark.parametrize("image_id", ["../x", "/etc/x", ".x", "", "a/b", "x\0"])
def test_an_id_cannot_leave_the_folder(study, image_id):
    with pytest.raises(UsageError):
        study.add_image(image_id, study.image_path("a"))


def test_a_dicom_folder_is_added_as_a_folder(tmp_path):
    study = Study(tmp_path / "study", LandmarkTask("t", ("p",), dims=3))
    source = write_dicom(tmp_path / "source")
    added = study.add_image("case", source)
    assert added == study.folder / "case" and len(list(added.iterdir())) == 3
    assert study.add_image("case", source) == added
    with pytest.raises(StudyError, match="other content"):
        study.add_image("case", write_dicom(tmp_path / "other"))
    with pytest.raises(UsageError, match="choose another"):
        study.add_image("labels", source)


def test_a_removed_image_is_in_the_trash_and_its_revisions_stay(study):
    study.save("a", points(study.task, 1))
    study.remove_image("a")
    assert "a" not in study.images() and "a" not in study.labelled()
    assert [p.name.split("-")[-1] for p in (study.folder / ".landmarklabel" / "trash").iterdir()] == ["a.png"]
    assert len(study.history("a")) == 1
    assert study.sync() == []
    with pytest.raises(NotFound):
        study.remove_image("a")


def test_ten_thousand_images_are_listed_quickly(tmp_path, task):
    study = Study(tmp_path, task)
    for i in range(10_000):
        (tmp_path / f"case{i}.png").touch()
    age(tmp_path)
    assert len(study.images()) == 10_000
    listing = study._listed()
    assert study.image_path("case77") == tmp_path / "case77.png"
    assert study._listed() is listing  # no second walk while the folder is as it was
    (tmp_path / "more.png").touch()
    assert "more" in study.images()


# --- labels ----------------------------------------------------------------------------------------------------------


def test_a_saved_label_comes_back_and_lies_in_labels_final(study):
    landmarks = points(study.task, 0.1).with_landmark("index", None, Status.ABSENT)
    revision = study.save("a", landmarks, author="ann")
    assert (revision.number, revision.author, revision.source) == (1, "ann", "annotation")
    for found in (study.labels("a"), on_file(study, "a")):
        assert found.status == landmarks.status
        np.testing.assert_array_equal(found.positions_mm, landmarks.positions_mm)
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
        patch.setattr("landmarklabel.store.label_files.atomic_write", refuse)
        with pytest.raises(StoreFault, match="revision 1 of a is saved, but its label file.*No space left") as caught:
            study.save("a", points(study.task, 1))
        assert caught.value.http_status == 507
        assert "No space left" in study.sync()[0]
    assert study.sync() == []
    assert same_landmarks(on_file(study, "a"), points(study.task, 1))


# --- a changed task --------------------------------------------------------------------------------------------------


def test_labels_outlive_a_task_that_gains_loses_and_reorders_names(study):
    study.save("a", points(study.task, 1))
    changed = LandmarkTask("hand", ("wrist", "elbow", "thumb"), dims=2)
    again = Study(study.folder, changed)
    found = again.labels("a")
    assert found.status == (Status.PLACED, Status.UNSET, Status.PLACED)
    np.testing.assert_array_equal(found.positions_mm[[0, 2]], [[5, 6], [1, 2]])
    assert again.sync() == []
    assert len(again.history("a")) == 1
    assert same_landmarks(read_markups(label_file(again, "a"), changed), found)
    assert again.sync() == [] and len(again.history("a")) == 1


def test_a_file_edited_under_the_names_of_an_earlier_task_becomes_a_revision(study):
    study.save("a", points(study.task, 1))
    write_markups(label_file(study, "a"), points(study.task, 5))
    changed = LandmarkTask("hand", ("wrist", "thumb"), dims=2)
    again = Study(study.folder, changed)
    assert again.sync() == []
    np.testing.assert_array_equal(again.labels("a").positions_mm, [[9, 10], [5, 6]])
    assert [r.author for r in again.history("a")] == ["", "file"]


def test_a_task_of_other_dimensions_is_refused_and_changes_no_file(study):
    study.save("a", points(study.task, 1))
    before = label_file(study, "a").read_bytes()
    again = Study(study.folder, LandmarkTask("hand", study.task.names, dims=3))
    with pytest.raises(StudyError, match="the label is 2D, the task 'hand' is 3D"):
        again.labels("a")
    assert len(again.sync()) == 1
    assert label_file(study, "a").read_bytes() == before


@pytest.mark.parametrize("body", [{}, {"dims": 2}, {"dims": 2, "landmarks": [1]}, {"dims": 2, "landmarks": None}])
def test_a_body_that_is_no_label_is_one_clear_error(task, body):
    with pytest.raises(StudyError, match="cannot be read as landmarks"):
        landmarks_of(body, task)


def test_a_body_is_strict_json_and_comes_back_exactly(task):
    landmarks = points(task, 1 / 3).with_landmark("wrist", None, Status.UNSET)
    body = json.loads(json.dumps(body_of(landmarks), allow_nan=False))
    assert body["landmarks"][2] == {"name": "wrist", "status": "unset", "position": None}
    assert same_landmarks(landmarks_of(body, task), landmarks, 0)


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
    content = json.loads(path.read_text())
    content["markups"][0]["display"] = {"visibility": True}
    for point in content["markups"][0]["controlPoints"]:
        point["position"] = [x + 1e-9 for x in point["position"]]
    path.write_text(json.dumps(content))
    assert study.sync() == [] and len(study.history("a")) == 1
    assert "display" in path.read_text()


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
    label_file(study, "a").write_text("{ my notes")
    study.save("a", points(study.task, 1))
    assert [p.read_text() for p in (study.folder / ".landmarklabel" / "trash").iterdir()] == ["{ my notes"]
    assert same_landmarks(on_file(study, "a"), points(study.task, 1))


@pytest.mark.parametrize("labelled", [False, True])
def test_an_unreadable_hand_made_file_is_reported_every_time_and_left(study, labelled):
    if labelled:
        study.save("a", points(study.task, 1))
    path = label_file(study, "a")
    path.write_text('{"markups": "nonsense"}')
    for _ in range(2):
        (problem,) = study.sync()
        assert problem.startswith("labels/final/a.mrk.json: ")
    assert path.read_text() == '{"markups": "nonsense"}'
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
    write_markups(study.folder / "labels" / "final" / "a (1).mrk.json", points(study.task, 1))
    (problem,) = study.sync()
    assert "a (1)" in problem and "not allowed" in problem


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
    old = label_file(study, "a").read_bytes()
    for value in (2, 3):
        study.save("a", points(study.task, value))
    label_file(study, "a").write_bytes(old)
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


def test_a_killed_writers_leftovers_are_swept(study):
    leftover = study.folder / "labels" / "final" / ".a.mrk.json.x1y2z3"
    leftover.write_text("half")
    assert study.sync() == [] and not leftover.exists()


def test_a_lost_database_is_rebuilt_from_the_files(study):
    study.save("a", points(study.task, 1))
    study.close()
    for path in (study.folder / ".landmarklabel").glob("revisions.sqlite*"):
        path.unlink()
    again = Study(study.folder, study.task)
    assert again.sync() == []
    assert same_landmarks(again.labelled()["a"], points(study.task, 1))


def test_a_damaged_memory_of_the_files_costs_only_time(study):
    study.save("a", points(study.task, 1))
    study.sync()
    for content in ("{", "[]", '{"task": 1, "files": {"a": 1}}'):
        (study.cache_dir / "label_files.json").write_text(content)
        assert study.sync() == []
    assert len(study.history("a")) == 1


def test_files_that_did_not_change_are_not_read_again(study, monkeypatch):
    study.save("a", points(study.task, 1))
    monkeypatch.setattr("landmarklabel.store.label_files.SETTLED_NS", 0)
    assert study.sync() == []
    read = []
    monkeypatch.setattr(study._files, "_look", lambda image_id, head: read.append(image_id))
    assert study.sync() == [] and read == []


# --- many writers ----------------------------------------------------------------------------------------------------


def _save_many(folder, task, writer, count):
    study = Study(folder, task)
    for i in range(count):
        study.save("a", points(task, 1000 * writer + i), author=str(writer))
    study.close()


def _all_are_there(study, writers, count):
    history = study.history("a")
    assert [r.number for r in history] == list(range(1, writers * count + 1))
    assert sorted({r.author for r in history}) == sorted(map(str, range(writers)))
    assert label_file(study, "a").read_text() == dump_markups(landmarks_of(history[-1].body, study.task))
    assert study.sync() == [] and study.revisions.verify() == []


def test_eight_processes_lose_nothing_and_the_file_is_the_newest(study):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_save_many, args=(study.folder, study.task, w, 25)) for w in range(8)]
    [p.start() for p in processes]
    while any(p.is_alive() for p in processes):  # a reader and a sync meanwhile see only whole files
        if label_file(study, "a").exists():
            assert on_file(study, "a").defined.all()
        assert study.sync() == []
    [p.join(120) for p in processes]
    assert [p.exitcode for p in processes] == [0] * 8
    _all_are_there(study, 8, 25)


def test_eight_threads_lose_nothing_and_the_file_is_the_newest(study):
    def save(writer):
        for i in range(10):
            study.save("a", points(study.task, 1000 * writer + i), author=str(writer))

    threads = [threading.Thread(target=save, args=(w,)) for w in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    _all_are_there(study, 8, 10)


def test_two_that_add_one_id_do_not_overwrite_each_other(study, tmp_path):
    sources = []
    for i in range(4):
        image = sitk.GetImageFromArray(np.full((8, 8), i, np.uint8))
        sitk.WriteImage(image, str(tmp_path / f"{i}.png"))
        sources.append(tmp_path / f"{i}.png")
    outcomes = []

    def add(source):
        try:
            outcomes.append(study.add_image("new", source).read_bytes())
        except StudyError:
            outcomes.append(None)

    threads = [threading.Thread(target=add, args=(s,)) for s in sources]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert [o for o in outcomes if o] == [study.image_path("new").read_bytes()]
