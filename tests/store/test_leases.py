"""Leases: one case is in one pair of hands, across threads, processes and restarts, and nothing is handed out for ever."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from landmarklabel.errors import Busy
from landmarklabel.io.limits import LIMITS
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.leases import Leases

IDS = ["a", "b", "c", "d"]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 1000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


def take_first(free: list[str]) -> str:
    return free[0]


def must_not_choose(free: list[str]) -> str:
    raise AssertionError(f"there was nothing to choose, but it was asked about {free}")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "cache" / "leases.json"


@pytest.fixture
def leases(file, clock):
    return Leases(file, clock=clock)


def holders(leases: Leases) -> dict[str, str]:
    return {i: lease["client"] for i, lease in leases.held().items()}


def test_two_clients_never_hold_one_case_and_with_all_held_there_is_none(leases):
    taken = {client: leases.take(client, IDS, take_first) for client in ("ann", "bob", "cem", "dora")}
    assert taken == {"ann": "a", "bob": "b", "cem": "c", "dora": "d"}
    assert holders(leases) == {"a": "ann", "b": "bob", "c": "cem", "d": "dora"}
    assert leases.take("eve", IDS, must_not_choose) is None
    assert holders(leases) == {"a": "ann", "b": "bob", "c": "cem", "d": "dora"}
    assert leases.take("eve", [], must_not_choose) is None


def test_the_choice_is_among_free_cases_in_the_order_they_were_given(leases):
    asked = []

    def take_last(free):
        asked.append(list(free))
        return free[-1]

    order = ["c", "a", "d", "b"]
    assert [leases.take(client, order, take_last) for client in ("ann", "bob")] == ["b", "d"]
    assert asked == [["c", "a", "d", "b"], ["c", "a", "d"]]


def test_a_client_that_asks_again_gets_another_case_and_skipped_ones_last_and_longest_ago_first(leases, clock):
    def take(client, choose=take_first):
        clock.now += 1
        return leases.take(client, IDS, choose)

    assert [take("ann") for _ in IDS] == IDS
    # a, b and c were skipped in this order, d is skipped by asking
    assert [take("ann", must_not_choose) for _ in range(6)] == ["a", "b", "c", "d", "a", "b"]
    assert list(holders(leases)) == ["b"]


def test_what_one_client_skipped_comes_to_another_after_the_fresh_ones(leases, clock):
    leases.take("ann", IDS, take_first)
    clock.now += 1
    assert leases.take("ann", IDS, take_first) == "b"
    assert [leases.take("bob", IDS, take_first), leases.take("cem", IDS, take_first)] == ["c", "d"]
    assert leases.take("dora", IDS, must_not_choose) == "a"
    assert leases.take("eve", IDS, must_not_choose) is None


def test_a_client_alone_with_one_case_gets_it_again(leases, clock):
    assert leases.take("ann", ["a"], take_first) == "a"
    clock.now += 1
    assert leases.take("ann", ["a"], must_not_choose) == "a"
    assert leases.take("bob", ["a"], must_not_choose) is None


def test_a_case_is_free_again_when_its_time_is_over_and_not_a_moment_before(leases, clock):
    leases.take("ann", ["a"], take_first)
    clock.now += CONFIG.lease_s - 0.1
    assert leases.take("bob", ["a"], take_first) is None and holders(leases) == {"a": "ann"}
    clock.now += 0.1
    assert holders(leases) == {}
    assert leases.take("bob", ["a"], take_first) == "a" and holders(leases) == {"a": "bob"}


def test_a_case_whose_time_is_over_counts_as_fresh_also_for_who_had_it(leases, clock):
    leases.take("ann", IDS, take_first)
    clock.now += CONFIG.lease_s
    assert leases.take("ann", IDS, take_first) == "a"


def test_a_skipped_case_that_was_handed_out_again_and_ran_out_is_fresh(leases, clock):
    asked = []

    def choose(free):
        asked.append(list(free))
        return free[0]

    for client, expected in (("ann", "a"), ("ann", "b"), ("bob", "a")):
        assert leases.take(client, ["a", "b"], choose) == expected
        clock.now += 1
    clock.now += CONFIG.lease_s
    assert leases.take("cem", ["a", "b"], choose) == "a" and asked[-1] == ["a", "b"]


def test_a_clock_that_is_set_back_keeps_no_case_from_others(leases, clock):
    """By a clock that was an hour ahead a case would be in somebody's hands an hour longer than anybody may have it."""
    clock.now += 3600
    leases.take("ann", ["a"], take_first)
    clock.now -= 3600
    assert holders(leases) == {}
    assert leases.take("bob", ["a"], take_first) == "a" and leases.held() == {"a": {"client": "bob", "since": clock.now}}
    clock.now += CONFIG.lease_s - 1
    assert holders(leases) == {"a": "bob"}


