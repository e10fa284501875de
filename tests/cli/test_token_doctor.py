"""``token`` and ``doctor`` on a study: who may come in, and whether anything was changed behind the program's back."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from tests.cli.program import command, unprivileged

from landmarklabel.cli import main
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens
from landmarklabel.training.publishing import Decision, ModelRegistry

TASK = LandmarkTask("pair", ("a", "b"), 2)


@pytest.fixture
def folder(tmp_path):
    """A study of three images, two revisions each."""
    place = tmp_path / "study"
    place.mkdir()
    for name in ("x", "y", "z"):
        sitk.WriteImage(sitk.GetImageFromArray(np.arange(80, dtype=np.uint8).reshape(8, 10)), str(place / f"{name}.png"))
    study = Study(place, TASK)
    for name in ("x", "y", "z"):
        for shift in (0.0, 1.0):
            study.save(name, LandmarkSet.of_positions(TASK, np.array([[1 + shift, 2], [3, 4.5]]), Status.PLACED), author="ann")
    study.close()
    return place


def run(*words: object) -> int:
    return main([str(word) for word in words])


def checks(capsys, folder) -> dict[str, dict]:
    code = run("doctor", folder, "--json")
    told = json.loads(capsys.readouterr().out)
    assert (code == 0) == told["ok"] == all(c["ok"] for c in told["checks"])
    return {c["what"]: c for c in told["checks"]}


def test_a_study_in_order(folder, capsys):
    told = checks(capsys, folder)
    assert told["audit trail"]["ok"] and told["audit trail"]["found"] == "3 labelled images, unbroken"
    assert told["label files"]["ok"] and told["label files"]["found"] == "complete"


def test_one_changed_byte_of_a_label_is_found_and_named(folder, capsys):
    database = folder / ".landmarklabel" / "revisions.sqlite"
    raw = database.read_bytes()
    at = raw.rindex(b"[2.0, 2.0]")  # rows fill a page from its end: the last is the oldest
    database.write_bytes(raw[:at] + b"[7" + raw[at + 2 :])
    told = checks(capsys, folder)["audit trail"]
    assert not told["ok"] and told["mend"] == "restore a backup"
    assert told["found"].startswith("revision 2 of x (row 2): the body does not have the hash it was saved with")
    assert run("doctor", folder) == 1
    assert "BAD  audit trail" in capsys.readouterr().out


def test_a_changed_author_in_the_audit_trail_is_found(folder, capsys):
    with sqlite3.connect(folder / ".landmarklabel" / "revisions.sqlite") as connection:
        connection.execute("UPDATE audit SET who = 'bob' WHERE id = 3")
    connection.close()
    assert "audit row 3 (annotation of y)" in checks(capsys, folder)["audit trail"]["found"]


def test_a_missing_label_file_is_named(folder, capsys):
    (folder / "labels" / "final" / "y.mrk.json").unlink()
    told = checks(capsys, folder)["label files"]
    assert not told["ok"] and told["found"] == "y" and "written again when the study is served" in told["mend"]


def test_a_lost_database_and_a_folder_that_is_no_study_are_said(folder, capsys, tmp_path):
    (folder / ".landmarklabel" / "revisions.sqlite").unlink()
    assert checks(capsys, folder)["revisions"]["found"] == "no database"
    assert run("doctor", tmp_path) == 2
    assert "no study (it has no folder .landmarklabel)" in capsys.readouterr().err


def test_an_emptied_database_is_found_again_and_again(folder, capsys):
    database = folder / ".landmarklabel" / "revisions.sqlite"
    database.write_bytes(b"")
    for _ in range(2):
        found = checks(capsys, folder)["revisions"]
        assert not found["ok"] and "restore .landmarklabel/revisions.sqlite from a backup" in found["mend"]
        assert found["found"] == "the database is an empty file, and labels/final holds 3 label files without revisions"


def test_label_files_without_revisions_are_named(folder, capsys):
    database = folder / ".landmarklabel" / "revisions.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM revisions")
        connection.execute("DELETE FROM audit")
    connection.close()
    told = checks(capsys, folder)["label files"]
    assert not told["ok"] and told["found"].split("; ") == [f"{name}: a label file without revisions" for name in "xyz"]
    assert told["mend"].startswith("if revisions were lost, restore a backup") and f"study status {folder}" in told["mend"]


def test_what_a_backup_would_leave_out_is_said(folder, capsys):
    assert checks(capsys, folder)["other files"]["found"] == "all can be backed up"
    (folder / "notes").symlink_to("nowhere")
    told = checks(capsys, folder)["other files"]
    assert told["ok"] and told["look"] and told["found"] == "notes: a link to nothing"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS and Windows have no such names")
def test_a_name_with_a_line_break_stays_in_its_line(folder, capsys):
    (folder / "two\nlines.png").write_bytes((folder / "x.png").read_bytes())
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as file:
        file.write((folder / "x.png").read_bytes())
    assert run("doctor", folder) == 1
    told = capsys.readouterr().out.splitlines()
    assert sum("two\\nlines.png is left out" in line for line in told) == 1 and any("caf\\udce9.png is" in line for line in told)
    assert all(line[:4] in ("ok  ", "BAD ", "LOOK") for line in told)
    assert run("study", "status", folder) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1].startswith("needs a look: two\\nlines.png is left out: image id 'two\\nlines' is not allowed")
    assert told[-2].startswith("needs a look: caf\\udce9.png is left out")


def apart(folder, *words: object) -> subprocess.CompletedProcess:
    """A command of somebody who may not do everything."""
    return subprocess.run([*unprivileged(), *command(*words, folder)], capture_output=True, text=True)


@pytest.mark.skipif(not unprivileged(), reason="needs a user whose rights are looked at, or setpriv")
def test_folders_that_may_not_be_entered_are_named(folder):
    for name in ("more", "scans"):
        (folder / name).mkdir()
        (folder / name / "a.dcm").write_bytes(b"x")
    (folder / "more").chmod(0)
    (folder / "scans" / "a.dcm").chmod(0)
    lines = [
        "more is left out: the folder may not be read (Permission denied); change who may, or move it out of the study",
        "scans is left out: a.dcm in it may not be read; change who may, or move it out of the study",
    ]
    assert apart(folder, "study", "status").stdout.splitlines()[-2:] == [f"needs a look: {line}" for line in lines]
    done = apart(folder, "doctor")
    (folder / "more").chmod(0o700)
    assert done.returncode == 1 and f"BAD  images         {'; '.join(lines)}" in done.stdout
    assert "LOOK other files    more: a folder that may not be read (Permission denied)" in done.stdout


@pytest.mark.skipif(not unprivileged(), reason="needs a user whose rights are looked at, or setpriv")
@pytest.mark.parametrize("served", [False, True], ids=["at rest", "served by somebody else"])
def test_a_study_that_may_only_be_read_is_checked_as_far_as_that_goes(folder, served):
    study = Study(folder, TASK)
    if served:  # what is not yet folded into the database counts
        study.save("x", LandmarkSet.of_positions(TASK, np.array([[5, 2], [3, 4.5]]), Status.PLACED), author="ann")
    else:
        study.close()
    with sqlite3.connect(folder / ".landmarklabel" / "revisions.sqlite") as connection:
        connection.execute("UPDATE audit SET who = 'bob' WHERE id = 3")
    connection.close()
    places = [folder, *folder.rglob("*")]
    before = {place: place.stat().st_mode for place in places}
    for place in places:
        place.chmod(before[place] & ~0o222)
    done = apart(folder, "doctor")
    for place in places:
        place.chmod(before[place])
    study.close()
    assert done.returncode == 1, done
    assert "LOOK rights         you may not write this study  ->  what can be read was checked" in done.stdout
    assert "BAD  audit trail    audit row 3 (annotation of y)" in done.stdout
    assert "ok   label files    complete" in done.stdout and "ok   points " in done.stdout


def test_doctor_finds_what_an_import_would_refuse(folder, capsys):
    """Made behind the program's back, or by an earlier version: it is found afterwards."""
    told = checks(capsys, folder)
    assert told["images"]["found"] == "3, all readable" and told["points"]["found"] == "all inside of their images"
    assert told["landmarks"]["found"] == "all labelled somewhere"
    study = Study(folder, TASK)
    study.save("x", LandmarkSet.of_positions(TASK, np.array([[50, 2], [-1, -1]]), Status.PLACED), author="ann")
    for name in ("x", "y", "z"):
        if name != "x":
            study.save(name, LandmarkSet.of_positions(TASK, np.array([[1, 2], [np.nan] * 2]), Status.PLACED), author="ann")
    study.close()
    (folder / "y.png").write_bytes(b"no image")
    told = checks(capsys, folder)
    assert not told["images"]["ok"] and "y.png" in told["images"]["found"]
    points = told["points"]
    assert not points["ok"] and "landmark 'a' at (50, 2) is 40.5 outside of the image" in points["found"]
    assert "a usual mark of a missing point" in points["found"] and "import their files again" in points["mend"]


