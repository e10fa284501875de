"""A folder for machines without internet: ``python scripts/dev.py wheelhouse FOLDER [words for pip]``. Standard library only.

It holds the wheel of this checkout with its extra ``server`` and all that they need, for this Python and this system;
``sbom.json``, what that is, in CycloneDX's format; and ``INSTALL.txt``. Other words go to the ``pip wheel`` that collects them,
for example where the CPU's torch is:

  python scripts/dev.py wheelhouse FOLDER --index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple

It is tried before it is called done: a new environment is made from it without an index, and its doctor runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SBOM_MAKER = "cyclonedx-bom==7.5.0"
OFFLINE = ("--no-index", "--disable-pip-version-check", "-q")
INSTALL = """LandmarkLabel for Python {python} on {system}, without internet.
In the folder above this one, which is called {folder} here, with Python {python}:

  python -m venv landmarklabel-env
  {activate}
  python -m pip install --no-index --find-links {folder} "landmarklabel[server]"
  landmarklabel doctor

MONAI Label and the driver of PostgreSQL are not in it.

{count} packages; what they are, with versions and licences, is in sbom.json (CycloneDX).
"""


def make(folder: Path, words: Sequence[str] = ()) -> int:
    """Fill a folder, which must be new or empty; the program's exit code."""
    try:
        return _make(folder.resolve(), words)
    except KeyboardInterrupt:
        print(f"\n{folder} is not whole: stopped; remove it before you try again", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"{folder} cannot be filled ({error.filename or folder}: {error.strerror}): name another folder", file=sys.stderr)
        return 2


def _make(folder: Path, words: Sequence[str]) -> int:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        print(f"{folder} is there already: name a new or an empty folder", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    try:
        print("building the wheel …", flush=True)
        _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
        wheel = next(folder.glob("landmarklabel-*.whl"))
        print("collecting what it needs …", flush=True)
        _run(sys.executable, "-m", "pip", "wheel", "-q", "-w", folder, *words, f"{wheel}[server]")
        with tempfile.TemporaryDirectory() as place:
            print("installing it without an index …", flush=True)
            python = _environment(Path(place) / "tried")
            _run(python, "-m", "pip", "install", *OFFLINE, "--find-links", folder, "landmarklabel[server]")
            _run(python, "-m", "landmarklabel", "doctor")
            print("listing what is in it …", flush=True)
            maker = _environment(Path(place) / "maker")
            _run(maker, "-m", "pip", "install", "-q", SBOM_MAKER)
            _run(maker, "-m", "cyclonedx_py", "environment", "--of", "JSON", "-o", folder / "sbom.json", python)
    except subprocess.CalledProcessError as error:
        print(f"{folder} is not whole: {' '.join(map(str, error.cmd[:6]))} failed", file=sys.stderr)
        return 1
    count = len(list(folder.glob("*.whl")))
    activate = r"landmarklabel-env\Scripts\activate" if os.name == "nt" else ". landmarklabel-env/bin/activate"
    about = {"python": ".".join(map(str, sys.version_info[:2])), "system": sys.platform, "folder": folder.name}
    (folder / "INSTALL.txt").write_text(INSTALL.format(count=count, activate=activate, **about), encoding="utf-8")
    print(f"{folder}: {count} packages; INSTALL.txt says how to install them")
    return 0


def _environment(place: Path) -> Path:
    """A new environment; its interpreter."""
    _run(sys.executable, "-m", "venv", place)
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _run(*words: object) -> None:
    own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    subprocess.run([*map(str, words)], check=True, env=environment)
