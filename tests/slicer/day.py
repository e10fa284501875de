"""A day at the panel: a person annotates, and mishaps come at random."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import qt_harness
from qt_harness import press, wait_for

qt = qt_harness.install()

import slicer  # noqa: E402
import vtk  # noqa: E402
from LandmarkLabelLib.wire import ACCEPTED, PLACED, PREDICTED  # noqa: E402
from panel_person import Person  # noqa: E402
from views import SliceView  # noqa: E402

MISHAPS = (
    "another case opened",
    "another case chosen",
    "somebody saves it too",
    "list damaged",
    "scene closed",
    "image moved",
    "point outside",
    "server stands still",
    "wrong token",
    "program killed",
    "trained and stopped",
    "undone and done again",
    "colleague sits down",
    "work in another study",
)


class Day(Person):
    """A person's day, with all that can go wrong in it.

    Args:
        others_case: a case that only the colleague at the same computer works on.
        other_study: a second server, which asks for no token, and its study.
        person: as ``Person``.
    """

    def __init__(self, *person, others_case: str, other_study: tuple):
        self.others_case, self.other_study = others_case, other_study
        self.others_meant: dict = {}  # what the colleague meant
        self.meant_elsewhere: dict = {}  # in the other study
        super().__init__(*person)

    def mishap(self, kind: str) -> None:
        """Afterwards the same case is open, with all that was meant."""
        getattr(self, "_" + kind.replace(" ", "_"))()
        self.look(kind)

    def _another_case_opened(self) -> None:
        here, ui = self.case, self.panel.ui
        others = [n for n in self.panel.review._names if n != here]
        ui.cases.setCurrentIndex(self.panel.review._names.index(str(self.rng.choice(others))))
        press(self.panel, "openCaseButton")
        self.rest()
        self._back_to(here)

    def _leave_unsent_and_come_back(self, elsewhere: Callable) -> None:
        here = self.case
        self.drag_or_click(str(self.rng.choice(self.names)))
        elsewhere(lambda: self.drag_or_click(str(self.rng.choice(self.names))))
        assert self.case == here

    def _colleague_sits_down(self) -> None:
        """They see nothing of the person's unsent work; they leave theirs unsent; the person finds everything as it was."""
        self._leave_unsent_and_come_back(self.as_colleague)

    def as_colleague(self, does: Callable[[], None]) -> None:
        """The colleague connects, opens their case and does something."""
        mine, self.meant = self.meant, self.others_meant
        self._connect(self.tokens["annotator"])
        assert "connected as annotator" in self.panel.ui.serverStatus.text()
        self._find_again(self.others_case)
        does()
        if self.panel.logic.session.unsent:
            self.look("a colleague")
        self.meant = mine
        self._connect(self.tokens["admin"])
        self._show_image()

    def _work_in_another_study(self) -> None:
        """Its cases have the same names; what is done there and not sent stays there."""
        self._leave_unsent_and_come_back(self.in_other_study)

    def in_other_study(self, does: Callable[[], None]) -> None:
        """Connect to the other server, open a case there, do something, and come back."""
        own, self.meant = (self.server, self.material, self.meant), self.meant_elsewhere
        self.server, self.material = self.other_study
        self._connect("")
        assert self.panel.ui.serverStatus.text().startswith("connected"), self.panel.ui.serverStatus.text()
        self._find_again(sorted(self.material.truth)[0])
        does()
        if self.panel.logic.session.unsent:
            self.look("another study")
        self.server, self.material, self.meant = own
        self._connect(self.tokens["admin"])
        self._show_image()

    def _find_again(self, case: str) -> None:
        """Of this person, in this study, nothing but this case is unsent; it opens by itself where it is."""
        assert {row.image_id for row in self.panel._rows} <= {case}, (case, self.panel._rows)
        if self.panel.logic.session is None or self.case != case:
            assert not self.meant.get(case), self.log[-6:]
            self._open(case)
        self._show_image()
        self.look("found again")

    def _another_case_chosen(self) -> None:
        here = self.case
        press(self.panel, "nextButton")
        self.rest()
        self._back_to(here)

    def _back_to(self, case: str) -> None:
        """By the list of what is unsent, where it is in it, else by Review."""
        if self.case == case:
            return
        ui, listed = self.panel.ui, [w.image_id for w in self.panel._rows]
        if self.meant.get(case) and self.panel.logic.session.image_id != case:
            assert case in listed, (case, listed, self.log[-8:])
            assert not ui.unsentFrame.isHidden() and ui.unsentList.item(listed.index(case)).text().startswith(case)
            ui.unsentList.setCurrentRow(listed.index(case))
            press(self.panel, "openUnsentButton")
        else:
            ui.cases.setCurrentIndex(self.panel.review._names.index(case))
            press(self.panel, "openCaseButton")
        self.rest()
        assert self.case == case

    def _somebody_saves_it_too(self) -> None:
        """Both versions are shown; the person takes one point of theirs and submits the rest as it was."""
        here, name = self.case, str(self.rng.choice(self.names))
        self.drag_or_click(str(self.rng.choice([n for n in self.names if n != name])))
        base, place = self.get(here)["revision"], [float(v) for v in self.somewhere()[: self.material.task.dims]]
        rows = [{"name": name, "status": "placed", "position": place}]
        self.http("PUT", f"/landmarks/images/{here}", {"landmarks": rows, "base_revision": base, "author": "bob"})
        self._press_submit()
        self.rest()
        ui = self.panel.ui
        assert self.case == here and not ui.conflictFrame.isHidden() and "meanwhile" in ui.conflictLabel.text(), self.log[-5:]
        assert not ui.table.isColumnHidden(3) or "the other version: " in ui.table.item(self.names.index(name), 0).toolTip()
        self.look("both versions are shown")
        self.panel.select(name)
        press(self.panel, "takePointButton")
        self.meant_is(name, PLACED, (*place, 0.0)[:3])
        press(self.panel, "submitMineButton")
        if "Submit mine again" in ui.message.text():
            press(self.panel, "submitMineButton")
        self.rest()
        assert ui.conflictFrame.isHidden(), (ui.message.text(), ui.trouble.text(), self.log[-5:])
        self._back_to_done(here)

    def _back_to_done(self, case: str) -> None:
        if self.case != case:
            self._open(case)

    def _open(self, case: str) -> None:
        """By Review."""
        self.panel.ui.cases.setCurrentIndex(self.panel.review._names.index(case))
        press(self.panel, "openCaseButton")
        self.rest()

    def _show_image(self) -> None:
        wait_for(self.panel, lambda: self.panel.volume.node is not None, "the image")
        self.view = SliceView(slicer.applicationLogic, self.panel.volume.node, "Axial", size=(400, 400))

    def _list_damaged(self) -> None:
        node = self.panel.node.node
        node.SetFixedNumberOfControlPoints(False)
        kind, i = self.rng.integers(5), int(self.rng.integers(len(self.names)))
        self.panel.logic.message = ""
        if kind == 0:
            node.RemoveNthControlPoint(i)
        elif kind == 1:
            node.AddControlPoint(vtk.vtkVector3d(1, 2, 3), "F-1")
        elif kind == 2:
            node.SetNthControlPointLabel(i, "renamed")
        elif kind == 3:
            node.RemoveAllControlPoints()
        else:
            node.SwapControlPoints(i, (i + 1) % len(self.names))
        if kind == 0 and (left := [n for n in self.names if n != self.names[i] and self.panel.node.position(n)]):
            moving = [n for n in left if self.panel.logic.session.point(n).state != ACCEPTED]
            if moving:
                self.drag(str(self.rng.choice(moving)), self.somewhere())  # before the panel had time to put the list right
        self.panel.tick()
        assert [node.GetNthControlPointLabel(i) for i in range(node.GetNumberOfControlPoints())] == list(self.names)
        assert kind == 4 or self.panel.ui.message.text()
        self.rest()

    def _scene_closed(self) -> None:
        slicer.mrmlScene.Clear(False)
        self.panel.tick()
        assert self.panel.volume.node is not None and not self.panel.volume.is_gone and self.panel.node.is_in_scene
        self.view.close()
        self.view = SliceView(slicer.applicationLogic, self.panel.volume.node, "Axial", size=(400, 400))
        assert self.view.render()[..., 0].max() > 60  # not black

    def _image_moved(self) -> None:
        moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
        self.panel.volume.node.SetAndObserveTransformNodeID(moved.GetID())
        self._refused("the image is moved by registration", self.somewhere())
        press(self.panel, "submitButton")
        said = self.panel.ui.message.text()
        assert "the image is moved by registration" in said, said
        self.panel.volume.node.SetAndObserveTransformNodeID(None)
        slicer.mrmlScene.RemoveNode(moved)

    def _point_outside(self) -> None:
        far = (99999.0, -5000.0, 0.0) if self.rng.random() < 0.5 else (float("nan"), 1.0, 1.0)
        self._refused("cannot be outside of the image", far)

    def _refused(self, why: str, place: tuple) -> None:
        movable = [p.name for p in self.panel.logic.session.points if p.state in (PREDICTED, PLACED)]
        if not movable:
            return
        name = str(self.rng.choice(movable))
        before = dict(self.meant.get(self.case, {}))
        was = self.panel.node.position(name)
        self.drag(name, place)
        self.meant[self.case] = before
        self.panel.tick()
        assert why in self.panel.ui.message.text(), (why, self.panel.ui.message.text())
        assert self.panel.node.position(name) == was

    def _server_stands_still(self) -> None:
        here = self.case
        self.drag_or_click(str(self.rng.choice(self.names)))
        self.server.process.send_signal(signal.SIGSTOP)
        try:
            wait_for(self.panel, lambda: not self.panel.logic.online, "the panel to notice", 5.0)
            assert "does not answer" in self.panel.ui.serverStatus.text()
            self._press_submit()
            self.drag_or_click(str(self.rng.choice(self.names)))
            assert self.panel.logic.unsent and "waits for the server" in self.panel.ui.unsentList.item(0).text()
        finally:
            self.server.process.send_signal(signal.SIGCONT)
        wait_for(self.panel, lambda: self.panel.logic.online, "the server to be found again")
        self.rest()
        wait_for(self.panel, lambda: not self.panel.logic.outbox.waiting(), "what waited to arrive")
        self.rest()
        self._back_to(here) if self.case != here else None

    def _wrong_token(self) -> None:
        here = self.case
        self._connect("wrong" * 8)
        assert "not let in" in self.panel.ui.serverStatus.text() and self.panel.ui.trouble.text()
        assert not self.panel.ui.nextButton.isEnabled()
        self._connect(self.tokens["admin"])
        ui, elsewhere = self.panel.ui, bool(self.others_meant or self.meant_elsewhere)  # what others left unsent is said
        assert "connected as admin" in ui.serverStatus.text() and "not let in" not in ui.trouble.text()
        said = re.search("cases (wait for|of .+ wait here)", ui.trouble.text()) is not None
        assert ui.troubleFrame.isHidden() != elsewhere and said == elsewhere
        assert self.case == here

    def _program_killed(self) -> None:
        """Nothing is closed in order; a new one finds everything."""
        here = self.case
        self.panel.timer.stop()  # what follows ends with a process
        self.panel.ui.volumes.setMRMLScene(None)
        self.panel.node.close()
        self.panel.logic.worker.stop()
        self.window.close()
        slicer.mrmlScene.Clear(False)
        self._open_panel()
        if self.panel.logic.session is None or self.case != here:
            assert not self.meant.get(here), self.log[-6:]
            self._back_to_done(here)
        self._show_image()

    def _trained_and_stopped(self) -> None:
        press(self.panel, "trainButton")
        self.rest()
        press(self.panel, "stopTrainingButton")
        wait_for(self.panel, lambda: not self.panel.logic.training.is_running, "the training to be over", 60)
        self.rest()
        assert self.panel.ui.trainButton.isEnabled() and "training" in self.panel.ui.message.text()

    def _undone_and_done_again(self) -> None:
        points = list(self.panel.logic.session.points)
        count = int(self.rng.integers(1, 4))
        done = 0
        for _ in range(count):
            done += bool(self.panel.logic.session.undo_text[0])
            press(self.panel, "undoButton")
        for _ in range(done):
            press(self.panel, "redoButton")
        assert self.panel.logic.session.points == points
