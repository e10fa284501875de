"""What is kept on this computer is in sight, and every word about it is true: after other programs, full disks and restarts."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import qt_harness
from annotators import token_of
from qt_harness import idle, open_case, press, wait_for
from serving import phantoms, serving

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib import session_files, work_folder  # noqa: E402
from LandmarkLabelLib.client import Conflict  # noqa: E402
from LandmarkLabelLib.wire import PLACED, Point, RevisionNumber  # noqa: E402

FIRST, SECOND, THIRD = "phantom00", "phantom01", "phantom02"
PLACE = (40.0, 50.0, 0.0)


@pytest.fixture()
def material(tmp_path):
    slicer.mrmlScene.Clear(False)
    return phantoms(tmp_path / "study", 3)


class Desk:
    """Slicers that are started and ended one after the other at one computer."""

    def __init__(self, folder: Path, url: str, token: str = ""):
        self.folder, self.url = folder, url
        self.start(token)

    def start(self, token: str = "") -> None:
        self.panel, self.window = qt_harness.open_panel(self.folder)
        self.connect(token)

    def connect(self, token: str = "") -> None:
        self.panel.ui.url.setText(self.url)
        self.panel.ui.token.setText(token)
        press(self.panel, "connectButton")
        idle(self.panel)

    def end(self) -> None:
        self.panel.close()
        self.window.close()
        slicer.mrmlScene.Clear(False)
        work_folder.let_go(self.folder)

    def open(self, case: str) -> None:
        open_case(self.panel, case)

    def place(self, number: int, where: tuple = PLACE) -> None:
        assert self.panel.logic.correct(self.panel.logic.task.names[number], where)
        idle(self.panel)

    @property
    def trouble(self) -> str:
        self.panel.tick()
        return self.panel.ui.trouble.text().replace("\u200b", "")

    @property
    def unsent(self) -> list[str]:
        self.panel.tick()
        rows = self.panel.ui.unsentList
        return [rows.item(i).text() for i in range(rows.count())]


@pytest.fixture()
def desk(tmp_path, material):
    with serving(material) as server:
        made = Desk(tmp_path / "panel", server.url)
        made.server = server
        yield made
        made.end()


def other_slicer(base: Path, place: str) -> subprocess.Popen:
    """Another program that holds the first folder for a place."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from LandmarkLabelLib.work_folder import own_folder;"
        "print(*own_folder(Path(sys.argv[2]), sys.argv[3]), flush=True); sys.stdin.readline()"
    )
    words = [sys.executable, "-c", program, str(Path(work_folder.__file__).parents[1]), str(base), place]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().split()[1] == "True"
    return process


def test_a_second_slicer_that_becomes_the_first_keeps_its_work_in_sight(tmp_path, material):
    ann, bob = token_of(material, "ann"), token_of(material, "bob")
    with serving(material) as server:
        desk = Desk(tmp_path / "panel", server.url, ann)
        place = desk.panel.logic.place
        desk.end()
        first = other_slicer(desk.folder, place)
        desk.start(ann)
        assert desk.trouble == "another Slicer works for this server: what it has not sent is not shown here"
        for case in (FIRST, SECOND):
            desk.open(case)
            desk.place(0)
        first.communicate("\n")
        desk.connect(bob)
        desk.connect(ann)
        assert desk.panel.ui.caseLabel.text().startswith(SECOND) and desk.unsent == [f"{FIRST}: changed, not submitted"]
        assert desk.trouble == ""
        desk.end()


