"""``import landmarklabel`` loads nothing and changes nothing; its names are there all the same, for people and type checkers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import landmarklabel as ll
from landmarklabel.io.images import write_image
from landmarklabel.io.itk_warnings import without_itk_warnings

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "SimpleITK", "sqlalchemy", "numpy", "scipy", "matplotlib", "pandas", "nibabel", "pydicom")
TYPED = ("__init__", "api", "evaluation", "landmarks", "display", "task_faults", "plugins", "extending", "store/opening")


def python(code: str, **environment: str) -> str:
    """What a program prints that inherits nothing which the package might have set in this process."""
    clean = {k: os.environ[k] for k in ("PATH", "HOME", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH") if k in os.environ}
    clean |= {"PYTHONPATH": str(ROOT / "lib"), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_and_changes_nothing():
    code = f"""
import logging, os, signal, sys, threading, warnings
before = dict(os.environ), logging.root.handlers[:], warnings.filters[:], threading.active_count(), set(sys.modules)
import landmarklabel
assert dict(os.environ) == before[0] and logging.root.handlers == before[1] and warnings.filters == before[2]
assert threading.active_count() == before[3]
print([name for name in {HEAVY!r} if name in sys.modules])
print(sorted(name for name in set(sys.modules) - before[4] if name.startswith("landmarklabel")))
"""
    assert python(code) == "[]\n['landmarklabel']"


def test_using_everything_in_it_changes_nothing_either():
    code = """
import os
before = dict(os.environ)
import landmarklabel as ll
for name in ll.__all__:
    getattr(ll, name)
import SimpleITK, torch
after = {k: v for k, v in os.environ.items() if k.startswith(("OPENBLAS", "OMP", "MKL", "ITK"))}
print(after, SimpleITK.ProcessObject.GetGlobalWarningDisplay(), torch.get_num_threads() > 0)
"""
    assert python(code) == "{} True True"


def test_every_name_is_there_and_listed():
    assert set(ll.__all__) <= set(dir(ll))
    assert all(getattr(ll, name) is not None for name in ll.__all__)
    assert ll.LandmarkSet.__module__ == "landmarklabel.landmarks" and ll.load_model.__module__ == "landmarklabel.api"
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = ll.load_modle


def test_the_command_line_sets_its_threads_itself():
    code = """
import os, sys
import landmarklabel.cli
print(os.environ.get("OPENBLAS_NUM_THREADS"), "numpy" in sys.modules)
try: landmarklabel.cli.main(["--version"])
except SystemExit: pass
print(os.environ["OPENBLAS_NUM_THREADS"])
"""
    assert python(code).split() == ["None", "False", "landmarklabel", ll.__version__, "1"]
    assert python(code, OPENBLAS_NUM_THREADS="3").split()[-1] == "3"


@pytest.mark.parametrize("shown", [True, False])
def test_itks_warnings_are_as_they_were_after_reading_and_writing(tmp_path, shown):
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    try:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
        write_image(tmp_path / "a.nrrd", ll.Image(ll.ImageGeometry.identity((3, 2)), np.zeros((2, 3), np.uint8)))
        ll.read_image(tmp_path / "a.nrrd")
        with pytest.raises(ll.LandmarkLabelError):
            ll.read_image(tmp_path / "b.nrrd")
        assert sitk.ProcessObject.GetGlobalWarningDisplay() is shown
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def test_itks_warnings_stay_off_until_the_last_thread_has_read():
    entered, leave = threading.Event(), threading.Event()

    def long_read() -> None:
        with without_itk_warnings():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=long_read)
    thread.start()
    entered.wait(30)
    with without_itk_warnings():
        pass
    assert sitk.ProcessObject.GetGlobalWarningDisplay() is False
    leave.set()
    thread.join()
    assert sitk.ProcessObject.GetGlobalWarningDisplay() is True


def test_the_public_interface_is_fully_typed():
    files = [str(ROOT / "lib" / "landmarklabel" / f"{name}.py") for name in TYPED]
    words = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--config-file",
        str(ROOT / "setup.cfg"),
        *files,
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=900)
    if "No module named mypy" in done.stderr:
        pytest.skip("mypy is not installed")
    assert done.returncode == 0, done.stdout
    assert (ROOT / "lib" / "landmarklabel" / "py.typed").is_file()


def test_a_script_that_uses_it_is_checked_by_its_types(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import landmarklabel as ll\n"
        "def first(found: ll.LandmarkSet) -> float:\n"
        "    reveal_type(found['tip'].status)\n"
        "    reveal_type(ll.load_model)\n"
        "    return found['tip'].positon_mm\n"
        "ll.load_modle\n",
        encoding="utf-8",
    )
    words = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--config-file", str(ROOT / "setup.cfg"), str(script)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=900)
    if "No module named mypy" in done.stderr:
        pytest.skip("mypy is not installed")
    assert 'Revealed type is "landmarklabel.landmarks.Status"' in done.stdout
    assert "device: str" in done.stdout and "-> landmarklabel.api.Model" in done.stdout
    assert 'has no attribute "positon_mm"' in done.stdout and 'has no attribute "load_modle"' in done.stdout
