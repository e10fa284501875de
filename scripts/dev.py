"""The verbs people and CI share: ``python scripts/dev.py setup|demo|test|release-check|lint|bench``. Standard library only.

Each verb makes ``.venv`` beside the checkout's files and installs the pinned dependencies first, if that was not done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "landmarklabel-setup"
TORCH = "torch==2.13.0"
WITHOUT_DEPENDENCIES = ("monailabel==0.8.5", "pydicom-seg==0.4.1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("setup", help="make .venv and install everything")
    verbs.add_parser("demo", help="the whole loop on synthetic cases; writes a report").set_defaults(rest=True)
    verbs.add_parser("test", help="what CI runs; --fast: a minute and a half; other words go to pytest").set_defaults(rest=True)
    verbs.add_parser("release-check", help="everything in full and a fresh environment; over an hour").set_defaults(rest=True)
    verbs.add_parser("lint", help="ruff over everything")
    verbs.add_parser("bench", help="speed and memory figures as JSON").set_defaults(rest=True)
    arguments, rest = parser.parse_known_args()
    if rest and not getattr(arguments, "rest", False):
        parser.error(f"unknown words: {' '.join(rest)}")
    setup()
    doing = {"setup": lambda _: 0, "demo": demo, "test": test, "release-check": release_check, "lint": lint, "bench": bench}
    return doing[arguments.verb](rest)


def setup() -> None:
    """Make the environment once; again when a pinned version changes."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        sys.exit(f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}; run me with another one")
    wanted = hashlib.sha256(
        b"".join((SCRIPTS / name).read_bytes() for name in ("requirements.txt", "constraints.txt", "dev.py"))
        + (ROOT / "setup.cfg").read_bytes()
    ).hexdigest()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted:
        return
    print("setting up .venv (once, a few minutes) …", flush=True)
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    constraints = ["-c", str(SCRIPTS / "constraints.txt")]
    pip(TORCH, *constraints)
    pip("-r", str(SCRIPTS / "requirements.txt"), *constraints)
    pip("--no-deps", *WITHOUT_DEPENDENCIES)  # last: pip would complain of what they lack at every later install
    pip("--no-deps", "--no-build-isolation", "-e", str(ROOT))
    STAMP.write_text(wanted, encoding="utf-8")


def pip(*words: str) -> None:
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(f"installing failed: pip install {' '.join(words)}")


def run(*words: str) -> int:
    """Run a program of the environment; its folder comes first on PATH, as if the environment were activated."""
    path = f"{PYTHON.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        return subprocess.run([str(PYTHON), *words], cwd=ROOT, env={**os.environ, "PATH": path}).returncode
    except KeyboardInterrupt:
        return 130


def demo(rest: list[str]) -> int:
    return run("-m", "landmarklabel", "demo", *rest)


def test(rest: list[str]) -> int:
    """Everything CI runs, one worker a core, then what holds times, alone; the fast tier; or just what the words say."""
    if rest == ["--fast"]:
        sys.path.insert(0, str(ROOT))
        from tests.tiers import FAST

        return run("-m", "pytest", *_workers(), "-m", "not slow and not timed and not release", *FAST)
    if rest:
        return run("-m", "pytest", *rest)
    whole = run("-m", "pytest", *_workers(), "-m", "not timed and not release")
    return whole or run("-m", "pytest", "-m", "timed and not release")


def _workers() -> tuple[str, ...]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return "-n", str(min(cores, 8)), "--dist", "loadfile", "--no-loadscope-reorder"


def release_check(rest: list[str]) -> int:
    """What is run before a release; the result goes to scripts/results/release_check.json."""
    os.environ["LANDMARKLABEL_TESTS"] = "thorough"
    parts = {
        "lint": lambda: lint([]),
        "suite": lambda: test([]),
        "release tests": lambda: run("-m", "pytest", "-m", "release"),
        "fresh environment": fresh_environment,
    }
    if rest and rest[0] not in parts:
        print(f"no part called {rest[0]!r}; there are {', '.join(parts)}", file=sys.stderr)
        return 2
    results = []
    for name, check in parts.items():
        if rest and name != rest[0]:
            continue
        begun = time.monotonic()
        passed = check() == 0
        results.append({"part": name, "passed": passed, "minutes": round((time.monotonic() - begun) / 60, 1)})
        print(f"{name}: {'passed' if passed else 'FAILED'} after {results[-1]['minutes']} minutes", flush=True)
    passed = all(part["passed"] for part in results)
    if not rest:  # only a whole check is a result
        _write_release_check(passed, results)
    return 0 if passed else 1


def fresh_environment() -> int:
    """A clone of the last commit sets itself up in a new folder, and its program starts."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "landmarklabel"
        commands = (["git", "clone", "-q", str(ROOT), str(clone)], [sys.executable, str(clone / "scripts" / "dev.py"), "setup"])
        for command in commands:
            if code := subprocess.call(command):
                return code
        python = clone / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        return subprocess.call([str(python), "-m", "landmarklabel", "doctor"], cwd=folder)


def _write_release_check(passed: bool, parts: list[dict]) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    content = {
        "passed": passed,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit,
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "parts": parts,
    }
    (ROOT / "scripts" / "results" / "release_check.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def lint(rest: list[str]) -> int:
    return run("-m", "ruff", "check", "lib", "apps", "scripts", "slicer_extension", "tests", *rest)


def bench(rest: list[str]) -> int:
    return run(str(SCRIPTS / "bench.py"), *rest)


if __name__ == "__main__":
    sys.exit(main())
