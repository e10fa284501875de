"""What Slicer's build and the Extensions Index need."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "slicer_extension" / "LandmarkLabel"


def python_files() -> list[Path]:
    files = sorted(MODULE.rglob("*.py"))
    assert {"LandmarkLabel.py", "panel.py", "sections.py", "markups.py", "volumes.py"} <= {p.name for p in files}
    return files


def listed(name: str) -> set[str]:
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "LandmarkLabel")
    return set(re.search(rf"set\({name}\s+(.*?)\)", text, re.DOTALL)[1].split())


def test_every_file_is_in_the_cmake_lists():
    files = {p.relative_to(MODULE).as_posix() for p in MODULE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert listed("MODULE_PYTHON_SCRIPTS") | listed("MODULE_PYTHON_RESOURCES") == files - {"CMakeLists.txt"}


def test_the_top_of_the_repository_leads_to_the_extension():
    assert "add_subdirectory(slicer_extension)" in (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    text = (ROOT / "slicer_extension" / "CMakeLists.txt").read_text(encoding="utf-8")
    for key in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert f"set(EXTENSION_{key} " in text


def test_the_index_entry_has_the_allowed_keys_only():
    entry = json.loads((ROOT / "slicer_extension" / "LandmarkLabel.json").read_text(encoding="utf-8"))
    allowed = {"$schema", "category", "scm_url", "scm_revision", "build_dependencies", "build_subdirectory", "tier"}
    assert {"$schema", "category", "scm_url"} <= set(entry) <= allowed
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#") and entry["tier"] in range(1, 6)


def test_the_icon_is_128_pixels_wide_and_high():
    data = (MODULE / "Resources" / "Icons" / "LandmarkLabel.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (128, 128)


def test_the_module_file_is_short_and_imports_nothing_slicer_lacks():
    assert len((MODULE / "LandmarkLabel.py").read_text(encoding="utf-8").splitlines()) < 100
    allowed = {"numpy", "requests", "vtk", "slicer", "qt", "ctk", "LandmarkLabelLib", "SampleData"}
    import sys

    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            roots = {n.split(".")[0] for n in names}
            assert roots <= allowed | set(sys.stdlib_module_names), (path.name, roots)


def test_only_the_panel_knows_qt_and_only_five_files_know_mrml():
    for path in (p for p in python_files() if p.parent.name == "LandmarkLabelLib"):
        text = path.read_text(encoding="utf-8")
        assert ("import qt" in text) == (path.name in ("measurement_section.py", "panel.py", "table.py", "widgets.py")), path.name
        of_scene = ("markups.py", "markup_helpers.py", "scene_nodes.py", "surfaces.py", "volumes.py")
        assert ("vtkMRML" in text) == (path.name in of_scene), path.name


OLDEST = """
import sys, tempfile
sys.path[:0] = sys.argv[1:]
from pathlib import Path
from LandmarkLabelLib import batch, client, local_server, measuring, options, outbox, session, session_files, training, trust
from LandmarkLabelLib import wire, work_folder, worker
task = wire.Task("t", ("a", "b"), 3, {}, ())
with tempfile.TemporaryDirectory() as folder:
    one = session.Session.fresh(task, "case")
    one.place("a", (1, 2, 3))
    one.propose([wire.Point("a"), wire.Point("b", wire.PREDICTED, (4.0, 5.0, 6.0))])
    session_files.Sessions(folder).keep(one)
    assert session_files.Sessions(folder).last(task).points == one.points
    box = outbox.Outbox(folder + "/out")
    box.put(one, "ann")
    assert [e.image_id for e in box.entries(task)] == ["case"]
    own, is_first = work_folder.own_folder(Path(folder), "http://a")
    assert is_first and work_folder.places(Path(folder)) == {"http://a": [own]}
print("ran on", sys.version_info[:2])
"""


def python39() -> str | None:
    """An interpreter of the oldest Slicer's version, where one is installed."""
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob("3.9.*/bin/python"))
    return str(pyenv[-1]) if pyenv else shutil.which("python3.9.exe" if os.name == "nt" else "python3.9")


def test_what_needs_neither_qt_nor_numpy_runs_on_the_oldest_slicers_python(tmp_path):
    python = python39()
    if python is None or subprocess.run([python, "-c", "pass"], capture_output=True).returncode:
        pytest.skip("no Python 3.9 is installed; the syntax is looked at all the same")
    packages = tmp_path / "packages"  # of requests only the names: the newest does not run there, and Slicer brings its own
    (packages / "requests").mkdir(parents=True)
    names = "class Session: pass\nclass Response: pass\nclass RequestException(OSError): pass\n"
    (packages / "requests" / "__init__.py").write_text(names, encoding="utf-8")
    (packages / "requests" / "adapters.py").write_text("class HTTPAdapter: pass\n", encoding="utf-8")
    done = subprocess.run([python, "-c", OLDEST, str(MODULE), str(packages)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "ran on (3, 9)\n", done.stderr
    every = [str(p) for p in python_files()]
    compiled = subprocess.run([python, "-m", "py_compile", *every], capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr


def test_the_licence_lies_with_the_extension():
    assert (ROOT / "slicer_extension" / "LICENSE.txt").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_panel_is_a_file_for_qt_designer_whose_parts_all_exist():
    text = (MODULE / "Resources" / "UI" / "LandmarkLabel.ui").read_text(encoding="utf-8")
    named = set(re.findall(r'<widget class="\w+" name="(\w+)"', text))
    used = {name for p in python_files() for name in re.findall(r"\bui\.(\w+)", p.read_text(encoding="utf-8"))}
    of_slicer = {"ctkCollapsibleButton", "qMRMLNodeComboBox", "ctkPathLineEdit"}
    assert used <= named and of_slicer <= set(re.findall(r"<class>(\w+)<", text))
