"""What the points measure, as the panel's table has it, against a real server: live, with intervals and reasons."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import qt_harness
from qt_harness import idle, press, wait_for
from serving import serving

qt = qt_harness.install()

from LandmarkLabelLib.client import NoRoute, Refused, Unreachable  # noqa: E402
from LandmarkLabelLib.markups import flipped  # noqa: E402
from LandmarkLabelLib.measured import Measured  # noqa: E402
from LandmarkLabelLib.session import Session  # noqa: E402
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PREDICTED  # noqa: E402
from measured_study import (  # noqa: E402
    DEFINITION,
    INTERVAL,
    NAME,
    USUAL,
    VALUE,
    drag_to,
    expected,
    hint,
    is_grey,
    let_go,
    opened,
    study_of,
    table,
    wait_current,
)


def test_after_predicting_values_and_intervals_are_the_librarys(measuring_panel, measured):
    panel = measuring_panel
    press(panel, "predictButton")
    idle(panel)
    wait_current(panel)
    assert table(panel) == expected(measured.task, panel.logic.session.points)
    assert all(row[INTERVAL] for row in table(panel)), table(panel)
    assert not panel.ui.measurementsSection.isHidden() and not is_grey(panel)
    assert DEFINITION in hint(panel, 0, NAME)
    assert (
        hint(panel, 1, USUAL) == "a book" and table(panel)[1][USUAL] == "31.5 ± 2" and "31.5 ± 2 (a book)" in hint(panel, 1, NAME)
    )


def test_values_change_while_a_point_is_dragged_and_it_need_not_be_let_go(measuring_panel, measured):
    panel = measuring_panel
    press(panel, "predictButton")
    idle(panel)
    wait_current(panel)
    name, seen = measured.task.names[0], [table(panel)[0][VALUE]]
    drag_to(panel, name)
    for x in (20.0, 30.0, 40.0):
        panel.node.node.SetNthControlPointPositionWorld(0, *flipped((x, 50.0, 0.0)))
        wait_current(panel)
        assert panel.node.is_dragging and table(panel) == expected(measured.task, panel.logic.session.points)
        seen.append(table(panel)[0][VALUE])
    assert len(set(seen)) == 4
    let_go(panel)
    idle(panel)
    wait_current(panel)
    assert table(panel) == expected(measured.task, panel.logic.session.points)  # the others have followed


def test_a_point_that_is_absent_is_the_reason_and_undo_brings_the_interval_back(measuring_panel, measured):
    panel = measuring_panel
    press(panel, "predictButton")
    idle(panel)
    wait_current(panel)
    before = table(panel)
    panel.select(measured.task.names[3])
    press(panel, "absentButton")
    idle(panel)
    wait_current(panel)
    assert [row[VALUE] == "–" for row in table(panel)] == [True, True, False, True]
    assert hint(panel, 0, VALUE) == f"{measured.task.names[3]} is absent" == hint(panel, 1, INTERVAL)
    assert f"{measured.task.names[3]} is absent" in hint(panel, 3, NAME)
    press(panel, "undoButton")
    wait_current(panel)
    assert table(panel) == before and before[0][INTERVAL]


def test_an_accepted_point_adds_nothing_and_points_by_a_person_alone_have_no_interval(measuring_panel, measured):
    panel = measuring_panel
    press(panel, "predictButton")
    idle(panel)
    name = measured.task.names[0]
    panel.logic.accept(name)
    wait_current(panel)
    assert panel.logic.session.point(name).state == ACCEPTED and table(panel) == expected(
        measured.task, panel.logic.session.points
    )
    panel.logic.accept(measured.task.names[3])
    wait_current(panel)
    assert table(panel)[0][VALUE] != "–" and table(panel)[0][INTERVAL] == ""
    assert hint(panel, 0, INTERVAL) == "no interval: its points were placed by a person, whose error is not known"


def test_an_answer_on_its_way_is_of_the_past_and_shown_as_that_and_the_newest_points_are_asked_last(
    measuring_panel, measured, monkeypatch
):
    panel = measuring_panel
    press(panel, "predictButton")
    idle(panel)
    wait_current(panel)
    real, gate, asked = panel.logic.client.measure, threading.Event(), []

    def slow(model, image_id, points, task):
        asked.append(list(points))
        gate.wait(30)
        return real(model, image_id, points, task)

    monkeypatch.setattr(panel.logic.client, "measure", slow)
    was = table(panel)
    drag_to(panel, measured.task.names[0], (20.0, 50.0))
    wait_for(panel, lambda: len(asked) == 1, "the first question")
    for x in (30.0, 40.0, 50.0, 60.0):
        panel.node.node.SetNthControlPointPositionWorld(0, *flipped((x, 50.0, 0.0)))
        panel.tick()
    panel.tick()
    assert len(asked) == 1 and is_grey(panel) and table(panel) == was  # one at a time; what is shown is not called current
    states = []
    monkeypatch.setattr(
        panel, "refresh", lambda show=panel.refresh: (show(), states.append((table(panel)[0][VALUE], is_grey(panel))))
    )
    gate.set()
    wait_current(panel)
    newest = expected(measured.task, panel.logic.session.points)
    assert len(asked) == 2 and asked[1] == panel.logic.session.points and table(panel) == newest
    assert all(grey or value == newest[0][VALUE] for value, grey in states), states
    assert not is_grey(panel)
    let_go(panel)
    idle(panel)


def test_an_answer_of_a_case_that_is_closed_is_dropped(measuring_panel, measured, monkeypatch):
    panel = measuring_panel
    press(panel, "predictButton")
    idle(panel)
    real, gate, ended = panel.logic.client.measure, threading.Event(), []
    mine = panel.logic.session.image_id

    def slow(model, image_id, points, task):
        if image_id == mine:
            gate.wait(30)
            ended.append(image_id)
            return [Measured(m.name, 999.0, "px") for m in task.measurements]
        return real(model, image_id, points, task)

    wait_current(panel)
    monkeypatch.setattr(panel.logic.client, "measure", slow)
    panel.logic.correct(measured.task.names[0], (20.0, 20.0, 0.0), False)
    wait_for(panel, lambda: panel.logic.worker.waits("measure"), "the question")
    panel.logic.open_case(sorted(measured.truth)[0])
    wait_for(panel, lambda: panel.logic.session.image_id != mine, "the other case")
    wait_current(panel)  # it does not wait for the other's answer
    gate.set()
    wait_for(panel, lambda: ended, "the old answer")
    for _ in range(5):
        panel.tick()
        time.sleep(0.02)
    assert table(panel) == expected(measured.task, panel.logic.session.points) and table(panel)[0][VALUE] != "999.0 px"


def test_the_others_follow_before_anything_is_measured(measuring_panel, measured, monkeypatch):
    panel = measuring_panel
    press(panel, "predictButton")
    idle(panel)
    wait_current(panel)
    real, gate, order = panel.logic.client.update, threading.Event(), []
    monkeypatch.setattr(panel.logic.client, "update", lambda *words: (gate.wait(30), order.append("follow"), real(*words))[2])
    ask = panel.logic.client.measure
    monkeypatch.setattr(panel.logic.client, "measure", lambda *words: (order.append("measure"), ask(*words))[1])
    drag_to(panel, measured.task.names[0], (25.0, 40.0))
    let_go(panel)
    for _ in range(10):
        panel.tick()
    assert order == [] and is_grey(panel)
    gate.set()
    idle(panel)
    wait_current(panel)
    assert order == ["follow", "measure"]


def test_while_the_server_is_away_the_last_values_are_grey_and_it_is_asked_again(tmp_path, monkeypatch):
    measured = study_of(tmp_path / "own", 2)
    with serving(measured) as server:
        panel, window = opened(server, tmp_path / "panel", sorted(measured.truth)[1])
        panel.logic.session.propose([replace(p, state=PREDICTED, position=(x, y, 0.0)) for p, (x, y) in placed(panel, measured)])
        wait_current(panel)
        shown = table(panel)
        assert shown[0][VALUE] != "–" and "it is not known how far off" in hint(panel, 0, INTERVAL)
    panel.logic.mark_absent(measured.task.names[3])
    wait_for(panel, lambda: not panel.logic.online, "that it is noticed")
    panel.tick()
    assert is_grey(panel) and table(panel) == shown and not panel.ui.measurementsSection.isHidden()
    with serving(measured) as server:
        panel.logic.client.url = server.url
        wait_for(panel, lambda: panel.logic.online, "the server")
        wait_current(panel)
        assert not is_grey(panel) and table(panel)[0][VALUE] == "–" and panel.logic.session.points[3].state == ABSENT
        answers = [Unreachable("broke off"), Refused("it is no good")]
        real = panel.logic.client.measure
        monkeypatch.setattr("LandmarkLabelLib.measuring.AGAIN_S", 0.05)
        monkeypatch.setattr(panel.logic.client, "measure", lambda *words: raised(answers.pop(0)) if answers else real(*words))
        press(panel, "undoButton")
        wait_current(panel)  # asked again, and refused
        assert table(panel)[0][VALUE] == "–" and hint(panel, 0, VALUE) == "it is no good" and panel.logic.online
        press(panel, "redoButton")
        wait_current(panel)
        assert "is absent" in hint(panel, 0, VALUE)
    panel.close()
    window.close()


def placed(panel, measured):
    truth = measured.truth[panel.logic.session.image_id].positions_mm
    return zip(panel.logic.session.points, truth, strict=True)


def raised(error: Exception):
    raise error


def test_where_nothing_is_measured_there_is_no_section(server, material, tmp_path):
    panel, window = opened(server, tmp_path / "panel", sorted(material.truth)[5])
    panel.tick()
    assert panel.logic.task.measurements == () and panel.ui.measurementsSection.isHidden()
    assert not panel.logic.worker.waits("measure")
    panel.close()
    window.close()


def test_an_older_server_hides_the_section_and_nothing_is_said(measuring_panel, measured, server):
    panel = measuring_panel
    wait_current(panel)
    assert not panel.ui.measurementsSection.isHidden()
    said, trouble = panel.ui.message.text(), panel.ui.trouble.text()
    with pytest.raises(NoRoute):  # what the server says of a route that it does not have
        panel.logic.client._call("POST", f"/landmarks/images/{sorted(measured.truth)[3]}/no_such_route", json={})
    with pytest.raises(Refused) as caught:  # and of a case
        panel.logic.client.measure("", "nobody", panel.logic.session.points, panel.logic.task)
    assert not isinstance(caught.value, NoRoute)
    panel.logic.client.measure = lambda *_: raised(NoRoute("Not Found"))
    panel.logic.session.mark_absent(measured.task.names[0])
    wait_for(panel, lambda: panel.ui.measurementsSection.isHidden(), "the section to go")
    asked = []
    panel.logic.client.measure = lambda *_: asked.append(1)
    panel.logic.session.mark_absent(measured.task.names[1])
    for _ in range(5):
        panel.tick()
    assert asked == [] and (panel.ui.message.text(), panel.ui.trouble.text()) == (said, trouble) and panel.logic.online


def test_how_far_off_a_proposal_may_be_survives_the_session_file_and_undo(measuring_panel, measured, measuring_server, tmp_path):
    panel = measuring_panel
    press(panel, "predictButton")
    idle(panel)
    wait_current(panel)
    session, before = panel.logic.session, table(panel)
    assert all(p.covariance is not None for p in session.points), session.points
    again = Session.of(session.content(), session.task)
    assert again.points == session.points
    panel.logic.correct(measured.task.names[0], (20.0, 20.0, 0.0))
    idle(panel)
    assert session.points[0].covariance is None
    while session.undo_text[0] != "prediction":
        press(panel, "undoButton")
    wait_current(panel)
    assert table(panel) == before
    place = panel.folder
    panel.close()
    reopened, window = qt_harness.open_panel(place)
    reopened.ui.url.setText(measuring_server.url)
    press(reopened, "connectButton")
    idle(reopened)
    wait_current(reopened)
    assert table(reopened) == before and before[0][INTERVAL]
    reopened.close()
    window.close()
