"""The panel's buttons, keys and rows, on PySide6 and real MRML, against a real server. What that leaves out: ``qt_harness``."""

from __future__ import annotations

import time

import numpy as np
import pytest
import qt_harness

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.markups import MISSING, flipped  # noqa: E402
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED, Point, Task  # noqa: E402

DEADLINE_S = 60


def wait_for(panel, condition, what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited for {what}; the panel says {panel.message.text()!r}"
        qt.application.processEvents()
        time.sleep(0.005)


def press(panel, key: str) -> None:
    panel._buttons[key].click()


def idle(panel) -> None:
    wait_for(panel, lambda: not panel.logic.worker.busy, "the background")
    panel.tick()


def test_a_case_through_the_buttons(server, material, tmp_path):
    panel, window = qt_harness.open_panel(tmp_path)
    panel.url.setText(server.url)
    press(panel, "connect")
    idle(panel)
    assert panel.server_status.text() == "connected" and panel.models.count() == 2
    panel.strategy.setCurrentIndex(panel.strategy.findText("first"))
    press(panel, "next_case")
    idle(panel)
    image_id = sorted(material.truth)[5]
    assert panel.case.text().startswith(f"{image_id}: 0/12 reviewed (first by name")
    press(panel, "predict")
    idle(panel)
    assert panel.table.item(0, 1).text() == "proposed" and panel.table.item(0, 2).text().endswith(" mm")
    press(panel, "uncertain")
    name = panel.current
    index, truth = material.task.names.index(name), material.truth[image_id].positions_mm
    before = np.array([p.position[:2] for p in panel.logic.session.points])
    node = panel.node.node
    node.SetNthControlPointPositionWorld(index, *flipped((*truth[index], 0.0)))  # the person drags the point …
    node.InvokeEvent(node.PointEndInteractionEvent)  # … and lets go
    idle(panel)
    after = np.array([p.position[:2] for p in panel.logic.session.points])
    assert panel.table.item(index, 1).text() == "placed" and "points moved" in panel.message.text()
    others = np.arange(len(truth)) != index
    moved = np.linalg.norm(after - before, axis=1)[others]
    assert (moved > 0.5).any() and np.allclose(after[index], truth[index])
    press(panel, "accept")
    assert panel.logic.session.point(name).state == ACCEPTED and panel.node.node.GetNthControlPointLocked(index) == 1
    panel.select(material.task.names[2])
    press(panel, "absent")
    assert panel.node.node.GetNthControlPointPositionStatus(2) == MISSING
    press(panel, "submit")
    wait_for(panel, lambda: panel.logic.session.image_id == sorted(material.truth)[6], "the next case")
    saved = server.get(f"/landmarks/images/{image_id}")
    rows = {r["name"]: r["status"] for r in saved["landmarks"]}
    assert saved["revision"] == 1 and rows[name] == ACCEPTED and rows[material.task.names[2]] == ABSENT
    panel.close()
    window.close()


@pytest.fixture()
def example(tmp_path):
    panel, window = qt_harness.example(tmp_path)
    yield panel
    panel.close()
    window.close()


def test_an_accepted_point_that_is_dragged_goes_back(example):
    session, node = example.logic.session, example.node.node
    was = session.point("nasion")
    node.SetNthControlPointLocked(0, False)
    node.SetNthControlPointPositionWorld(0, 50, 50, 50)
    node.InvokeEvent(node.PointEndInteractionEvent)
    example.tick()
    assert session.point("nasion") == was and example.node.position(0) == was.position


@pytest.mark.parametrize("key, name, state", [("A", "menton", ACCEPTED), ("X", "menton", ABSENT), ("A", "orbit_left", ACCEPTED)])
def test_keys_do_what_the_buttons_say(example, key, name, state):
    example.select(name)
    shortcut = next(s for s in example._shortcuts if s.key().toString() == key)
    shortcut.activated.emit()
    assert example.logic.session.point(name).state == state
    assert example.current != name  # on to the next doubtful one
    undo = next(s for s in example._shortcuts if s.key().toString() == "Ctrl+Z")
    undo.activated.emit()
    assert example.logic.session.point(name).state == PREDICTED


def test_next_uncertain_goes_to_the_flagged_point_first(example):
    example.select("nasion")
    press(example, "uncertain")
    assert example.current == "menton"


def test_replacing_waits_for_a_click_and_takes_the_new_position(example):
    example.select("orbit_left")
    press(example, "replace")
    assert "click in a view to place orbit_left" in example.message.text()
    example.node.node.SetNthControlPointPositionWorld(2, *flipped((7.0, 8.0, 9.0)))
    assert example.logic.session.point("orbit_left") == Point("orbit_left", PLACED, (7.0, 8.0, 9.0))


def test_swapped_sides_are_asked_about_once_before_submitting(example):
    session = example.logic.session
    session.place("orbit_left", (-20.0, 0.0, 0.0))
    session.place("orbit_right", (20.0, 0.0, 0.0))
    press(example, "submit")
    assert "orbit_left and orbit_right look swapped: check left and right" in example.message.text()
    assert example.logic.outbox.waiting() == []
    press(example, "submit")
    assert len(example.logic.outbox.waiting()) == 1


def test_150_rows_refresh_within_the_budget_and_during_a_drag(tmp_path, record_property):
    panel, window = qt_harness.example(tmp_path)
    names = tuple(f"p{i:03d}" for i in range(150))
    panel.logic.task = Task("many", names, 3, {}, ())
    points = [Point(n, PREDICTED, (float(i), 0.0, 0.0), 1.0) for i, n in enumerate(names)]
    panel.logic.session = type(panel.logic.session)(panel.logic.task, "case", points)
    panel.refresh()
    spent = []
    for shift in range(10):
        panel.logic.session.points = [Point(p.name, p.state, (p.position[0], float(shift), 0.0), 1.0 + shift) for p in points]
        started = time.perf_counter()
        panel.refresh()
        spent.append(time.perf_counter() - started)
    record_property("refresh_150_ms", round(1000 * float(np.median(spent)), 2))
    assert np.median(spent) < 0.05  # the goal is 10 ms on a machine that does nothing else
    shown = []
    refresh = panel.refresh
    panel.refresh = lambda: (shown.append(1), refresh())
    end = time.monotonic() + 0.6
    x = 0.0
    while time.monotonic() < end:  # a drag: many moves, no end
        x += 0.1
        panel.node.node.SetNthControlPointPositionWorld(3, x, 0, 0)
        panel._mark_due()
        qt.application.processEvents()
    assert 2 <= len(shown) <= 30  # at the timer's pace: neither at every move nor only when the drag ends
    panel.close()
    window.close()


def test_the_panel_is_narrow_and_nothing_is_cut(tmp_path):
    panel, window = qt_harness.example(tmp_path, width=360)
    qt.application.processEvents()
    for button in panel._buttons.values():
        needed = button.fontMetrics().horizontalAdvance(button.text())
        assert button.width() >= needed, button.text()
    picture = window.grab()
    assert picture.width() == 360 and picture.toImage().pixelColor(180, 320).isValid()
    panel.close()
    window.close()


def test_closing_leaves_no_observer_and_no_timer(tmp_path):
    panel, window = qt_harness.example(tmp_path)
    node = panel.node.node
    assert node.HasObserver(node.PointEndInteractionEvent)
    panel.close()
    assert not node.HasObserver(node.PointEndInteractionEvent) and not panel.timer.isActive()
    window.close()


def test_the_module_file_sets_the_panel_up_as_slicer_would(tmp_path, monkeypatch):
    import LandmarkLabel

    monkeypatch.setattr(LandmarkLabel.LandmarkLabelWidget, "logic_folder", lambda self: tmp_path)
    widget = LandmarkLabel.LandmarkLabelWidget()
    widget.setup()
    widget.enter()
    assert all(s.isEnabled() for s in widget.panel._shortcuts) and len(widget.panel._shortcuts) == 10
    widget.exit()
    assert not any(s.isEnabled() for s in widget.panel._shortcuts)
    widget.cleanup()
    assert isinstance(slicer.mrmlScene, slicer.vtkMRMLScene)