def test_a_case_is_sent_after_what_the_role_may_not_do_was_mended(tmp_path, material):
    ann = token_of(material, "ann")
    with serving(material) as server:
        desk = Desk(tmp_path / "panel", server.url, ann)
        panel, ui, name = desk.panel, desk.panel.ui, desk.panel.logic.task.names[0]

        def submit() -> None:
            press(panel, "submitButton")
            if "Submit again" in ui.message.text():
                press(panel, "submitButton")
            idle(panel)

        desk.open(FIRST)
        panel.select(name)
        press(panel, "absentButton")
        submit()
        desk.open(FIRST)
        panel.select(name)
        press(panel, "unlockButton")
        submit()
        assert desk.trouble.startswith(f"{FIRST}: the server did not take it: ") and "reviewer" in desk.trouble
        desk.open(FIRST)
        desk.place(1)
        submit()
        saved = server.get(f"/landmarks/images/{FIRST}", headers={"Authorization": f"Bearer {ann}"})
        assert (saved["revision"], saved["landmarks"][1]["status"]) == (2, PLACED)
        assert desk.unsent == [] and not desk.trouble
        desk.end()


def test_a_damaged_file_of_a_case_is_said_and_kept(desk):
    desk.open(FIRST)
    desk.place(0)
    folder = desk.panel.logic.sessions.folder
    desk.end()
    (file,) = folder.glob("*.session.json")
    half = file.read_bytes()[:200]
    file.write_bytes(half)
    desk.start()
    (kept,) = folder.glob("*.damaged")
    says = f"what was kept of a case cannot be read: look at the cases you had not sent; the file is {kept}"
    assert desk.trouble == says and kept.read_bytes() == half
    desk.open(FIRST)
    desk.place(1)
    assert desk.trouble == says and kept.read_bytes() == half


def test_the_word_that_points_are_only_in_memory_goes_when_they_are_on_disk(desk, monkeypatch):
    desk.open(FIRST)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(session_files.os, "fsync", full)
        desk.place(0)
        assert desk.trouble.startswith("your points are only in memory: ")
    desk.place(1)
    (file,) = desk.panel.logic.sessions.folder.glob("*.session.json")
    assert [p["state"] for p in json.loads(file.read_text(encoding="utf-8"))["points"][:2]] == [PLACED, PLACED]
    assert desk.trouble == ""


def test_take_over_that_cannot_take_says_why(tmp_path, material):
    ann, bob = token_of(material, "ann"), token_of(material, "bob")
    with serving(material) as server:
        desk = Desk(tmp_path / "panel", server.url, ann)
        desk.open(FIRST)
        desk.place(0)
        place = desk.panel.logic.place
        desk.end()
        anns = other_slicer(desk.folder, place)
        desk.start(bob)

        def take_over() -> str:
            press(desk.panel, "takeOverButton")
            press(desk.panel, "takeOverButton")
            idle(desk.panel)
            return desk.panel.ui.message.text()

        assert take_over() == "the Slicer in which it was done is still open: close it first"
        anns.communicate("\n")
        desk.open(FIRST)
        assert take_over() == "a case that is open here stays until another one is open"
        assert desk.unsent == [] and not desk.panel.ui.takeOverButton.isHidden()
        desk.open(SECOND)
        assert take_over() == "1 cases taken over; what was not submitted is listed as unsent"
        assert desk.unsent == [f"{FIRST}: changed, not submitted"] and desk.panel.ui.takeOverButton.isHidden()
        desk.end()


def test_connect_while_connected_keeps_what_is_being_done(desk):
    desk.open(FIRST)
    desk.place(0)
    panel, names = desk.panel, desk.panel.logic.task.names
    press(panel, "connectButton")
    node = panel.node.node
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPositionWorld(0, -20, -30, 0)
    idle(panel)
    node.SetNthControlPointPositionWorld(0, -21, -31, 0)
    node.InvokeEvent(node.PointEndInteractionEvent)
    idle(panel)
    assert panel.logic.session.point(names[0]).position == (21.0, 31.0, 0.0)
    press(panel, "connectButton")
    panel.select(names[1])
    press(panel, "replaceButton")
    idle(panel)
    assert panel.node.placing == names[1]
    while panel.logic.session.point(names[0]).position != PLACE:
        assert panel.logic.session.undo_text[0], "what was done before is forgotten"
        press(panel, "undoButton")


