"""Whoever loses a race for a label becomes a revision and is told of, not nothing; waiting has an end."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from tests.store.studies import label_file, on_file, points
from tests.thoroughness import times

from landmarklabel.errors import Busy, Conflict, KeyReused
from landmarklabel.io import atomic_exchange
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.locks import locked
from landmarklabel.io.markups import dump_markups, write_markups
from landmarklabel.store import label_files
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.revision_json import same_landmarks
from landmarklabel.store.study import Study


@pytest.fixture
def url():
    """What is tested here is the folder; its own database does."""
    return None


def slip_in(monkeypatch, owner, name, edit):
    """Do ``edit`` once, just before the next call of a step."""
    do, done = getattr(owner, name), []

    def first_the_edit(*given, **more):
        if not done:
            done.append(True)
            edit()
        return do(*given, **more)

    monkeypatch.setattr(owner, name, first_the_edit)


@pytest.mark.parametrize("steps", ["exchange", "two steps"])
def test_a_hand_edit_between_a_submissions_read_and_write_is_a_revision_that_says_so(study, monkeypatch, steps):
    if steps == "two steps":  # as on systems that cannot exchange names
        monkeypatch.setattr(atomic_exchange, "_rename", lambda *_: False)
    study.save("a", points(study.task, 1))
    slip_in(monkeypatch, label_files, "swap_in", lambda: write_markups(label_file(study, "a"), points(study.task, 7)))
    submitted = study.save("a", points(study.task, 2), base_revision=1)
    newest = study.history("a")[-1]
    assert (submitted.number, newest.number, newest.author, newest.body["unseen"]) == (2, 3, "file", 2)
    assert same_landmarks(study.read(submitted), points(study.task, 2))
    assert same_landmarks(on_file(study, "a"), points(study.task, 7))
    (text,) = study.sync()
    assert text.startswith("a: revision 3 (file) was made without having seen revision 2: both are kept; look at them")
    study.save("a", points(study.task, 2), base_revision=3)  # a person decides
    assert study.sync() == []


def test_a_submission_that_meets_a_hand_edit_is_told_or_says_so(study, monkeypatch):
    study.save("a", points(study.task, 1))
    write_markups(label_file(study, "a"), points(study.task, 7))
    with pytest.raises(Conflict):
        study.save("a", points(study.task, 2), base_revision=1)
    write_markups(label_file(study, "a"), points(study.task, 8))
    without_base = study.save("a", points(study.task, 2))  # as MONAI Label's own client submits
    assert without_base.body["unseen"] == 3 and [r.author for r in study.history("a")] == ["", "file", "file", ""]
    assert len(study.sync()) == 1


def test_what_an_editor_writes_after_its_file_was_replaced_is_a_revision(study, monkeypatch):
    monkeypatch.setattr(label_files, "CONFIG", replace(CONFIG, editor_idle_ns=0))
    study.save("a", points(study.task, 1))
    text = dump_markups(points(study.task, 7))
    with label_file(study, "a").open("r+", encoding="utf-8") as editor:
        editor.truncate()
        editor.write(text[:50])
        editor.flush()
        study.save("a", points(study.task, 2), base_revision=1)
        editor.write(text[50:])
    assert study.recheck_replaced() == []
    newest = study.history("a")[-1]
    assert (newest.number, newest.author, newest.body["unseen"]) == (3, "file", 2)
    assert same_landmarks(study.labels("a"), points(study.task, 7)) and same_landmarks(on_file(study, "a"), points(study.task, 7))


def test_what_was_replaced_and_stays_the_same_goes_after_a_while(study, monkeypatch):
    for value in (1, 2, 3):
        study.save("a", points(study.task, value))
    replaced = study.folder / ".landmarklabel" / "replaced"
    assert len(list(replaced.iterdir())) == 2 and study.recheck_replaced() == []
    monkeypatch.setattr(label_files, "CONFIG", replace(CONFIG, editor_idle_ns=0, replaced_kept_ns=0))
    assert study.sync() == [] and list(replaced.iterdir()) == [] and len(study.history("a")) == 3


def test_an_edit_that_a_killed_program_had_just_replaced_is_a_revision_once_its_editor_is_idle(study, monkeypatch):
    study.save("a", points(study.task, 1))
    swap_in = label_files.swap_in

    def killed_after_it(new, path):
        write_markups(path, points(study.task, 7))
        swap_in(new, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(label_files, "swap_in", killed_after_it)
    with pytest.raises(KeyboardInterrupt):
        study.save("a", points(study.task, 2), base_revision=1)
    monkeypatch.setattr(label_files, "swap_in", swap_in)
    reopened = Study(study.folder, study.task)
    reopened.sync()
    assert len(reopened.history("a")) == 2  # it may still be written
    monkeypatch.setattr(label_files, "CONFIG", replace(CONFIG, editor_idle_ns=0))
    reopened.sync()
    assert same_landmarks(reopened.labels("a"), points(study.task, 7)) and len(reopened.history("a")) == 3
    reopened.close()


def test_an_earlier_file_that_a_person_puts_back_in_that_moment_is_a_revision_too(study, monkeypatch):
    study.save("a", points(study.task, 1))
    first = label_file(study, "a").read_bytes()
    study.save("a", points(study.task, 2))
    slip_in(monkeypatch, label_files, "swap_in", lambda: label_file(study, "a").write_bytes(first))
    study.save("a", points(study.task, 3), base_revision=2)
    assert same_landmarks(study.labels("a"), points(study.task, 1)) and len(study.history("a")) == 4


def test_edits_during_submissions_are_all_there(study):
    """Without any hook: a person who saves all the time while others submit."""
    study.save("a", points(study.task, 1))
    said, stop, rounds = [], threading.Event(), times(12, in_full=60)

    def edit():
        value = 1000
        while not stop.is_set():
            value += 1
            said.append(value)
            fresh = study.folder / "fresh.tmp"
            fresh.write_text(dump_markups(points(study.task, value)), encoding="utf-8")
            os.replace(fresh, label_file(study, "a"))
            time.sleep(0.003)

    thread = threading.Thread(target=edit)
    thread.start()
    submitted = [study.save("a", points(study.task, 5000 + i)).number for i in range(rounds)]
    stop.set()
    thread.join()
    study.sync()
    history = study.history("a")
    kept = {int(study.read(r).positions_mm[0, 0]) for r in history}
    assert len(submitted) == rounds and {5000 + i for i in range(rounds)} <= kept
    overwritten_by_the_editor_itself = set(said) - kept
    assert said[-1] in kept and len(overwritten_by_the_editor_itself) < len(said) - rounds // 2


@pytest.mark.parametrize("other", [2, 1.5])
def test_a_key_used_again_for_something_else_is_refused(study, other):
    first = study.save("a", points(study.task, 1), key="k")
    assert study.save("a", points(study.task, 1), key="k").number == first.number
    with pytest.raises(KeyReused, match="'k' was used for other landmarks of 'a'; use a new one"):
        study.save("a", points(study.task, other), key="k")
    with pytest.raises(KeyReused, match="'k' was used for 'a'; use a new one for 'b'"):
        study.save("b", points(study.task, 1), key="k")
    assert len(study.history("a")) == 1 and same_landmarks(study.labels("a"), points(study.task, 1))


# --- waiting ---------------------------------------------------------------------------------------------------------


def _hold(path, held, let_go):
    with locked(path):
        held.set()
        let_go.wait(60)


@pytest.fixture
def held_elsewhere(study):
    """Another process holds the study."""
    context = multiprocessing.get_context("fork")
    held, let_go = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(study.folder / ".landmarklabel" / "lock", held, let_go))
    process.start()
    assert held.wait(30)
    yield let_go
    let_go.set()
    process.join()


def test_a_study_that_somebody_holds_is_busy_after_a_while_and_others_go_on(study, held_elsewhere, monkeypatch):
    monkeypatch.setattr("landmarklabel.store.study.CONFIG", replace(CONFIG, lock_timeout_s=0.3))
    started, outcomes = time.monotonic(), []

    def submit(i):
        try:
            study.save("a", points(study.task, i))
        except Busy as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=submit, args=(i,)) for i in range(45)]
    [t.start() for t in threads]
    assert study.labelled() == {} and list(study.images()) == ["a", "b", "c"]  # who only looks does not wait
    [t.join() for t in threads]
    assert outcomes == ["the study is in use by another program or request; nothing was changed, try again in a moment"] * 45
    assert time.monotonic() - started < 10 and study.history("a") == []
    held_elsewhere.set()
    while True:
        try:
            assert study.save("a", points(study.task, 1)).number == 1
            break
        except Busy:
            assert time.monotonic() - started < 60


def test_more_than_a_few_waiting_threads_are_told_at_once(tmp_path):
    release, held, told = threading.Event(), threading.Event(), []

    def wait():
        try:
            with locked(tmp_path / "lock", seconds=20):
                pass
        except Busy:
            told.append(time.monotonic())

    def hold():
        with locked(tmp_path / "lock"):
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    threads = [threading.Thread(target=wait) for _ in range(LIMITS.waiting_threads + 5)]
    [t.start() for t in threads]
    deadline = time.monotonic() + 15
    while len(told) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(told) >= 5  # long before their time was over
    release.set()
    [t.join() for t in [holder, *threads]]
    assert len(told) == 5


def test_a_second_program_sees_the_newest_state(study):
    other = Study(study.folder, study.task)
    study.save("a", points(study.task, 1))
    with pytest.raises(Conflict):
        other.save("a", points(study.task, 2), base_revision=0)
    np.testing.assert_array_equal(other.labels("a").positions_mm, points(study.task, 1).positions_mm)


def test_what_a_slow_reader_knew_before_takes_no_label_from_a_quicker_one(study, monkeypatch):
    """Three questions at once, of which the one that saw least ends in the middle of the one that saw most."""
    do, slow_read, go_on = study.revisions.newer_heads, threading.Event(), threading.Event()
    study.save("a", points(study.task, 1))

    def of_the_slow_reader(*known):
        heads = do(*known)
        slow_read.set()
        assert go_on.wait(30)
        return heads

    def while_the_slow_reader_ends(*known):
        heads = do(*known)
        go_on.set()
        if threading.current_thread() is not slow:
            slow.join(30)
        return heads

    monkeypatch.setattr(study.revisions, "newer_heads", of_the_slow_reader)
    slow = threading.Thread(target=study.changed)
    slow.start()
    assert slow_read.wait(30)
    monkeypatch.setattr(study.revisions, "newer_heads", do)
    study.save("b", points(study.task, 2))
    assert list(study.labelled()) == ["a", "b"]
    study.save("c", points(study.task, 3))
    monkeypatch.setattr(study.revisions, "newer_heads", while_the_slow_reader_ends)
    assert list(study.labelled()) == ["a", "b", "c"]
    monkeypatch.setattr(study.revisions, "newer_heads", do)
    assert list(study.labelled()) == ["a", "b", "c"]
