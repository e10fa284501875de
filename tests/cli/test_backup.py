"""A study in one file: what it holds and leaves out, and what cannot be backed up or restored is said in words."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing

import pytest
from tests.cli.backed_up import TASK, run
from tests.cli.program import command, unprivileged

from landmarklabel.io.markups import read_markups
from landmarklabel.services.backup import MANIFEST, back_up, restore
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens


def test_a_restored_study_has_everything_and_passes_doctor(study, tmp_path, capsys):
    file, again = tmp_path / "b.zip", tmp_path / "again"
    assert run("backup", study, file) == 0 and "with 3 revisions" in capsys.readouterr().out
    assert run("restore", file, again) == 0 and "3 revisions" in capsys.readouterr().out
    with Study.open(again) as opened:
        assert [int(opened.read(r).positions_mm[0, 0]) for r in opened.history("x")] == [1, 2]
        assert opened.history("y")[0].author == "ann" and len(opened.history("y")) == 1
    assert read_markups(again / "labels" / "final" / "x.mrk.json", TASK).positions_mm[0, 0] == 2
    for name in ("x.png", "y.png", "labels/original/x.mrk.json", ".landmarklabel/models/scn/versions/0001/model.json"):
        assert (again / name).read_bytes() == (study / name).read_bytes()
    assert Tokens(again).look().needed and [h.name for h in Tokens(again).holders()] == ["ann"]
    assert run("doctor", again, "--json") == 0, capsys.readouterr().out


def test_what_is_in_the_way_is_refused_in_words(study, tmp_path, capsys):
    file = tmp_path / "b.zip"
    back_up(study, file)
    for words, text in (
        (("backup", study, file), "exists; give another name"),
        (("backup", study, study / "b.zip"), "would lie in the study itself"),
        (("backup", tmp_path / "nowhere", tmp_path / "c.zip"), "no study"),
        (("restore", file, study), "exists; give a folder that does not"),
        (("restore", study / "x.png", tmp_path / "n"), "no backup of a study, or damaged"),
    ):
        assert run(*words) == 2 and text in capsys.readouterr().err


@pytest.mark.parametrize("change", ["a byte", "outside", "left out"])
def test_a_damaged_backup_leaves_nothing_behind(study, tmp_path, change):
    file, bad, again = tmp_path / "b.zip", tmp_path / "bad.zip", tmp_path / "again"
    back_up(study, file)
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(bad, "w") as target:
        about = json.loads(source.read(MANIFEST))
        for name in source.namelist():
            content = source.read(name)
            if change == "a byte" and name == "x.png":
                content = content[:-1] + b"!"
            if name == MANIFEST:
                if change == "outside":
                    about["sha256"]["../evil"] = about["sha256"]["x.png"]
                content = json.dumps(about).encode()
            if not (change == "left out" and name == "y.png"):
                target.writestr(name, content)
        if change == "outside":
            target.writestr("../evil", source.read("x.png"))
    said = {"a byte": "x.png is damaged in it", "outside": "outside of a study", "left out": "no backup of a study, or damaged"}
    with pytest.raises(Exception, match=said[change]):
        restore(bad, again)
    assert not again.exists() and not (tmp_path / "evil").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_links_within_the_study_are_followed_and_others_are_named(study, tmp_path, capsys):
    (study / "pool").mkdir()
    (study / "x.png").rename(study / "pool" / "real.bin")
    (study / "x.png").symlink_to("pool/real.bin")
    (study / "y2.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "elsewhere.png").write_bytes((study / "y.png").read_bytes())
    (study / "gone.png").symlink_to("nothing.png")
    (study / "pool" / "round").symlink_to(study, target_is_directory=True)
    (study / "labels").rename(tmp_path / "disk2")
    (study / "labels").symlink_to(tmp_path / "disk2", target_is_directory=True)
    assert run("backup", study, tmp_path / "b.zip") == 1
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'b.zip'}: {study} with 3 revisions\n"
    assert said.err.splitlines() == [
        "landmarklabel: left out: gone.png: a link to nothing",
        "landmarklabel: left out: pool/round: a link to a folder that it lies in",
        "landmarklabel: left out: y2.png: a link out of the study; put the file or folder itself there",
    ]
    assert run("restore", tmp_path / "b.zip", tmp_path / "again") == 0
    with Study.open(tmp_path / "again") as opened:
        assert list(opened.images()) == ["x", "y"] and opened.labelled().keys() == {"x", "y"}
    assert (tmp_path / "again" / "labels" / "original" / "x.mrk.json").read_text(encoding="utf-8") == "a proposal"
    assert not (tmp_path / "again" / "labels").is_symlink()


def test_a_backup_beside_what_the_study_links_to_is_refused(study, tmp_path, capsys):
    (study / "labels").rename(tmp_path / "disk2")
    (study / "labels").symlink_to(tmp_path / "disk2", target_is_directory=True)
    assert run("backup", study, tmp_path / "disk2" / "b.zip") == 2
    assert "would lie in the study itself: labels is a link to" in capsys.readouterr().err
    assert not list((tmp_path / "disk2").glob("*.zip*")) and not list((tmp_path / "disk2").glob(".b.zip*"))


def test_label_files_edited_by_hand_are_in_it_and_so_are_those_that_cannot_be_read(study, tmp_path):
    final = study / "labels" / "final"
    text = json.loads((final / "x.mrk.json").read_text(encoding="utf-8"))
    text["markups"][0]["controlPoints"][0]["position"][0] += 5
    (final / "x.mrk.json").write_text(json.dumps(text), encoding="utf-8")
    (final / "y.mrk.json").write_text("half a wo", encoding="utf-8")
    (final / "no_image.mrk.json").write_text(json.dumps(text), encoding="utf-8")
    (final / "notes.txt").write_text("mine", encoding="utf-8")
    assert back_up(study, tmp_path / "b.zip").revisions == 4
    restore(tmp_path / "b.zip", tmp_path / "again")
    with Study.open(tmp_path / "again") as opened:
        assert opened.labels("x").positions_mm[0, 0] == 7 and opened.history("x")[-1].author == "file"
    for name in ("y.mrk.json", "no_image.mrk.json", "notes.txt"):
        assert (tmp_path / "again" / "labels" / "final" / name).read_bytes() == (final / name).read_bytes()


@pytest.mark.parametrize("record", ["{", None])
def test_a_study_that_could_not_be_opened_again_is_not_backed_up_and_leaves_no_folder(study, tmp_path, capsys, record):
    good, bad = tmp_path / "good.zip", tmp_path / "bad.zip"
    back_up(study, good)
    name = ".landmarklabel/study.json"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        about = json.loads(source.read(MANIFEST))
        about["sha256"].pop(name)
        if record is not None:
            about["sha256"][name] = hashlib.sha256(record.encode()).hexdigest()
            target.writestr(name, record)
        for other in set(source.namelist()) - {name, MANIFEST}:
            target.writestr(other, source.read(other))
        target.writestr(MANIFEST, json.dumps(about))
    (study / name).unlink()
    if record is not None:
        (study / name).write_text(record, encoding="utf-8")
    assert run("backup", study, tmp_path / "c.zip") == 2
    said = capsys.readouterr().err
    assert ("study.json cannot be read (JSONDecodeError)" if record else "no record of its task (study.json)") in said
    assert run("restore", bad, tmp_path / "again") == 2
    why = ".landmarklabel/study.json cannot be read (JSONDecodeError); restore it from a backup" if record else ""
    why = why or "no record of its task (study.json)"
    line = f"landmarklabel: {bad}: the study in it cannot be opened ({why}); nothing was restored, use another backup\n"
    assert capsys.readouterr().err == line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.zip", "good.zip", "study"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "revisions.sqlite is empty, and labels/final holds 2 label files: restore an earlier backup"),
        (None, "labels/final holds 2 label files, and there are no revisions: restore an earlier backup"),
        (b"no database at all" * 500, "the revision store cannot be used (file is not a database); check free space"),
    ],
)
def test_lost_and_damaged_revisions_are_said_in_one_line(study, tmp_path, capsys, content, says):
    database = study / ".landmarklabel" / "revisions.sqlite"
    if content is None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DELETE FROM revisions")
    else:
        database.write_bytes(content)
    assert run("backup", study, tmp_path / "b.zip") == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and [p.name for p in tmp_path.iterdir()] == ["study"]


def test_a_damaged_row_is_named_and_the_rest_is_backed_up(study, tmp_path, capsys):
    with closing(sqlite3.connect(study / ".landmarklabel" / "revisions.sqlite")) as connection, connection:
        connection.execute("UPDATE audit SET who = 'bob' WHERE id = 3")
    assert run("backup", study, tmp_path / "b.zip") == 1
    assert "landmarklabel: damaged, in the study and so in the backup: audit row 3 (annotation of y)" in capsys.readouterr().err
    assert run("restore", tmp_path / "b.zip", tmp_path / "again") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="macOS and Windows have no such names")
def test_a_name_that_is_no_utf_8_or_has_a_line_break_costs_nothing_else(study, tmp_path, capsys):
    with open(os.fsencode(study) + b"/caf\xe9.txt", "w", encoding="utf-8") as file:
        file.write("x")
    (study / "two\nlines.txt").write_text("kept", encoding="utf-8")
    (study / "to\nnowhere").symlink_to("nothing")
    assert run("backup", study, tmp_path / "b.zip") == 1
    assert capsys.readouterr().err.splitlines() == [
        r"landmarklabel: left out: caf\udce9.txt: its name is not UTF-8; rename it",
        r"landmarklabel: left out: to\nnowhere: a link to nothing",
    ]
    restore(tmp_path / "b.zip", tmp_path / "again")
    assert (tmp_path / "again" / "two\nlines.txt").read_text(encoding="utf-8") == "kept"


@pytest.mark.skipif(not unprivileged(), reason="needs a user whose rights are looked at, or setpriv")
def test_what_may_not_be_read_is_left_out_by_name(study, tmp_path):
    (study / "more").mkdir()
    (study / "more" / "secret.txt").write_text("x", encoding="utf-8")
    (study / "more").chmod(0)
    (study / "y.png").chmod(0)
    done = subprocess.run([*unprivileged(), *command("backup", study, tmp_path / "b.zip")], capture_output=True, text=True)
    (study / "more").chmod(0o700)
    assert done.returncode == 1 and done.stdout.endswith(f"{study} with 3 revisions\n")
    assert done.stderr.splitlines() == [
        "landmarklabel: left out: more: a folder that may not be read (Permission denied)",
        "landmarklabel: left out: y.png: it cannot be read (Permission denied)",
    ]
    restore(tmp_path / "b.zip", tmp_path / "again")
    assert (tmp_path / "again" / "x.png").is_file() and not (tmp_path / "again" / "y.png").exists()


@pytest.mark.skipif(not unprivileged(), reason="needs a user whose rights are looked at, or setpriv")
def test_a_place_that_may_not_be_written_is_no_matter_of_free_space(study, tmp_path):
    place = tmp_path / "closed"
    place.mkdir(mode=0o500)
    file = place / "b.zip"
    done = subprocess.run([*unprivileged(), *command("backup", study, file)], capture_output=True, text=True)
    remedy = "change who may write there, then try again"
    assert done.stderr == f"landmarklabel: {file}: could not be written (Permission denied); {remedy}\n" and done.returncode == 2


def test_wrong_places_have_a_fitting_remedy(study, tmp_path, capsys):
    file, zip_file = tmp_path / "file", tmp_path / "b.zip"
    file.write_text("x", encoding="utf-8")
    back_up(study, zip_file)
    for words, text in (
        (("restore", tmp_path / "missing.zip", tmp_path / "r"), "missing.zip is not there; give a file that landmarklabel"),
        (("restore", study, tmp_path / "r"), f"{study} is no file; give a file that landmarklabel backup made"),
        (("restore", zip_file, file / "x"), f"{file} is no folder, so x cannot be made in it; give another place"),
        (("restore", zip_file, file), f"{file} exists; give a folder that does not"),
        (("backup", study, tmp_path / "nofolder" / "b.zip"), f"{tmp_path / 'nofolder'} is not there; make the folder first"),
        (("backup", study, file / "b.zip"), f"{file} is no folder; make the folder first"),
    ):
        assert run(*words) == 2
        said = capsys.readouterr().err
        assert text in said and said.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.zip", "file", "study"]
