"""What Slicer's build and the Extensions Index need."""

from __future__ import annotations

import ast
import json
import re
import struct
from pathlib import Path

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
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 12))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            roots = {n.split(".")[0] for n in names}
            assert roots <= allowed | set(sys.stdlib_module_names), (path.name, roots)


def test_only_the_panel_knows_qt_and_only_two_files_know_mrml():
    for path in (p for p in python_files() if p.parent.name == "LandmarkLabelLib"):
        text = path.read_text(encoding="utf-8")
        assert ("import qt" in text) == (path.name in ("panel.py", "table.py", "widgets.py")), path.name
        assert ("vtkMRML" in text) == (path.name in ("markups.py", "markup_helpers.py", "volumes.py")), path.name
