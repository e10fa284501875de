"""Answers of the server that come while a case is open, or after it was submitted."""

from __future__ import annotations

import time

from annotators import DEADLINE_S, settle
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.wire import PREDICTED, Point


def test_after_a_second_pass_the_points_are_asked_for_again(logic, monkeypatch):
    answers = iter([True, False])
    asked = []

    def update(model, image_id, points, task):
        asked.append(image_id)
        return {"points": points, "next": None, "origin": "model", "second_pass": next(answers)}

    monkeypatch.setattr(logic.client, "update", update)
    monkeypatch.setattr("LandmarkLabelLib.logic.SECOND_PASS_S", 0.01)
    logic.session = Session.fresh(logic.task, "case")
    logic.correct(logic.task.names[0], (1.0, 2.0, 0.0))
    end = time.monotonic() + DEADLINE_S
    while len(asked) < 2 or logic.worker.busy:
        assert time.monotonic() < end, asked
        logic.poll()
        time.sleep(0.005)
    assert asked == ["case", "case"] and logic._ask_again_at is None


def test_an_answer_that_comes_after_submit_changes_nothing(logic, server, material, monkeypatch):
    image_id = sorted(material.truth)[7]
    logic.open_case(image_id)
    settle(logic)
    session = logic.session
    logic.correct(material.task.names[3], (33.0, 44.0, 0.0))
    settle(logic)
    revision = session.base_revision
    moved = [p if p.state != PREDICTED else Point(p.name, PREDICTED, tuple(v + 1 for v in p.position)) for p in session.points]
    answer = {"points": moved, "next": None, "origin": "model", "second_pass": False, "cautions": []}
    monkeypatch.setattr(logic.client, "predict", lambda *_: answer)
    logic.predict()  # the server has not answered yet
    before = list(session.points)
    assert logic.submit()
    settle(logic)
    assert session.points == before and session.is_submitted
    assert server.get(f"/landmarks/images/{image_id}")["revision"] == revision + 1
