"""The panel on PySide6 and real MRML, without desktop Slicer.

What is stood in for: ``qt`` is PySide6 (Slicer has PythonQt), and of Slicer's Python only ``ScriptedLoadableModule`` classes,
``i18n.tr``, ``util.mainWindow`` and ``mrmlScene``. No ctk or qMRML widget is used. What this cannot show: PythonQt's quirks, the
layout manager, packaging, Windows and macOS.

As a program it writes a picture of the panel: ``python tests/slicer/qt_harness.py PICTURE.png``.
"""

from __future__ import annotations

import os
import sys
import time
import types
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
DEADLINE_S = 60
MODULE = Path(__file__).resolve().parents[2] / "slicer_extension" / "LandmarkLabel"


def install():
    """Make ``import qt`` and Slicer's module classes work; returns the ``qt`` module."""
    import slicer
    from PySide6 import QtCore, QtGui, QtWidgets
    from views import application_logic

    if "qt" in sys.modules:
        return sys.modules["qt"]
    qt = types.ModuleType("qt")
    for part in (QtGui, QtWidgets, QtCore):
        qt.__dict__.update({name: getattr(part, name) for name in dir(part) if not name.startswith("_")})
    qt.application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["harness"])
    sys.modules["qt"] = qt
    sys.modules["slicer.i18n"] = types.SimpleNamespace(tr=lambda text: text)
    sys.modules["slicer.ScriptedLoadableModule"] = _module_classes(qt)
    slicer.mrmlScene = slicer.vtkMRMLScene()
    slicer.applicationLogic = application_logic(slicer.mrmlScene)
    slicer.util = types.SimpleNamespace(
        mainWindow=lambda: slicer.harness_window, setSliceViewerLayers=_show_volume, loadVolume=_load_volume
    )
    slicer.app = types.SimpleNamespace(connect=lambda signal, call: None, processEvents=qt.application.processEvents)
    slicer.harness_window = QtWidgets.QMainWindow()
    if str(MODULE) not in sys.path:
        sys.path.insert(0, str(MODULE))
    return qt


def _show_volume(background, fit):
    """As Slicer's own: the volume behind all slice views."""
    import slicer

    nodes = slicer.mrmlScene.GetNodesByClass("vtkMRMLSliceCompositeNode")
    nodes.UnRegister(None)
    for i in range(nodes.GetNumberOfItems()):
        nodes.GetItemAsObject(i).SetBackgroundVolumeID(background.GetID())


def _load_volume(path, properties):
    """As Slicer's own: a file as a volume in the scene."""
    import slicer

    logic = slicer.vtkSlicerVolumesLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    return logic.AddArchetypeVolume(path, properties["name"])


def _module_classes(qt):
    class Widget:
        def __init__(self, parent=None):
            self.parent = parent or qt.QWidget()
            self.layout = qt.QVBoxLayout(self.parent)

        def setup(self):
            """As Slicer's own: nothing to show in a panel for users."""

    plain = type("Plain", (), {"__init__": lambda self, parent=None: None})
    names = {"ScriptedLoadableModule": plain, "ScriptedLoadableModuleLogic": plain, "ScriptedLoadableModuleTest": plain}
    return types.SimpleNamespace(**names, ScriptedLoadableModuleWidget=Widget)


def open_panel(folder: Path, width: int = 380, translate=str, dark: bool = False):
    """A shown panel and the widget it lives in."""
    qt = install()
    from LandmarkLabelLib.panel import LandmarkPanel

    holder = qt.QWidget()
    if dark:
        holder.setPalette(_dark(qt))
        holder.setAutoFillBackground(True)
    panel = LandmarkPanel(qt.QVBoxLayout(holder), folder, translate, holder)
    holder.resize(width, 700)
    holder.show()
    return panel, holder


def _dark(qt):
    """Slicer's dark style has about these colours."""
    palette, roles = qt.QPalette(), qt.QPalette
    for role, colour in (
        (roles.Window, "#353535"),
        (roles.Base, "#2b2b2b"),
        (roles.AlternateBase, "#353535"),
        (roles.Button, "#454545"),
        (roles.Text, "#eeeeee"),
        (roles.WindowText, "#eeeeee"),
        (roles.ButtonText, "#eeeeee"),
        (roles.PlaceholderText, "#999999"),
    ):
        palette.setColor(role, qt.QColor(colour))
    return palette


def example(folder: Path, width: int = 380, translate=str, dark: bool = False):
    """A panel with a case as it looks halfway through, without a server."""
    panel, holder = open_panel(folder, width, translate, dark)
    from LandmarkLabelLib.logic import LandmarkLogic
    from LandmarkLabelLib.session import Session
    from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED, Point, Task

    names = ("nasion", "sella", "orbit_left", "orbit_right", "porion_left", "porion_right", "menton", "gonion_left")
    states = (ACCEPTED, PLACED, PREDICTED, PREDICTED, PREDICTED, ABSENT, PREDICTED, PREDICTED)
    task = Task("head", names, 3, {}, (("orbit_left", "orbit_right"), ("porion_left", "porion_right")))
    panel.options.url, panel.options.author = "http://127.0.0.1:1", "ann"
    panel.use(LandmarkLogic(panel.options, folder, panel._mark_due, translate=panel._))
    panel.logic.task, panel.logic.models, panel.logic.online = task, {"scn": {}, "global_local": {}}, True
    panel.logic.strategies = ["adaptive", "random"]
    aside = (0.0, 0.0, 30.0, -30.0, 60.0, -60.0, 0.0, 45.0)  # towards the left
    places = [(x, 5.0 * i, 2.0 * i) for i, x in enumerate(aside)]
    points = [
        Point(n, s, None if s == ABSENT else p, None if s in (ABSENT, PLACED, ACCEPTED) else 0.6 + 0.7 * i, i == 6)
        for i, (n, s, p) in enumerate(zip(names, states, places, strict=True))
    ]
    panel.logic.session = Session(task, "case_12", points, 0, "3 uncertain landmarks", "menton")
    panel.logic.message = "4 points moved"
    panel.refresh()
    panel.select("menton")
    return panel, holder


def wait_for(panel, condition, what: str, seconds: float = DEADLINE_S) -> None:
    """Let the panel's timer run until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {what}; the panel says {panel.message.text()!r}"
        sys.modules["qt"].application.processEvents()
        time.sleep(0.005)


def press(panel, key: str) -> None:
    """Click a button."""
    panel._buttons[key].click()


def idle(panel) -> None:
    """Wait until the background is done and what it brought is shown."""
    wait_for(panel, lambda: not panel.logic.worker.busy, "the background")
    panel.tick()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        shown, window = example(Path(place))
        window.grab().save(sys.argv[1])
        shown.close()
