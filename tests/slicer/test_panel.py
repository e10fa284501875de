"""The panel's buttons, keys and rows, on PySide6 and real MRML, against a real server. What that leaves out: ``qt_harness``."""

from __future__ import annotations

import ctypes
import time

import numpy as np
import pytest
import qt_harness
import shiboken6
from qt_harness import cut, idle, press, type_keys, wait_for

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib import panel as panel_module  # noqa: E402
from LandmarkLabelLib.markups import MISSING, flipped  # noqa: E402
from LandmarkLabelLib.scene_nodes import point_lists  # noqa: E402
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED, Point, Task  # noqa: E402


def test_a_case_through_the_buttons(server, material, tmp_path):
    panel, window = qt_harness.open_panel(tmp_path)
    panel.ui.url.setText(server.url)
    press(panel, "connectButton")
    idle(panel)
    assert panel.ui.serverStatus.text().startswith("connected") and panel.ui.models.count() == 2
    panel.ui.strategy.setCurrentIndex(panel.ui.strategy.findText("first"))
    press(panel, "nextButton")
    idle(panel)
    image_id = sorted(material.truth)[5]
    assert panel.ui.caseLabel.text().startswith(f"{image_id} (first by name")
    assert panel.ui.progressLabel.text().startswith("0 of 12 done")
    press(panel, "predictButton")
    idle(panel)
    assert panel.ui.table.item(0, 1).text() == "proposed" and panel.ui.table.item(0, 2).text().endswith(" px")
    press(panel, "nextDoubtfulButton")
    name = panel.current
    index, truth = material.task.names.index(name), material.truth[image_id].positions_mm
    before = np.array([p.position[:2] for p in panel.logic.session.points])
    node = panel.node.node
    node.SetNthControlPointPositionWorld(index, *flipped((*truth[index], 0.0)))  # the person drags the point …
    node.InvokeEvent(node.PointEndInteractionEvent)  # … and lets go
    idle(panel)
    after = np.array([p.position[:2] for p in panel.logic.session.points])
    assert panel.ui.table.item(index, 1).text() == "placed" and "points moved" in panel.ui.message.text()
    others = np.arange(len(truth)) != index
    moved = np.linalg.norm(after - before, axis=1)[others]
    assert (moved > 0.5).any() and np.allclose(after[index], truth[index])
    press(panel, "acceptButton")
    assert panel.logic.session.point(name).state == ACCEPTED and panel.node.node.GetNthControlPointLocked(index) == 1
    panel.select(material.task.names[2])
    press(panel, "absentButton")
    assert panel.node.node.GetNthControlPointPositionStatus(2) == MISSING
    press(panel, "submitButton")
    wait_for(panel, lambda: panel.logic.session.image_id == sorted(material.truth)[6], "the next case")
    unsaid = "10 of its 12 points are not labelled: place, accept or call them absent"
    assert f"{image_id} is saved as revision 1; {unsaid}" in panel.ui.message.text()
    saved = server.get(f"/landmarks/images/{image_id}")
    rows = {r["name"]: r["status"] for r in saved["landmarks"]}
    assert saved["revision"] == 1 and rows[name] == ACCEPTED and rows[material.task.names[2]] == ABSENT
    panel.close()
    window.close()


def test_an_accepted_point_that_is_dragged_goes_back(example):
    session, node = example.logic.session, example.node.node
    was = session.point("nasion")
    node.SetNthControlPointLocked(0, False)
    node.SetNthControlPointPositionWorld(0, 50, 50, 50)
    node.InvokeEvent(node.PointEndInteractionEvent)
    example.tick()
    assert session.point("nasion") == was and example.node.position("nasion") == was.position


@pytest.mark.parametrize("key, name, state", [("A", "menton", ACCEPTED), ("X", "menton", ABSENT), ("A", "orbit_left", ACCEPTED)])
def test_keys_do_what_the_buttons_say(example, key, name, state):
    example.select(name)
    type_keys(example, key)
    assert example.logic.session.point(name).state == state
    assert example.current != name  # on to the next doubtful one
    type_keys(example, "Ctrl+Z")
    assert example.logic.session.point(name).state == PREDICTED


def test_at_another_address_nothing_of_the_case_before_is_shown(example):
    assert example.ui.table.rowCount() > 0
    example.ui.url.setText("http://127.0.0.1:9")  # where nobody answers
    press(example, "connectButton")
    idle(example)
    assert example.ui.caseLabel.text() == "no case is open"
    assert example.ui.table.rowCount() == 0 and example.ui.definitionFrame.isHidden()
    assert set(example.node.positions()) == {None} and example.volume.node is None


