"""The programs that a server on this computer needs: what they are started with, and how they end."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys

import psutil
from LandmarkLabelLib import local_programs, local_server
from LandmarkLabelLib.local_programs import Programs, clean_environment, end, running_module
from local_servers import EXTENSION, gone, posix

LIBRARY = EXTENSION / "LandmarkLabel" / "LandmarkLabelLib"


def test_what_is_left_out_of_the_environment():
    left_out = ("PYTHONHOME", "Ld_Library_Path", "QT_X", "MONAI_LABEL_AUTH_ENABLE", "VIRTUAL_ENV", "PIP_TARGET", "SLICER_HOME")
    startup = {"PATH": "x", "HTTPS_PROXY": "p", "PIP_INDEX_URL": "i", **dict.fromkeys(left_out, "1")}
    assert clean_environment(startup) == {"PATH": "x", "HTTPS_PROXY": "p", "PIP_INDEX_URL": "i", "PIP_USER": "0"}
    assert clean_environment({})["PATH"] == os.defpath


@posix
def test_what_does_not_end_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(local_programs, "END_S", 0.2)
    monkeypatch.setattr(local_programs, "CHILDREN_END_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    child = f"subprocess.Popen([sys.executable, '-c', {deaf!r}])"
    code = f"import subprocess, sys; print({child}.pid, flush=True); {deaf}"
    process = Programs(tmp_path, os.environ).start([sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8")
    child = psutil.Process(int(process.stdout.readline()))
    end(process)
    assert process.returncode == -signal.SIGKILL and gone(child, 5)
    process.stdout.close()


def test_it_is_written_for_python_3_9():
    for path in LIBRARY.glob("local_*.py"):
        text = path.read_text(encoding="utf-8")
        ast.parse(text, feature_version=(3, 9))
        assert "strict=" not in text and "match " not in text.split('"""')[-1], path.name


def test_what_is_run_names_no_folder_but_its_own(tmp_path):
    words = running_module("python", "pip", "install")
    assert words[1:4] == ["-I", "-X", "utf8"] and words[-2:] == ["pip", "install"] and '"' not in local_programs.LAUNCHER
    assert local_server.token_name().startswith("slicer-")
