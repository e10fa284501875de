"""The verbs people and CI share: ``python scripts/dev.py setup|demo|test|release-check|lint|bench``. Standard library only.

Each verb makes ``.venv`` beside the checkout's files and installs the pinned dependencies first, if that was not done.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
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
    verbs.add_parser("test", help="the whole test suite; further words go to pytest").set_defaults(rest=True)
    verbs.add_parser("release-check", help="the suite with every repetition in full; 40 minutes").set_defaults(rest=True)
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
    """Everything, one worker a core, then what holds times, alone; or just what the words say."""
    if rest:
        return run("-m", "pytest", *rest)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = ("-n", str(min(cores, 8)), "--dist", "loadfile", "--no-loadscope-reorder")
    return run("-m", "pytest", *workers, "-m", "not timed") or run("-m", "pytest", "-m", "timed")


def release_check(rest: list[str]) -> int:
    """What is run before an issue is closed."""
    os.environ["LANDMARKLABEL_TESTS"] = "thorough"
    return lint([]) or test(rest)


def lint(rest: list[str]) -> int:
    return run("-m", "ruff", "check", "lib", "apps", "scripts", "slicer_extension", "tests", *rest)


def bench(rest: list[str]) -> int:
    return run(str(SCRIPTS / "bench.py"), *rest)


if __name__ == "__main__":
    sys.exit(main())
