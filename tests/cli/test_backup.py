"""A study in one file: whole, taken while others write, and whatever is killed in between."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tests.cli.program import command, unprivileged

from landmarklabel.cli import main
from landmarklabel.io.markups import read_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.portability import sync_to_disk
from landmarklabel.services import backup
from landmarklabel.services.backup import MANIFEST, back_up, restore
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens

TASK = LandmarkTask("corner", ("a", "b"), 2)


def points(value: float) -> LandmarkSet:
    return LandmarkSet.of_positions(TASK, np.array([[value, 1], [2, 3.5]]))


@pytest.fixture
def study(tmp_path) -> Path:
    """Two images, three revisions, a proposal, notes, a model that is only a file, and a token."""
    place = tmp_path / "study"
    place.mkdir()
    for name in ("x", "y"):
        sitk.WriteImage(sitk.GetImageFromArray(np.arange(80, dtype=np.uint8).reshape(8, 10)), str(place / f"{name}.png"))
    with Study(place, TASK) as opened:
        for name, value in (("x", 1), ("x", 2), ("y", 3)):
            opened.save(name, points(value), author="ann")
    (place / "labels" / "original").mkdir()
    (place / "labels" / "original" / "x.mrk.json").write_text("a proposal", encoding="utf-8")
    live = place / ".landmarklabel" / "models" / "scn" / "versions" / "0001"
    live.mkdir(parents=True)
    (live / "model.json").write_text("{}", encoding="utf-8")
    Tokens(place).new("ann", "annotator")
    return place


def run(*words: object) -> int:
    return main([str(word) for word in words])


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


def test_all_that_was_acknowledged_before_it_ended_is_in_it(study, tmp_path, monkeypatch):
    """Somebody saves all the time; what was answered before the backup had its name must be there."""
    acknowledged, stop, ended = [], threading.Event(), []

    def named(folder: Path) -> None:  # the file has its name by now
        ended.append(len(acknowledged))
        sync_to_disk(folder)

    monkeypatch.setattr(backup, "sync_to_disk", named)

    def save() -> None:
        with Study.open(study) as opened:
            value = 10
            while not stop.is_set():
                opened.save("x", points(value), author="bob")
                acknowledged.append(value)
                value += 1

    saving = threading.Thread(target=save)
    saving.start()
    try:
        for number in range(5):
            back_up(study, tmp_path / f"{number}.zip")
            known = acknowledged[: ended[-1]]
            restore(tmp_path / f"{number}.zip", tmp_path / f"s{number}")
            with Study.open(tmp_path / f"s{number}") as opened:
                kept = {int(opened.read(r).positions_mm[0, 0]) for r in opened.history("x")}
            assert set(known) <= kept and {1, 2} <= kept
    finally:
        stop.set()
        saving.join()
    assert len(acknowledged) > 5 and len(set(ended)) > 1


KILLED = """
import os, sys
from landmarklabel.services import backup
left = [int(sys.argv[3])]
def step(real):
    def call(*given, **more):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return real(*given, **more)
    return call
backup._add, backup._copy_database, backup.sync_to_disk = map(step, (backup._add, backup._copy_database, backup.sync_to_disk))
backup.os.fsync, backup.Path.rename = step(os.fsync), step(backup.Path.rename)
if sys.argv[4] == "backup":
    backup.back_up(sys.argv[1], sys.argv[2])
