"""A study that measures something, and what the panel's table of measurements shows."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import numpy as np
import qt_harness
from qt_harness import idle, press, wait_for
from serving import phantoms

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.markups import flipped  # noqa: E402
from LandmarkLabelLib.scene_nodes import of_class  # noqa: E402
from LandmarkLabelLib.wire import PREDICTED  # noqa: E402

from landmarklabel.io.files import write_json  # noqa: E402
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status  # noqa: E402
from landmarklabel.measurements import measure  # noqa: E402

NAME, VALUE, INTERVAL, USUAL = range(4)
DEFINITION = "From the first <b> to the fourth & back."


def study_of(folder, count: int):
    """A study whose task measures a length, an angle at a mean of two points, and a ratio."""
    made = phantoms(folder, count, n_landmarks=8)
    names = made.task.names
    length = {"name": "length", "kind": "distance", "points": [names[0], names[3]], "definition": DEFINITION}
    opening = {"name": "opening", "kind": "angle", "points": [names[1], names[0], [names[2], names[3]]]}
    opening["norm"] = {"mean": 31.5, "sd": 2, "source": "a book"}
    width = {"name": "width", "kind": "distance", "points": [names[4], names[5]]}
    content = made.task.to_json() | {
        "measurements": [length, opening, width, {"name": "index", "kind": "ratio", "of": ["length", "width"]}]
    }
    write_json(made.task_file, content)
    return replace(made, task=LandmarkTask.from_json(content))


def opened(server, folder, image_id: str):
    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.open_panel(folder)
    panel.ui.url.setText(server.url)
    press(panel, "connectButton")
    idle(panel)
    panel.logic.open_case(image_id)
    idle(panel)
    return panel, window


def table(panel) -> list[list[str]]:
    """Texts of the rows, also of columns for which a narrow panel has no room."""
    ui = panel.ui.measurements
    return [[ui.item(row, column).text() for column in range(4)] for row in range(ui.rowCount())]


def hint(panel, row: int, column: int) -> str:
    return unescape(re.sub("<[^>]*>", " ", panel.ui.measurements.item(row, column).toolTip())).strip()


def is_grey(panel, row: int = 0) -> bool:
    return panel.ui.measurements.item(row, VALUE).data(qt.Qt.ForegroundRole) is not None


def wait_current(panel) -> None:
    """Until the values are those of the points on screen, and shown."""
    wait_for(panel, lambda: all(panel.logic.measuring.of(panel.logic.session)) and not panel._due, "measurements")


def expected(task: LandmarkTask, points) -> list[list[str]]:
    """The library's own, of the points on screen, written as the panel does."""
    d = task.dims
    places = np.array([p.position[:d] if p.position else [np.nan] * d for p in points])
    unknown = [[np.nan] * d] * d
    spread = np.array([p.covariance if p.covariance and p.state == PREDICTED else unknown for p in points])
    status = tuple(Status(p.state) for p in points)
    out = []
    for m in measure(LandmarkSet(task, places, status, covariance_mm2=spread, unit="px")):
        digits, unit = (1 if m.unit else 2), {"px": " px", "°": "°", "": ""}[m.unit]
        value = f"{m.value:.{digits}f}{unit}" if m.available else "–"
        interval = f"{m.low:.{digits}f} … {m.high:.{digits}f}" if m.available and np.isfinite(m.low) else ""
        out.append([m.name, value, interval, f"{m.norm.mean:g} ± {m.norm.sd:g}" if m.norm else ""])
    return out


def drag_to(panel, name: str, *places: tuple[float, float]) -> None:
    """Grabbed and moved; not let go."""
    node = panel.node.node
    node.InvokeEvent(node.PointStartInteractionEvent)
    for place in places:
        node.SetNthControlPointPositionWorld(panel.node.index(name), *flipped((*place, 0.0)))


def let_go(panel) -> None:
    panel.node.node.InvokeEvent(panel.node.node.PointEndInteractionEvent)


def drawn(kind: str) -> list:
    return of_class(slicer.mrmlScene, f"vtkMRMLMarkups{kind}Node")
