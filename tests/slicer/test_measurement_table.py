"""The table of measurements: what fits into it, its texts, and the selected one on the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import qt_harness
import shiboken6
from qt_harness import cut, idle, press

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.markups import flipped  # noqa: E402
from LandmarkLabelLib.measured import Measurement  # noqa: E402
from measured_study import (  # noqa: E402
    INTERVAL,
    NAME,
    USUAL,
    VALUE,
    drag_to,
    drawn,
    hint,
    is_grey,
    let_go,
    opened,
    table,
    wait_current,
)


def test_the_selected_measurement_is_drawn_and_follows_and_goes(measuring_panel, measured, tmp_path):
    panel = measuring_panel
    press(panel, "predictButton")
    idle(panel)
    wait_current(panel)
    ui, session, names = panel.ui.measurements, panel.logic.session, measured.task.names
    click(ui, 0)
    (line,) = drawn("Line")
    assert ends(line) == [session.point(names[0]).position, session.point(names[3]).position]
    assert not line.GetSaveWithScene() and line.GetHideFromEditors() and not line.GetDisplayNode().GetPropertiesLabelVisibility()
    drag_to(panel, names[0], (33.0, 44.0))
    panel.tick()
    assert ends(line)[0] == (33.0, 44.0, 0.0) and panel.node.is_dragging
    let_go(panel)
    idle(panel)
    click(ui, 1)
    assert drawn("Line") == []
    (angle,) = drawn("Angle")
    mean = np.mean([session.point(n).position for n in names[2:4]], axis=0)
    assert np.allclose(ends(angle), [session.point(names[1]).position, session.point(names[0]).position, mean])
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit() and "<MarkupsAngle" not in (tmp_path / "scene.mrml").read_text(encoding="utf-8")
    click(ui, 1)  # once more
    assert drawn("Angle") == [] and len(ui.selectionModel().selectedRows()) == 0
    click(ui, 3)  # of others: it is no line
    assert drawn("Line") == [] == drawn("Angle")
    click(ui, 0)
    panel.logic.mark_absent(names[3])
    panel.tick()
    assert drawn("Line") == []
    press(panel, "undoButton")
    panel.tick()
    assert len(drawn("Line")) == 1
    panel.logic.session = None  # the case closes
    panel.refresh()
    assert drawn("Line") == [] and panel.ui.measurementsSection.isHidden()


def click(ui, row: int) -> None:
    """With the mouse."""
    from PySide6.QtTest import QTest

    place = ui.visualItemRect(ui.item(row, NAME)).center()
    QTest.mouseClick(ui.viewport(), qt.Qt.LeftButton, qt.Qt.NoModifier, place)


def ends(node) -> list[tuple]:
    found = []
    for i in range(node.GetNumberOfControlPoints()):
        world = [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(i, world)
        found.append(tuple(flipped(world)))
    return found


@pytest.mark.parametrize("width", [340, 380, 700])
def test_names_are_whole_and_a_panel_that_is_wide_enough_has_every_column(measured, measuring_server, tmp_path, width):
    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.open_panel(tmp_path / "panel", width)
    panel.ui.url.setText(measuring_server.url)
    press(panel, "connectButton")
    idle(panel)
    panel.logic.open_case(sorted(measured.truth)[3])
    idle(panel)
    press(panel, "predictButton")
    idle(panel)
    wait_current(panel)
    ui = panel.ui.measurements
    assert cut(window) == []
    assert not ui.isColumnHidden(VALUE) and (width < 700 or not ui.isColumnHidden(USUAL))
    long = "angle between the line from nasion to sella and the line from menton to the lower border of the mandible"
    first = replace(panel.logic.task.measurements[0], name=long)
    panel.logic.task = replace(panel.logic.task, measurements=(first, *panel.logic.task.measurements[1:]))
    panel.logic.session.task = panel.logic.task
    panel.refresh()
    qt.application.processEvents()
    assert ui.isColumnHidden(INTERVAL) and not ui.isColumnHidden(VALUE)
    lines = ui.fontMetrics().boundingRect(0, 0, ui.columnWidth(NAME) - 8, 9999, qt.Qt.TextWordWrap, long).height()
    assert ui.rowHeight(0) >= lines > ui.fontMetrics().height()
    panel.close()
    window.close()


def test_before_the_first_answer_names_are_there_and_every_text_passes_translation(tmp_path):
    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.example(tmp_path, translate=lambda text: f"«{text}»")
    panel.logic.task = replace(panel.logic.task, measurements=(Measurement("depth", "", "distance", (("nasion",), ("sella",))),))
    panel.logic.session.task = panel.logic.task
    panel.logic.measuring.is_offered = True
    panel.refresh()
    ui = panel.ui.measurements
    assert table(panel) == [["depth", "–", "", ""]] and hint(panel, 0, VALUE) == "«not measured yet»" and is_grey(panel)
    assert all(ui.horizontalHeaderItem(column).text().startswith("«") for column in range(4))
    assert "«Select it to see it on the image.»" in hint(panel, 0, NAME)
    panel.close()
    window.close()


def measured_now(panel) -> None:
    press(panel, "predictButton")
    idle(panel)
    wait_current(panel)


def test_a_table_that_is_gone_is_fitted_no_more(measured, measuring_server, tmp_path):
    """The fitting waits until Qt is done; the panel may be closed and deleted first."""
    panel, window = opened(measuring_server, tmp_path / "panel", sorted(measured.truth)[3])
    measured_now(panel)
    section = panel.measurements
    window.resize(window.width() + 40, window.height())
    section._resized(NAME)
    shiboken6.delete(window)
    qt.application.processEvents()  # an error of a call that came too late is seen by ``errors_in_slots``
    panel.logic.close()