def test_asking_again_begins_a_new_term(file, clock):
    leases = Leases(file, seconds=10, clock=clock)
    leases.take("ann", ["a"], take_first)
    clock.now += 9
    leases.take("ann", ["a"], take_first)
    clock.now += 9
    assert leases.take("bob", ["a"], take_first) is None
    assert leases.held() == {"a": {"client": "ann", "since": 1009.0}}


def test_labelled_cases_are_dropped(leases, clock, file):
    assert [leases.take("ann", IDS, take_first), leases.take("bob", IDS, take_first)] == ["a", "b"]
    clock.now += 1
    assert leases.take("ann", ["c", "d"], take_first) == "c"  # both are labelled
    assert holders(leases) == {"c": "ann"}
    assert json.loads(file.read_text(encoding="utf-8"))["skipped"] == {}
    clock.now += 1
    leases.take("ann", ["c", "d"], take_first)
    assert leases.take("cem", ["d"], must_not_choose) is None  # c is labelled, ann has d
    assert json.loads(file.read_text(encoding="utf-8")) == {"held": {"d": {"client": "ann", "since": 1002.0}}, "skipped": {}}


def test_who_submits_and_asks_on_has_skipped_nothing(leases, clock):
    left = list(IDS)
    for expected in IDS:
        clock.now += 1
        assert leases.take("ann", left, take_first) == expected
        left.remove(expected)
    assert leases.take("ann", left, must_not_choose) is None and leases.held() == {}


def test_those_without_a_name_get_cases_of_their_own_while_there_are_fresh_ones_and_never_none(leases, clock):
    got = []
    for _ in range(2 * len(IDS)):
        got.append(leases.take("", IDS, take_first))
        clock.now += 1
    assert got == [*IDS, *IDS]
    assert len(leases.held()) == 1


@pytest.mark.parametrize("client", ["Röntgen Ünsal 🦴", "\ud800", 'a"b\\c\n\0', "x" * 100_000])
def test_any_name_is_a_client(leases, clock, client):
    assert leases.take(client, IDS, take_first) == "a"
    clock.now += 1
    assert leases.take(client, IDS, take_first) == "b"
    assert list(leases.held()) == ["b"]


def test_a_choice_that_fails_changes_nothing_and_locks_nobody_out(leases, clock):
    leases.take("ann", IDS, take_first)
    before = leases.held()
    clock.now += 1
    with pytest.raises(ZeroDivisionError):
        leases.take("ann", IDS, lambda free: 1 / 0)
    assert leases.held() == before
    assert leases.take("bob", IDS, take_first) == "b"


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_restart_changes_nothing(leases, file, clock):
    leases.take("ann", IDS, take_first)
    clock.now += 1
    leases.take("ann", IDS, take_first)
    clock.now += 1
    again = Leases(file, clock=clock)
    assert again.held() == leases.held() == {"b": {"client": "ann", "since": 1001.0}}
    assert [again.take(c, IDS, take_first) for c in ("bob", "cem")] == ["c", "d"]
    assert Leases(file, clock=clock).take("dora", IDS, must_not_choose) == "a"


def test_two_objects_on_one_file_are_one(file, clock):
    one, two = Leases(file, clock=clock), Leases(str(file), clock=clock)
    assert [one.take("ann", IDS, take_first), two.take("bob", IDS, take_first)] == ["a", "b"]
    clock.now += 1
    assert two.take("ann", IDS, take_first) == "c"
    assert holders(one) == holders(two) == {"b": "bob", "c": "ann"}


