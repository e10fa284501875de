"""A database of its own for every study: two in one would take each other's labels for their own."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.store.studies import points

from landmarklabel.errors import StudyError, TaskMismatch
from landmarklabel.store.database import open_engine
from landmarklabel.store.revision_json import same_landmarks
from landmarklabel.store.study import Study
from landmarklabel.store.study_database import study_id


@pytest.fixture()
def url(postgres):
    """Of a server: one in a file is copied and moved with its study."""
    return postgres.new_database()


def two_studies(tmp_path, write_image):
    for name, seed in (("first", 1), ("second", 2)):
        write_image(tmp_path / name / "a.png", seed)
    return tmp_path / "first", tmp_path / "second"


def test_a_second_study_cannot_use_the_database_of_another(tmp_path, task, write_image, url):
    first, second = two_studies(tmp_path, write_image)
    with Study(first, task, url) as study:
        study.save("a", points(task, 1), author="ann")
    with pytest.raises(StudyError) as caught:
        Study(second, task, url)
    owner, file = (first / ".landmarklabel" / "id").read_text(encoding="ascii"), second / ".landmarklabel" / "id"
    assert str(caught.value) == (
        "the database of --store belongs to another study than second: give every study a database of its own. "
        f"If it is the same study in another folder, write that one's id, {owner}, into {file}"
    )
    assert not list((second / "labels" / "final").iterdir())
    with Study(first, task, url) as study:
        assert same_landmarks(study.labels("a"), points(task, 1))


def test_a_study_that_was_moved_or_copied_keeps_its_database(tmp_path, task, write_image, url):
    first, second = two_studies(tmp_path, write_image)
    with Study(first, task, url) as study:
        study.save("a", points(task, 1), author="ann")
    shutil.rmtree(second)
    first.rename(second)
    with Study(second, task, url) as study:
        assert same_landmarks(study.labels("a"), points(task, 1))


def test_what_the_error_says_helps(tmp_path, task, write_image, url):
    """The same images on another computer, whose folder was not copied as a whole."""
    first, second = two_studies(tmp_path, write_image)
    Study(first, task, url).close()
    with pytest.raises(StudyError) as caught:
        Study(second, task, url)
    owner, place = re.search(r"write that one's id, (\w+), into (.+)$", str(caught.value)).groups()
    Path(place).write_text(owner, encoding="ascii")
    Study(second, task, url).close()


def test_who_names_the_wrong_folder_or_task_takes_no_database(tmp_path, task, write_image, url):
    """Of a time before databases were claimed: revisions, and nobody's."""
    first, second = two_studies(tmp_path, write_image)
    with Study(first, task, url) as study:
        study.save("a", points(task, 1), author="ann")
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE what = 'database of study'"))
    engine.dispose()
    with pytest.raises(TaskMismatch):
        Study(second, replace(task, names=("x", "y", "z")), url)
    with Study(first, task, url) as study:
        assert same_landmarks(study.labels("a"), points(task, 1))


def test_a_study_has_one_id(tmp_path):
    (tmp_path / ".landmarklabel").mkdir()
    assert study_id(tmp_path) == study_id(tmp_path) and len(study_id(tmp_path)) == 32


def test_a_study_has_its_id_before_anybody_asks_for_it(tmp_path, task):
    """A copy of its first day is the same study: pages that were opened later find their study again when it is put back."""
    Study(tmp_path / "study", task).close()
    shutil.copytree(tmp_path / "study", tmp_path / "copy")
    assert (tmp_path / "copy" / ".landmarklabel" / "id").is_file()
    assert study_id(tmp_path / "copy") == study_id(tmp_path / "study")
