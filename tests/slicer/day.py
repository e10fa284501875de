"""A day at the panel: cases annotated through its buttons and in its views, with mishaps at random, and a record of every click.

The record is kept apart from the program: what the person meant, by case and landmark. At the end the server must hold just that.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import qt_harness
import SimpleITK as sitk
from qt_harness import cut, idle, press, wait_for

qt = qt_harness.install()

import slicer  # noqa: E402
import vtk  # noqa: E402
from LandmarkLabelLib.markups import flipped  # noqa: E402
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED, UNSET  # noqa: E402
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
)
HOLD_US = 8000  # an idle Slicer holds Python's lock between two ticks of the timer


class Day:
    """One person, one server, one panel.

    Args:
        server: running, with tokens; ``tokens`` are those of the annotator and of the admin.
        material: its study.
        folder: where the panel keeps its things.
        seed: of what happens.
    """

    def __init__(self, server, material, folder: Path, tokens: dict[str, str], seed: int):
        self.server, self.material, self.folder, self.tokens = server, material, folder, tokens
        self.rng = np.random.default_rng(seed)
        self.meant: dict[str, dict[str, tuple[str, tuple | None]]] = {}
        self.log: list[str] = []
        self.names = material.task.names
        slicer.mrmlScene.Clear(False)
        self._open_panel()
        self.view: SliceView | None = None

    # --- the program -------------------------------------------------------------------------------------------------

    def _open_panel(self) -> None:
        self.panel, self.window = qt_harness.open_panel(self.folder)
        self._connect(self.tokens["admin"])

    def _connect(self, token: str) -> None:
        self.panel.ui.url.setText(self.server.url)
        self.panel.ui.token.setText(token)
        press(self.panel, "connectButton")
        self.rest()

    def rest(self) -> None:
        """Until the background has nothing to do; between ticks Python's lock is held, as an idle Slicer does."""
        hold = ctypes.PyDLL(None).usleep
        events = sys.modules["qt"].application.processEvents

        def still() -> bool:
            events()
            hold(HOLD_US)
            return not self.panel.logic.worker.busy

        wait_for(self.panel, still, "the background")
        idle(self.panel)

    def close(self) -> None:
        if self.view is not None:
            self.view.close()
        self.panel.close()
        self.window.close()

    # --- what is seen ------------------------------------------------------------------------------------------------

    @property
    def case(self) -> str:
        return self.panel.logic.session.image_id

    def look(self, what: str) -> None:
        """Nothing the person has done is gone or elsewhere: in the list, in the views' list, in the words on screen."""
        self.log.append(what)
        self.panel.tick()
        session, ui = self.panel.logic.session, self.panel.ui
        for name, (state, place) in self.meant.get(self.case, {}).items():
            point, row = session.point(name), self.names.index(name)
            told = f"{self.log[-12:]}: {name} is {point.state} at {point.position}, meant was {state} at {place}"
            assert point.state == state, told
            assert place is None or np.allclose(point.position, place, atol=1e-6), told
            word = self.panel.table.words[state]  # in the cell where there is room, else in the tooltip beside the icon
            assert ui.table.item(row, 0).text() == name and f"</b>: {word}" in ui.table.item(row, 1).toolTip()
            shown = self.panel.node.position(name)
            assert (shown is None) == (place is None) and (place is None or np.allclose(shown, place, atol=1e-6)), told
        assert ui.caseLabel.text().startswith(self.case)
        sys.modules["qt"].application.processEvents()
        assert (texts := cut(self.window)) == [], (texts, self.log[-12:])

    def look_at_pixels(self, agreement: Callable) -> None:
        """The view shows the case's own image."""
        node = self.panel.volume.node
        assert node is not None, self.log[-5:]
        if self.view is not None:
            self.view.close()
        self.view = SliceView(slicer.applicationLogic, node, "Axial", size=(400, 400))
        image = sitk.ReadImage(str(self.material.image(self.case)))
        if image.GetDimension() == 2:
            image.SetSpacing((1, 1))
            image.SetOrigin((0, 0))
        agree = agreement(self.view, image, self.rng)
        assert agree > 0.85, self.case

    # --- what a person does ------------------------------------------------------------------------------------------

    def annotate(self) -> None:
        """One thing with one landmark."""
        name = str(self.rng.choice(self.names))
        kind = str(self.rng.choice(["drag", "click", "accept", "absent", "predict"], p=[0.4, 0.2, 0.2, 0.1, 0.1]))
        state = self.panel.logic.session.point(name).state
        if kind == "predict":
            press(self.panel, "predictButton")
            self.rest()
        elif state in (ACCEPTED, ABSENT):
            self.panel.select(name)
            press(self.panel, "unlockButton")
            point = self.panel.logic.session.point(name)
            self.meant_is(name, PLACED, point.position) if state == ACCEPTED else self.meant[self.case].pop(name, None)
        elif kind == "drag" and state in (PREDICTED, PLACED):
            self.drag(name, self.somewhere())
        elif kind == "accept" and state in (PREDICTED, PLACED):
            self.panel.select(name)
            place = self.panel.node.position(name)
            press(self.panel, "acceptButton")
            if self.panel.volume.has(place):
                self.meant_is(name, ACCEPTED, place)
            else:  # a proposal may lie there
                assert self.panel.ui.message.text().startswith("outside of the image: "), self.panel.ui.message.text()
        elif kind == "absent":
            self.panel.select(name)
            press(self.panel, "absentButton")
            self.meant_is(name, ABSENT, None)
        else:
            self.click(name)
        self.rest()
        self.look(f"{kind} {name}")

    def meant_is(self, name: str, state: str, place: tuple | None) -> None:
        self.meant.setdefault(self.case, {})[name] = (state, place)

    def somewhere(self) -> tuple[float, float, float]:
        """A place inside the image, in the slice that is shown, LPS mm."""
        node, index = self.panel.volume.node, [self.rng.uniform(2, n - 3) if n > 6 else 0 for n in self._size()]
        to_ras = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(to_ras)
        return flipped(to_ras.MultiplyPoint((*index, 1))[:3])

    def _size(self) -> tuple[int, int, int]:
        return self.panel.volume.node.GetImageData().GetDimensions()

    def drag(self, name: str, place: tuple) -> None:
        node, index = self.panel.node.node, self.panel.node.index(name)
        start = np.array(self.panel.node.position(name))
        node.InvokeEvent(node.PointStartInteractionEvent)
        for share in (0.01, 0.4, 1.0):  # on the way to a place outside, the first step is inside
            node.SetNthControlPointPositionWorld(index, *flipped(start + share * (np.array(place) - start)))
            sys.modules["qt"].application.processEvents()
        node.InvokeEvent(node.PointEndInteractionEvent)
        self.meant_is(name, PLACED, place)

    def click(self, name: str) -> None:
        """Re-place: the next click in the view places the landmark."""
        self.panel.select(name)
        press(self.panel, "replaceButton")
        place = self.somewhere()
        self.view.node.JumpSliceByOffsetting(*flipped(place))
        x, y = np.round(self.view.xy_of(flipped(place)))
        x, y = np.clip([x, y], 4, 395)
        self.view.click(x, y)
        wanted = flipped(self.view.ras_at(x, y))
        if self.panel.volume.has(wanted):
            self.meant_is(name, PLACED, wanted)
        else:
            assert "cannot be outside of the image" in self.panel.logic.message

    def submit(self, strategy: str = "first") -> None:
        """Submit, once more where the panel asks, and wait until the next case is open or there is none."""
        before = self.case
        self._press_submit()
        self.rest()
        self.log.append(f"submitted {before}: {self.panel.ui.message.text()}")

    def _press_submit(self) -> None:
        press(self.panel, "submitButton")
        if "Submit again" in self.panel.ui.message.text():
            press(self.panel, "submitButton")

    # --- what goes wrong ---------------------------------------------------------------------------------------------

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
        self.rest()
        assert ui.conflictFrame.isHidden()
        self._back_to_done(here)

    def _back_to_done(self, case: str) -> None:
        if self.case != case:
            self.panel.ui.cases.setCurrentIndex(self.panel.review._names.index(case))
            press(self.panel, "openCaseButton")
            self.rest()

    def drag_or_click(self, name: str) -> None:
        state = self.panel.logic.session.point(name).state
        if state in (ACCEPTED, ABSENT):
            self.panel.select(name)
            press(self.panel, "unlockButton")
        if self.panel.logic.session.point(name).position is None:
            self.click(name)
        else:
            self.drag(name, self.somewhere())
        self.rest()

    def _list_damaged(self) -> None:
        node = self.panel.node.node
        node.SetFixedNumberOfControlPoints(False)
        kind, i = self.rng.integers(5), int(self.rng.integers(len(self.names)))
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
        assert "connected as admin" in self.panel.ui.serverStatus.text() and self.panel.ui.troubleFrame.isHidden()
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
        wait_for(self.panel, lambda: self.panel.volume.node is not None, "the image")
        self.view = SliceView(slicer.applicationLogic, self.panel.volume.node, "Axial", size=(400, 400))

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

    # --- the server, asked without the panel -------------------------------------------------------------------------

    def get(self, case: str) -> dict:
        return self.server.get(f"/landmarks/images/{case}", headers=self._headers)

    def http(self, method: str, path: str, body: dict) -> None:
        answer = self.server.http(method, path, json=body, headers=self._headers)
        assert answer.status_code == 200, answer.text

    @property
    def _headers(self) -> dict:
        return {"Authorization": f"Bearer {self.tokens['admin']}"}

    def check_server(self, cases: list[str]) -> None:
        """Every landmark of every case is there as it was meant, under its own name."""
        for case in cases:
            rows = {row["name"]: row for row in self.get(case)["landmarks"]}
            for name, (state, place) in self.meant.get(case, {}).items():
                row = rows.get(name, {"status": UNSET, "position": None})
                told = f"{case}: the server has {name} {row['status']} at {row['position']}, meant was {state} at {place}"
                assert row["status"] == state, told
                dims = self.material.task.dims
                assert place is None or np.allclose(row["position"][:dims], place[:dims], atol=1e-6), told
