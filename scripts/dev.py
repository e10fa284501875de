"""The verbs people and CI share: ``python scripts/dev.py VERB``. Standard library only.

Each verb but ``wheelhouse`` makes ``.venv`` beside the checkout's files first, if that was not done: with the pinned versions
under Python 3.11 and 3.12, with the newest of everything from 3.13 on.
``VERB --help`` says more of a verb.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import release_check
import web
import wheelhouse

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
NEWEST = sys.version_info >= (3, 13)
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "landmarklabel-setup"
TORCH = "torch==2.13.0"
WITHOUT_DEPENDENCIES = ("monailabel==0.8.5", "pydicom-seg==0.4.1")
TESTS = """Without words: what CI runs, at most 20 minutes on two quiet cores; one worker a core, then what holds a time, alone.
With --fast: a minute and a half at most, and nothing of the network. Other words go to pytest and say what runs:

  python scripts/dev.py test tests/store -k revisions

tests/tiers.py says which test runs when. What takes longest is left to release-check.
"""


def main() -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args()
    if rest and not getattr(arguments, "rest", False):
        parser.error(f"unknown words: {' '.join(rest)}")
    if arguments.verb != "wheelhouse":
        setup()
    doing = {"setup": lambda *_: 0, "demo": demo, "test": test, "release-check": check_release, "lint": lint, "bench": bench}
    doing["wheelhouse"] = make_wheelhouse
    return doing[arguments.verb](rest, arguments)


def _parser() -> argparse.ArgumentParser:
    as_written = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser(description=__doc__, **as_written)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("setup", help="make .venv and install everything")
    verbs.add_parser("demo", help="the whole loop on synthetic cases; writes a report").set_defaults(rest=True)
    testing = verbs.add_parser("test", help="what CI runs; --fast: a minute and a half", description=TESTS, **as_written)
    testing.set_defaults(rest=True)
    testing.add_argument("--fast", action="store_true", help="only what needs no server, no training and no browser")
    testing.add_argument(
        "--record-durations", action="store_true", help="also write what the test files take to tests/durations.json"
    )
    about = {"help": "everything in full and a fresh environment; over two hours", "description": release_check.DESCRIPTION}
    check = verbs.add_parser("release-check", **about, **as_written)
    check.add_argument("--only", choices=release_check.PARTS, metavar="PART", help="only this part")
    verbs.add_parser("lint", help="ruff over everything")
    verbs.add_parser("bench", help="speed and memory figures as JSON").set_defaults(rest=True)
    about = {"help": "a folder to install from without internet", "description": wheelhouse.__doc__}
    house = verbs.add_parser("wheelhouse", **about, **as_written)
    house.add_argument("folder", metavar="FOLDER", type=Path)
    house.set_defaults(rest=True)
    return parser


def setup() -> None:
    """Make the environment once; again when a pinned version changes."""
    if sys.version_info < (3, 11):  # noqa: UP036  # it is said, where a syntax error would not say it
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; run me with another one")
    wanted = hashlib.sha256(
        b"".join((SCRIPTS / name).read_bytes() for name in ("requirements.txt", "constraints.txt", "dev.py"))
        + (ROOT / "setup.cfg").read_bytes()
    ).hexdigest()
    _check_python()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted:
        _build_front_end()
        return
    print("setting up .venv (once, a few minutes) …", flush=True)
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    constraints = [] if NEWEST else ["-c", str(SCRIPTS / "constraints.txt")]
    print("  PyTorch …", flush=True)
    pip("torch" if NEWEST else TORCH, *constraints)
    print("  everything else …", flush=True)
    pip("-r", str(SCRIPTS / "requirements.txt"), *constraints)
    pip("--no-deps", "--no-build-isolation", "-e", str(ROOT))
    if not NEWEST:
        pip("--no-deps", *WITHOUT_DEPENDENCIES)  # last: pip would complain of what they lack at every later install
    elif run("-m", "landmarklabel", "setup-monailabel"):
        sys.exit("installing MONAI Label failed")
    _build_front_end()
    STAMP.write_text(wanted, encoding="utf-8")
    print("set up; to use it: source .venv/bin/activate", flush=True)


def _build_front_end() -> None:
    """What browsers show; all else works without it, so a failure is said and ends nothing."""
    try:
        if not web.is_built():
            print("  the browser front end …", flush=True)
            if not web.has_node(str(PYTHON)):
                pip(web.NODE_PACKAGE)
            web.build(str(PYTHON))
    except (web.WebError, SystemExit) as error:
        print(f"the browser front end was not built, so /annotate/ does not answer: {error}", flush=True)


def _check_python() -> None:
    """The versions go by the Python, so an environment of another one is not changed."""
    if not PYTHON.exists():
        return
    made = re.search(r"^version *= *(\d+\.\d+)", (VENV / "pyvenv.cfg").read_text(encoding="utf-8"), re.MULTILINE)
    own = "{}.{}".format(*sys.version_info)
    if made and made[1] != own:
        sys.exit(f".venv was made with Python {made[1]}, this is {own}: run me with that one, or remove .venv")


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


def demo(rest: list[str], _: argparse.Namespace) -> int:
    return run("-m", "landmarklabel", "demo", *rest)


def test(rest: list[str], arguments: argparse.Namespace) -> int:
    """The tiers that CI runs; the fast one; or just what the words say."""
    if arguments.record_durations:
        rest = [*rest, "--record-durations"]
    if arguments.fast:
        return run("-m", "pytest", *fast_tests(), *rest)
    if [word for word in rest if word != "--record-durations"]:
        return run("-m", "pytest", *rest)
    return run("-m", "pytest", *suite(), *rest) or run("-m", "pytest", *timed_tests(), *rest)


def fast_tests() -> tuple[str, ...]:
    sys.path.insert(0, str(ROOT))
    from tests.tiers import FAST

    return *_workers(), "-m", "fast", *FAST


def suite() -> tuple[str, ...]:
    return *_workers(), "-m", "not timed and not release"


def timed_tests() -> tuple[str, ...]:
    """Only the files that have such a test: to look through all takes half a minute."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.timed" in path.read_text(encoding="utf-8")]
    return "-m", "timed and not release", *(str(path.relative_to(ROOT)) for path in files)


