"""Landmark tables and id lists: the layouts people have, and a clear word where a table cannot be trusted."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest

from landmarklabel.errors import LandmarkFileError, UsageError
from landmarklabel.io.tables import predictions_text, read_ids, read_table, table_text
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

TASK = LandmarkTask("pair", ("tip", "base"), 2)
SOLID = LandmarkTask("pair", ("tip", "base"), 3)
DATA = Path(os.environ.get("LANDMARKLABEL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_hand_data = pytest.mark.skipif(
    not (DATA / "hand_xray").is_dir(), reason=f"no hand_xray radiographs in {DATA} (set LANDMARKLABEL_DATA)"
)


def read(tmp_path: Path, content: str | bytes, task: LandmarkTask = TASK) -> dict[str, LandmarkSet]:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, task)


@pytest.mark.parametrize(
    "content",
    [
        "a,1,2,3,4\n",
        "\ufeffa,1,2,3,4",
        "id,x0,y0,x1,y1\na,1,2,3,4\n",
        "a;1;2;3;4\r\n",
        "a\t1\t2\t3\t4\n",
        "\n\nID, X0 ,Y0,X1,Y1\n a , 1,2 ,3,4\n\n",
        "split,x0,y0,id,x1,y1,note\ntrain,1,2,a,3,4,hello\n",
        "image,tip_x,tip_y,base_x,base_y,tip_status\na.png,1,2,3,4,placed\n",
        "image,base_x,base_y,tip_x,tip_y\nfolder/a.nii.gz,3,4,1,2\n",
        'id,"x0",y0,x1,y1\n"a","1",2e0,+3.0,4.\n',
    ],
)
def test_layouts(tmp_path, content):
    (image_id, landmarks), *rest = read(tmp_path, content).items()
    assert image_id == "a" and not rest
    assert landmarks.positions_mm.tolist() == [[1, 2], [3, 4]]
    assert landmarks.status == (Status.PLACED, Status.PLACED)


def test_three_dimensions(tmp_path):
    for header in ("", "id,x0,y0,z0,x1,y1,z1\n", "id,tip_x,tip_y,tip_z,base_x,base_y,base_z\n"):
        assert read(tmp_path, header + "a,1,2,3,4,5,6", SOLID)["a"].positions_mm.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("cells", "status"),
    [
        (",", Status.UNSET),
        ("nan,NaN", Status.UNSET),
        ("NA,", Status.UNSET),
        ("absent,Absent", Status.ABSENT),
        ("0,-1e3", Status.PLACED),
    ],
)
def test_unset_and_absent(tmp_path, cells, status):
    landmarks = read(tmp_path, f"a,{cells},5,6\nb,1,2,3,4\n")["a"]
    assert landmarks.status == (status, Status.PLACED)
    assert np.isfinite(landmarks.positions_mm[0]).all() == status.has_position


def test_first_row_of_unset_landmarks_is_no_header(tmp_path):
    assert read(tmp_path, "a,,,absent,absent\nb,1,2,3,4\n")["a"].status == (Status.UNSET, Status.ABSENT)


FAULTS = [
    ("empty", "", "no rows"),
    ("only a header", "id,x0,y0,x1,y1\n", "no rows"),
    ("utf16", "a,1,2,3,4".encode("utf-16"), "UTF-16"),
    ("not text", b"a,1,2,3,\xff", "not UTF-8"),
    ("open quote", 'a,1,2,3,"4\n', "row 1: not a table"),
    ("too few cells", "a,1,2,3,4\nb,1,2,3\n", r"row 2: 4 cells, expected are 5 \(the task needs id,x0,y0,…,x1,y1\)"),
    ("too many cells", "a,1,2,3,4,5\n", "row 1: 6 cells, expected are 5"),
    ("too few below a header", "id,x0,y0,x1,y1\na,1,2,3,4\n\nb,1,2,3\n", "row 4: 4 cells, expected are 5"),
    ("id twice", "a,1,2,3,4\na,1,2,3,4\n", "row 2: image id 'a' was already given"),
    ("id twice as file", "a.png,1,2,3,4\na.nii.gz,1,2,3,4\n", "row 2: image id 'a' was already given"),
    ("id empty", ",1,2,3,4\n", "row 1: image id '' is not allowed"),
    ("id climbs", "a,1,2,3,4\n..,1,2,3,4\n", "row 2: image id '..' is not allowed"),
    ("id hidden", ".a,1,2,3,4\n", "row 1: image id '.a' is not allowed"),
    ("id of backslashes", "..\\a,1,2,3,4\n", "is not allowed"),
    ("word", "a,1,2,3,4\nb,1,two,3,4\n", r"row 2, landmark 'tip': position \[1.0, 'two'\] is not made of numbers"),
    ("two commas in a number", "a;1,5,0;2,5;3;4\nb;1;2;3;4\n", "'1,5,0'"),
    ("decimal comma between commas", "a,1,5,2,5,3,4\n", "row 1: 7 cells, expected are 5"),
    ("underscore", "a,1_0,2,3,4\n", "'1_0'"),
    ("infinite", "a,1,2,3,inf\n", "row 1, landmark 'base': .* is not finite"),
    ("overflow", "a,1,2,3,1e999\n", "is not finite"),
    ("far", "a,1,2,3,1e9\n", "more than"),
    ("partly empty", "a,1,,3,4\n", r"row 1, landmark 'tip': \['1', ''\] is only partly given"),
    ("partly nan", "a,nan,1,3,4\n", "only partly given"),
    ("partly absent", "a,absent,,3,4\n", "only partly given"),
    ("column missing", "id,x0,y0,x1\na,1,2,3\n", "column 'y1' is missing"),
    ("column twice", "id,x0,y0,x0,x1,y1\na,1,2,1,3,4\n", "column 'x0' appears 2 times"),
    ("counted from one", "id,x1,y1,x2,y2\na,1,2,3,4\n", "'x0' is missing.*'x2' is too many: the task has 2 landmarks"),
    ("third dimension", "id,x0,y0,z0,x1,y1,z1\na,1,2,3,4,5,6\n", "column 'z0' is too many: .* in 2D"),
    ("other names", "id,left,top,right,bottom\na,1,2,3,4\n", "no coordinate columns in the header"),
    (
        "one name wrong",
        "id,tip_x,tip_y,Bas_x,Bas_y\na,1,2,3,4\n",
        "'base_x' is missing; did you mean 'Bas_x'.*'base_y' is missing; did you mean 'Bas_y'",
    ),
    ("one of two alike", "id,tip_x,tip_y,base_y\na,1,2,3\n", "column 'base_x' is missing$"),
    ("no id", "x0,y0,x1,y1\n1,2,3,4\n", "no column with the image id: the first is 'x0'"),
]


@pytest.mark.parametrize(("content", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_faults(tmp_path, content, message):
    with pytest.raises(LandmarkFileError, match=message):
        read(tmp_path, content)


def test_all_faults_up_to_twenty(tmp_path):
    with pytest.raises(LandmarkFileError) as caught:
        read(tmp_path, "a,1,2,3,x\nb,1,2\na,1,2,3,4\n" + "c,0,,1,1\n" * 30)
    faults = caught.value.faults
    assert len(faults) == 21 and faults[-1] == "and 42 more"
    for fault, start in zip(faults, ("row 1, landmark 'base'", "row 2: 3 cells", "row 3: image id 'a'"), strict=False):
        assert fault.startswith(start)


def test_unreadable(tmp_path):
    with pytest.raises(LandmarkFileError, match="no such file"):
        read_table(tmp_path / "gone.csv", TASK)
    with pytest.raises(LandmarkFileError, match="not a regular file"):
        read_ids(tmp_path)


def test_predictions_table(tmp_path):
    path = tmp_path / "predictions.csv"
    landmarks = LandmarkSet(
        TASK, np.array([[1 / 3, 2], [np.nan, np.nan]]), (Status.PREDICTED, Status.ABSENT), np.array([0.5, np.nan])
    )
    path.write_text(predictions_text({"b": landmarks, "a": LandmarkSet.empty(TASK)}), encoding="utf-8")
    with path.open(newline="") as file:
        b, a = csv.DictReader(file)
    assert (b["id"], b["tip_x"], b["tip_y"], b["tip_status"]) == ("b", "0.333", "2.0", "predicted")
    assert (b["tip_expected_error_mm"], b["base_status"], b["base_x"]) == ("0.5", "absent", "")
    assert (a["id"], a["tip_x"], a["base_status"]) == ("a", "", "unset")
    assert read_table(path, TASK)["b"].positions_mm[0].tolist() == [0.333, 2]


EVIL = ('=HYPERLINK("http://x";"y")', "+1+1", "-2", "@SUM(1)", "'=1", "''-1", " =1", "a;=1", "a; '+1", "＝1")
EVIL += ("plain - name", "'quoted'", "5%")


def test_names_that_a_spreadsheet_would_run_are_text_and_come_back_the_same(tmp_path):
    task = LandmarkTask("evil", EVIL, 2)
    positions = np.arange(2.0 * len(EVIL)).reshape(-1, 2) - 1.5
    landmarks = LandmarkSet.of_positions(task, positions)
    text = predictions_text({"a": landmarks})
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    for delimiter in ",;\t":  # of a spreadsheet here, in many other countries, and one that was pasted into
        for row in csv.reader(io.StringIO(text), delimiter=delimiter):
            for cell in row:
                assert not re.match(r"\s*[=+\-@\t\r＝＋－＠]", cell) or re.fullmatch(r"-?\d+\.\d+", cell), cell
    assert "a,-1.5,-0.5,placed,," in text and "'5%" not in text and ",plain - name_x," in text
    found = read_table(tmp_path / "a.csv", task)["a"]
    np.testing.assert_array_equal(found.positions_mm, positions)
    shuffled = LandmarkTask("evil", EVIL[::-1], 2)  # by their names, not by their order
    np.testing.assert_array_equal(read_table(tmp_path / "a.csv", shuffled)["a"].positions_mm, positions[::-1])


def test_every_kind_of_cell_of_a_table():
    row = ["=1", "\t=1", "\r1", "-1", -1, -1.5, float("nan"), None, "", "a\n=1", "a-1"]
    (found,) = csv.reader(io.StringIO(table_text([row]), newline=""))
    assert found == ["'=1", "'\t'=1", "'\r1", "'-1", "-1", "-1.5", "", "", "", "a\n'=1", "a-1"]


def test_no_other_code_writes_tables():
    root = Path(__file__).resolve().parents[2]
    files = [p for place in ("lib", "apps", "scripts", "slicer_extension") for p in (root / place).rglob("*.py")]
    writing = {p.name for p in files if re.search(r"csv\.(writer|DictWriter)|to_csv", p.read_text(encoding="utf-8"))}
    # markups: .fcsv, which Slicer reads and whose labels must stay as they are; batch_folder: of the extension, which imports
    # nothing of ours, and whose tests hold its cells to the same
    assert writing == {"tables.py", "markups.py", "batch_folder.py"}


def test_predictions_of_nothing_and_of_two_tasks():
    assert predictions_text({}) == "id\n"
    with pytest.raises(UsageError, match="different tasks"):
        predictions_text({"a": LandmarkSet.empty(TASK), "b": LandmarkSet.empty(SOLID)})
    with pytest.raises(UsageError, match="image id '../a' is not allowed"):
        predictions_text({"../a": LandmarkSet.empty(TASK)})


def test_ids(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("\ufeff# validation\n3143\n\n  case 1.nii.gz  # the first\nimages/b.png\n3143\n", encoding="utf-8")
    assert read_ids(path) == ["3143", "case 1", "b"]
    path.write_text("ok\n../\n,x\n", encoding="utf-8")
    with pytest.raises(LandmarkFileError, match="line 2: image id.*line 3: image id ',x'"):
        read_ids(path)
    path.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(LandmarkFileError, match="no image ids"):
        read_ids(path)


@needs_hand_data
@pytest.mark.real_data
def test_hand_table_is_read():
    names = (DATA / "hand_xray" / "landmark_names.txt").read_text(encoding="utf-8").split()
    sets = read_table(DATA / "hand_xray" / "landmarks.csv", LandmarkTask("hand", tuple(names), 2))
    assert len(sets) == 112
    assert all(s.defined.all() for s in sets.values())
    assert sets["3143"].positions_mm[0].tolist() == [159.25, 926.75]
