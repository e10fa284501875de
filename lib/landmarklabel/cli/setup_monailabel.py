"""``setup-monailabel``: MONAI Label beside this program, in the same environment and without what nobody here uses."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

from landmarklabel.errors import UsageError

VERSION = "0.8.5"  # the newest there is, of November 2024
# What its server imports. All that it asks for would be 6 GB more (sam2, mlflow, openslide, …), with numpy below 2 and pydicom
# below 3; no extra of a package can leave out a dependency's dependencies, hence this verb.
NEEDED = (
    "bcrypt",
    "cachetools",
    "dicomweb-client",
    "expiring_dict",
    "expiringdict",
    "fastapi",
    "girder-client",
    "google-auth",
    "itk-core",
    "monai",
    "passlib",
    "pydantic-settings",
    "pyjwt",
    "pynetdicom",
    "pynrrd",
    "python-dotenv",
    "python-multipart",
    "pytorch-ignite",
    "pyyaml",
    "requests",
    "requests-toolbelt",
    "schedule",
    "scikit-learn",
    "shapely",
    "timeloop",
    "uvicorn",
    "watchdog",
)
_CGI_LEFT = (3, 13)  # the Python from which on MONAI Label's client needs legacy-cgi
# MONAI Label imports pydicom_seg before any app is loaded; its last release cannot be imported beside pydicom 3, and landmarks
# are no DICOM segmentations. This stands in for it, in the environment only.
_SHIM = '''"""Stands in for pydicom-seg, which cannot be imported here. Made by landmarklabel setup-monailabel."""


def __getattr__(name):
    raise ImportError(f"pydicom_seg.{name} is not there: pydicom-seg cannot be installed beside this pydicom")
'''
# The app that MONAI Label starts, as in apps/landmarks of the repository.
APP = '''"""LandmarkLabel as a MONAI Label app.

    monailabel start_server --app apps/landmarks --studies STUDY --conf task hand_xray --conf models scn

Everything lives in the package ``landmarklabel``; MONAI Label finds the one class below.
"""

from landmarklabel.server.running import starting

with starting():  # a taken port is said before anything slow is imported
    from landmarklabel.server.monailabel import LandmarkApp

__all__ = ["LandmarkApp"]
'''
_CHECK = "import monailabel.app, monailabel.client"


def setup_monailabel(args: argparse.Namespace) -> None:
    """Install MONAI Label into the environment of this program. Raises UsageError where that fails."""
    extra = ["legacy-cgi"] if sys.version_info >= _CGI_LEFT else []
    if not args.check:
        print(f"installing MONAI Label {VERSION} and what its server imports …", flush=True)
        _pip("install", *NEEDED, *extra)
        _pip("install", "--no-deps", f"monailabel=={VERSION}")
        if stand_in := put_shim():
            print(f"{stand_in}: stands in for pydicom-seg")
    if args.app:
        put_app(Path(args.app))
    check = subprocess.run([sys.executable, "-c", _CHECK], capture_output=True, text=True, encoding="utf-8", errors="replace")
    if check.returncode:
        reason = (check.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UsageError(f"MONAI Label cannot be imported here: {reason}; install it with landmarklabel setup-monailabel")
    print(f"MONAI Label can be used: monailabel start_server --app {args.app or 'apps/landmarks'} --studies STUDY")


def put_app(folder: Path) -> None:
    """Write the app into a folder. Raises UsageError: it has another ``main.py``."""
    file = folder / "main.py"
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != APP:
        raise UsageError(f"{file} is another program's: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(APP, encoding="utf-8")


def put_shim() -> Path | None:
    """Put the stand-in where ``pydicom_seg`` cannot be imported; its folder, or None where it is not needed."""
    if subprocess.run([sys.executable, "-c", "import pydicom_seg"], capture_output=True).returncode == 0:
        return None
    if importlib.util.find_spec("pydicom_seg") is not None:  # there, but of no use: the stand-in must come first
        _pip("uninstall", "-y", "pydicom-seg")
    folder = Path(sysconfig.get_path("purelib")) / "pydicom_seg"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").write_text(_SHIM, encoding="utf-8")
    return folder


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
    if subprocess.run(command).returncode:
        raise UsageError(f"pip could not do this: {' '.join(command[2:])}")
