"""Which Python of the computer a server is installed with, and what is said where none fits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from LandmarkLabelLib import local_environment
from LandmarkLabelLib.local_programs import LocalServerError
from LandmarkLabelLib.local_server import LocalServer
from local_servers import environments, posix, refused

OWN = "{}.{}".format(*sys.version_info)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def alone_with(folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    return {"PATH": str(folder), "HOME": str(folder), "USERPROFILE": str(folder)}


def test_a_python_is_found_by_its_name_or_its_version(environment, tmp_path):
    found = LocalServer(tmp_path, environment).find_python()
    assert subprocess.run([found, "-V"], capture_output=True, text=True).stdout.split()[1].startswith(OWN)


@posix
def test_no_python_is_said_with_what_was_found(tmp_path, monkeypatch):
    places = tmp_path / "bin"
    begin, end = "no Python 3.13 or 3.12 or 3.11 was found on this computer", "and try again"
    server = LocalServer(tmp_path, alone_with(places))
    remedy = "install Python 3.13, for example from https://www.python.org/downloads/"
    said = lambda: pytest.raises(LocalServerError, server.find_python).value.args[0]  # noqa: E731
    assert said() == f"{begin}: {remedy}, {end}"
    old = script(places / "python3", f"echo 3 9 1 {places}/python3")
    assert said() == f"{begin} (found: {old} 3.9): {remedy}, {end}"
    monkeypatch.setattr(local_environment, "PROBE_S", 0.3)
    script(places / "python3.13", "exec /bin/sleep 60")  # one that does not answer
    script(places / "python3.12", "echo pyenv: no such version >&2; exit 127")
    assert said() == f"{begin} (found: {old} 3.9): {remedy}, {end}"
    bare = script(places / "python3.11", f"echo 3 11 1 {places}/python3.11; exit 1")
    assert said() == f"{begin} (found: {bare} 3.11 without ensurepip, {old} 3.9): install python3-venv, {end}"


@posix
def test_slicers_own_python_comes_last_and_only_where_it_is_new_enough(tmp_path):
    nothing, slicers = alone_with(tmp_path / "none"), script(tmp_path / "bin" / "PythonSlicer", f'exec "{sys.executable}" "$@"')
    assert LocalServer(tmp_path, nothing, slicer_python=str(slicers)).find_python() == str(slicers)
    other = script(tmp_path / "none" / "python3.11", "echo 3 11 1 /there/python3.11")
    assert other and LocalServer(tmp_path, nothing, slicer_python=str(slicers)).find_python() == "/there/python3.11"
    old = script(tmp_path / "bin" / "PythonSlicer", "echo 3 9 1 /x")
    with pytest.raises(LocalServerError, match="^no Python 3.13 or"):
        LocalServer(tmp_path, alone_with(tmp_path / "empty"), slicer_python=str(old)).find_python()


@posix
def test_nothing_is_installed_where_no_environment_came_about(tmp_path, wheel):
    """For example with an interpreter that says it has made one."""
    places = tmp_path / "bin"
    script(places / "python3.11", f"echo 3 11 1 {places}/python3.11")
    said = refused(LocalServer(tmp_path / "own", alone_with(places)), wheel)
    assert said.startswith(f"{places}/python3.11 cannot make an environment") and said.endswith(": install Python 3.13")
    assert environments(tmp_path / "own") == []


def test_a_folder_of_wheels_gets_the_python_it_was_made_for(tmp_path):
    from LandmarkLabelLib.local_sources import VERSIONS, versions_of

    assert versions_of(None) == versions_of(tmp_path) == VERSIONS
    (tmp_path / "torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl").touch()
    assert versions_of(tmp_path) == [(3, 12)]