def test_doctor_finds_a_live_model_that_cannot_be_read(folder, capsys):
    assert checks(capsys, folder)["models"]["ok"]
    registry = ModelRegistry(folder / ".landmarklabel" / "models" / "scn")
    registry.candidate.mkdir(parents=True)
    (registry.candidate / "model.json").write_text("{", encoding="utf-8")
    registry.finalize_candidate(Decision(True, "for the test"))
    told = checks(capsys, folder)["models"]
    assert not told["ok"] and "scn: " in told["found"] and "model.json: not readable as JSON" in told["found"]
    assert "publish an earlier version: landmarklabel publish" in told["mend"]


def test_doctor_points_at_landmarks_without_labels_and_at_odd_shapes(tmp_path, capsys):
    names = ("a", "b", "c", "d", "e", "never")
    task, place, rng = LandmarkTask("six", names, 2), tmp_path / "study", np.random.default_rng(0)
    place.mkdir()
    shape = np.array([[10, 10], [40, 12], [70, 30], [30, 60], [60, 70.0]])
    for number in range(12):
        sitk.WriteImage(sitk.Image(100, 100, sitk.sitkUInt8), str(place / f"i{number:02d}.png"))
    study = Study(place, task)
    for number in range(12):
        points = np.vstack([shape + rng.normal(0, 1, shape.shape), [np.nan] * 2])
        if number == 7:
            points[[0, 3]] = points[[3, 0]]  # two names swapped
        study.save(f"i{number:02d}", LandmarkSet.of_positions(task, points, Status.PLACED), author="ann")
    study.close()
    told = checks(capsys, place)
    assert told["landmarks"]["look"] and told["landmarks"]["ok"] and told["landmarks"]["found"] == "never"
    odd = told["shapes"]["found"].split("; ")
    assert sorted(text.partition(" is ")[0] for text in odd) == ["i07: a", "i07: d"]
    assert " px from where its others expect it" in odd[0]
    assert run("doctor", place) == 0
    assert "LOOK shapes" in capsys.readouterr().out


