"""Session, guards and local moving: plain Python, no Qt and no MRML."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from LandmarkLabelLib import options
from LandmarkLabelLib.guards import outliers, refuse_stale, swapped_sides
from LandmarkLabelLib.measured import parse_measured, parse_measurements, places_of
from LandmarkLabelLib.options import Options, local_image
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.session_files import Sessions
from LandmarkLabelLib.shape import propagate
from LandmarkLabelLib.wire import (
    ABSENT,
    ACCEPTED,
    PLACED,
    PREDICTED,
    UNSET,
    Point,
    Task,
    WireError,
    merged,
    parse_points,
    parse_task,
    to_measured_rows,
    to_rows,
)

from landmarklabel.data.synthetic import phantom_task
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.server.wire import from_wire, to_wire

NAMES = ("a", "b", "c", "d", "e", "f")
TASK = Task("t", NAMES, 3, {}, ())
RNG = np.random.default_rng(0)
SHAPE = RNG.uniform(-50, 50, (6, 3))


def points(places, state=PREDICTED) -> list[Point]:
    return [Point(n, state, tuple(p)) for n, p in zip(NAMES, places, strict=True)]


def test_both_ends_of_the_wire_agree():
    """Golden round trip: what the server sends the extension reads, and the other way round."""
    task = phantom_task(3)
    status = [Status.PREDICTED, Status.PLACED, Status.ACCEPTED, Status.ABSENT, Status.UNSET] + [Status.PREDICTED] * (
        len(task) - 5
    )
    places = np.arange(3.0 * len(task)).reshape(-1, 3)
    places[3:5] = np.nan
    sent = LandmarkSet(task, places, tuple(status), expected_error_mm=np.where(np.isnan(places[:, 0]), np.nan, 1.25))
    ours = parse_task(task.to_json())
    read = parse_points(to_wire(sent), ours)
    assert [p.state for p in read] == [s.value for s in status] and read[0].expected_error_mm == 1.25
    assert ours.names == task.names and ours.mirror_pairs == task.mirror_pairs
    back = from_wire(to_rows(read), task)
    assert back.status == sent.status
    np.testing.assert_array_equal(back.positions_mm, sent.positions_mm)


def test_how_far_off_a_point_may_be_is_said_of_proposals_only():
    spread = np.diag([1.0, 4.0, 9.0])
    task = phantom_task(3)
    status = [Status.PREDICTED, Status.PLACED] + [Status.PREDICTED] * (len(task) - 2)
    covariance = np.broadcast_to(spread, (len(task), 3, 3)).copy()
    covariance[2] = np.nan  # not known
    sent = LandmarkSet(task, np.arange(3.0 * len(task)).reshape(-1, 3), tuple(status), covariance_mm2=covariance)
    read = parse_points(json.loads(json.dumps(to_wire(sent))), parse_task(task.to_json()))
    assert [p.covariance is not None for p in read] == [True, False, False] + [True] * (len(task) - 3)
    read[3] = replace(read[3], state=ACCEPTED)
    rows = to_measured_rows(read)
    assert [i for i, row in enumerate(rows) if "covariance" not in row] == [1, 2, 3] and rows[0]["covariance"] == spread.tolist()
    assert all("covariance" not in row for row in to_rows(read))  # of a submission
    for wrong in ([[1.0, 0.0]], "text", [[1, 2, 3]] * 2, [[float("inf")] * 3] * 3, [[True] * 3] * 3, 7):
        row = {"name": "a", "status": "predicted", "position": [1, 2, 3], "covariance": wrong}
        assert parse_points([row], TASK)[0].covariance is None


def test_measurements_of_a_task_and_of_an_answer_are_read_as_far_as_they_can_be():
    wrong = [7, {"kind": "distance"}, {"name": "far", "kind": "distance", "points": ["a", "nobody"]}, {"name": "odd", "kind": []}]
    line = {"name": "line", "kind": "distance", "points": ["a", ["b", "c"]], "definition": "A to the middle of B and C."}
    other = {"name": "other", "kind": "distance_to_line", "point": "a", "line": ["b", "c"]}
    found = parse_measurements([*wrong, line, other], NAMES)
    assert [(m.name, m.kind, m.points) for m in found] == [
        *(("far", "", ()), ("odd", "", ())),
        *(("line", "distance", (("a",), ("b", "c"))), ("other", "", ())),
    ]
    assert parse_measurements({"name": "line"}, NAMES) == () == parse_measurements(None, NAMES)
    places = {"a": (0.0, 0.0, 0.0), "b": (2.0, 0.0, 4.0), "c": (4.0, 2.0, 0.0)}
    assert places_of(found[2], places) == [(0.0, 0.0, 0.0), (3.0, 1.0, 2.0)] and places_of(found[3], places) == []
    assert places_of(found[2], {**places, "c": None}) == []
    rows = [{"name": "other", "value": "7"}, {"name": "line", "value": 3, "low": 2.5, "high": None, "norm": "x"}]
    far, _, told, rest = parse_measured(rows, found)
    assert (far.value, told.value, told.low, told.high, told.usual, rest.value) == (None, 3.0, None, None, None, None)
    for bad in (None, {}, [7]):
        with pytest.raises(ValueError):
            parse_measured(bad, found)


@pytest.mark.parametrize(
    "rows, text",
    [
        ({}, "no list of landmarks"),
        ([{"name": "z"}], "is no landmark of task 't'"),
        ([{"name": "a", "status": "here"}], "'a' has the unknown state 'here'"),
        ([{"name": "a", "status": "placed", "position": [1, 2]}], "'a' is placed at [1, 2], which is no position in 3D"),
        ([{"name": "a", "status": "placed", "position": [1, 2, float("nan")]}], "which is no position"),
        ([{"name": "a", "status": "absent"}, {"name": "a", "status": "absent"}], "names 'a' twice"),
    ],
)
def test_wrong_answers_are_refused_by_text(rows, text):
    with pytest.raises(WireError) as caught:
        parse_points(rows, TASK)
    assert text in str(caught.value)


def test_a_rigid_move_of_three_points_moves_the_others_rigidly():
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    moved = SHAPE @ turn.T + (5, -3, 9)
    now = points(SHAPE)
    for i in range(3):
        now[i] = Point(NAMES[i], PLACED, tuple(moved[i]))
    found = np.array([p.position for p in propagate(points(SHAPE), now)])
    np.testing.assert_allclose(found, moved, atol=1e-3)


def test_local_moving_leaves_a_persons_points_and_feels_a_correction_less_far_away():
    places = np.array([[0, 0, 0], [10, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0.0]])
    now = points(places)
    now[2:] = [Point(p.name, ACCEPTED, p.position) for p in now[2:]]
    now[0] = Point("a", PLACED, (0.0, 0.0, 8.0))
    found = propagate(points(places), now)
    assert found[0] == now[0] and found[2:] == now[2:]
    assert 4 < found[1].position[2] < 12


def test_predictions_never_change_what_a_person_said():
    mine = [Point("a", PLACED, (1.0, 1.0, 1.0)), Point("b", ABSENT), Point("c", ACCEPTED, (2.0, 2.0, 2.0)), *points(SHAPE)[3:]]
    new = merged(mine, points(SHAPE + 1))
    assert new[:3] == mine[:3] and all(a != b for a, b in zip(new[3:], mine[3:], strict=True))


def test_undo_takes_back_one_change_after_the_other():
    session = Session.fresh(TASK, "case")
    states = [list(session.points)]
    for act in (
        lambda: session.propose(points(SHAPE)),
        lambda: session.place("a", (1, 2, 3)),
        lambda: session.accept("b"),
        lambda: session.mark_absent("c"),
        lambda: session.unlock("c"),
        lambda: session.unlock("b"),
    ):
        act()
        states.append(list(session.points))
    for before in reversed(states[:-1]):
        assert session.undo() and session.points == before
    assert not session.undo() and session.undo_text == ("", "")


def test_accepting_nothing_is_refused_by_text():
    with pytest.raises(ValueError, match="a has no position to accept: place it, or call it absent"):
        Session.fresh(TASK, "case").accept("a")


def test_the_most_doubtful_points_come_first():
    rows = [
        Point("a", PREDICTED, (0, 0, 0), 1.0),
        Point("b", PREDICTED, (0, 0, 0), 5.0),
        Point("c", PREDICTED, (0, 0, 0), 0.5, flagged=True),
        Point("d", ACCEPTED, (0, 0, 0)),
        Point("e", UNSET),
        Point("f", ABSENT),
    ]
    assert Session(TASK, "case", rows).doubtful() == ["e", "c", "b", "a"]


def test_every_case_has_its_session_on_disk_and_the_last_one_reopens(tmp_path):
    sessions, first, second = Sessions(tmp_path), Session(TASK, "a/../b", points(SHAPE), 3, "why", "b"), Session.fresh(TASK, "c")
    first.place("a", (1.0, 2.0, 3.0))
    sessions.keep(first)
    sessions.keep(second)
    back = sessions.load("a/../b", TASK)
    assert (back.points, back.base_revision, back.reason, back.next) == (first.points, 3, "why", "b") and back.unsent
    assert sessions.last(TASK).image_id == "c" and not sessions.last(TASK).unsent
    assert [s.image_id for s in sessions.unsent(TASK)] == ["a/../b"]
    assert sessions.load("a/../b", TASK, repeat=True) is None and sessions.load("none", TASK) is None
    sessions.drop(first)
    assert sessions.load("a/../b", TASK) is None
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*"))


def test_a_session_of_a_task_that_was_renamed_meanwhile_keeps_the_other_points(tmp_path):
    sessions, session = Sessions(tmp_path), Session(TASK, "case", points(SHAPE, PLACED))
    session.accept("a")
    sessions.keep(session)
    file = next(tmp_path.glob("*.session.json"))
    whole = file.read_bytes()
    fewer = Task("t", ("new", *NAMES[1:]), 3, {}, ())
    back = sessions.load("case", fewer)
    assert back.points == [Point("new"), *session.points[1:]] and back.unsent
    assert [p.read_bytes() for p in tmp_path.glob("*.kept")] == [whole]  # what is not of the task any more is not lost


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"task": 1}', "half"])
def test_a_damaged_session_is_not_opened_and_not_lost(tmp_path, broken):
    sessions = Sessions(tmp_path)
    sessions.keep(Session(TASK, "case", points(SHAPE)))
    file = next(tmp_path.glob("*.session.json"))
    text = file.read_text(encoding="utf-8")
    content = text[:50] if broken == "half" else broken
    file.write_text(content, encoding="utf-8")
    assert sessions.load("case", TASK) is None and sessions.last(TASK) is None and sessions.unsent(TASK) == []
    assert [p.read_text(encoding="utf-8") for p in tmp_path.glob("*.damaged")] == [content]


def test_only_a_persons_changes_count_as_unsent():
    session = Session.fresh(TASK, "case")
    session.propose(points(SHAPE))
    session.undo()
    session.redo()
    assert not session.unsent
    session.accept("a")
    assert session.unsent
    session.acknowledged(session.edits, 7)
    assert not session.unsent and session.base_revision == 7
    session.undo()  # of what the server has by now
    assert session.unsent


def test_redo_does_again_what_undo_took_back_until_something_else_happens():
    session = Session.fresh(TASK, "case")
    session.place("a", (1, 2, 3))
    session.accept("a")
    done = list(session.points)
    session.undo()
    session.undo()
    assert session.redo_text == ("place {}", "a") and session.redo() and session.redo() and session.points == done
    assert not session.redo() and session.redo_text == ("", "")
    session.undo()
    session.mark_absent("b")
    assert not session.redo()


def test_left_taken_for_right_is_seen_in_3d_and_by_the_majority():
    pairs = (("eye_left", "eye_right"), ("ear_left", "ear_right"), ("jaw_left", "jaw_right"))
    names = tuple(n for pair in pairs for n in pair)
    good = [Point(n, PLACED, (30.0 if "left" in n else -30.0, float(i), 0.0)) for i, n in enumerate(names)]
    swapped = [
        good[0],
        good[1],
        Point("ear_left", PLACED, good[3].position),
        Point("ear_right", PLACED, good[2].position),
        *good[4:],
    ]
    three, one = Task("t", names, 3, {}, pairs), Task("t", names, 3, {}, pairs[1:2])
    assert swapped_sides(good, three) == [] and swapped_sides(swapped, three) == [pairs[1]]
    assert swapped_sides(good, one) == [] and swapped_sides(swapped, one) == [pairs[1]]
    mirrored = [Point(p.name, p.state, (-p.position[0], *p.position[1:])) for p in good]
    assert swapped_sides(mirrored, three) == []  # all of them: another hand, not a mistake
    assert swapped_sides(mirrored, Task("t", names, 2, {}, pairs[:1])) == []


def test_a_point_far_from_where_the_others_say_is_an_outlier():
    moved = SHAPE + RNG.normal(0, 0.5, SHAPE.shape)
    moved[4] += (40, 0, 0)
    assert outliers(points(moved, PLACED), points(SHAPE)) == ["e"]


@pytest.mark.parametrize("wrong", [Point("a", ABSENT, (1.0, 2.0, 3.0)), Point("a", UNSET, (1.0, 2.0, 3.0)), Point("a", PLACED)])
def test_a_stale_or_missing_position_is_never_sent(wrong):
    with pytest.raises(ValueError, match="^a is "):
        refuse_stale([wrong])


@pytest.mark.parametrize("image_id", ["../secret", "a/b", "a\\b", ".hidden", "", "c:\\x", "nul\0"])
def test_a_local_image_is_looked_for_by_plain_names_only(tmp_path, image_id):
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "in").mkdir()
    assert local_image(str(tmp_path / "in"), image_id) is None
    assert local_image(str(tmp_path), "secret") == tmp_path / "secret.png" and local_image("", "secret") is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"minutes": "ten", "author": 5, "follow_drag": 1, "unknown": 2}'])
def test_damaged_options_are_the_defaults(tmp_path, content):
    (tmp_path / "options.json").write_text(content, encoding="utf-8")
    loaded = Options.load(tmp_path / "options.json")
    assert replace(loaded, client_id="") == Options(client_id="") and loaded.client_id


def test_a_drag_that_ends_where_a_point_cannot_be_is_as_if_it_had_never_begun():
    session = Session(TASK, "case", points(SHAPE))
    before = list(session.points)
    session.place("a", (1, 2, 3), final=False)
    session.place("a", (2, 2, 3), final=False)
    session.take_move_back()
    assert session.points == before and session.undo_text == ("", "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state", "here"),
        ("position", [1, 2]),
        ("position", None),
        ("position", [1, float("nan"), 2]),
        ("expected_error_mm", "small"),
        ("base_revision", float("inf")),
        ("edits", "many"),
    ],
)
def test_a_session_with_values_that_cannot_be_is_kept_and_not_opened(tmp_path, key, value):
    sessions = Sessions(tmp_path)
    sessions.keep(Session(TASK, "case", points(SHAPE, PLACED), 3, edits=1))
    file = next(tmp_path.glob("*.session.json"))
    content = json.loads(file.read_text(encoding="utf-8"))
    (content if key in content else content["points"][0])[key] = value
    file.write_text(json.dumps(content), encoding="utf-8")
    assert sessions.load("case", TASK) is None and sessions.last(TASK) is None and sessions.unsent(TASK) == []
    assert len(list(tmp_path.glob("*.damaged"))) == 1


def test_landmarks_that_the_task_gave_up_are_named_and_kept(tmp_path):
    sessions, session = Sessions(tmp_path), Session(TASK, "case", points(SHAPE))
    session.place("a", (1, 2, 3))
    sessions.keep(session)
    assert sessions.load("case", Task("t", ("new", *NAMES[1:]), 3, {}, ())).gone == ["a"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("localhost:8000", "http://localhost:8000"), ("https://a/b", "https://a/b"), ("ftp://a", "ftp://a"), ("", "")],
)
def test_an_address_without_a_scheme_is_meant_as_http(typed, meant):
    assert options.address_of(typed) == meant
