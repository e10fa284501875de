"""What systems do differently is in one module; the rest runs where the Unix parts are not to be had."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from landmarklabel.portability import Parent, available_cores, end_with_children, identity_of, sync_to_disk

LIB = Path(__file__).resolve().parents[1] / "lib" / "landmarklabel"
UNIX = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog", "posix"}
UNIX_CALLS = {"fork", "killpg", "setsid", "sched_getaffinity", "sched_setaffinity", "setpriority", "getppid", "getuid", "mkfifo"}
UNIX_CALLS |= {"register_at_fork"}
# For Linux alone, asked for by name there, with another way beside it
ALLOWED = {"portability.py", "io/atomic_exchange.py"}


@pytest.mark.parametrize("path", sorted(LIB.rglob("*.py")), ids=lambda p: p.relative_to(LIB).as_posix())
def test_only_one_module_uses_what_a_system_may_lack(path):
    if path.relative_to(LIB).as_posix() in ALLOWED:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not UNIX & set(names), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in UNIX_CALLS, f"os.{node.attr} in line {node.lineno}"


@pytest.mark.slow
def test_everything_imports_and_a_study_works_without_the_unix_parts(tmp_path):
    """As on Windows: the modules are not there, and os lacks the functions."""
    code = f"""
import os, sys
for name in "torch SimpleITK nibabel pydicom psutil sqlalchemy.dialects.sqlite filelock matplotlib.pyplot tqdm".split():
    __import__(name)  # they have their own ways
for name in "scipy.optimize scipy.cluster.hierarchy fastapi uvicorn prometheus_client jwt urllib3 PIL.Image monai".split():
    __import__(name)
for name in {sorted(UNIX - {"posix"})!r}:
    sys.modules[name] = None
for name in {sorted(UNIX_CALLS - {"getppid"})!r} + ["O_NOFOLLOW", "statvfs", "chown"]:
    if hasattr(os, name):
        delattr(os, name)
sys.platform = "win32-like"
import importlib, pkgutil, landmarklabel
for found in pkgutil.walk_packages(landmarklabel.__path__, "landmarklabel."):
    if found.name.rpartition(".")[2] not in ("__main__", "monailabel"):
        importlib.import_module(found.name)
import numpy as np, SimpleITK as sitk
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.services.backup import back_up, restore
from landmarklabel.store.study import Study
from pathlib import Path
folder = Path(sys.argv[1]) / "ein Ordner mit Ümläuten"
folder.mkdir()
task = LandmarkTask("t", ("a",), 2)
sitk.WriteImage(sitk.GetImageFromArray(np.arange(80, dtype=np.uint8).reshape(8, 10)), str(folder / "x.png"))
with Study(folder, task) as study:
    study.save("x", LandmarkSet.of_positions(task, np.array([[1.0, 2]])), author="ann")
    study.save("x", LandmarkSet.of_positions(task, np.array([[3.0, 2]])), author="ann")
back_up(folder, Path(sys.argv[1]) / "b.zip")
print(restore(Path(sys.argv[1]) / "b.zip", Path(sys.argv[1]) / "again"))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "2" and (tmp_path / "again" / "labels" / "final" / "x.mrk.json").is_file()


def test_a_process_ends_with_all_it_has_started():
    code = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(1, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
    assert len(family) == 2
    end_with_children(process.pid, seconds=20)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)
    process.wait()
    end_with_children(process.pid, seconds=1)  # one that is gone is no fault


def test_a_parent_that_has_ended_is_gone():
    assert not Parent().is_gone() and not Parent(os.getpid()).is_gone()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    parent = Parent(other.pid)
    assert not parent.is_gone()
    other.communicate(b"\n")
    assert parent.is_gone() and Parent(other.pid).is_gone()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system keeps when a process has begun")
def test_a_clock_that_is_set_ends_nobody(monkeypatch):
    parent, own = Parent(), identity_of(os.getpid())
    before = psutil.Process().create_time()
    booted = psutil._pslinux.boot_time
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted() + 3600)
    assert psutil.Process().create_time() > before + 3500  # it is as if the clock were set
    assert not parent.is_gone() and identity_of(os.getpid()) == own and len(own) == 3


def test_a_process_that_is_not_there_has_no_identity():
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert identity_of(other.pid) != identity_of(os.getpid()) != []
    other.communicate(b"\n")
    assert identity_of(other.pid) == []


def test_small_things(tmp_path):
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    (tmp_path / "a").write_text("x", encoding="utf-8")
    sync_to_disk(tmp_path / "a")
    sync_to_disk(tmp_path)
    code = "from landmarklabel.portability import give_way; import psutil; give_way(7); print(psutil.Process().nice())"
    environment = {**os.environ, "PYTHONPATH": str(LIB.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert int(done.stdout) >= 7
