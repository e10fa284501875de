"""Points moved by hand: dragged while answers arrive, refused, held while another case opens, typed, and placed by a click."""

from __future__ import annotations

import numpy as np
import pytest
import qt_harness
from cases_at_panel import predicted
from qt_harness import idle, press

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.markups import flipped  # noqa: E402
from LandmarkLabelLib.scene_nodes import of_class  # noqa: E402
from LandmarkLabelLib.wire import ACCEPTED, PLACED, PREDICTED, Point  # noqa: E402
from views import SliceView  # noqa: E402

FAR_OUT = (99999.0, -5000.0, 0.0)


@pytest.fixture()
def panel(panel_at_server, material):
    """A case with all points proposed."""
    predicted(panel_at_server, sorted(material.truth)[5])
    return panel_at_server


def grab(panel) -> None:
    panel.node.node.InvokeEvent(panel.node.node.PointStartInteractionEvent)


def move(panel, name: str, place) -> None:
    panel.node.node.SetNthControlPointPositionWorld(panel.node.index(name), *flipped(place))
    qt.application.processEvents()


def let_go(panel) -> None:
    panel.node.node.InvokeEvent(panel.node.node.PointEndInteractionEvent)


def drag(panel, name: str, by) -> np.ndarray:
    place = np.array(panel.node.position(name)) + by
    grab(panel)
    move(panel, name, place)
    let_go(panel)
    return place


def test_a_point_refused_at_the_end_of_a_drag_is_as_before_it_whatever_answer_came_meanwhile(panel, material):
    first, second = material.task.names[:2]
    before = panel.logic.session.point(second)
    place = drag(panel, first, (3, 3, 0))
    grab(panel)
    move(panel, second, np.array(before.position) + (2, 0, 0))
    idle(panel)  # the others follow the first while the hand holds the second
    move(panel, second, np.array(before.position) + (6, 0, 0))
    move(panel, second, FAR_OUT)
    let_go(panel)
    panel.tick()
    assert f"{second} cannot be outside of the image: it is where it was" in panel.ui.message.text()
    point = panel.logic.session.point(second)
    assert (point.state, point.position) == (PREDICTED, before.position)
    assert panel.node.position(second) == pytest.approx(before.position)
    assert panel.logic.session.point(first).position == pytest.approx(place)


def test_a_drag_during_which_an_answer_comes_is_undone_as_one_step(panel, material):
    first, second = material.task.names[:2]
    before = list(panel.logic.session.points)
    drag(panel, first, (3, 3, 0))
    grab(panel)
    move(panel, second, np.array(before[1].position) + (2, 0, 0))
    idle(panel)
    move(panel, second, np.array(before[1].position) + (6, 0, 0))
    let_go(panel)
    idle(panel)
    for _ in range(2):  # what followed the second, and the second
        assert panel.logic.session.point(second).by_person
        press(panel, "undoButton")
    assert panel.logic.session.point(second).position == pytest.approx(before[1].position)
    assert panel.logic.session.point(first).state == PLACED
    for _ in range(2):
        press(panel, "undoButton")
    assert panel.logic.session.points == before


def test_a_refused_drag_leaves_nothing_to_send(panel, material):
    name = material.task.names[1]
    grab(panel)
    move(panel, name, np.array(panel.node.position(name)) + (1, 0, 0))
    move(panel, name, FAR_OUT)
    let_go(panel)
    panel.tick()
    assert "not sent yet" not in panel.ui.progressLabel.text()
    predicted(panel, sorted(material.truth)[6])
    assert panel.ui.unsentFrame.isHidden()


def test_a_drag_of_which_a_part_was_submitted_goes_back_to_that(panel, material):
    predicted(panel, sorted(material.truth)[7])
    name = material.task.names[1]
    was = panel.node.position(name)
    grab(panel)
    move(panel, name, np.array(was) + (2, 0, 0))
    panel.logic.submit()
    idle(panel)
    assert not panel.logic.session.unsent
    move(panel, name, FAR_OUT)
    let_go(panel)
    point = panel.logic.session.point(name)
    assert point.position == pytest.approx(np.array(was) + (2, 0, 0)) and not panel.logic.session.unsent


def test_a_point_that_the_hand_holds_while_the_case_is_left_is_where_it_was(panel, material):
    name, image_id = material.task.names[1], panel.logic.session.image_id
    drag(panel, material.task.names[0], (1, 0, 0))
    idle(panel)
    before = panel.logic.session.point(name)
    grab(panel)
    move(panel, name, np.array(before.position) + (2, 0, 0))
    panel.logic.open_case(image_id)
    idle(panel)
    move(panel, name, np.array(before.position) + (5, 0, 0))
    let_go(panel)
    panel.tick()
    assert panel.logic.session.point(name) == before and panel.node.position(name) == pytest.approx(before.position)
    assert panel.logic.session.point(material.task.names[0]).state == PLACED


