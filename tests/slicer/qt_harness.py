"""The panel on PySide6 and real MRML, without desktop Slicer.

What is stood in for: ``qt`` is PySide6 (Slicer has PythonQt), and of Slicer's Python only ``ScriptedLoadableModule`` classes,
``i18n.tr``, ``mrmlScene``, ``modules.volumes.logic`` (the real logic, on the real application logic) and, of ``util``,
``mainWindow``, ``setSliceViewerLayers``, ``loadVolume``, ``loadUI``, ``childWidgetVariables`` and ``startupEnvironment``. In the
``.ui`` file, three widgets of Slicer's own have plain ones in their place: ``ctkCollapsibleButton``, ``ctkPathLineEdit`` and
``qMRMLNodeComboBox``. What this cannot show: PythonQt's quirks, the layout manager, packaging, Windows and macOS.

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
OPENED: list = []  # panels of the running test
MODULE = Path(__file__).resolve().parents[2] / "slicer_extension" / "LandmarkLabel"


def install():
    """Make ``import qt`` and Slicer's module classes work; returns the ``qt`` module."""
    import slicer
    from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
    from stand_ins import loader
    from views import application_logic, volumes_logic

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
    slicer.modules = types.SimpleNamespace(
        volumes=types.SimpleNamespace(logic=lambda: volumes_logic(slicer.applicationLogic, slicer.mrmlScene))
    )
    slicer.util = types.SimpleNamespace(
        mainWindow=lambda: slicer.harness_window,
        setSliceViewerLayers=_show_volume,
        loadVolume=_load_volume,
        loadUI=lambda path: loader(QtUiTools.QUiLoader).load(path),
        childWidgetVariables=_children,
        startupEnvironment=lambda: dict(os.environ),
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

    return slicer.modules.volumes.logic().AddArchetypeVolume(path, properties["name"])


def _children(widget):
    """As Slicer's own: the parts of a widget by name."""
    qt = sys.modules["qt"]
    return types.SimpleNamespace(**{w.objectName(): w for w in widget.findChildren(qt.QWidget) if w.objectName()})


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
    """A shown panel and the window it lives in."""
    qt = install()
    from LandmarkLabelLib.panel import LandmarkPanel

    window, holder = qt.QScrollArea(), qt.QWidget()  # Slicer's module panel scrolls from top to bottom
    if dark:
        window.setPalette(_dark(qt))
        holder.setAutoFillBackground(True)
    panel = LandmarkPanel(qt.QVBoxLayout(holder), folder, translate, holder)
    OPENED.append(panel)
    window.setWidget(holder)
    window.setWidgetResizable(True)
    window.setFrameShape(qt.QFrame.NoFrame)
    window.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
    window.resize(width, 900)
    window.show()
    return panel, window


def end_observers() -> None:
    """A panel that a test deleted without closing it, which Slicer does not do, must not hear of the next test's scene."""
    while OPENED:
        if (node := OPENED.pop().node) is not None:
            node.close()


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
    for role in (roles.Text, roles.WindowText, roles.ButtonText):
        palette.setColor(roles.Disabled, role, qt.QColor("#777777"))
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
    panel.logic.task, panel.logic.models, panel.logic.state = task, {"scn": {}, "global_local": {}}, "connected"
    panel.logic._asked_alive_at = float("inf")  # nobody is there to be asked
    panel.logic.strategies = ["adaptive", "random"]
    panel.logic.is_shown_by_hand = True  # whoever tests the image itself brings one
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


def type_keys(panel, keys: str, at=None) -> None:
    """As a hand does, the list of landmarks being in use or the widget ``at``: Qt decides whose the keys are."""
    from PySide6 import QtGui, QtTest, QtWidgets

    window, (combination,) = panel.widget.window(), QtGui.QKeySequence(keys)
    window.activateWindow()
    at = panel.ui.table if at is None else at
    at.setFocus()
    assert QtTest.QTest.qWaitForWindowActive(window) and QtWidgets.QApplication.focusWidget() is at
    QtTest.QTest.keyClick(at, combination.key(), combination.keyboardModifiers())


def wait_for(panel, condition, what: str, seconds: float = DEADLINE_S) -> None:
    """Let the panel's timer run until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {what}; the panel says {panel.ui.message.text()!r}"
        sys.modules["qt"].application.processEvents()
        time.sleep(0.005)


def press(panel, name: str) -> None:
    """Click a button that a person could click: one that is enabled and shown, once its section is open."""
    button = getattr(panel.ui, name)
    around = button.parentWidget()
    while around is not None:
        if hasattr(around, "isCollapsed") and around.isCollapsed():
            around.setCollapsed(False)
        around = around.parentWidget()
    assert button.isEnabled(), f"{name} is greyed out; the panel says {panel.ui.message.text()!r}"
    assert not button.isHidden(), f"{name} is not shown; the panel says {panel.ui.message.text()!r}"
    button.click()


def idle(panel) -> None:
    """Wait until the background is done and what it brought is shown."""
    wait_for(panel, lambda: not panel.logic.worker.busy, "the background")
    panel.tick()


def is_seen(widget) -> bool:
    """Whether any of it is drawn: in a section that is closed nothing is."""
    return widget.isVisible() and not widget.visibleRegion().isEmpty()


def cut(window) -> list[str]:
    """Texts of shown buttons, labels and cells that are wider or higher than their place."""
    qt, found = sys.modules["qt"], []
    for _ in range(3):  # a text that is broken otherwise asks for another height
        qt.application.processEvents()
    for area in window.findChildren(qt.QScrollArea) + [window] * isinstance(window, qt.QScrollArea):
        if area.widget().width() > area.viewport().width():
            found.append(f"all, at {area.widget().width()} of {area.viewport().width()} pixels")
    for widget in window.findChildren(qt.QPushButton):
        if is_seen(widget) and widget.fontMetrics().horizontalAdvance(widget.text()) > widget.width():
            found.append(widget.text())
    for widget in window.findChildren(qt.QLabel):
        if is_seen(widget) and widget.text():
            needed = widget.heightForWidth(widget.width()) if widget.wordWrap() else widget.sizeHint().height()
            if needed > widget.height() or (not widget.wordWrap() and widget.sizeHint().width() > widget.width()):
                found.append(widget.text())
    return found + [text for table in window.findChildren(qt.QTableWidget) for text in cut_cells(table)]


def cut_cells(table) -> list[str]:
    """Texts of a table that are wider than their column, or, broken into lines, higher than their row."""
    qt, found, metrics = sys.modules["qt"], [], table.fontMetrics()
    for column in range(table.columnCount()):
        room = table.columnWidth(column) - 4
        for row in range(table.rowCount()):
            text = table.item(row, column).text() if not table.isColumnHidden(column) else ""
            flags = int(qt.Qt.TextWordWrap) if table.wordWrap() else 0
            needed = metrics.boundingRect(0, 0, room, 10_000, flags, text)
            if text and (needed.width() > room or needed.height() > table.rowHeight(row)):
                found.append(text)
    return found


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        shown, window = example(Path(place))
        window.grab().save(sys.argv[1])
        shown.close()


def open_case(panel, case: str) -> None:
    """Choose a case under Review and open it; until its image is shown."""
    panel.ui.cases.setCurrentIndex(panel.review._names.index(case))
    press(panel, "openCaseButton")
    idle(panel)
    wait_for(panel, lambda: panel.volume.node is not None, "the image")
