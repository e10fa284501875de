"""Many writers at once, as threads and as processes: every save is kept, in order, and nobody overwrites another."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter

import numpy as np
import pytest
import SimpleITK as sitk
from tests.store.studies import label_file, on_file, points

from landmarklabel.errors import Busy, Conflict, StudyError
from landmarklabel.io.markups import dump_markups
from landmarklabel.store.revision_json import landmarks_of
from landmarklabel.store.revisions import RevisionStore
from landmarklabel.store.study import Study


def in_processes(count, work, *arguments):
    """Run ``work(writer, *arguments)`` in forked processes; returns them, started."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(writer, *arguments)) for writer in range(count)]
    [p.start() for p in processes]
    return processes


def patiently(save, *arguments, **more):
    """What every client does that is told the study is busy: nothing was saved, and it sends again."""
    while True:
        try:
            return save(*arguments, **more)
        except Busy:
            continue


def all_ended_well(processes):
    [p.join(120) for p in processes]
    return [p.exitcode for p in processes] == [0] * len(processes)


def in_threads(count, work):
    """Run ``work(writer)`` in threads that start at the same moment; returns what each gave or raised."""
    start, outcomes = threading.Barrier(count), [None] * count

    def run(writer):
        start.wait()
        try:
            outcomes[writer] = work(writer)
        except Exception as error:
            outcomes[writer] = error

    threads = [threading.Thread(target=run, args=(writer,)) for writer in range(count)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return outcomes


# --- the store -------------------------------------------------------------------------------------------------------


def _fill(writer, url, count, same_keys=False):
    store = RevisionStore(url)
    for i in range(count):
        body = {"writer": None if same_keys else writer, "i": i, "points": [[0.5 * i, 0.25, 0.125]] * 30}
        store.save("ab"[i % 2], body, author=str(writer), key=f"k{i}" if same_keys else None)
    store.close()


@pytest.mark.parametrize(("writers", "count"), [(2, 500), (8, 25)])
def test_processes_that_create_and_fill_one_store_keep_every_save_in_order(url, writers, count):
    assert all_ended_well(in_processes(writers, _fill, url, count))
    store = RevisionStore(url)
    history = [*store.history("a"), *store.history("b")]
    assert len(history) == writers * count == store.latest_row() == len(store.changes())
    for image_id in "ab":
        ours = [r for r in history if r.image_id == image_id]
        assert [r.number for r in ours] == list(range(1, len(ours) + 1))
        for writer in range(writers):
            mine = [r.body["i"] for r in ours if r.body["writer"] == writer]
            assert mine == [i for i in range(count) if "ab"[i % 2] == image_id]
    assert store.verify() == []
    store.close()


def test_processes_that_repeat_the_same_keys_save_each_once(url):
    assert all_ended_well(in_processes(4, _fill, url, 20, True))
    store = RevisionStore(url)
    assert sorted(r.body["i"] for i in "ab" for r in store.history(i)) == list(range(20))
    store.close()


def test_of_threads_with_one_base_exactly_one_wins(store):
    outcomes = in_threads(8, lambda i: store.save("a", {"i": i}, base_revision=0).number)
    assert Counter(type(o).__name__ if isinstance(o, Exception) else o for o in outcomes) == {1: 1, Conflict.__name__: 7}


def test_more_threads_than_connections_read_and_save(store):
    store.save("a", {})

    def work(i):
        for _ in range(3):
            store.save(f"i{i}", {"i": i})
            assert store.head("a").number == 1 and len(store.heads()) > 0
        return store.history(f"i{i}")[-1].number

    assert in_threads(40, work) == [3] * 40
    assert store.latest_row() == 121 and store.verify() == []


def _save_with_the_parents(writer, store):
    for i in range(20):
        assert store.save("a", {"writer": writer, "i": i}).body == {"writer": writer, "i": i}
        assert store.head("a").image_id == "a"


def test_forked_processes_may_use_the_store_of_their_parent(store):
    store.save("a", {})
    processes = in_processes(3, _save_with_the_parents, store)
    _save_with_the_parents(9, store)
    assert all_ended_well(processes)
    assert Counter(r.body.get("writer") for r in store.history("a")) == {None: 1, 0: 20, 1: 20, 2: 20, 9: 20}
    assert store.verify() == []


def test_a_reader_does_not_wait_for_a_writer(store):
    store.save("a", {"i": 1})
    with store._writing():  # somebody is in the middle of a save
        assert store.head("a").number == 1 and len(store.heads()) == 1 and store.verify() == []


# --- the study -------------------------------------------------------------------------------------------------------


def _save_many(writer, folder, task, url, count):
    study = Study(folder, task, url)
    for i in range(count):
        patiently(study.save, "a", points(task, 1000 * writer + i), author=str(writer))
    study.close()


def _all_are_there(study, writers, count):
    history = study.history("a")
    assert [r.number for r in history] == list(range(1, writers * count + 1))
    assert sorted({r.author for r in history}) == sorted(map(str, range(writers)))
    assert label_file(study, "a").read_text(encoding="utf-8") == dump_markups(landmarks_of(history[-1].body, study.task))
    assert study.sync() == [] and study.revisions.verify() == []


def test_eight_processes_lose_nothing_and_the_file_is_the_newest(study, url):
    processes = in_processes(8, _save_many, study.folder, study.task, url, 15)
    while any(p.is_alive() for p in processes):  # a reader and a sync meanwhile see only whole files
        if label_file(study, "a").exists():
            assert on_file(study, "a").defined.all()
        assert study.sync() == []
    assert all_ended_well(processes)
    _all_are_there(study, 8, 15)


def test_eight_threads_lose_nothing_and_the_file_is_the_newest(study):
    def save(writer):
        for i in range(10):
            study.save("a", points(study.task, 1000 * writer + i), author=str(writer))

    assert in_threads(8, save) == [None] * 8
    _all_are_there(study, 8, 10)


def test_two_that_add_one_id_do_not_overwrite_each_other(study, tmp_path):
    for i in range(4):
        sitk.WriteImage(sitk.GetImageFromArray(np.full((8, 8), i, np.uint8)), str(tmp_path / f"{i}.png"))
    outcomes = in_threads(4, lambda i: study.add_image("new", tmp_path / f"{i}.png").read_bytes())
    assert [o for o in outcomes if not isinstance(o, StudyError)] == [study.image_path("new").read_bytes()]