def thorough_tests() -> tuple[str, ...]:
    """The files with tests that repeat more in full."""
    files = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if "thoroughness import" in p.read_text(encoding="utf-8")]
    return *_workers(), "-m", "not timed and not release", *(str(path.relative_to(ROOT)) for path in files)


def release_tests() -> tuple[str, ...]:
    return "-m", "release"


def _workers() -> tuple[str, ...]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return "-n", str(min(cores, 8)), "--dist", "loadfile", "--no-loadscope-reorder"


def check_release(_: list[str], arguments: argparse.Namespace) -> int:
    served = "tests/server/test_stock_client.py", "tests/server/test_running.py"
    parts = {
        "lint": lambda: release_check.Outcome(lint() == 0),
        "suite": lambda: release_check.tested(run, *suite()),
        "timed": lambda: release_check.tested(run, *timed_tests()),
        "thorough": lambda: release_check.tested(run, *thorough_tests()),
        "release": lambda: release_check.tested(run, *release_tests()),
        "fresh": release_check.fresh_environment,
        "newest": lambda: release_check.newest(fast_tests(), served),
        "wheel": release_check.wheel_everywhere,
    }
    return release_check.check(parts, _about, arguments.only)


def _about() -> dict:
    """The program and the machine, as the environment knows them."""
    ask = "import json, landmarklabel, experiment as e, platform as p; about = dict(version=landmarklabel.__version__)"
    ask += "; print(json.dumps(about | dict(python=p.python_version(), hardware=e.hardware())))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")])}
    said = subprocess.run([str(PYTHON), "-c", ask], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(said.stdout.splitlines()[-1])


def lint(*_: object) -> int:
    return run("-m", "ruff", "check", "lib", "apps", "scripts", "slicer_extension", "tests")


def make_wheelhouse(rest: list[str], arguments: argparse.Namespace) -> int:
    return wheelhouse.make(arguments.folder, rest)


def bench(rest: list[str], _: argparse.Namespace) -> int:
    return run(str(SCRIPTS / "bench.py"), *rest)


if __name__ == "__main__":
    sys.exit(main())