DAMAGED = {
    "empty": b"",
    "cut off": b'{"held": {"a": {"client": "ann", "si',
    "no text": b"\xff\xfe\x00\x81",
    "zeros": b"\0" * 512,
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "half": b'{"held": {}}',
    "held is a list": b'{"held": ["a"], "skipped": {}}',
    "skipped is a list": b'{"held": {}, "skipped": ["a"]}',
    "a lease is a number": b'{"held": {"a": 3}, "skipped": {}}',
    "a lease lacks its time": b'{"held": {"a": {"client": "ann"}}, "skipped": {}}',
    "a time is a word": b'{"held": {"a": {"client": "ann", "since": "noon"}}, "skipped": {}}',
    "a skipped time is null": b'{"held": {}, "skipped": {"a": null}}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_costs_nothing_and_is_mended(leases, file, clock, content):
    leases.take("ann", IDS, take_first)
    file.write_bytes(content)
    assert leases.held() == {}
    assert leases.take("bob", IDS, take_first) == "a"
    assert holders(Leases(file, clock=clock)) == {"a": "bob"}


def test_a_missing_file_or_folder_costs_nothing(leases, file):
    assert leases.held() == {}
    leases.take("ann", IDS, take_first)
    file.unlink()
    assert leases.held() == {} and leases.take("bob", IDS, take_first) == "a"
    shutil.rmtree(file.parent)
    assert leases.held() == {} and leases.take("cem", IDS, take_first) == "a"


def test_a_lock_that_another_program_keeps_is_not_waited_for_for_ever(leases, file, monkeypatch):
    file.parent.mkdir(parents=True)
    with file.with_suffix(".lock").open("a", encoding="utf-8") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr("landmarklabel.io.locks.LIMITS", replace(LIMITS, lock_wait_s=0.05))
        with pytest.raises(Busy, match="the list of cases in people's hands is in use"):
            leases.take("ann", IDS, take_first)
    assert leases.take("ann", IDS, take_first) == "a"


# --- many at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False], ids=["one object", "an object each"])
def test_threads_never_get_the_same_case_and_choose_one_at_a_time(file, shared):
    ids, inside, most, taken = [f"i{k}" for k in range(40)], [], [], []
    one, start = Leases(file), threading.Barrier(8)

    def choose(free):
        inside.append(1)
        most.append(len(inside))
        os.sched_yield()
        inside.pop()
        return free[0]

    def work(worker):
        leases = one if shared else Leases(file)
        start.wait()
        taken.extend(leases.take(f"{worker}-{k}", ids, choose) for k in range(5))

    threads = [threading.Thread(target=work, args=(w,)) for w in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(taken) == sorted(ids) and set(most) == {1}
    assert sorted(one.held()) == sorted(ids)
    assert one.take("late", ids, must_not_choose) is None


def _take_many(path: Path, worker: int, ids: list[str]) -> list[str | None]:
    leases = Leases(path)
    return [leases.take(f"{worker}-{k}", ids, take_first) for k in range(12)]


def test_processes_never_get_the_same_case(file):
    ids = [f"i{k}" for k in range(40)]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        taken = [i for part in pool.map(_take_many, [file] * 4, range(4), [ids] * 4) for i in part]
    assert taken.count(None) == 8 and sorted(i for i in taken if i) == sorted(ids)
    assert sorted(Leases(file).held()) == sorted(ids)


# --- model -----------------------------------------------------------------------------------------------------------


class AgainstAList(RuleBasedStateMachine):
    """Any sequence of requests, submissions, pauses and restarts agrees with who-has-what and a queue of skipped cases."""

    @initialize()
    def open(self):
        self.folder, self.clock = Path(tempfile.mkdtemp()), Clock()
        self.leases = Leases(self.folder / "leases.json", seconds=10, clock=self.clock)
        self.hands: dict[str, tuple[str, float]] = {}  # client to case and since when
        self.queue: list[str] = []  # skipped, longest ago first

    @rule(
        client=st.sampled_from(["", "ann", "bob", "cem"]),
        open_ids=st.lists(st.sampled_from(IDS), unique=True),
        k=st.integers(0, 9),
    )
    def take(self, client, open_ids, k):
        self.clock.now += 0.25
        asked = []

        def choose(free):
            asked.append(list(free))
            return free[k % len(free)]

        got = self.leases.take(client, open_ids, choose)
        client = client or "somebody"
        self._forget(open_ids)
        if client in self.hands:
            self.queue.append(self.hands.pop(client)[0])
        busy = {i for i, _ in self.hands.values()}
        fresh = [i for i in open_ids if i not in busy and i not in self.queue]
        expected = fresh[k % len(fresh)] if fresh else next(iter(self.queue), None)
        assert got == expected and asked == ([fresh] if fresh else [])
        if got is not None:
            self.queue = [i for i in self.queue if i != got]
            self.hands[client] = got, self.clock.now

    def _forget(self, open_ids=None):
        lasting = {c: (i, since) for c, (i, since) in self.hands.items() if self.clock.now - since < 10}
        self.hands = {c: x for c, x in lasting.items() if open_ids is None or x[0] in open_ids}
        self.queue = [i for i in self.queue if open_ids is None or i in open_ids]

    @rule(seconds=st.sampled_from([1.0, 5.0, 9.75, 10.0, 30.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule()
    def restart(self):
        self.leases = Leases(self.folder / "leases.json", seconds=10, clock=self.clock)

    @invariant()
    def agrees(self):
        self._forget()
        held = self.leases.held()
        assert {i: x["since"] for i, x in held.items()} == dict(self.hands.values())
        assert {i: x["client"] for i, x in held.items()} == {i: c for c, (i, _) in self.hands.items()}

    def teardown(self):
        shutil.rmtree(self.folder)


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
