"""What is run before a release: ``python scripts/dev.py release-check [--only PART]``. Standard library only.

What every part came to is kept in ``scripts/results/release_check.json``, so the parts may run one by one, on several days. The
check has passed when all of them passed on the same commit, without changes that are not committed. A test that is skipped fails
its part, unless its reason is one of ``MAY_SKIP``: nobody believes that something was tried which was not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "scripts" / "results" / "release_check.json"
PARTS = {
    "lint": "ruff over everything",
    "suite": "the tests of CI, as CI runs them",
    "timed": "the tests that hold a time, alone",
    "thorough": "of the tests of CI, those that repeat what may fail by chance: in full",
    "release": "the tests that only this check runs, in full; tests/tiers.py says which and why",
    "fresh": "a clone of the last commit sets itself up in a new folder; its doctor and README's commands run there",
    "newest": "the same with the newest Python and everything newest; the fast tests run there, and those of both entrances",
    "wheel": "the wheel alone, in a fresh environment of every Python it is for: scripts/wheel_check.py",
}
IN_FULL = ("thorough", "release")  # parts in which tests repeat so often as ``tests/thoroughness.py`` says
PYTHONS = ("python3.11", "python3.12", "python3.13")  # that the wheel is tried with
# Beginnings of the reasons for which a test may be skipped here, and what that means.
MAY_SKIP = {
    "this machine has a GPU": "it is about what is said without one",
    "root may write everywhere": "it is about folders that other users may not write to",
    "only a database server is elsewhere": "the test runs on PostgreSQL, and has no meaning on SQLite",
}
DESCRIPTION = f"""Runs everything in full, more than two hours on two cores, and writes what passed to {RESULT.relative_to(ROOT)}.

parts:
""" + "\n".join(f"  {name:10}{what}" for name, what in PARTS.items())


@dataclass
class Outcome:
    """What a part came to. ``tests`` ran, ``skipped`` are reasons that nobody allowed."""

    passed: bool
    tests: int | None = None
    skipped: list[str] = field(default_factory=list)


def check(parts: dict[str, Callable[[], Outcome]], about: Callable[[], dict], only: str | None = None) -> int:
    """Run the parts, or one of them, keep what they came to, and answer with the code of the program."""
    done = []
    for number, name in enumerate(PARTS, 1):
        if only not in (None, name):
            continue
        print(f"[{number}/{len(PARTS)}] {name}: {PARTS[name]} …", flush=True)
        os.environ["LANDMARKLABEL_TESTS"] = "thorough" if name in IN_FULL else ""
        begun, where = time.monotonic(), commit()
        outcome = parts[name]()
        minutes = round((time.monotonic() - begun) / 60, 1)
        done.append({"name": name, **vars(outcome), "minutes": minutes, "commit": where, "date": today()})
        _keep(done[-1], about())
        for reason in outcome.skipped:
            print(f"    skipped, so not tried: {reason}")
        print(f"    {'passed' if outcome.passed else 'FAILED'} after {minutes} minutes", flush=True)
    return 0 if all(part["passed"] for part in done) else 1


def _keep(part: dict, about: dict) -> None:
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"parts": []}
    RESULT.write_text(json.dumps(together(before["parts"], part, about), indent=1) + "\n", encoding="utf-8")


def together(before: list[dict], part: dict, about: dict) -> dict:
    """The content of the file: this part beside what the others came to before."""
    by_name = {old["name"]: old for old in before} | {part["name"]: part}
    parts = [by_name[name] for name in PARTS if name in by_name]
    one_commit = {p["commit"] for p in parts} == {part["commit"]} and not part["commit"].endswith("+changes")
    return {
        "passed": len(parts) == len(PARTS) and one_commit and all(p["passed"] for p in parts),
        "date": part["date"],
        "commit": part["commit"],
        **about,
        "minutes": round(sum(p["minutes"] for p in parts), 1),
        "parts": parts,
    }


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def commit() -> str:
    """The checked-out commit; ``+changes`` where a file differs from it, but for the result itself."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", f":!{RESULT.relative_to(ROOT).as_posix()}")
    return git("rev-parse", "HEAD") + ("+changes" if changed else "")


def tested(run: Callable[..., int], *words: str) -> Outcome:
    """Run pytest by ``run``; no test at all is a failure, and so is a skipped one, but for ``MAY_SKIP``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = run("-m", "pytest", *words, f"--junitxml={report}")
        if not report.exists():
            return Outcome(False)
        return judged(code, report.read_text(encoding="utf-8"))


def judged(code: int, report: str) -> Outcome:
    """What pytest's code and its report in JUnit's format come to."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    reasons = {
        f"{case.get('classname')}.{case.get('name')}: {skip.get('message')}"
        for case in cases
        for skip in case.iter("skipped")
        if not (skip.get("message") or "").startswith(tuple(MAY_SKIP))
    }
    ran = sum(case.find("skipped") is None for case in cases)
    return Outcome(code == 0 and ran > 0 and not reasons, ran, sorted(reasons))


def wheel_everywhere() -> Outcome:
    """The wheel with every one of ``PYTHONS``; one that this machine has not is not tried, and that is a failure."""
    there = [name for name in PYTHONS if _runs(name)]
    words = [word for name in there for word in ("--python", name)]
    code = subprocess.call([sys.executable, str(ROOT / "scripts" / "wheel_check.py"), "--no-result", *words]) if there else 1
    missing = [f"{name} is not on the path" for name in PYTHONS if name not in there]
    return Outcome(code == 0 and not missing, len(there), missing)


def _runs(program: str) -> bool:
    try:
        return subprocess.run([program, "-c", "pass"], capture_output=True).returncode == 0
    except OSError:
        return False


def fresh_environment() -> Outcome:
    """A clone of the last commit, set up in a new folder as README says; nothing of this checkout is used."""
    return _in_clone(sys.executable, [("tests/test_readme_run.py",)])


def newest(*tests: tuple[str, ...]) -> Outcome:
    """The same with the newest of ``PYTHONS``, for which setup installs the newest of everything."""
    python = PYTHONS[-1]
    if not _runs(python):
        return Outcome(False, 0, [f"{python} is not on the path"])
    return _in_clone(python, tests)


def _in_clone(interpreter: str, tests: Sequence[tuple[str, ...]]) -> Outcome:
    own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANDMARKLABEL_TESTS")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment.setdefault("LANDMARKLABEL_DATA", str(ROOT.parent / "shared" / "data"))  # a clone has none beside it
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "landmarklabel"

        def call(*words: str | Path) -> int:
            return subprocess.call([*map(str, words)], cwd=clone if clone.exists() else folder, env=environment)

        if call("git", "clone", "-q", ROOT, clone) or call(interpreter, "scripts/dev.py", "setup"):
            return Outcome(False)
        python = clone / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if call(python, "-m", "landmarklabel", "doctor"):
            return Outcome(False)
        came_to = [tested(lambda *words: call(python, *words), *words) for words in tests]
        ran, skipped = sum(one.tests or 0 for one in came_to), [reason for one in came_to for reason in one.skipped]
        return Outcome(all(one.passed for one in came_to), ran, skipped)
