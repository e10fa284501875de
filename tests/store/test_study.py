"""A study folder and its images."""

from __future__ import annotations

import os
import re

import pytest
from tests.store.studies import age, points, write_dicom

from landmarklabel.errors import ImageRejected, NotFound, StudyError, UsageError
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.store.study import Study


@pytest.fixture
def url():
    """What is tested here is the folder; its own database does."""
    return None


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_study_creates_its_folders(tmp_path, task):
    study = Study(tmp_path / "new" / "study", task)
    assert (study.folder / "labels" / "final").is_dir() and study.models_dir.is_dir() and study.cache_dir.is_dir()
    assert study.models_dir == study.folder / ".landmarklabel" / "models"
    assert (study.images(), study.labelled(), study.sync()) == ({}, {}, [])


def test_a_file_is_no_study(tmp_path, task):
    (tmp_path / "file").write_text("x", encoding="utf-8")
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


def test_a_long_path_holds_a_study_as_far_as_sqlite_goes(tmp_path, task, write_image):
    deep = tmp_path.joinpath(*("Müller " + 43 * "x" for _ in range(5)))
    assert 260 < len(str(deep)) < 400
    study = Study(deep, task)
    write_image(study.folder / "a.png")
    study.save("a", points(task, 1))
    assert (study.folder / "labels" / "final" / "a.mrk.json").is_file()
    with pytest.raises(StudyError, match=r"path has \d+ bytes and SQLite opens 504: give the study a shorter path"):
        Study(deep.joinpath(*(50 * "y" for _ in range(4))), task)


# --- images ----------------------------------------------------------------------------------------------------------


def test_images_are_listed_by_id_in_order(study, write_image):
    write_image(study.folder / "B2.PNG")
    (study.folder / "notes.txt").write_text("no image", encoding="utf-8")
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


def test_two_files_with_one_id_are_refused_by_name_and_cost_no_label(study):
    study.save("a", points(study.task, 1))
    (study.folder / "a.nrrd").write_bytes(b"")
    why = "a.nrrd and a.png are left out: they would all be image 'a'; rename or remove all but one"
    assert list(study.images()) == ["b", "c"] and study.sync() == [why]
    with pytest.raises(NotFound, match=re.escape(why)):
        study.save("a", points(study.task, 2))
    study.save("b", points(study.task, 2))  # the others go on
    (study.folder / "a.nrrd").unlink()
    study.save("a", points(study.task, 2), base_revision=1)
    assert study.sync() == [] and len(study.history("a")) == 2


def test_a_name_that_cannot_be_an_id_is_left_out_and_reported(study):
    (study.folder / "scan #1.png").write_bytes(b"")
    assert list(study.images()) == ["a", "b", "c"]
    assert [text.split(":")[0] for text in study.sync()] == ["scan #1.png is left out"]


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
    (tmp_path / "x.txt").write_text("x", encoding="utf-8")
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
        study.add_image("case", write_dicom(tmp_path / "other", slices=4))
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
    listing = study._images.listed()
    assert study.image_path("case77") == tmp_path / "case77.png"
    assert study._images.listed() is listing  # no second walk while the folder is as it was
    (tmp_path / "more.png").touch()
    assert "more" in study.images()
