"""The disk is full at every single write: what was there and what was acknowledged stays, and with space it works again."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from plain_disk import PlainDisk

from landmarklabel.io.files import atomic_write, write_json
from landmarklabel.io.markups import dump_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store.database import StoreFault
from landmarklabel.store.leases import Leases
from landmarklabel.store.revisions import RevisionStore
from landmarklabel.store.study import Study

TASK = LandmarkTask("hand", ("thumb", "index"), dims=2)
FULL = r"could not be written \(No space left on device\); free space, then try again$"


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "a.png").touch()
    study = Study(tmp_path / "study", TASK)
    yield study
    study.close()


def points(value):
    return LandmarkSet.of_positions(TASK, np.full((2, 2), float(value)))


def at_every_step(monkeypatch, act, least):
    """Run ``act(k)`` with the k-th step failing, for all k until one run needs fewer; ``act`` checks what it left."""
    for k in itertools.count(1):
        with monkeypatch.context() as patch:
            disk = PlainDisk(patch, full_at=k)
            after = act(k)
        after(disk.was_full)
        if not disk.was_full:
            assert k > least, [step.what for step in disk.steps]
            return


# --- plain files -----------------------------------------------------------------------------------------------------


def test_a_file_written_whole_is_the_old_or_the_new_one_and_leaves_no_rest(tmp_path, monkeypatch):
    """As image information, sessions and whatever else goes through ``atomic_write``."""
    path = tmp_path / "info.json"

    def act(k):
        path.write_bytes(b"old")
        try:
            atomic_write(path, b"new" * 1000)
        except OSError as error:
            assert str(error) == f"[Errno 28] No space left on device: {str(path)!r}"
            return lambda was_full: whole(was_full, b"old", b"new" * 1000)
        return lambda was_full: whole(was_full, b"new" * 1000)

    def whole(was_full, *allowed):
        assert path.read_bytes() in allowed and list(tmp_path.iterdir()) == [path]
        atomic_write(path, b"again")
        assert path.read_bytes() == b"again"

    at_every_step(monkeypatch, act, least=6)


def test_a_label_is_kept_and_its_file_follows_when_there_is_space(study, monkeypatch):
    file = study.folder / "labels" / "final" / "a.mrk.json"
    study.save("a", points(0))
    number = itertools.count(2)

    def act(k):
        old, n = file.read_text(encoding="utf-8"), next(number)
        new, fault = dump_markups(points(n)), None
        try:
            study.save("a", points(n), author="ann")
        except StoreFault as error:
            fault = error

        def after(was_full):
            assert was_full == (fault is not None)
            if fault:
                assert re.search(rf"^revision {n} of a is saved, but its label file: {FULL}", str(fault))
                assert fault.http_status == 507
            assert file.read_text(encoding="utf-8") in ((old, new) if fault else (new,))
            assert [p.name for p in file.parent.iterdir()] == ["a.mrk.json"]
            assert study.sync() == [] and file.read_text(encoding="utf-8") == new
            assert [r.author for r in study.history("a")] == [""] + ["ann"] * (n - 1)

        return after

    at_every_step(monkeypatch, act, least=6)


def test_looking_for_changed_files_goes_on_without_space(study, monkeypatch):
    file = study.folder / "labels" / "final" / "a.mrk.json"

    def act(k):
        file.unlink()
        said = study.sync()

        def after(was_full):
            assert said in ([], ["labels/final/a.mrk.json cannot be written or read (No space left on device)"])
            assert was_full or not said
            assert study.sync() == [] and file.is_file()

        return after

    study.save("a", points(1))
    at_every_step(monkeypatch, act, least=6)


def test_a_case_in_somebodys_hands_stays_there_and_the_next_is_handed_out_with_space(tmp_path, monkeypatch):
    def act(k):
        leases, fault = Leases(tmp_path / str(k) / "leases.json"), None
        try:
            leases.take("ann", ["a", "b"], min)
            before = {"a"}
        except StoreFault as error:
            fault, before = error, set()
        try:
            leases.take("bob", ["a", "b"], min)
        except StoreFault as error:
            fault = error

        def after(was_full):
            assert was_full == (fault is not None)
            if fault:
                assert re.search(f"^the list of cases in people's hands: {FULL}", str(fault)) and fault.http_status == 507
            held = leases.held()
            assert before <= set(held) and [lease["client"] for i, lease in held.items() if i in before] == ["ann"] * len(before)
            taken = {leases.take(client, ["a", "b", "c", "d"], min) for client in ("cem", "dora")}
            assert len(taken) == 2 and not taken & set(held)

        return after

    at_every_step(monkeypatch, act, least=9)  # written twice, not forced to disk: see Leases


def test_an_image_is_in_the_study_whole_or_not_at_all(study, tmp_path, monkeypatch):
    source = tmp_path / "new.png"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(64, dtype=np.uint8).reshape(8, 8)), str(source))

    def act(k):
        try:
            study.add_image(f"new{k}", source)
            fault = None
        except StoreFault as error:
            fault = error

        def after(was_full):
            assert was_full == (fault is not None)
            if fault:
                assert re.search(f"^image new{k}: {FULL}", str(fault)) and fault.http_status == 507
            there = study.images().get(f"new{k}")
            assert there is None or there.read_bytes() == source.read_bytes()
            assert list((study.folder / ".landmarklabel" / "incoming").iterdir()) == []
            assert study.add_image(f"new{k}", source).read_bytes() == source.read_bytes()

        return after

    at_every_step(monkeypatch, act, least=4)


def test_json_that_is_not_strict_is_refused_before_the_disk_is_touched(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="Out of range float"):
        disk = PlainDisk(patch)
        write_json(tmp_path / "x.json", {"x": float("nan")})
    assert disk.steps == []


# --- SQLite ----------------------------------------------------------------------------------------------------------

_BODY = {"long": "x" * 3000}


def _save_within(limit: int, folder: Path, checkpoint_pages: int) -> dict:
    """What a store does whose files may not grow beyond ``limit`` bytes for a while."""
    store = RevisionStore(f"sqlite:///{folder}/r.sqlite")
    with store._engine.connect() as connection:  # the one connection of the pool
        connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    told = {"saved": [], "faults": []}
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        for i in range(4):
            try:
                told["saved"].append(store.save("a", {"i": i, **_BODY}).sha256)
            except StoreFault as error:
                told["faults"].append(str(error))
        read = [r.sha256 for r in store.history("a")]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert read == told["saved"]
    told["saved"].append(store.save("a", {"i": "space is back"}).sha256)
    store.close()
    again = RevisionStore(f"sqlite:///{folder}/r.sqlite")
    told["kept"] = [r.sha256 for r in again.history("a")]
    told["before"] = len(again.history("old"))
    told["damage"] = again.verify()
    again.close()
    return told


def _save_within_all(limits, folder: Path, checkpoint_pages: int) -> None:
    told = []
    for limit in limits:
        shutil.rmtree(folder / "now", ignore_errors=True)
        shutil.copytree(folder / "before", folder / "now")
        told.append(_save_within(limit, folder / "now", checkpoint_pages))
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize("checkpoint_pages", [1000, 6])
def test_a_database_that_cannot_grow_at_any_size_keeps_all_it_acknowledged(tmp_path, checkpoint_pages):
    """A limit on file sizes in a process of its own; few pages a checkpoint make the database file grow as well as its log."""
    (tmp_path / "before").mkdir()
    store = RevisionStore(f"sqlite:///{tmp_path}/before/r.sqlite")
    for i in range(3):
        store.save("old", {"i": i, **_BODY})
    store.close()
    size = (tmp_path / "before" / "r.sqlite").stat().st_size
    limits = range(0, size + 100_000, 3511)  # less than a page of the log, so at another place in every page
    child = multiprocessing.get_context("fork").Process(target=_save_within_all, args=(limits, tmp_path, checkpoint_pages))
    child.start()
    child.join(300)
    assert child.exitcode == 0
    rounds = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    assert len(rounds) == len(limits)
    for limit, told in zip(limits, rounds, strict=True):
        assert (told["kept"], told["before"], told["damage"]) == (told["saved"], 3, []), limit
    faults = {fault for told in rounds for fault in told["faults"]}
    pattern = r"the revision store cannot be used \((disk I/O error|database or disk is full)\); check free space, permissions.*"
    assert all(re.fullmatch(pattern, fault) for fault in faults) and faults
    saved = [len(told["saved"]) for told in rounds]
    assert saved[0] == 1 and max(saved) == 5 and len(set(saved)) > 3  # none, all and some in between
