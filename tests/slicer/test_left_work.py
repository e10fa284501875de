"""Work in other folders: it comes case by case, as a whole, to whom it belongs, also after kills, and is sent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from annotators import at, opened, settle, submitted, token_of
from LandmarkLabelLib import left_work, work_folder
from LandmarkLabelLib.left_work import cases_in
from LandmarkLabelLib.options import address_of
from LandmarkLabelLib.outbox import Outbox
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.session_files import Sessions
from LandmarkLabelLib.wire import PLACED, Task
from LandmarkLabelLib.work_folder import folder_of, own_folder
from serving import phantoms, serving

FIRST, SECOND, THIRD = "phantom00", "phantom01", "phantom02"


@pytest.fixture(autouse=True)
def as_a_new_program(monkeypatch):
    """Every test begins without folders of its own."""
    monkeypatch.setattr(work_folder, "_HELD", {})


@pytest.fixture()
def material(tmp_path):
    return phantoms(tmp_path / "study", 3)


def left(folder: Path, task: Task, case: str, author: str, is_submitted: bool = True, number: int = 0) -> Session:
    """A case as a program has left it in its folder."""
    (folder / "in_use.lock").parent.mkdir(parents=True, exist_ok=True)
    (folder / "in_use.lock").touch()
    session = Session.fresh(task, case)
    session.place(task.names[number], (20.0 + number, 30.0, 0.0))
    session.author = author
    Sessions(folder / "sessions").keep(session)
    if is_submitted:
        Outbox(folder / "outbox").put(session, author)
    return session


def second_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-2")


def test_of_two_people_before_there_were_tokens_each_gets_the_own_cases(tmp_path, material):
    ann = token_of(material, "ann")
    with serving(material) as server:
        place = folder_of(tmp_path / "work", server.url)
        work_folder.write_atomically(place / "place.txt", server.url)
        left(place, material.task, FIRST, "ann")
        left(place, material.task, SECOND, "bob")
        left(second_of(place), material.task, THIRD, "carl")  # in a second Slicer
        logic = at(server.url, tmp_path / "work", ann)
        with_token = {"Authorization": f"Bearer {ann}"}
        revisions = {c: server.get(f"/landmarks/images/{c}", headers=with_token)["revision"] for c in (FIRST, SECOND, THIRD)}
        assert revisions == {FIRST: 1, SECOND: 0, THIRD: 0} and logic.unsent == []
        assert logic.notices == ["2 cases of bob, carl wait here to be sent: press Take over only if they are yours"]
        logic.close()


def test_a_submission_that_had_to_wait_for_another_version_is_sent(tmp_path, material):
    with serving(material) as server:
        logic = at(server.url, tmp_path / "work")
        opened(logic, FIRST)
        logic.correct(logic.task.names[0], (21.0, 31.0, 0.0))
        left(second_of(logic.folder), logic.task, FIRST, "somebody", number=1)
        logic.notice()
        assert logic.notices[0].startswith("a Slicer that has ended left 1 cases that are unsent here too")
        submitted(logic)
        opened(logic, SECOND)
        settle(logic)
        assert [(e.image_id, e.state) for e in logic.unsent] == [(FIRST, "conflict")]  # two versions: a person decides
        opened(logic, FIRST)
        assert logic.conflict is not None and logic.session.point(logic.task.names[1]).state == PLACED
        logic.close()


@pytest.mark.parametrize("moved", range(1, 4))
def test_a_kill_while_a_case_is_moved_leaves_it_whole(tmp_path, moved, monkeypatch):
    task = Task("t", ("a", "b"), 3, {}, ())
    first = folder_of(tmp_path, "http://a")
    session = left(second_of(first), task, "one", "ann")
    session.place("b", (1.0, 2.0, 3.0))
    Sessions(second_of(first) / "sessions").keep(session)
    Outbox(second_of(first) / "outbox").put(session, "ann")  # two submissions, and the session
    real, count = os.replace, []

    def killed(old, new) -> None:
        if Path(new).parent.name in ("outbox", "sessions") and Path(new).is_relative_to(first):
            count.append(1)
            if len(count) == moved:
                raise KeyboardInterrupt
        real(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(left_work.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            own_folder(tmp_path, "http://a")
    work_folder.let_go(tmp_path)
    own_folder(tmp_path, "http://a")
    assert len(Outbox(first / "outbox").waiting()) == 2 and cases_in([second_of(first)]) == {}
    assert Sessions(first / "sessions").load("one", task).point("b").state == PLACED
    assert not (first / "moving.json").exists()


def test_an_acknowledgement_that_comes_late_takes_nothing_back(tmp_path, material):
    with serving(material) as server:
        logic = at(server.url, tmp_path / "work")
        opened(logic, FIRST)
        late = []
        for x in (11.0, 12.0):
            logic.correct(logic.task.names[0], (x, 5.0, 0.0))
            settle(logic)
            key = logic.outbox.put(logic.session, "somebody")
            late.append(next(logic.outbox.folder.glob(f"{key}.json")).read_text(encoding="utf-8"))
            logic.deliver()
            settle(logic)
        assert logic.session.base_revision == 2 and not logic.session.unsent
        kept = logic.outbox.folder / "acknowledged" / "00000000000000000001-a.json"
        kept.write_text(late[0].replace('"edits"', '"revision": 1, "edits"'), encoding="utf-8")  # of a file that was held open
        logic.deliver()
        settle(logic)
        assert logic.session.base_revision == 2 and not kept.exists()
        logic.correct(logic.task.names[0], (13.0, 5.0, 0.0))
        submitted(logic)
        assert logic.conflict is None and server.get(f"/landmarks/images/{FIRST}")["revision"] == 3
        logic.close()


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("HTTP://Host:8000/", "http://host:8000"),
        ("host", "http://host"),
        ("https://Ann:Secret@Host/Path/", "https://Ann:Secret@host/Path"),
        ("http://", "http://"),
        ("", ""),
    ],
)
def test_an_address_is_spelled_in_one_way(typed, address):
    assert address_of(typed) == address


def test_what_was_kept_under_another_spelling_comes_along(tmp_path):
    task = Task("t", ("a", "b"), 3, {}, ())
    earlier = folder_of(tmp_path, "http://Host:8000/ as ann")
    work_folder.write_atomically(earlier / "place.txt", "http://Host:8000/ as ann")
    left(earlier, task, "one", "ann")
    folder, is_first = own_folder(tmp_path, "http://host:8000 as ann")
    assert is_first and folder != earlier and len(Outbox(folder / "outbox").waiting()) == 1


def test_a_damaged_file_of_any_case_is_said_when_connecting_and_until_it_is_removed(tmp_path, material):
    with serving(material) as server:
        logic = at(server.url, tmp_path / "work")
        opened(logic, FIRST)
        logic.correct(logic.task.names[0], (21.0, 31.0, 0.0))
        (file,) = logic.sessions.folder.glob("*.session.json")
        opened(logic, SECOND)
        logic.close()
        file.write_bytes(b"half")
        logic = at(server.url, tmp_path / "work")
        (damaged,) = logic.sessions.folder.glob("*.damaged")
        assert damaged.read_bytes() == b"half" and not file.exists()
        assert [str(damaged) in notice for notice in logic.notices] == [True]
        damaged.unlink()
        opened(logic, THIRD)
        assert logic.notices == []
        logic.close()


def test_connect_goes_to_another_study_that_is_served_by_now(tmp_path, material):
    with serving(material) as server:
        port = int(server.url.rpartition(":")[2])
        logic = at(server.url, tmp_path / "work")
        opened(logic, FIRST)
    shutil.copytree(tmp_path / "study", tmp_path / "other", ignore=shutil.ignore_patterns("id"))
    other = type(material)(
        tmp_path / "other" / material.study.name, tmp_path / "other" / material.task_file.name, material.task, {}
    )
    with serving(other, port=port):
        begun = []
        assert logic.keeps_case(logic.options.url, "")
        logic.try_again(lambda: begun.append(1))
        settle(logic)
        assert begun == [1]
    logic.close()
