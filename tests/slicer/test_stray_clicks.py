"""Clicks that were meant for one landmark are never another's, and a question that was asked long ago is asked again."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import qt_harness
from qt_harness import idle, open_case, press, wait_for
from serving import phantoms, serving

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.markups import UNDEFINED, flipped  # noqa: E402
from LandmarkLabelLib.wire import PLACED, UNSET  # noqa: E402
from views import SliceView  # noqa: E402

OPEN = "phantom06"  # not labelled


@pytest.fixture()
def panel(panel_at_server):
    open_case(panel_at_server, OPEN)
    yield panel_at_server


def click(panel, place=(40.0, 50.0, 0.0)) -> None:
    with closing(SliceView(slicer.applicationLogic, panel.volume.node, "Axial", size=(400, 400))) as view:
        view.node.JumpSliceByOffsetting(*flipped(place))
        view.click(*np.round(view.xy_of(flipped(place))))
    idle(panel)
    panel.tick()


def placed(panel) -> list[str]:
    return [p.name for p in panel.logic.session.points if p.state == PLACED]


def clear(panel) -> None:
    """Nothing of the case is unsent after a test: the server is everybody's."""
    while panel.logic.session.undo_text[0]:
        press(panel, "undoButton")


def test_a_list_that_is_deleted_while_a_landmark_waits_takes_no_click(panel):
    third = panel.logic.task.names[2]
    panel.select(third)
    press(panel, "replaceButton")
    slicer.mrmlScene.RemoveNode(panel.node.node)
    panel.tick()
    assert panel.ui.message.text() == f"{third} is where it was"
    click(panel)
    assert placed(panel) == [] and {p.state for p in panel.logic.session.points} == {UNSET}


@pytest.mark.parametrize("button", ("acceptAllButton", "submitButton", "acceptButton"))
def test_a_landmark_that_waits_for_its_click_is_neither_accepted_nor_submitted_where_it_was(panel, button):
    first, second = panel.logic.task.names[:2]
    for name in (first, second):
        panel.select(name)
        press(panel, "replaceButton")
        click(panel)
    press(panel, "replaceButton")
    before = list(panel.logic.session.points)
    press(panel, button)
    assert panel.ui.message.text() == f"click in a view to place {second}; Escape leaves it"
    assert panel.logic.session.points == before and not panel.logic.session.is_submitted and panel.node.placing == second
    click(panel, (20.0, 30.0, 0.0))
    assert np.allclose(panel.logic.session.point(second).position, (20.0, 30.0, 0.0), atol=0.5)
    clear(panel)


def test_a_point_that_is_hidden_or_dulled_in_markups_is_shown_again(panel):
    name = panel.logic.task.names[0]
    panel.select(name)
    press(panel, "replaceButton")
    click(panel)
    node, index = panel.node.node, panel.node.index(name)
    node.SetNthControlPointVisibility(index, False)
    panel.tick()
    assert node.GetNthControlPointVisibility(index)
    node.SetNthControlPointSelected(index, False)
    panel.tick()
    assert node.GetNthControlPointSelected(index)
    clear(panel)


def test_slicers_own_place_button_is_for_the_selected_landmark(panel):
    fourth = panel.logic.task.names[3]
    panel.select(fourth)
    interaction = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSelectionNode").SetActivePlaceNodeID(panel.node.node.GetID())
    interaction.SetCurrentInteractionMode(interaction.Place)
    panel.tick()
    assert panel.ui.message.text() == f"click in a view to place {fourth}; Escape leaves it"
    click(panel)
    assert placed(panel) == [fourth]
    press(panel, "acceptButton")
    panel.select(fourth)
    interaction.SetCurrentInteractionMode(interaction.Place)
    panel.tick()
    assert interaction.GetCurrentInteractionMode() != interaction.Place  # it is accepted: nothing waits
    clear(panel)


def test_a_question_is_withdrawn_by_whatever_else_is_pressed(panel):
    name = panel.logic.task.names[0]
    panel.select(name)
    press(panel, "replaceButton")
    click(panel)
    open_case(panel, "phantom07")
    assert [row.image_id for row in panel._rows] == [OPEN]
    panel.ui.unsentList.setCurrentRow(0)
    press(panel, "discardButton")
    assert "press Discard again" in panel.ui.message.text()
    press(panel, "undoButton")
    press(panel, "discardButton")
    assert "press Discard again" in panel.ui.message.text() and [row.image_id for row in panel._rows] == [OPEN]
    press(panel, "discardButton")
    idle(panel)
    assert panel._rows == []


def test_points_whose_submission_is_discarded_stay_and_are_unsent(panel, server, material):
    name = panel.logic.task.names[1]
    panel.select(name)
    press(panel, "replaceButton")
    click(panel)
    place = panel.logic.session.point(name).position
    panel.logic.session.pixels = "of another image"  # so that the server refuses it
    press(panel, "submitButton")
    if "Submit again" in panel.ui.message.text():
        press(panel, "submitButton")
    idle(panel)
    (entry,) = panel._rows
    open_case(panel, "phantom07")
    panel.logic.sessions.drop(panel.logic.sessions.load(OPEN, panel.logic.task, False))  # only the submission has it
    open_case(panel, OPEN)
    panel.ui.unsentList.setCurrentRow([getattr(row, "key", "") for row in panel._rows].index(entry.key))
    press(panel, "discardButton")
    press(panel, "discardButton")
    idle(panel)
    assert "the points are still open here, and not sent" in panel.ui.message.text()
    open_case(panel, "phantom07")
    assert [row.image_id for row in panel._rows] == [OPEN]
    open_case(panel, OPEN)
    assert panel.logic.session.point(name).position == place
    clear(panel)


@pytest.mark.parametrize("is_noticed", (True, False))
def test_connect_while_the_server_is_away_keeps_the_case(tmp_path, is_noticed):
    material = phantoms(tmp_path / "study", 8)
    slicer.mrmlScene.Clear(False)
    with serving(material) as server:
        port = int(server.url.rpartition(":")[2])
        panel, window = qt_harness.open_panel(tmp_path / "panel")
        panel.ui.url.setText(server.url)
        press(panel, "connectButton")
        idle(panel)
        open_case(panel, OPEN)
        name = panel.logic.task.names[4]
        panel.select(name)
        press(panel, "replaceButton")
        click(panel)
    if is_noticed:
        wait_for(panel, lambda: not panel.logic.online, "the panel to notice")
    press(panel, "connectButton")
    idle(panel)
    assert panel.ui.caseLabel.text().startswith(OPEN) and placed(panel) == [name]
    assert "does not answer" in panel.ui.serverStatus.text()
    with serving(material, port=port):
        press(panel, "connectButton")
        wait_for(panel, lambda: panel.logic.online, "the server to be found again")
        idle(panel)
        assert placed(panel) == [name]
        clear(panel)
    panel.close()
    window.close()


def test_after_the_panel_has_ended_no_point_is_shown_that_nobody_listens_to(panel):
    name = panel.logic.task.names[5]
    panel.select(name)
    press(panel, "replaceButton")
    click(panel)
    press(panel, "replaceButton")
    panel.close()
    node, count = panel.node.node, len(panel.logic.task.names)
    assert [node.GetNthControlPointPositionStatus(i) for i in range(count)] == [UNDEFINED] * count
    interaction = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    assert interaction.GetCurrentInteractionMode() != interaction.Place