def test_doctor_says_which_landmarks_too_few_cases_have_to_be_compared(tmp_path, capsys):
    names, place, rng = tuple("abcdef"), tmp_path / "study", np.random.default_rng(0)
    place.mkdir()
    shape = np.array([[10, 10], [40, 12], [70, 30], [30, 60], [60, 70.0], [20, 80]])
    for number in range(8):
        sitk.WriteImage(sitk.Image(100, 100, sitk.sitkUInt8), str(place / f"i{number}.png"))
    study = Study(place, LandmarkTask("six", names, 2))
    for number in range(8):
        points = LandmarkSet.of_positions(study.task, shape + rng.normal(0, 1, shape.shape))
        study.save(f"i{number}", points.with_landmark("f", (1.0, 2.0), Status.PREDICTED) if number == 3 else points, author="ann")
    study.close()
    found = checks(capsys, place)["shapes"]["found"]
    assert found == "no point far from its usual place; not looked at, as too few cases have them: f"
    assert run("doctor", place) == 0 and "LOOK shapes" not in capsys.readouterr().out
    (place / "i2.png").unlink()
    told = checks(capsys, place)
    assert told["images gone"]["found"] == "i2" and told["images gone"]["look"] and told["images gone"]["ok"]


def test_a_token_is_printed_once_listed_without_itself_and_ended(folder, capsys):
    assert run("token", "new", folder, "--name", "ann", "--role", "annotator") == 0
    said = capsys.readouterr()
    token = said.out.strip()
    assert Tokens(folder).holder(token).name == "ann" and token not in said.err
    assert "from now on this study asks everybody for a token, also programs and browsers on this computer" in said.err
    assert run("token", "list", folder) == 0
    assert capsys.readouterr().out == "ann\tannotator\n"
    assert run("token", "new", folder, "--name", "ann", "--role", "annotator") == 0
    again = capsys.readouterr()
    assert "the earlier token of ann has ended" in again.err and "has ended" not in said.err
    assert "from now on" not in again.err
    assert Tokens(folder).holder(token) is None and Tokens(folder).holder(again.out.strip()).name == "ann"
    assert run("token", "remove", folder, "--name", "ann") == 0 and Tokens(folder).holder(again.out.strip()) is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("new", "STUDY", "--name", "ann", "--role", "king"), "role 'king' must be one of annotator, reviewer, admin"),
        (("new", "STUDY", "--name", "../ann", "--role", "admin"), "landmarklabel: name '../ann' is not allowed: use letters"),
        (("remove", "STUDY", "--name", "bob"), "nobody called 'bob' has a token"),
        (("list", "nowhere"), "nowhere: no such study folder"),
    ],
)
def test_mistakes_are_one_clear_line(folder, capsys, words, says):
    assert run("token", *(folder if w == "STUDY" else w for w in words)) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
