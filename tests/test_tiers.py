"""The tiers of the suite name tests that are there, and nothing falls between them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiers import FAST, RELEASE, SLOW, markers_of

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("start", [*SLOW, *RELEASE])
def test_what_a_tier_names_is_there(start):
    file, _, test = start.partition("::")
    name = test.partition("[")[0]
    text = (ROOT / file).read_text(encoding="utf-8")
    assert not name or f"def {name}(" in text


def test_the_folders_of_the_fast_tier_are_there():
    assert [place for place in FAST if not (ROOT / place).exists()] == []


def test_a_test_is_marked_by_its_id_and_not_by_a_name_that_begins_alike():
    assert markers_of("tests/store/test_races.py::test_a[x]") == ["slow"]
    assert markers_of("tests/test_readme_run.py::test_the_block_runs") == ["release"]
    assert markers_of("tests/store/test_races.pyx::test_a") == [] and markers_of("tests/test_metrics.py::test_a") == []
    one = "tests/slicer/test_end_to_end.py::test_a_round_on_real_images"
    assert markers_of(f"{one}[mouse_skull-5]") == ["release"] and markers_of(f"{one}[hand_xray-8]") == []