def test_a_typed_place_is_a_placed_point_that_undo_takes_back(panel, material):
    """The Markups module's table of coordinates changes a point without grabbing it."""
    name = material.task.names[1]
    was = panel.node.position(name)
    move(panel, name, np.array(was) + (10, 0, 0))
    idle(panel)
    point = panel.logic.session.point(name)
    assert point.state == PLACED and point.position == pytest.approx(np.array(was) + (10, 0, 0))
    kept = panel.logic.sessions.load(panel.logic.session.image_id, panel.logic.task)
    assert kept.point(name).position == point.position  # on disk
    for _ in range(2):  # what followed, and the point
        press(panel, "undoButton")
    assert panel.node.position(name) == pytest.approx(was) and not panel.logic.session.point(name).by_person
    move(panel, name, FAR_OUT)
    panel.tick()
    assert f"{name} cannot be outside of the image" in panel.ui.message.text()
    assert panel.node.position(name) == pytest.approx(was) and not panel.logic.session.point(name).by_person


@pytest.mark.parametrize("meanwhile", ["next doubtful", "another row", "their version appears"])
def test_a_click_places_the_selected_landmark_or_none(panel, material, meanwhile):
    """Slicer gives a click to the list that was made last: never may that be one that only shows something."""
    name = material.task.names[3]
    panel.select(name)
    press(panel, "replaceButton")
    if meanwhile == "their version appears":
        panel.theirs.show([Point("theirs", PLACED, (30.0, 30.0, 0.0))], "bob")
    elif meanwhile == "next doubtful":
        press(panel, "nextDoubtfulButton")
    elif meanwhile == "another row":
        panel.ui.table.selectRow(6)
    if meanwhile != "their version appears":
        panel.tick()
    view = SliceView(slicer.applicationLogic, panel.volume.node, "Axial", size=(400, 400))
    view.render()
    x, y = (int(v) for v in np.round(view.xy_of(flipped((40.0, 60.0, 0.0)))))
    view.click(x, y)
    idle(panel)
    view.close()
    lists = {node.GetName(): node.GetNumberOfControlPoints() for node in of_class(slicer.mrmlScene, "vtkMRMLMarkupsNode")}
    lists.pop("bob", None)
    assert lists == {panel.node.node.GetName(): len(material.task), "selected landmark": 1}
    point = panel.logic.session.point(name)
    if meanwhile == "their version appears":
        assert point.state == PLACED and point.position == pytest.approx((40, 60, 0), abs=1)
    else:
        assert panel.current != name and point.state == PREDICTED


def test_cases_that_were_looked_at_leave_no_nodes_behind(panel, material):
    def count() -> int:
        return slicer.mrmlScene.GetNumberOfNodes()

    ids = sorted(material.truth)
    predicted(panel, ids[6])
    before = count()
    for image_id in (*ids[5:8], *ids[5:7]):
        predicted(panel, image_id)
    assert count() == before


def test_a_refused_drag_leaves_what_else_was_done_while_it_was_held(panel, material):
    first, second = material.task.names[:2]
    before = panel.logic.session.point(second)
    grab(panel)
    move(panel, second, np.array(before.position) + (3, 0, 0))
    panel.logic.accept(first)
    move(panel, second, np.array(before.position) + (5, 0, 0))
    move(panel, second, FAR_OUT)
    let_go(panel)
    assert panel.logic.session.point(second) == before and panel.logic.session.unsent
    assert panel.logic.session.point(first).state == ACCEPTED
    press(panel, "undoButton")
    assert panel.logic.session.point(first).state == PREDICTED


def test_a_drag_belongs_to_no_case_but_its_own(panel, material):
    name, ids = material.task.names[1], sorted(material.truth)
    place = np.array(panel.node.position(name))
    grab(panel)
    move(panel, name, place + (1, 0, 0))
    predicted(panel, ids[6])
    predicted(panel, ids[7])
    before = panel.logic.session.point(name)
    for step in (2, 3, 4):
        move(panel, name, place + (step, 0, 0))
    let_go(panel)
    panel.tick()
    assert panel.logic.session.point(name) == before
    assert panel.node.position(name) == (before.position and pytest.approx(before.position))
    drag(panel, name, (1, 1, 0)) if before.position else None  # the next one counts
    assert before.position is None or panel.logic.session.point(name).state == PLACED
