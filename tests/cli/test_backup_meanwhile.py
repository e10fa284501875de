"""A backup is taken while others write, and whatever is killed or stopped in between leaves the whole or nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.cli.backed_up import points, run

from landmarklabel.portability import sync_to_disk
from landmarklabel.services import backup
from landmarklabel.services.backup import back_up, restore
from landmarklabel.store.study import Study


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


def test_a_database_that_is_damaged_while_it_copies_is_said_in_one_line(study, tmp_path, monkeypatch, capsys):
    database = study / ".landmarklabel" / "revisions.sqlite"
    while_it_copies(monkeypatch, "y.png", lambda: database.write_bytes(b"no database at all" * 500))
    assert run("backup", study, tmp_path / "b.zip") == 2
    said = capsys.readouterr().err
    assert "the revision store cannot be used (file is not a database)" in said and said.count("\n") == 1


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
