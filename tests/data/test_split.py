"""The validation split never moves."""

from __future__ import annotations

import random

from landmarklabel.data.split import is_validation, split_ids

IDS = [f"case{i:03d}" for i in range(1000)]
GOLDEN = ["case000", "case003", "case009", "case012", "case015", "case024", "case025", "case027"]


def test_about_the_share_validates():
    share = sum(map(is_validation, IDS)) / len(IDS)
    assert abs(share - 0.2) < 0.04
    assert abs(sum(is_validation(i, 0.5) for i in IDS) / len(IDS) - 0.5) < 0.05
    assert not any(is_validation(i, 0.0) for i in IDS) and all(is_validation(i, 1.0) for i in IDS)


def test_the_side_of_these_ids_is_fixed_for_ever():
    """Studies in use rest on it: a change would train on yesterday's validation cases."""
    assert [i for i in IDS[:30] if is_validation(i)] == GOLDEN
    assert is_validation("hand") and not is_validation("ärm 7")


def test_parts_are_disjoint_sorted_and_complete_whatever_the_order():
    shuffled = random.Random(0).sample(IDS, 200)
    train, valid = split_ids(shuffled)
    assert train == sorted(train) and valid == sorted(valid)
    assert sorted(train + valid) == sorted(shuffled) and not set(train) & set(valid)
    assert all(map(is_validation, valid)) and not any(map(is_validation, train))


def test_no_case_changes_sides_when_others_come():
    before, after = split_ids(IDS[:100]), split_ids(IDS)
    assert set(before[0]) <= set(after[0]) and set(before[1]) <= set(after[1])


def test_there_is_always_something_to_train_on():
    only = [i for i in IDS if is_validation(i)][:3]
    assert split_ids(only) == (sorted(only), [])
    assert split_ids([]) == ([], [])