def test_next_uncertain_goes_to_the_flagged_point_first(example):
    example.select("nasion")
    press(example, "nextDoubtfulButton")
    assert example.current == "menton"
    seen = []
    for _ in range(8):
        press(example, "nextDoubtfulButton")
        seen.append(example.current)
    left = {"menton", *example.logic.session.doubtful()}
    assert seen[0] != "menton" and "menton" in seen and set(seen) == left  # pressed again, it goes on, and round


def test_replacing_waits_for_a_click_and_takes_the_new_position(example):
    example.select("orbit_left")
    press(example, "replaceButton")
    assert "click in a view to place orbit_left" in example.ui.message.text()
    example.node.node.SetNthControlPointPositionWorld(2, *flipped((7.0, 8.0, 9.0)))
    assert example.logic.session.point("orbit_left") == Point("orbit_left", PLACED, (7.0, 8.0, 9.0))


def test_a_point_that_waits_for_a_click_is_not_accepted_where_it_was(example):
    example.select("orbit_left")
    press(example, "replaceButton")
    press(example, "acceptButton")
    assert "click in a view to place orbit_left" in example.ui.message.text()
    assert example.logic.session.point("orbit_left").state == PREDICTED and example.current == "orbit_left"


def test_swapped_sides_are_asked_about_once_before_submitting(example):
    session = example.logic.session
    session.place("orbit_left", (-20.0, 0.0, 0.0))
    session.place("orbit_right", (20.0, 0.0, 0.0))
    press(example, "submitButton")
    assert "orbit_left and orbit_right look swapped: check left and right" in example.ui.message.text()
    assert example.logic.outbox.waiting() == []
    press(example, "submitButton")
    assert len(example.logic.outbox.waiting()) == 1


def slow_translation(text: str) -> str:
    """As long as Slicer's own takes, which looks through the stack of calls."""
    end = time.perf_counter() + 150e-6
    while time.perf_counter() < end:
        pass
    return text


@pytest.mark.timed
def test_the_others_follow_a_correction_while_an_idle_slicer_holds_pythons_lock(server, material, tmp_path, record_property):
    panel, window = qt_harness.open_panel(tmp_path)
    panel.ui.url.setText(server.url)
    press(panel, "connectButton")
    idle(panel)
    panel.logic.open_case(sorted(material.truth)[7])
    idle(panel)
    press(panel, "predictButton")
    idle(panel)
    spent, hold = [], ctypes.PyDLL(None).usleep
    for shift in range(20):
        name, node = material.task.names[shift % 12], panel.node.node
        place = (20.0 + shift, 30.0, 0.0)
        node.InvokeEvent(node.PointStartInteractionEvent)
        node.SetNthControlPointPositionWorld(panel.node.index(name), *flipped(place))
        node.InvokeEvent(node.PointEndInteractionEvent)
        started = time.perf_counter()
        while panel.logic.worker.busy or panel._due:
            qt.application.processEvents()
            hold(5000)
            assert time.perf_counter() - started < 30
        spent.append(time.perf_counter() - started)
    record_property("follow_ms", round(1000 * float(np.median(spent)), 1))
    assert np.median(spent) < 0.1, spent
    panel.close()
    window.close()


@pytest.mark.timed
def test_150_rows_refresh_within_the_budget_and_during_a_drag(tmp_path, record_property):
    panel, window = qt_harness.example(tmp_path, translate=slow_translation)
    rows = [{"image": f"case{i}", "revision": 1, "labelled": True, "author": "ann"} for i in range(3000)]
    panel.logic.review.cases = rows
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
    assert np.median(spent) < 0.01
    shown = []
    refresh = panel.refresh
    panel.refresh = lambda: (shown.append(1), refresh())
    end = time.monotonic() + 0.6
    x = 0.0
    panel.node.node.InvokeEvent(panel.node.node.PointStartInteractionEvent)
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
    assert cut(window) == []
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
    assert all(s.isEnabled() for s in widget.panel._shortcuts) and len(widget.panel._shortcuts) == 14
    widget.exit()
    assert not any(s.isEnabled() for s in widget.panel._shortcuts)
    widget.cleanup()
    assert not widget.panel.timer.isActive()


def test_escape_while_replacing_leaves_the_point_where_it_was(example):
    example.select("orbit_left")
    was = example.logic.session.point("orbit_left")
    type_keys(example, "L")
    assert example.node.position("orbit_left") is None
    type_keys(example, "Esc")
    example.tick()
    assert example.node.position("orbit_left") == was.position and example.logic.session.point("orbit_left") == was
    assert example.ui.message.text() == "orbit_left is where it was"


@pytest.mark.parametrize("key", ["A", "X", "L"])
def test_a_locked_point_changes_only_after_unlocking(example, key):
    example.select("porion_right" if key == "L" else "nasion")  # absent, accepted
    before = list(example.logic.session.points)
    type_keys(example, key)
    assert example.logic.session.points == before
    if key != "A":
        assert example.ui.message.text().endswith(": unlock it first (U)")
    type_keys(example, "U")
    unlocked = example.logic.session.point(example.current)
    assert unlocked.state == ("unset" if key == "L" else PLACED)


