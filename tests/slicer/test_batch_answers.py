"""What a batch makes of a server's answers: lost, refused, empty, or with a disk that is full."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest
from batch_material import NAMES, POINTS, TASK, Fake, in_slicer, put, ras
from LandmarkLabelLib import batch_folder as batch
from LandmarkLabelLib.batch import predict_files
from LandmarkLabelLib.batch_folder import COLUMNS, markups_text
from LandmarkLabelLib.client import Refused, Unreachable
from LandmarkLabelLib.markups import DEFINED, MISSING, UNDEFINED
from LandmarkLabelLib.wire import PREDICTED, Point, WireError

from landmarklabel.io.markups import read_markups
from landmarklabel.landmarks import LandmarkTask


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("LandmarkLabelLib.batch.AGAIN_AFTER_S", 0.0)


def test_a_lost_answer_is_asked_for_once_more(tmp_path):
    lost = Unreachable("http://x does not answer (ReadTimeout)")
    client = Fake(a=[lost, POINTS], b=[lost, lost], c=[WireError("the answer is no revision")])
    files = put(tmp_path / "in", "a", "b", "c", "d")
    summary = predict_files(client, "scn", TASK, files, tmp_path / "out")
    assert summary.predicted == ["a", "d"] and not summary.ended_by  # the server answers: it was the file
    assert summary.failed == [("b", f"{lost} (tried twice)"), ("c", "the answer is no revision")]
    assert [p.stem for p in client.asked] == ["a", "a", "b", "b", "c", "d"]


def test_a_server_that_refuses_everything_is_not_sent_all_files(tmp_path):
    client = Fake(b=Refused("no valid token"))
    files = put(tmp_path / "in", "a", "b", "c", "d")

    def withdrawn(done: int, *_: object) -> None:
        client.down = Refused("no valid token") if done == 1 else None

    summary = predict_files(client, "scn", TASK, files, tmp_path / "out", withdrawn)
    why = "not asked for: no valid token"
    assert summary.failed == [("b", "no valid token"), ("c", why), ("d", why)] and summary.ended_by == "no valid token"
    assert [p.stem for p in client.asked] == ["a", "b"]


def test_a_model_that_says_nothing_leaves_no_files(tmp_path):
    client = Fake(a=[[Point(n) for n in NAMES]])
    summary = predict_files(client, "scn", TASK, put(tmp_path / "in", "a"), tmp_path / "out")
    assert summary.failed == [("a", "the model 'scn' says nothing yet: train it first")]
    assert not (tmp_path / "out" / "a.mrk.json").exists()


def test_a_full_disk_ends_it_and_a_table_that_is_open_elsewhere_does_not(tmp_path, monkeypatch):
    files, out, real = put(tmp_path / "in", "a", "b", "c"), tmp_path / "out", batch.write_file

    def write(path: Path, text: str) -> None:
        if path.name == "b.mrk.json":
            raise OSError(28, "No space left on device")
        if path.name == "predictions.csv":
            raise PermissionError(13, "Permission denied")
        real(path, text)

    monkeypatch.setattr(batch, "write_file", write)
    summary = predict_files(Fake(), "scn", TASK, files, out)
    why = f"{out / 'b.mrk.json'} cannot be written (No space left on device)"
    assert summary.predicted == ["a"] and summary.failed == [("b", why), ("c", f"not asked for: {why}")]
    assert summary.ended_by == why and summary.trouble == [f"{out / 'predictions.csv'} cannot be written (Permission denied)"]
    monkeypatch.setattr(batch, "write_file", real)
    summary = predict_files(Fake(), "scn", TASK, files, out)
    assert (summary.kept, summary.predicted) == (["a"], ["b", "c"]) and not summary.trouble
    assert set(pandas.read_csv(out / "predictions.csv")["image"]) == {"a", "b", "c"}


def test_the_table_says_what_the_server_said(tmp_path):
    points = [Point("nasion", PREDICTED, (1.23456, -2.0, 3.0), 0.012345, True, "px"), *POINTS[1:3]]
    points.append(Point(NAMES[3], PREDICTED, (0.0, 0.0, 0.0), None, False, "px"))
    predict_files(Fake(a=points), "scn", TASK, put(tmp_path / "in", "a"), tmp_path / "out")
    rows = (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert rows == [
        ",".join(COLUMNS),
        "a,nasion,predicted,1.2346,-2.0,3.0,px,0.0123,true",
        "a,sella,absent,,,,px,,false",
        "a,menton,unset,,,,px,,false",
        f"a,'{NAMES[3]},predicted,0.0,0.0,0.0,px,,false",
    ]


def test_slicer_reads_states_and_expected_errors(tmp_path, scene):
    predict_files(Fake(), "scn", TASK, put(tmp_path / "in", "a"), tmp_path / "out")
    node = in_slicer(scene, tmp_path / "out" / "a.mrk.json")
    assert [node.GetNthControlPointLabel(i) for i in range(4)] == list(NAMES)
    assert [node.GetNthControlPointPositionStatus(i) for i in range(4)] == [DEFINED, MISSING, UNDEFINED, DEFINED]
    assert [node.GetNthControlPointDescription(i) for i in range(4)] == ["predicted", "absent", "", "predicted"]
    assert ras(node, 0) == [-1.25, 2.5, 3.0] and ras(node, 3) == [4.0, -5.0, 6.5]
    values = node.GetMeasurement("expected_error_mm").GetControlPointValues()
    assert [values.GetValue(i) for i in range(4)] == [0.75, -1, -1, -1]
    back = read_markups(tmp_path / "out" / "a.mrk.json", LandmarkTask("head", NAMES, 3))
    assert [s.value for s in back.status] == [p.state for p in POINTS] and back.expected_error_mm[0] == 0.75


def test_no_infinite_number_is_written():
    with pytest.raises(ValueError):
        markups_text([Point("nasion", PREDICTED, (float("nan"), 0.0, 0.0))])
