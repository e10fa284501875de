"""A study in one file: whole, taken while others write, and whatever is killed in between."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

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
