"""Markups files: what is read, what is refused and why, and that nothing is lost on the way through a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from landmark_corpus import FLAT_TASK, TASK, VALID, VALID_FCSV, valid_document

from landmarklabel.errors import LandmarkFileError
from landmarklabel.io.markups import (
    dump_fcsv,
    dump_markups,
    parse_fcsv,
    parse_markups,
    read_markups,
    write_markups,
)
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

DATA = Path(os.environ.get("LANDMARKLABEL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_mouse_data = pytest.mark.skipif(
    not (DATA / "mouse_ct").is_dir(), reason=f"no mouse_ct scans in {DATA} (set LANDMARKLABEL_DATA)"
)


def read_changed(task: LandmarkTask = TASK, point: dict | None = None, **markup) -> LandmarkSet:
    """The valid document with the first point and the list changed."""
    document = valid_document()
    document["markups"][0]["controlPoints"][0].update(point or {})
    document["markups"][0].update(markup)
    return parse_markups(json.dumps(document), task, "test")


@pytest.mark.parametrize(
    ("parse", "content", "message"),
    [
        (parse_markups, b'{"a": "' + b"x" * 20_000_000 + b'"}', "larger than 20 MB"),
        (parse_markups, b"[" + b"[]," * 1_200_000 + b"1]", "more than 1000000 values"),
        (parse_fcsv, (VALID_FCSV + "," * 1_000_001).encode(), "more than 1000000 values"),
        (parse_fcsv, ("\n" * 1_000_001 + VALID_FCSV).encode(), "more than 1000000 values"),
    ],
    ids=["bytes", "values", "cells", "blank lines"],
)
def test_too_much_is_refused(parse, content, message):
    with pytest.raises(LandmarkFileError, match=message):
        parse(content, TASK, "much")


def test_every_fault_is_listed():
    document = valid_document()
    markup = document["markups"][0]
    markup.update(coordinateSystem="XYZ", coordinateUnits="um")
    a, b, c = markup["controlPoints"]
    a.update(position=[1, 2])
    b.update(positionStatus="lost")
    c.update(label="Lambda", locked=3)
    with pytest.raises(LandmarkFileError) as caught:
        parse_markups(json.dumps(document), TASK, "bad.mrk.json")
    assert len(caught.value.faults) == 6
    for word in ("XYZ", "um", "[1, 2]", "lost", "Lambda", "locked 3"):
        assert word in str(caught.value)


@pytest.mark.parametrize("extra", [b"\xef\xbb\xbf", b"  \n"], ids=["byte order mark", "space"])
def test_harmless_beginnings_are_read(extra):
    assert parse_markups(extra + VALID.encode(), TASK, "x").defined.all()
    assert parse_fcsv(b"\xef\xbb\xbf" + VALID_FCSV.encode(), TASK, "x").defined.sum() == 2


@pytest.mark.parametrize(("frame", "x", "y"), [("LPS", 1.5, -2.25), ("1", 1.5, -2.25), ("RAS", -1.5, 2.25)])
def test_positions_are_lps(frame, x, y):
    assert read_changed(coordinateSystem=frame).positions_mm[0].tolist() == [x, y, 3.0]
    fcsv = VALID_FCSV.replace("= LPS", f"= {frame}").replace("\n", "\r\n")
    assert parse_fcsv(fcsv, TASK, "x").positions_mm[0].tolist() == [x, y, 3.0]


def test_missing_coordinate_system_is_lps_and_missing_schema_is_fine():
    document = valid_document()
    del document["@schema"], document["markups"][0]["coordinateSystem"], document["markups"][0]["coordinateUnits"]
    assert parse_markups(json.dumps(document), TASK, "x").positions_mm[0].tolist() == [1.5, -2.25, 3.0]


@pytest.mark.parametrize(
    ("point", "status"),
    [
        ({}, Status.PLACED),
        ({"locked": True}, Status.ACCEPTED),
        ({"description": "predicted"}, Status.PREDICTED),
        ({"description": "predicted", "locked": True}, Status.PREDICTED),
        ({"description": "placed", "locked": True}, Status.PLACED),
        ({"description": "accepted"}, Status.ACCEPTED),
        ({"description": "predicted by me"}, Status.PLACED),
        ({"description": "absent"}, Status.PLACED),
        ({"positionStatus": "undefined", "position": ""}, Status.UNSET),
        ({"positionStatus": "undefined", "position": [4, 5, 6]}, Status.UNSET),
        ({"positionStatus": "undefined", "description": "accepted", "locked": True}, Status.UNSET),
        ({"positionStatus": "preview", "position": "stale"}, Status.UNSET),
        ({"positionStatus": "missing", "position": [0, 0, 0]}, Status.ABSENT),
        ({"positionStatus": "missing", "position": None}, Status.ABSENT),
    ],
)
def test_status(point, status):
    landmarks = read_changed(point=point)
    assert landmarks.status[0] is status
    assert np.isfinite(landmarks.positions_mm[0]).all() == status.has_position


def test_partial_list_and_other_order():
    document = valid_document()
    document["markups"][0]["controlPoints"] = document["markups"][0]["controlPoints"][:0:-1]
    landmarks = parse_markups(json.dumps(document), TASK, "x")
    assert landmarks.status == (Status.UNSET, Status.PLACED, Status.PLACED)
    assert landmarks.positions_mm[:, 0].tolist()[1:] == [2.5, 3.5]


def test_empty_other_lists_are_ignored():
    document = valid_document()
    document["markups"].insert(0, {"type": "ROI", "controlPoints": []})
    assert parse_markups(json.dumps(document), TASK, "x").defined.all()


def test_flat_task_wants_z_zero():
    with pytest.raises(LandmarkFileError, match="z is .* to .*, but the points of a 2D task lie on one slice"):
        read_changed(
            FLAT_TASK,
            controlPoints=[{"label": n, "position": [1, 2, z]} for n, z in zip(FLAT_TASK.names, (3, 3, 4), strict=True)],
        )
    document = valid_document()
    for point in document["markups"][0]["controlPoints"]:
        point["position"][2] = -1e-4
    assert parse_markups(json.dumps(document), FLAT_TASK, "x").positions_mm.shape == (3, 2)


def test_expected_error_of_slicer():
    measurement = {"name": "expected_error_mm", "enabled": True, "units": "mm", "controlPointValues": [1.5, -1.0, 0.0]}
    errors = read_changed(measurements=[{"name": "length", "value": 3}, measurement]).expected_error_mm
    np.testing.assert_array_equal(errors, [1.5, np.nan, 0.0])
    assert np.isnan(read_changed(measurements=[]).expected_error_mm).all()


def test_task_from_a_file(tmp_path):
    path = tmp_path / "my skull (1).mrk.json"
    path.write_text(VALID, encoding="utf-8")
    task = read_markups(path).task
    assert (task.name, task.names, task.dims) == ("my_skull_1_", TASK.names, 3)
    with pytest.raises(LandmarkFileError, match="appears 2 times"):
        parse_markups(VALID.replace("bregma", "nasion"), None, "x")
    with pytest.raises(LandmarkFileError, match="must be printable"):
        parse_markups(VALID.replace("bregma", "a\\nb"), None, "x")
    assert parse_markups(VALID, None, "///").task.name == "task"


def test_unreadable_paths(tmp_path):
    (tmp_path / "folder.mrk.json").mkdir()
    for name, message in [
        ("gone.mrk.json", "no such file"),
        ("folder.mrk.json", "not a regular file"),
        ("a\0b.mrk.json", "no such file|not readable"),
        ("points.json", "must end in .mrk.json or .fcsv"),
    ]:
        with pytest.raises(LandmarkFileError, match=message):
            read_markups(tmp_path / name, TASK)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.fcsv")
    with pytest.raises(LandmarkFileError, match="not a regular file"):
        read_markups(tmp_path / "pipe.fcsv", TASK)


def test_written_file_is_what_slicer_writes():
    landmarks = LandmarkSet.empty(TASK).with_landmark("nasion", (1 / 3, 2, 3), Status.ACCEPTED)
    landmarks = landmarks.with_landmark("lambda", None, Status.ABSENT)
    (markup,) = json.loads(dump_markups(landmarks, "scn-1"))["markups"]
    accepted, unset, absent = markup["controlPoints"]
    assert markup["coordinateSystem"] == "LPS" and markup["fixedNumberOfControlPoints"] is True
    assert (accepted["id"], accepted["position"], accepted["locked"]) == ("1", [1 / 3, 2.0, 3.0], True)
    assert (accepted["positionStatus"], accepted["description"]) == ("defined", "accepted")
    assert (unset["positionStatus"], unset["position"], unset["description"]) == ("undefined", "", "")
    assert (absent["positionStatus"], absent["position"], absent["description"]) == ("missing", "", "absent")
    (measurement,) = markup["measurements"]
    assert measurement["description"] == "scn-1" and measurement["controlPointValues"] == [-1.0, -1.0, -1.0]


def test_what_could_not_be_read_is_not_written():
    landmarks = LandmarkSet.empty(TASK).with_landmark("nasion", (1e7, 0, 0))
    for dump in (dump_markups, dump_fcsv):
        with pytest.raises(LandmarkFileError, match="'nasion'.*more than"):
            dump(landmarks)


def test_fcsv_has_statuses_and_quoted_labels():
    task = LandmarkTask("t", ("a,b", 'q"q', " c", "#d", "ä"))
    landmarks = LandmarkSet.of_positions(task, np.arange(15.0).reshape(5, 3))
    landmarks = landmarks.with_landmark("#d", None, Status.ABSENT).with_landmark(" c", None, Status.UNSET)
    landmarks = landmarks.with_landmark("ä", (1, 2, 3), Status.PREDICTED)
    again = parse_fcsv(dump_fcsv(landmarks), task, "x")
    assert again.status == landmarks.status
    np.testing.assert_array_equal(again.positions_mm, landmarks.positions_mm)


@st.composite
def landmark_sets(draw):
    dims = draw(st.sampled_from([2, 3]))
    text = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
    names = draw(st.lists(text, min_size=1, max_size=6, unique=True))
    task = LandmarkTask("t", tuple(names), dims)
    status = draw(st.lists(st.sampled_from(Status), min_size=len(task), max_size=len(task)))
    coordinate = st.floats(-1e6, 1e6)
    positions = [[draw(coordinate) if s.has_position else np.nan for _ in range(dims)] for s in status]
    errors = [draw(st.one_of(st.just(np.nan), st.floats(0, 1e4))) for _ in status]
    return LandmarkSet(task, np.array(positions), tuple(status), np.array(errors))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(landmark_sets())
def test_round_trip_is_exact(landmarks):
    again = parse_markups(dump_markups(landmarks), landmarks.task, "x")
    np.testing.assert_array_equal(again.positions_mm, landmarks.positions_mm)
    np.testing.assert_array_equal(again.expected_error_mm, landmarks.expected_error_mm)
    assert again.status == landmarks.status
    table = parse_fcsv(dump_fcsv(landmarks), landmarks.task, "x")
    np.testing.assert_array_equal(table.positions_mm, landmarks.positions_mm)
    assert table.status == landmarks.status


def test_files_on_disk(tmp_path):
    landmarks = LandmarkSet.of_positions(TASK, np.arange(9.0).reshape(3, 3), Status.PREDICTED)
    write_markups(tmp_path / "a.mrk.json", landmarks, "m")
    (tmp_path / "b.FCSV").write_text(dump_fcsv(landmarks), encoding="utf-8")
    for name in ("a.mrk.json", "b.FCSV"):
        again = read_markups(tmp_path / name, TASK)
        assert again.status == landmarks.status
        np.testing.assert_array_equal(again.positions_mm, landmarks.positions_mm)


def test_a_file_cut_at_any_byte_is_refused():
    landmarks = LandmarkSet.of_positions(TASK, np.full((3, 3), 1 / 3)).with_landmark("bregma", None, Status.ABSENT)
    content = dump_markups(landmarks).rstrip().encode()
    for end in range(len(content)):
        with pytest.raises(LandmarkFileError):
            parse_markups(content[:end], TASK, "cut")


def test_a_cut_fcsv_is_refused_or_has_only_whole_rows():
    landmarks = LandmarkSet.of_positions(TASK, np.full((3, 3), 1 / 3))
    content = dump_fcsv(landmarks).encode()
    for end in range(len(content)):
        try:
            again = parse_fcsv(content[:end], TASK, "cut")
        except LandmarkFileError:
            continue
        assert (again.positions_mm[again.defined] == 1 / 3).all()


@needs_mouse_data
@pytest.mark.real_data
def test_mouse_skulls_are_read():
    paths = sorted((DATA / "mouse_ct" / "landmarks").glob("*.mrk.json"))
    assert len(paths) == 20
    task = read_markups(paths[0]).task
    assert len(task) == 45 and task.names[21:24] == ("22", "24", "25")  # not every number is a landmark
    for path in paths:
        landmarks = read_markups(path, task)
        assert set(landmarks.status) == {Status.ACCEPTED}  # the files have all points locked
        raw = json.loads(path.read_text(encoding="utf-8"))["markups"][0]["controlPoints"]
        np.testing.assert_array_equal(landmarks.positions_mm, [p["position"] for p in raw])
