"""A person at the panel: cases annotated through its buttons and in its views, with a record of every click.

The record is kept apart from the program: what the person meant, by case and landmark. At the end the server must hold just that.
"""

from __future__ import annotations

import ctypes
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

HOLD_US = 8000  # an idle Slicer holds Python's lock between two ticks of the timer


class Person:
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
        """Every landmark of every case is there as it was meant, under its own name, and none that nobody has spoken about."""
        for case in cases:
            rows = {row["name"]: row for row in self.get(case)["landmarks"]}
            others = {n for n, row in rows.items() if row["status"] in (PLACED, ACCEPTED, ABSENT)} - self.meant.get(
                case, {}
            ).keys()
            assert not others, f"{case}: nobody has spoken about {others}"
            self.check_meant(case, self.meant)

    def check_meant(self, case: str, meant: dict, server=None) -> None:
        """A server, by default the person's, has a case's landmarks as they were meant."""
        headers = {} if server else self._headers
        found = (server or self.server).get(f"/landmarks/images/{case}", headers=headers)
        rows = {row["name"]: row for row in found["landmarks"]}
        for name, (state, place) in meant.get(case, {}).items():
            row = rows.get(name, {"status": UNSET, "position": None})
            told = f"{case}: the server has {name} {row['status']} at {row['position']}, meant was {state} at {place}"
            assert row["status"] == state, told
            dims = self.material.task.dims
            assert place is None or np.allclose(row["position"][:dims], place[:dims], atol=1e-6), told