else:
    backup._extract = step(backup._extract)
    backup.restore(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_killed_between_any_two_steps_there_is_the_whole_or_nothing(study, tmp_path, verb):
    whole = tmp_path / "whole.zip"
    back_up(study, whole)
    for steps in range(100):
        place = tmp_path / str(steps)
        place.mkdir()
        given = (study, place / "b.zip") if verb == "backup" else (whole, place / "study")
        done = subprocess.run([sys.executable, "-c", KILLED, *map(str, given), str(steps), verb], capture_output=True)
        assert done.returncode in (0, 9), done.stderr.decode()
        if given[1].exists():
            target = place / "again" if verb == "backup" else given[1]
            if verb == "backup":
                restore(given[1], target)
            with Study.open(target) as opened:
                assert len(opened.history("x")) == 2 and len(opened.history("y")) == 1
        if done.returncode == 0:
            break
    assert done.returncode == 0 and steps > 5 and given[1].exists()


def while_it_copies(monkeypatch, name: str, act) -> None:
    """Call ``act`` once, just after the backup has copied this file."""
    real, left = backup._add, [act]

    def add(archive, path, into):
        done = real(archive, path, into)
        if into == name and left:
            left.pop()()
        return done

    monkeypatch.setattr(backup, "_add", add)


@pytest.mark.parametrize("when", ["while it copies", "after it copied"])
def test_what_is_added_and_removed_meanwhile_is_as_it_was_at_the_end(study, tmp_path, monkeypatch, when):
    def act() -> None:
        with Study.open(study) as opened:
            opened.add_image("late", study / "x.png")
            opened.save("late", points(4), author="bob")
            opened.remove_image("x")
        (study / "a.txt").write_text("new text", encoding="utf-8")
        (study / "labels" / "original" / "late.mrk.json").write_text("a late proposal", encoding="utf-8")

    (study / "a.txt").write_text("old", encoding="utf-8")
    if when == "while it copies":
        while_it_copies(monkeypatch, "y.png", act)
    else:  # just before it takes the study's lock
        real, left = backup._sync, [act]
        monkeypatch.setattr(backup, "_sync", lambda path: (left and left.pop()(), real(path)))
    assert back_up(study, tmp_path / "b.zip").left_out == {}
    restore(tmp_path / "b.zip", tmp_path / "again")
    with Study.open(tmp_path / "again") as opened:
        assert list(opened.images()) == ["late", "y"] and opened.labelled()["late"].positions_mm[0, 0] == 4
    assert (tmp_path / "again" / "a.txt").read_text(encoding="utf-8") == "new text"
    assert (tmp_path / "again" / "labels" / "original" / "late.mrk.json").is_file()


def test_a_file_that_never_rests_ends_the_backup_all_the_same_and_is_named(study, tmp_path, monkeypatch):
    real, busy = backup._add, study / "busy.log"
    busy.write_text("x", encoding="utf-8")

    def add(archive, path, into):
        done = real(archive, path, into)
        if path == busy:
            busy.write_text(busy.read_text(encoding="utf-8") + "x", encoding="utf-8")
        return done

    monkeypatch.setattr(backup, "_add", add)
    left_out = back_up(study, tmp_path / "b.zip").left_out
    assert left_out == {"busy.log": "it changes all the time: the newest of it is left out"}
    restore(tmp_path / "b.zip", tmp_path / "again")
    assert set((tmp_path / "again" / "busy.log").read_text(encoding="utf-8")) == {"x"}


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


def test_a_database_that_is_damaged_while_it_copies_is_said_in_one_line(study, tmp_path, monkeypatch, capsys):
    database = study / ".landmarklabel" / "revisions.sqlite"
    while_it_copies(monkeypatch, "y.png", lambda: database.write_bytes(b"no database at all" * 500))
    assert run("backup", study, tmp_path / "b.zip") == 2
    said = capsys.readouterr().err
    assert "the revision store cannot be used (file is not a database)" in said and said.count("\n") == 1


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


SLOW = """
import sys, time
from landmarklabel.cli import main
from landmarklabel.services import backup
def slow(*given):
    print("copying", flush=True)
    time.sleep(60)
backup._add = backup._extract = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that asks")
@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_asked_to_end_it_leaves_nothing_behind(study, tmp_path, verb):
    whole, place = tmp_path / "whole.zip", tmp_path / "place"
    back_up(study, whole)
    place.mkdir()
    given = (study, place / "b.zip") if verb == "backup" else (whole, place / "study")
    words = [sys.executable, "-c", SLOW, verb, *map(str, given)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "copying\n" and len(list(place.iterdir())) == 1
        process.terminate()
        assert process.wait(60) == 130 and process.stderr.read() == "landmarklabel: stopped\n"
    assert list(place.iterdir()) == []
