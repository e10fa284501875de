"""The power fails at any moment (simulated): every state the disk can be in then opens and holds what was acknowledged."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from plain_disk import PlainDisk, Step
from tests.store.studies import write_dicom

from landmarklabel.io.markups import dump_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store.revisions import RevisionStore
from landmarklabel.store.study import Study

TASK = LandmarkTask("hand", ("thumb", "index"), dims=2)


def points(value):
    return LandmarkSet.of_positions(TASK, np.full((2, 2), float(value)))


# --- SQLite ----------------------------------------------------------------------------------------------------------

FRAME = 4096 + 24  # a page in the write-ahead log and its header


@dataclass(frozen=True)
class Files:
    """The database file and its write-ahead log."""

    main: bytes
    log: bytes

    @staticmethod
    def of(path: Path) -> Files:
        log = path.with_name(path.name + "-wal")
        return Files(path.read_bytes(), log.read_bytes() if log.exists() else b"")

    def put(self, path: Path) -> None:
        """Write them; what SQLite keeps in shared memory is gone after a power loss."""
        path.with_name(path.name + "-shm").unlink(missing_ok=True)
        path.write_bytes(self.main)
        path.with_name(path.name + "-wal").write_bytes(self.log)


def mixed(old: bytes, new: bytes, place: int) -> bytes:
    """``new`` up to a place, what was there before from there on."""
    return new[:place] + old[place:]


def between(old: Files, new: Files):
    """States of the disk while a save turns ``old`` into ``new``: first the log is written, then pages are copied from it."""
    size = len(new.log)
    borders = [p for p in (0, 32, *range(32, size + 1, FRAME), size) if p <= size]
    for border in borders:
        for place in {border, min(border + FRAME // 2, size)}:
            yield Files(old.main, mixed(old.log, new.log, place))
    for start in range(32, size, FRAME):  # the disk wrote the frames in another order: one of them is not there yet
        if new.log[start : start + FRAME] != old.log[start : start + FRAME]:
            there = old.log[start : start + FRAME].ljust(min(FRAME, size - start), b"\0")
            yield Files(old.main, new.log[:start] + there + new.log[start + FRAME :])
    if new.main != old.main:  # a checkpoint: the log is on disk before the first page is copied
        for place in range(0, len(new.main) + 1, 4096):
            yield Files(mixed(old.main, new.main, place), new.log)
            yield Files(mixed(old.main, new.main, place + 2000), new.log)


@pytest.mark.parametrize("checkpoint_pages", [1000, 10])
def test_every_state_of_the_database_file_and_its_log_holds_what_was_acknowledged(tmp_path, checkpoint_pages):
    """Simulated: the log cut off or half old at every page border and inside pages, one page of it missing while later ones are
    there, a checkpoint that got as far as any page. Every state between two acknowledged saves opens, holds all saves
    up to the first of the two, and at most one more, whole.

    Not simulated: that SQLite waits for the disk at all (its setting, looked at in ``test_sqlite.py``), a disk that says it has
    written what it has not, or that damages what lay there before.
    """
    path, shas = tmp_path / "r.sqlite", []
    store = RevisionStore(f"sqlite:///{path}")
    with store._engine.connect() as connection:  # the one connection of the pool
        connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")
    states = [Files.of(path)]
    for i in range(5):
        shas.append(store.save("a", {"i": i, "long": "x" * 900 * i}).sha256)
        states.append(Files.of(path))
    assert (len({s.main for s in states}) > 1) == (checkpoint_pages == 10)

    other, seen = tmp_path / "after" / "r.sqlite", set()
    other.parent.mkdir()
    for acknowledged, (old, new) in enumerate(itertools.pairwise(states)):
        for state in {*between(old, new)} - seen:
            seen.add(state)
            state.put(other)
            again = RevisionStore(f"sqlite:///{other}")
            kept = [r.sha256 for r in again.history("a")]
            assert kept in (shas[:acknowledged], shas[: acknowledged + 1])
            assert again.verify() == [] and len(again.changes()) == len(kept)
            again.close()
        new.put(other)
        again = RevisionStore(f"sqlite:///{other}")
        assert [r.sha256 for r in again.history("a")] == shas[: acknowledged + 1]
        again.close()
    store.close()
    assert len(seen) > 60


# --- plain files -----------------------------------------------------------------------------------------------------


LEFT = {"whole": lambda c: c, "half": lambda c: c[: len(c) // 2], "zeros": lambda c: bytes(len(c)), "nothing": lambda c: b""}


def after_power_loss(steps: list[Step]):
    """Path to content, for every state of the disk when the power fails after these steps.

    A content is sure from its file's fsync on, a name from its folder's. Of what was done since, names got as far as any step
    (a journal keeps their order), and a content is whole, half, zeros, or empty.
    """
    sure = 0
    for i, step in enumerate(steps):
        folder = str(Path(step.target or step.path).parent)
        if any(later.what == "fsync" and later.path == folder for later in steps[i:]):
            sure = i + 1
    for reached, left in itertools.product(range(sure, len(steps) + 1), LEFT.values()):
        yield _disk_after(steps, reached, left)


def _disk_after(steps: list[Step], reached: int, left) -> dict[str, bytes]:
    written = {}  # step that created a file to its content
    names, names_on_disk = {}, {}  # path to the step that created the file
    for i, step in enumerate(steps):
        if step.what == "create":
            names[step.path], written[i] = i, b""
        elif step.what == "write":
            written[names.setdefault(step.path, i)] = left(step.content)
        elif step.what == "fsync" and step.path in names:
            written[names[step.path]] = step.content
        else:
            _rename(names, step)
        if i < reached:
            names_on_disk = dict(names)
    return {path: written[file] for path, file in names_on_disk.items()}


def _rename(names: dict[str, int], step: Step) -> None:
    if step.what == "replace":
        names[step.target] = names.pop(step.path)
    elif step.what == "swap":
        new, there = names.pop(step.path), names.get(step.target)
        names[step.target] = new
        if there is not None:
            names[step.path] = there
    elif step.what == "unlink":
        names.pop(step.path, None)


def put(files: dict[str, bytes], was: Path, now: Path) -> None:
    """Write the files of one folder into another, which holds nothing else."""
    for path, content in files.items():
        target = now / Path(path).relative_to(was)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def test_label_files_in_every_state_are_brought_up_to_the_newest_revision(tmp_path, monkeypatch):
    """Simulated: the steps of three saves, ended after each of them, see ``after_power_loss``; the database is as it was then.

    The study then opens, has no problem, and its file shows the newest revision; nothing half-written is taken for a person's
    edit. What was acknowledged is in the file even before the study is opened.
    """
    folder, database, saved_at = tmp_path / "study", tmp_path / "r.sqlite", []
    folder.mkdir()
    (folder / "a.png").touch()
    study, databases = Study(folder, TASK, f"sqlite:///{database}"), []
    with monkeypatch.context() as patch:
        disk = PlainDisk(patch, before=lambda: databases.append(Files.of(database)))
        for i in range(3):
            study.save("a", points(i))
            saved_at.append(len(disk.steps))
    databases.append(Files.of(database))
    study.close()
    # The disks made below are copies, whose files are all new: real ones keep the times of their last change.
    monkeypatch.setattr("landmarklabel.store.label_files._created_ns", lambda _: time.time_ns() + 10**12)

    seen = set()
    for done, state in enumerate(databases):
        acknowledged = sum(at <= done for at in saved_at)
        for files in after_power_loss(disk.steps[:done]):
            (label,) = [content for path, content in files.items() if path.endswith("/a.mrk.json")] or [None]
            if done in saved_at:
                assert label == dump_markups(points(acknowledged - 1)).encode()
            if (key := (state, tuple(files.items()))) in seen:
                continue
            seen.add(key)
            now = tmp_path / f"study{len(seen)}"
            now.mkdir()
            put(files, folder, now)
            (now / "a.png").touch()
            state.put(now / "r.sqlite")
            again = Study(now, TASK, f"sqlite:///{now}/r.sqlite")
            assert again.sync() == []
            history = again.history("a")
            assert len(history) in (acknowledged, acknowledged + 1) and {r.author for r in history} <= {""}
            found = list((now / "labels" / "final").iterdir())
            assert [p.read_text(encoding="utf-8") for p in found] == [dump_markups(points(len(history) - 1))] * bool(history)
            assert again.revisions.verify() == []
            again.close()
    assert len(seen) >= 15


def test_an_added_image_is_whole_or_not_there_and_once_acknowledged_it_is_there(tmp_path, monkeypatch):
    """Simulated as for label files."""
    source, folder = tmp_path / "source.png", tmp_path / "study"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(64, dtype=np.uint8).reshape(8, 8)), str(source))
    study = Study(folder, TASK)
    with monkeypatch.context() as patch:
        disk = PlainDisk(patch)
        study.add_image("new", source)
        acknowledged = [step.what for step in disk.steps].index("fsync", [s.what for s in disk.steps].index("replace")) + 1
    study.close()
    for done in range(1, len(disk.steps) + 1):
        for files in after_power_loss(disk.steps[:done]):
            there = files.get(str(folder / "new.png"))
            assert there == source.read_bytes() or (there is None and done < acknowledged)


@pytest.mark.parametrize("copy", [True, False])
def test_all_of_a_dicom_folder_is_on_disk_before_it_becomes_an_image(tmp_path, monkeypatch, copy):
    source = write_dicom(tmp_path / "source")
    study = Study(tmp_path / "study", LandmarkTask("t", ("p",), dims=3))
    with monkeypatch.context() as patch:
        disk = PlainDisk(patch)
        study.add_image("case", source, copy=copy)
    study.close()
    at = [step.what for step in disk.steps].index("replace")
    staged = disk.steps[at].path
    synced = {step.path for step in disk.steps[:at] if step.what == "fsync"}
    assert {staged, *(f"{staged}/{p.name}" for p in (study.folder / "case").iterdir())} == synced and len(synced) == 4
    assert Step("fsync", str(study.folder)) in disk.steps[at:]
