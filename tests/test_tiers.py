"""The tiers of the suite: every test is of one, what the table names is there, and nothing falls between them."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.durations import recorded
from tests.tiers import FAST, RELEASE, SLOW, TIERS, belongs, markers_of, tier_of

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py"))
FAST_FILES = [
    file for file in FILES if any(belongs(file, place) for place in FAST) and not any(belongs(file, place) for place in SLOW)
]
FAST_S, WHOLE_S = 90, 20 * 60  # what the tiers may take with two workers
START_S = 10  # what a run takes besides its tests: workers start, and every one of them looks through the files
SERVERS = re.compile(r"^(from|import) (serving|qt_harness|tests\.store\.pg_server)\b|[(, ]running_server\b", re.MULTILINE)


def text(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("start", [*SLOW, *RELEASE])
def test_what_a_tier_names_is_there(start):
    file, _, test = start.partition("::")
    if "*" in file:
        assert any(path.startswith(file.partition("*")[0]) for path in FILES)
    elif "*" in test:
        assert f"def {test.partition('*')[0]}" in text(file)
    else:
        assert not test or f"def {test.partition('[')[0]}(" in text(file)


def test_the_places_of_the_fast_tier_are_there():
    assert [place for place in FAST if not (ROOT / place).exists()] == []


def test_a_test_is_marked_by_its_id_and_not_by_a_name_that_begins_alike():
    assert markers_of("tests/store/test_races.py::test_a[x]") == ["slow"]
    assert markers_of("tests/test_readme_run.py::test_the_block_runs") == ["release"]
    assert markers_of("tests/store/test_races.pyx::test_a") == ["fast"] and markers_of("tests/test_readme.py::test_a") == []
    one = "tests/slicer/test_end_to_end.py::test_a_round_on_real_images"
    assert markers_of(f"{one}[mouse_skull-5]") == ["release"] and markers_of(f"{one}[hand_xray-8]") == []
    assert markers_of("tests/server/test_stock_client.py::test_a[hands]") == ["release"]
    assert markers_of("tests/server/test_stock_client.py::test_a[phantoms]") == []
    assert markers_of("tests/store/test_study.py::test_a[postgresql-3]") == ["slow"]
    assert markers_of("tests/store/test_study.py::test_a[sqlite-3]") == ["fast"]


@pytest.mark.parametrize("own", [{"slow"}, {"timed"}, {"release"}])
def test_what_a_marker_keeps_out_of_the_fast_tier_is_not_of_it(own):
    assert markers_of("tests/test_metrics.py::test_a") == ["fast"]
    assert markers_of("tests/test_metrics.py::test_a", own) == []


def test_a_test_is_of_one_tier():
    assert [tier_of(x) for x in ({"fast"}, {"slow"}, {}, {"slow", "timed"}, {"timed", "release"})] == [
        *("fast", "whole", "whole", "timed", "release")
    ]


# --- what the commands collect ---------------------------------------------------------------------------------------


def collected(*words: str) -> set[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-o", "addopts=--strict-markers", "-q", *words]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=500, check=False, encoding="utf-8")
    assert said.returncode in (0, 5), said.stdout[-2000:]
    return {line for line in said.stdout.splitlines() if "::" in line}


@pytest.mark.slow
def test_release_check_collects_what_the_table_names_and_every_test_is_run_by_one_command(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    dev = importlib.import_module("dev")
    files = sorted({place.partition("::")[0] for place in RELEASE} | {"tests/server/test_responsive.py", "tests/test_metrics.py"})
    release, suite, timed, everything = (
        collected(*words, *files) for words in (dev.release_tests(), expression(dev.suite()), expression(dev.timed_tests()), ())
    )
    for place in RELEASE:
        assert any(belongs(test, place) for test in release), f"no test is {place}"
    assert all(any(belongs(test, place) for place in RELEASE) for test in release)
    assert suite and timed and release | suite | timed == everything
    assert len(release) + len(suite) + len(timed) == len(everything)


def expression(words: tuple[str, ...]) -> tuple[str, ...]:
    """What a command says of markers."""
    return words[words.index("-m") :][:2]


@pytest.mark.parametrize("file", FILES)
def test_no_test_is_skipped_without_a_reason(file):
    """``release-check`` writes the reasons down, and fails for all but a few."""
    nodes = list(ast.walk(ast.parse(text(file))))
    calls = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name in ("pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"):
            assert id(node) in calls, f"{name} says nothing in line {node.lineno}"
            call = calls[id(node)]
            said = any(keyword.arg == "reason" for keyword in call.keywords) or (name == "pytest.skip" and call.args)
            assert said, f"{name} says nothing in line {node.lineno}"


def test_no_two_files_have_one_name():
    """pytest imports a test file by its name alone: of two it would run only one, and fail."""
    names = [Path(file).name for file in FILES]
    assert sorted(names) == sorted(set(names))


# --- the fast tier ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "package", sorted(p.parent.name for p in (ROOT / "lib" / "landmarklabel").glob("*/__init__.py")) + ["geometry", "metrics"]
)
def test_the_fast_tier_has_tests_of_every_package(package):
    used = re.compile(rf"\blandmarklabel(\.| import ){package}\b")
    assert any(used.search(text(file)) for file in FAST_FILES)


@pytest.mark.parametrize("file", FAST_FILES)
def test_the_fast_tier_starts_no_server(file):
    assert not SERVERS.search(text(file))


# --- what they take --------------------------------------------------------------------------------------------------


def test_the_tiers_take_no_longer_than_they_may():
    known = recorded()
    assert tuple(known) == TIERS
    total = {tier: sum(files.values()) for tier, files in known.items()}
    assert START_S + total["fast"] / 2 <= FAST_S
    assert 3 * START_S + (total["fast"] + total["whole"]) / 2 + total["timed"] <= WHOLE_S
    assert total["release"] > 0


def test_most_files_have_been_measured():
    """A new one may wait for the next record; it is begun first until then."""
    known = set().union(*recorded().values())
    assert len([file for file in FILES if file in known]) > 0.9 * len(FILES)
