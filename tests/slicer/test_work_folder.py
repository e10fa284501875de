"""Where the work for a server is kept: nobody writes to another program's files, and nothing is forgotten in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from LandmarkLabelLib import work_folder
from LandmarkLabelLib.left_work import cases_in
from LandmarkLabelLib.outbox import Outbox
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.session_files import Sessions
from LandmarkLabelLib.wire import Task
from LandmarkLabelLib.work_folder import folder_of, own_folder, places

TASK = Task("t", ("a", "b"), 3, {}, ())


@pytest.fixture(autouse=True)
def as_a_new_program(monkeypatch):
    """Every test begins without folders of its own."""
    monkeypatch.setattr(work_folder, "_HELD", {})


def kept(folder: Path, image_id: str, place: float, submitted: bool = False) -> Session:
    """A case with a point of a person's, as a program that was ended has left it."""
    session = Session.fresh(TASK, image_id)
    session.place("a", (place, 2, 3))
    Sessions(folder / "sessions").keep(session)
    if submitted:
        Outbox(folder / "outbox").put(session, "ann")
    return session


def test_work_for_one_server_never_goes_to_another(tmp_path):
    folders = {folder_of(tmp_path, url) for url in ("http://a:8000", "http://a:8000/", "http://b:8000", "http://a:8001")}
    assert len(folders) == 3


def test_two_programs_never_write_the_same_files(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from LandmarkLabelLib.work_folder import own_folder;"
        "print(*own_folder(Path(sys.argv[2]), 'http://a'), flush=True); sys.stdin.readline()"
    )
    words = [sys.executable, "-c", program, str(Path(work_folder.__file__).parents[1]), str(tmp_path)]
    others = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [other.stdout.readline().split() for other in others]
    assert sorted(first for _, first in said) == ["False", "True"] and said[0][0] != said[1][0]
    others[0].kill()
    others[1].kill()
    for other in others:
        other.communicate()
    assert own_folder(tmp_path, "http://a")[1]  # what a killed one held is free


def test_what_a_second_program_has_left_is_the_first_ones_when_that_starts(tmp_path):
    first = folder_of(tmp_path, "http://a")
    second = first.with_name(f"{first.name}-2")
    kept(second, "one", 1, submitted=True)
    kept(second, "two", 2)
    (second / "outbox" / "refused").mkdir(exist_ok=True)
    (key,) = [path.stem for path in Outbox(second / "outbox").waiting()]
    assert own_folder(tmp_path, "http://a") == (first, True)
    assert [path.stem for path in Outbox(first / "outbox").waiting()] == [key]
    assert [s.image_id for s in Sessions(first / "sessions").unsent(TASK)] in (["one", "two"], ["two", "one"])
    assert not list(second.rglob("*.json"))  # the case that was open there is opened here


def test_what_a_program_that_runs_has_is_left_alone(tmp_path):
    first = folder_of(tmp_path, "http://a")
    second = first.with_name(f"{first.name}-2")
    kept(second, "two", 2)
    with work_folder.hold(second / work_folder.LOCK, "taken"):
        assert own_folder(tmp_path, "http://a") == (first, True)
    assert [s.image_id for s in Sessions(second / "sessions").unsent(TASK)] == ["two"]


def test_of_one_case_in_both_the_second_waits_until_the_first_is_sent(tmp_path):
    first = folder_of(tmp_path, "http://a")
    second = first.with_name(f"{first.name}-2")
    mine, other = kept(first, "one", 1), kept(second, "one", 9, submitted=True)
    own_folder(tmp_path, "http://a")
    assert Outbox(first / "outbox").waiting() == [] and len(Outbox(second / "outbox").waiting()) == 1
    assert Sessions(first / "sessions").load("one", TASK).point("a") == mine.point("a")
    Sessions(first / "sessions").drop(mine)
    own_folder(tmp_path, "http://a")
    assert Sessions(first / "sessions").load("one", TASK).point("a") == other.point("a")


def test_of_one_case_in_two_others_one_comes_after_the_other(tmp_path):
    first = folder_of(tmp_path, "http://a")
    second, third = (first.with_name(f"{first.name}-{n}") for n in (2, 3))
    one, other = kept(second, "one", 1), kept(third, "one", 9)
    own_folder(tmp_path, "http://a")
    assert Sessions(first / "sessions").load("one", TASK).point("a") == one.point("a")
    assert Sessions(third / "sessions").load("one", TASK).point("a") == other.point("a")


def test_what_waits_for_another_name_of_a_server_is_counted_by_cases(tmp_path):
    for place in ("http://localhost:8000", "study /data/heads"):
        own_folder(tmp_path, place)
    folder = folder_of(tmp_path, "http://localhost:8000")
    kept(folder, "one", 1, submitted=True)
    kept(folder.with_name(f"{folder.name}-2"), "two", 1)
    (folder.with_name(f"{folder.name}-2") / "in_use.lock").touch()
    kept(folder, "sent", 1)
    sent = Sessions(folder / "sessions").load("sent", TASK)
    sent.acknowledged(sent.edits, 1)
    Sessions(folder / "sessions").keep(sent)
    found = {place: cases_in(folders) for place, folders in places(tmp_path).items()}
    assert found == {"http://localhost:8000": {("one", False): {"", "ann"}, ("two", False): {""}}, "study /data/heads": {}}
