"""What ``scripts/dev.py release-check`` says of a run, and that the committed result has the form people read it in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from scripts import release_check
from scripts.release_check import PARTS, Outcome, check, judged, together

ABOUT = {"version": "0.1.0", "python": "3.11.7", "hardware": "a processor, 2 cores"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def part(name: str, **changes) -> dict:
    made = {"name": name, "passed": True, "tests": 3, "skipped": [], "minutes": 1.5, "commit": COMMIT, "date": "2026-11-27"}
    return made | changes


def check_form(content: dict) -> None:
    assert list(content) == ["passed", "date", "commit", "version", "python", "hardware", "minutes", "parts"]
    assert [p["name"] for p in content["parts"]] == [name for name in PARTS if name in {p["name"] for p in content["parts"]}]
    for dated in (content, *content["parts"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", dated["date"]) and re.fullmatch(r"[0-9a-f]{40}(\+changes)?", dated["commit"])
        assert isinstance(dated["passed"], bool) and dated["minutes"] >= 0
    for p in content["parts"]:
        assert set(p) == set(part("lint")) and (p["tests"] is None or p["tests"] >= 0) and isinstance(p["skipped"], list)
        assert not p["passed"] or not p["skipped"]
    whole = {p["name"] for p in content["parts"] if p["passed"] and p["commit"] == content["commit"]} == set(PARTS)
    assert content["passed"] == (whole and not content["commit"].endswith("+changes"))


def test_the_committed_result_has_its_form():
    if not release_check.RESULT.exists():
        pytest.skip("no release check yet")
    check_form(json.loads(release_check.RESULT.read_text(encoding="utf-8")))


def test_it_has_passed_when_all_parts_passed_on_one_commit():
    before = [part(name) for name in PARTS if name != "suite"]
    content = together(before, part("suite"), ABOUT)
    check_form(content)
    assert content["passed"] and content["minutes"] == 1.5 * len(PARTS)


@pytest.mark.parametrize(
    ("before", "last"),
    [
        ([], part("suite")),
        ([part(name) for name in PARTS], part("suite", passed=False)),
        ([part(name, passed=name != "release") for name in PARTS], part("suite")),
        ([part(name, commit=COMMIT[::-1]) for name in PARTS], part("suite")),
        ([part(name, commit=f"{COMMIT}+changes") for name in PARTS], part("suite", commit=f"{COMMIT}+changes")),
    ],
    ids=["parts missing", "this one failed", "another one failed", "another commit", "changes"],
)
def test_it_has_not_passed_otherwise(before, last):
    content = together(before, last, ABOUT)
    check_form(content)
    assert not content["passed"]


def report(*cases: str) -> str:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


RAN = '<testcase classname="tests.a" name="test_a"/>'


def skipped(reason: str) -> str:
    return f'<testcase classname="tests.a" name="test_b"><skipped type="pytest.skip" message="{reason}"/></testcase>'


def test_a_skipped_test_fails_its_part_and_the_reason_is_kept():
    assert judged(0, report(RAN, RAN)) == Outcome(True, 2)
    assert judged(0, report(RAN, skipped("no chromium"))) == Outcome(False, 1, ["tests.a.test_b: no chromium"])
    assert judged(0, report(RAN, skipped("root may write everywhere"))) == Outcome(True, 1)


def test_nothing_that_ran_and_a_failed_run_are_failures():
    assert not judged(0, report()).passed and not judged(1, report(RAN)).passed
    assert not judged(0, report(skipped("root may write everywhere"))).passed


def test_pytest_writes_the_report_that_is_read(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\n@pytest.mark.skip(reason='for no good one')\ndef test_b(): pass\n", encoding="utf-8"
    )

    def run(*words: str) -> int:
        return subprocess.call([sys.executable, *words, "-p", "no:cacheprovider"], cwd=tmp_path)

    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    assert release_check.tested(run, str(tmp_path)) == Outcome(False, 1, ["test_it.test_b: for no good one"])


def test_parts_run_one_by_one_and_what_they_came_to_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(release_check, "RESULT", tmp_path / "result.json")
    monkeypatch.setattr(release_check, "commit", lambda: COMMIT)
    monkeypatch.setenv("LANDMARKLABEL_TESTS", "")  # put back afterwards
    parts = {name: lambda: Outcome(True, 3) for name in PARTS}
    in_full = lambda: Outcome(os.environ["LANDMARKLABEL_TESTS"] == "thorough", 3)  # noqa: E731
    as_in_ci = lambda: Outcome(os.environ["LANDMARKLABEL_TESTS"] == "", 3)  # noqa: E731
    parts |= {"suite": as_in_ci, "timed": as_in_ci, "thorough": in_full, "release": in_full}
    read = lambda: json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))  # noqa: E731
    assert check(parts, lambda: ABOUT, "timed") == 0
    assert [p["name"] for p in read()["parts"]] == ["timed"] and not read()["passed"]
    assert check(parts, lambda: ABOUT) == 0 and read()["passed"]
    assert check(parts | {"suite": lambda: Outcome(False, 2, ["a: no chromium"])}, lambda: ABOUT, "suite") == 1
    check_form(read())
    assert not read()["passed"] and "a: no chromium" in capsys.readouterr().out


def test_a_python_that_is_not_there_was_not_tried(monkeypatch):
    monkeypatch.setattr(release_check, "PYTHONS", ("python9.9",))
    assert release_check.wheel_everywhere() == Outcome(False, 0, ["python9.9 is not on the path"])


def test_the_commit_says_whether_files_differ_from_it():
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", release_check.commit())