def test_accepting_all_by_key_leaves_nothing_to_do(example):
    type_keys(example, "Shift+A")
    states = {p.name: p.state for p in example.logic.session.points}
    assert (states.pop("sella"), states.pop("porion_right")) == (PLACED, ABSENT)  # as a person left them
    assert states.pop("menton") == PREDICTED and set(states.values()) == {ACCEPTED}
    assert example.ui.message.text() == "the others are accepted; contradicting the rest: menton; look at each (N)"
    press(example, "nextDoubtfulButton")
    assert example.current == "menton"
    press(example, "acceptButton")
    assert example.ui.progressLabel.text().startswith("8 of 8 done")
    press(example, "nextDoubtfulButton")
    assert example.ui.message.text() == "every point has been looked at: submit the case"


def drag(node, index: int, *positions: tuple[float, float, float]) -> None:
    node.InvokeEvent(node.PointStartInteractionEvent)
    for position in positions:
        node.SetNthControlPointPositionWorld(index, *position)
    node.InvokeEvent(node.PointEndInteractionEvent)


def test_a_drag_is_undone_as_a_whole(example):
    was = list(example.logic.session.points)
    drag(example.node.node, 2, (1, 1, 1), (2, 2, 2), (3, 3, 3))
    wait_for(example, lambda: not example.logic.worker.busy, "the background")
    while example.logic.session.undo_text != ("place {}", "orbit_left"):
        press(example, "undoButton")  # what followed
    press(example, "undoButton")
    assert example.logic.session.points == was


def test_the_slices_follow_a_drag_but_not_a_placing(example):
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    view.SetOrientation("Axial")
    offset = lambda: view.GetSliceOffset()  # noqa: E731
    start = offset()
    node = example.node.node
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPositionWorld(2, 5, 5, 37)
    assert offset() == 37 != start
    node.InvokeEvent(node.PointEndInteractionEvent)
    example.ui.followDrag.setChecked(False)
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPositionWorld(2, 5, 5, 61)
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert offset() == 37
    example.ui.followDrag.setChecked(True)
    example.select("orbit_right")
    at = offset()
    press(example, "replaceButton")
    node.SetNthControlPointPositionWorld(3, 5, 5, 90)
    assert offset() == at
    slicer.mrmlScene.RemoveNode(view)


def test_a_saved_scene_that_is_loaded_again_keeps_list_and_session(example, tmp_path):
    scene, points = slicer.mrmlScene, list(example.logic.session.points)
    first = example.node.node
    storage = scene.AddNewNodeByClass("vtkMRMLMarkupsJsonStorageNode")
    storage.SetFileName(str(tmp_path / "points.mrk.json"))
    assert storage.WriteData(first)
    first.SetAndObserveStorageNodeID(storage.GetID())
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    scene.Clear(False)
    assert not example.node.is_in_scene
    scene.Import()
    example.refresh()
    assert len(point_lists(scene)) == 1 and example.node.node is not first
    assert example.logic.session.points == points
    assert example.node.positions() == [p.position for p in points]
    assert not first.HasObserver(first.PointEndInteractionEvent)
    drag(example.node.node, 2, (4.0, 5.0, 6.0))
    assert example.logic.session.point("orbit_left").position == (-4.0, -5.0, 6.0)


def test_a_scene_that_is_closed_gets_a_new_list(example):
    points = list(example.logic.session.points)
    slicer.mrmlScene.Clear(False)
    example.refresh()
    assert example.node.is_in_scene
    assert example.node.positions() == [p.position for p in points]


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    panel, window = qt_harness.open_panel(tmp_path / "file" / "panel")
    press(panel, "connectButton")
    assert panel.ui.trouble.text().replace("\u200b", "").startswith(f"{tmp_path / 'file' / 'panel'} cannot be written (")
    assert not panel.ui.troubleFrame.isHidden() and panel.ui.serverStatus.text() == "not connected"
    panel.close()
    window.close()


def test_a_panel_that_is_deleted_without_being_closed_works_no_more(tmp_path):
    """Slicer deletes a module's widgets when it ends, whether or not it asked the module to clean up."""
    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.example(tmp_path)
    shiboken6.delete(window)
    slicer.mrmlScene.Clear(False)
    later = qt.QEventLoop()
    qt.QTimer.singleShot(3 * panel_module.POLL_MS, later.quit)
    later.exec()  # an error of its timer is seen by ``errors_in_slots``
    assert not shiboken6.isValid(panel.timer)
    panel.logic.close()
