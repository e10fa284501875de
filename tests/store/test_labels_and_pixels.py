"""Labels belong to the pixels they were made on: a changed image is shown, left out of training, and a person decides."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from tests.store.studies import label_file, points, write_dicom

from landmarklabel.errors import Busy, ImageRejected, StudyError, TaskMismatch, UsageError
from landmarklabel.io.markups import write_markups
from landmarklabel.io.memory import NO_ROOM, OUT_OF_MEMORY
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.services.trainings import gather
from landmarklabel.store import study_changes
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.study import Study

CHANGED = "a: the image was changed since it was labelled, and is left out until"


def swap(study, write_image, seed, keep_time=False):
    """Other pixels under the same name, as a person copies a file over another."""
    path = study.image_path("a")
    before = path.stat()
    write_image(path, seed)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("how", ["in place", "in place, same time", "removed and added", "removed and dropped in"])
def test_other_pixels_under_an_id_are_not_labelled(study, tmp_path, write_image, how):
    for image_id in "ab":
        study.save(image_id, points(study.task, 1))
    assert sorted(study.labelled()) == ["a", "b"] and study.changed() == frozenset()
    if how.startswith("in place"):
        swap(study, write_image, 77, keep_time="same time" in how)
    else:
        study.remove_image("a")
        if how.endswith("dropped in"):
            write_image(study.folder / "a.png", 77)
        else:
            study.add_image("a", write_image(tmp_path / "other.png", 77))
    for opened in (study, Study(study.folder, study.task, str(study.revisions._engine.url.render_as_string(False)))):
        assert list(opened.labelled()) == ["b"] and opened.changed() == {"a"}
        assert len(problems := opened.sync()) == 1 and problems[0].startswith(CHANGED)
    material = gather(study)
    assert [c.image_id for c in (*material.train, *material.valid)] == ["b"]
    assert [p.name for p in material.unlabelled] == ["c.png"]
    assert any(text.startswith(CHANGED) for text in material.left_out)


def test_the_same_pixels_compressed_anew_or_in_another_file_are_no_change(study, tmp_path):
    study.save("a", points(study.task, 1))
    path = study.image_path("a")
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    assert list(study.labelled()) == ["a"] and study.sync() == []
    path.unlink()
    sitk.WriteImage(image, str(path.with_suffix(".nii.gz")))
    assert list(study.labelled()) == ["a"] and study.sync() == []


def test_the_old_image_put_back_is_labelled_again(study, write_image):
    study.save("a", points(study.task, 1))
    swap(study, write_image, 77)
    assert list(study.labelled()) == []
    swap(study, write_image, 0)  # as the fixture wrote it
    assert list(study.labelled()) == ["a"] and study.sync() == []


def test_a_person_decides_by_submitting_or_by_saying_that_the_points_hold(study, write_image):
    study.save("a", points(study.task, 1))
    swap(study, write_image, 77)
    kept = study_changes.keep_labels(study, "a", author="ann")
    assert (kept.number, kept.author, kept.source) == (2, "ann", "kept for a changed image")
    assert list(study.labelled()) == ["a"] and study.sync() == []
    with pytest.raises(StudyError, match="there is nothing to decide"):
        study_changes.keep_labels(study, "a", author="ann")
    swap(study, write_image, 78)
    assert study.changed() == {"a"}
    study.save("a", points(study.task, 2))
    assert list(study.labelled()) == ["a"]
    restored = study.restore("a", 1, author="ann")  # it was made on the first image
    assert restored.body["pixels"] == study.history("a")[0].body["pixels"] and study.changed() == {"a"}
    write_markups(label_file(study, "a"), points(study.task, 3))  # by hand, today, on the image as it is
    assert study.sync() == [] and list(study.labelled()) == ["a"]


def test_points_placed_on_an_image_that_changed_meanwhile_are_refused(study, write_image):
    study.save("a", points(study.task, 1))
    opened_on = study.history("a")[0].body["pixels"]
    study.save("a", points(study.task, 2), pixels=opened_on)
    swap(study, write_image, 77)
    with pytest.raises(TaskMismatch, match="the image was changed since you opened it"):
        study.save("a", points(study.task, 3), pixels=opened_on)
    assert len(study.history("a")) == 2


def test_one_slice_of_a_series_that_changes_is_noticed(tmp_path):
    study = Study(tmp_path / "study", LandmarkTask("t", ("p",), dims=3))
    study.add_image("ct", write_dicom(tmp_path / "source"))
    study.save("ct", points(study.task, 1))
    write_dicom(tmp_path / "other", slices=4)
    (tmp_path / "other" / "slice3").rename(study.folder / "ct" / "slice3")
    assert study.verify() == {"ct"} and study.labelled() == {}


def test_an_image_that_cannot_be_read_any_more_is_a_changed_one_and_stops_nothing(study):
    study.save("a", points(study.task, 1))
    study.save("b", points(study.task, 1))
    study.image_path("a").write_bytes(b"\x89PNG broken")
    assert list(study.labelled()) == ["b"] and [c.image_id for c in gather(study).train + gather(study).valid] == ["b"]


def test_hashes_are_computed_once_for_a_file_that_does_not_change(study, write_image, monkeypatch):
    monkeypatch.setattr("landmarklabel.store.pixels.CONFIG", replace(CONFIG, mtime_settled_ns=0))
    path, computed = study.image_path("a"), []
    compute = study.pixels._compute
    monkeypatch.setattr(study.pixels, "_compute", lambda p: computed.append(p) or compute(p))
    first = study.pixels.of(path)
    assert study.pixels.of(path) == first and computed == [path]
    again = Study(study.folder, study.task, study.revisions._engine.url.render_as_string(False))
    assert again.pixels.unchanged(path) == first  # remembered over a restart
    write_image(path, 77)
    assert study.pixels.of(path) != first and computed == [path, path]


def test_a_label_from_before_hashes_belongs_to_the_pixels_that_are_first_seen(study, write_image):
    study.save("a", points(study.task, 1))
    head = study.revisions.head("a")
    study.revisions.save("a", {k: v for k, v in head.body.items() if k != "pixels"})  # as earlier versions wrote it
    assert list(study.labelled()) == ["a"]
    gather(study)  # reads the image
    assert [c.after for c in study.revisions.changes("a", what="pixels noted")] == [head.body["pixels"]]
    swap(study, write_image, 77)
    url = study.revisions._engine.url.render_as_string(False)
    assert study.labelled() == {} and Study(study.folder, study.task, url).labelled() == {}


def test_an_id_that_second_readings_use_is_refused(study, tmp_path, write_image):
    study.save("a", points(study.task, 1))
    study.save_repeat("a", points(study.task, 2))
    with pytest.raises(UsageError, match="'@second reading' at its end marks second readings; rename it"):
        study.add_image("a@second reading", write_image(tmp_path / "x.png", 9))
    write_image(study.folder / "a@second reading.png", 9)
    assert list(study.images()) == ["a", "b", "c"]
    assert study.sync()[0].startswith("a@second reading.png is left out: image id")


def test_links_that_leave_the_study_are_no_images(study, tmp_path, write_image):
    outside = write_image(tmp_path / "elsewhere" / "secret.png", 5)
    (study.folder / "link.png").symlink_to(outside)
    (study.folder / "inside.png").symlink_to(study.folder / "a.png")
    (study.folder / "dangling.png").symlink_to(tmp_path / "nothing.png")
    (study.folder / "folder").symlink_to(write_dicom(tmp_path / "dicom"))
    inner = study.folder / "series"
    inner.mkdir()
    (inner / "slice0").symlink_to(tmp_path / "dicom" / "slice0")
    assert list(study.images()) == ["a", "b", "c", "inside"]
    left_out = [text for text in study.sync() if "link" in text]
    assert [text.split(" ")[0] for text in left_out] == ["dangling.png", "folder", "link.png", "series"]
    label_file(study, "b").symlink_to(outside)
    assert study.sync()[-1] == "labels/final/b.mrk.json: b.mrk.json is a link to another folder; put the file itself there"


def test_a_label_made_on_an_image_that_cannot_be_read_is_looked_at_when_it_can(study, write_image):
    study.save("a", points(study.task, 1))
    study.image_path("a").write_bytes(b"\x89PNG broken")
    write_markups(label_file(study, "a"), points(study.task, 2))
    study.sync()
    assert study.history("a")[-1].body["pixels"] == "unreadable"
    swap(study, write_image, 77)
    assert study.labelled() == {} and study.changed() == {"a"}


def test_an_edit_from_before_the_image_was_swapped_was_made_on_the_old_one(study, write_image):
    study.save("a", points(study.task, 1))
    path = label_file(study, "a")
    write_markups(path, points(study.task, 2))
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 10))
    swap(study, write_image, 77)
    study.sync()
    assert len(study.history("a")) == 2 and study.labelled() == {} and study.changed() == {"a"}
    write_markups(path, points(study.task, 3))  # and one from after it, on the new one
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 10))
    study.sync()
    assert list(study.labelled()) == ["a"]


def test_a_study_that_was_moved_is_not_made_anew_where_it_was(study):
    study.save("a", points(study.task, 1))
    study.folder.rename(study.folder.with_name("moved"))
    with pytest.raises(StudyError) as caught:
        study.save("b", points(study.task, 1))
    assert caught.value.http_status == 503 and not study.folder.exists()


def test_what_was_saved_under_a_key_is_answered_again_although_the_image_was_exchanged_since(study, write_image):
    opened_on = study.pixels_of("a")
    first = study.save("a", points(study.task, 2), pixels=opened_on, key="k")
    swap(study, write_image, 77)
    assert study.save("a", points(study.task, 2), pixels=opened_on, key="k").number == first.number
    with pytest.raises(TaskMismatch, match="the image was changed since you opened it"):
        study.save("a", points(study.task, 2), pixels=opened_on, key="another")


def test_an_image_that_cannot_be_read_has_no_hash_that_a_save_could_name(study):
    study.save("a", points(study.task, 2))
    study.image_path("a").write_bytes(b"damaged")
    assert "a" in study.verify() and study.pixels_of("a") is None
    with pytest.raises(TaskMismatch):
        study.save("a", points(study.task, 3), pixels="unreadable")


def test_a_proposal_that_nobody_confirmed_is_no_label(study):
    task = study.task
    status = (Status.PLACED, Status.PREDICTED) + (Status.ACCEPTED,) * (len(task) - 2)
    saved = LandmarkSet(task, points(task, 1).positions_mm, status)
    study.save("a", saved, author="ann")
    study.save("b", points(task, 2), author="ann")
    label = study.labelled()["a"]
    assert label.status == (Status.PLACED, Status.UNSET) + status[2:] and np.isnan(label.positions_mm[1]).all()
    assert study.newest()["a"] == study.labels("a") == saved and study.labelled()["b"] == points(task, 2)
    material = gather(study)
    (case,) = [c for c in (*material.train, *material.valid) if c.image_id == "a"]
    assert case.labels == label
    assert "1 points are proposals that nobody has confirmed, and are not learned from: a" in material.remarks
    study.save("a", points(task, 1), author="ann")
    assert study.labelled()["a"] == points(task, 1) and not any("proposals" in text for text in gather(study).remarks)


def test_a_labelled_image_that_is_gone_is_said_and_one_that_was_removed_is_not(study, tmp_path):
    for image_id in "ab":
        study.save(image_id, points(study.task, 1))
    study.image_path("a").rename(tmp_path / "a.png")
    study.remove_image("b")
    assert study.sync() == ["a: its image is not in the study any more, and its label is left out until it is back"]
    (tmp_path / "a.png").rename(study.folder / "a.png")
    assert study.sync() == [] and list(study.labelled()) == ["a"]


@pytest.mark.parametrize("said", [NO_ROOM, OUT_OF_MEMORY])
def test_a_moment_without_memory_says_nothing_of_an_image(study, monkeypatch, said):
    study.save("a", points(study.task, 1))
    for image_id in "ab":
        os.utime(study.image_path(image_id))  # so that it has to be looked at

    def without_memory(path, dims):
        raise ImageRejected(path.name, [said])

    with monkeypatch.context() as patch:
        patch.setattr("landmarklabel.store.pixels.read_image", without_memory)
        assert study.verify() == frozenset() and list(study.labelled()) == ["a"]
        with pytest.raises(Busy, match="b.png.*try again when other work takes less memory"):
            study.save("b", points(study.task, 1))
        with pytest.raises(Busy):
            study_changes.keep_labels(study, "a", author="ann")
    assert study.verify() == frozenset() and study.sync() == [] and study.history("b") == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("itk::ERROR: Failed to allocate memory for image.")])
def test_an_allocation_that_fails_is_told_apart_from_a_damaged_image(study, monkeypatch, error):
    study.save("a", points(study.task, 1))
    os.utime(study.image_path("a"))

    def failing(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("landmarklabel.io.images.decoded", failing)
        assert study.verify() == frozenset() and study.labelled()
    assert study.verify() == frozenset()


def test_labels_are_not_kept_for_an_image_that_nobody_can_have_looked_at(study):
    study.save("a", points(study.task, 1))
    study.image_path("a").write_bytes(b"no image")
    with pytest.raises(StudyError, match="a: the image cannot be read, so it is not known whether its points still hold"):
        study_changes.keep_labels(study, "a", author="ann")
    assert len(study.history("a")) == 1
