"""What others rely on is as it was recorded: options, routes, answers, settings, files, tables.

A change that is meant is recorded with ``python -m tests.contract.shapes``, and the difference read before it is committed.
"""

from __future__ import annotations

import json

import pytest
from tests.contract.shapes import RECORDED, START_SERVER, Example, answers, observe, served

SECTIONS = ("command line", "exits", "settings", "files", "database", "routes", "answers")


@pytest.fixture(scope="module")
def now() -> dict:
    return observe()


@pytest.mark.parametrize("section", SECTIONS)
def test_what_others_rely_on_is_as_it_was(section, now):
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert set(recorded) == set(SECTIONS)
    before, after = recorded[section], now[section]
    if isinstance(before, list):
        assert after == before
        return
    assert sorted(after) == sorted(before)
    for key, value in before.items():
        assert after[key] == value, key


def test_monailabels_own_command_serves_the_same_answers(tmp_path):
    example, recorded = Example(tmp_path), json.loads(RECORDED.read_text(encoding="utf-8"))["answers"]
    with served(example, START_SERVER, ("--conf", "models", "scn")) as url:
        seen = json.loads(json.dumps(answers(url, example)))
    assert sorted(seen) == sorted(recorded)
    for key, value in recorded.items():
        assert seen[key] == value, key
