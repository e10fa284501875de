"""Leases by address, of which each holds only its share; each kind of case keeps its hands; and whoever works on keeps theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from landmarklabel.errors import TooMany
from landmarklabel.store.leases import Leases


def take_first(free: list[str]) -> str:
    return free[0]


def must_not_choose(free: list[str]) -> str:
    raise AssertionError(f"there was nothing to choose, but it was asked about {free}")


def holders(leases: Leases) -> dict[str, str]:
    return {i: lease["client"] for i, lease in leases.held().items()}


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "study" / "leases.json"


@pytest.fixture
def leases(file) -> Leases:
    return Leases(file, clock=lambda: 1000.0)


@pytest.mark.parametrize(("open_cases", "most"), [(3, 3), (6, 4), (9, 4), (10, 5), (100, 50)])
def test_an_address_holds_half_of_the_cases_and_always_four(leases, open_cases, most):
    ids = [f"i{k:03d}" for k in range(open_cases)]
    for k in range(most):
        assert leases.take(f"c{k}", ids, take_first, address="1.2.3.4") == ids[k]
    if most == open_cases:
        assert leases.take("more", ids, must_not_choose, address="1.2.3.4") is None
        return
    with pytest.raises(TooMany, match=f"this computer has {most} cases in hand, and no more than {most}: submit some, or use"):
        leases.take("more", ids, must_not_choose, address="1.2.3.4")
    assert holders(leases) == {ids[k]: f"c{k}" for k in range(most)}
    assert leases.take("else", ids, take_first, address="5.6.7.8") == ids[most]
    assert leases.take("with a token", ids, take_first) == ids[most + 1]


def test_a_refused_client_keeps_what_it_has_and_changing_it_is_no_more(leases, file):
    ids = [f"i{k}" for k in range(8)]
    for k in range(4):
        leases.take(f"c{k}", ids, take_first, address="here")
    before = file.read_text(encoding="utf-8")
    with pytest.raises(TooMany):
        leases.take("c4", ids, take_first, address="here")
    assert file.read_text(encoding="utf-8") == before
    assert leases.take("c0", ids, take_first, address="here") == "i4"


def test_cases_of_another_kind_stay_in_the_hands_they_are_in(leases):
    """Second readings are handed out from a list of their own: the first readings of others are not given away by that."""
    first, second = ["a", "b"], ["x", "y"]
    assert leases.take("ann", first, take_first, others=second) == "a"
    assert leases.take("bob", second, take_first, others=first) == "x"
    assert leases.take("cem", first, take_first, others=second) == "b"
    assert holders(leases) == {"a": "ann", "x": "bob", "b": "cem"}
    assert leases.take("ann", second, take_first, others=first) == "y"
    assert holders(leases) == {"x": "bob", "b": "cem", "y": "ann"}


def test_whoever_works_on_keeps_the_case_and_nobody_else_can_keep_it_for_them(file):
    now, ids = [1000.0], ["a", "b", "c"]
    leases = Leases(file, clock=lambda: now[0])
    assert leases.take("ann", ids, take_first) == "a"
    now[0] += leases.seconds - 1
    leases.renew("ann", "a")
    now[0] += leases.seconds - 1
    assert leases.take("bob", ids, take_first) == "b"
    now[0] += leases.seconds
    leases.renew("bob", "a")
    assert holders(leases) == {}  # bob cannot keep ann's
    leases.renew("ann", "a")
    assert holders(leases) == {"a": "ann"}  # nobody was given it meanwhile, though bob was given another
    now[0] += leases.seconds
    assert leases.take("bob", ids, take_first) == "a"
    leases.renew("ann", "a")
    assert holders(leases) == {"a": "bob"}