def test_another_case_that_opens_under_the_hand_says_where_the_point_is(desk):
    desk.open(FIRST)
    desk.place(0)
    panel, node = desk.panel, desk.panel.node.node
    panel.ui.cases.setCurrentIndex(panel.review._names.index(SECOND))
    press(panel, "openCaseButton")
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPositionWorld(0, -20, -30, 0)
    wait_for(panel, lambda: panel.logic.session.image_id == SECOND, "the other case")
    assert panel.ui.message.text() == f"{SECOND}; the point you were moving in {FIRST} is where it was"


def test_a_file_that_another_program_holds_stops_nothing(desk, monkeypatch):
    desk.open(FIRST)
    desk.place(0)
    real = Path.unlink

    def held(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".session.json") and path.exists():
            raise PermissionError(errno.EACCES, "in use by another program", str(path))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    press(desk.panel, "submitButton")
    idle(desk.panel)
    wait_for(desk.panel, lambda: desk.panel.logic.session.image_id != FIRST, "the next case")
    assert desk.server.get(f"/landmarks/images/{FIRST}")["revision"] == 1 and desk.unsent == []
    desk.end()
    desk.start()
    assert desk.unsent == []


def test_two_versions_are_shown_again_after_a_restart(desk):
    panel, name = desk.panel, desk.panel.logic.task.names[2]
    desk.open(FIRST)
    desk.place(1)
    rows = [{"name": name, "status": "placed", "position": [30.0, 31.0]}]
    assert desk.server.http("PUT", f"/landmarks/images/{FIRST}", json={"landmarks": rows, "base_revision": 0}).status_code == 200
    press(panel, "submitButton")
    idle(panel)
    assert not panel.ui.conflictFrame.isHidden()
    desk.end()
    desk.start()
    assert not desk.panel.ui.conflictFrame.isHidden() and len(desk.unsent) == 1
    press(desk.panel, "takeAllButton")
    assert desk.panel.logic.session.point(name).position == (30.0, 31.0, 0.0) and desk.unsent == []


def test_what_is_gone_from_the_server_cannot_be_taken_from_it(desk):
    """The study was restored from a copy that is older than the case's first revision."""
    panel, names = desk.panel, desk.panel.logic.task.names
    desk.open(FIRST)
    desk.place(1)
    panel.logic._meet(Conflict("", RevisionNumber(0), "", [Point(n) for n in names]))
    panel.refresh()
    assert panel.ui.conflictLabel.text() == (
        "the study was restored from an older copy and has no revision of this case any more: Submit mine saves yours"
    )
    assert [b.isEnabled() for b in (panel.ui.takePointButton, panel.ui.takeAllButton, panel.ui.submitMineButton)] == [0, 0, 1]


def test_an_address_has_one_spelling(desk):
    desk.open(FIRST)
    desk.place(0)
    url = desk.url
    for desk.url in (f"{url}/", url.replace("http", "HTTP")):
        desk.connect()
        assert desk.panel.ui.caseLabel.text().startswith(FIRST) and desk.trouble == ""


def test_what_is_chosen_in_a_list_stays_chosen(desk, material):
    for case in (FIRST, SECOND):
        desk.open(case)
        desk.place(0)
    desk.open(THIRD)
    ui = desk.panel.ui
    ui.strategy.setCurrentText("first")  # the next case is not the chosen one
    ui.unsentList.setCurrentRow(desk.unsent.index(f"{SECOND}: changed, not submitted"))
    ui.cases.setCurrentIndex(desk.panel.review._names.index(SECOND))
    shutil.copy(material.image(FIRST), material.study / "aaa.png")
    desk.place(0)
    press(desk.panel, "submitButton")
    idle(desk.panel)
    wait_for(desk.panel, lambda: "aaa" in desk.panel.review._names, "the new image")
    assert ui.cases.currentText().startswith(f"{SECOND}: ")
    assert ui.unsentList.item(ui.unsentList.currentRow()).text() == f"{SECOND}: changed, not submitted"
