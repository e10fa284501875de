"""Imports point one way, and what stands below knows nothing of PyTorch, the server's frameworks and the Slicer extension."""

from __future__ import annotations

import ast
import sys

from tests.architecture.levels import LEVELS, SERVER_PACKAGES, TORCH_FREE, level
from tests.architecture.sources import LIB, PACKAGE, ROOT, TREES, imports, module_name, own_imports, python_files, relative

LAZY_MONAILABEL = {"cli.doctor"}  # it examines the installation, inside a function

# (module, what it imports): reason. Checked to be needed.
UPWARD_IMPORTS: dict[tuple[str, str], str] = {
    ("landmarks", "io.markups"): "inside LandmarkSet.to_markups, for people: the module itself stays numpy only",
}


def test_every_part_of_the_package_has_a_level():
    assert not {module_name(p).split(".")[0] for p in LIB if module_name(p)} - set(LEVELS)
    assert len(LIB) > 150


def test_imports_never_point_up():
    wrong = set()
    for path, tree in LIB.items():
        own = module_name(path)
        for other in own_imports(path, tree):
            if own and other and level(other) > level(own):
                wrong.add((own, other))
    assert sorted(wrong - set(UPWARD_IMPORTS)) == []
    assert set(UPWARD_IMPORTS) <= wrong, "stale exemption"


def test_the_package_itself_imports_nothing_but_for_type_checkers():
    path = PACKAGE / "__init__.py"
    assert [name for name, _, typed in imports(path, TREES[path]) if not typed and name.startswith("landmarklabel")] == []


def test_server_and_command_line_do_not_know_each_other():
    wrong = []
    for path, tree in LIB.items():
        part, other = module_name(path).split(".")[0], {"server": "cli", "cli": "server"}
        wrong += [(module_name(path), n) for n in own_imports(path, tree) if n.split(".")[0] == other.get(part)]
    assert wrong == [("cli.serve", "server.running")]  # the server's entrance


def test_only_the_server_imports_the_servers_frameworks():
    wrong = []
    for path, tree in LIB.items():
        own = module_name(path)
        for name, lazy, _ in imports(path, tree):
            if name.split(".")[0] not in SERVER_PACKAGES or own.split(".")[0] == "server":
                continue
            if not (own in LAZY_MONAILABEL and lazy):
                wrong.append((own, name))
    assert wrong == []


def is_torch_free(module):
    return any(module == name or module.startswith(f"{name}.") for name in TORCH_FREE)


def test_what_stands_below_learning_does_not_import_torch():
    wrong = []
    for path, tree in LIB.items():
        if is_torch_free(module_name(path)):
            wrong += [(module_name(path), n) for n, *_ in imports(path, tree) if n.split(".")[0] in ("torch", "monai")]
    assert wrong == []


def test_the_slicer_extension_shares_no_code_with_the_server():
    allowed = {"numpy", "requests", "slicer", "qt", "ctk", "vtk", "vtkmodules", "SampleData", "LandmarkLabelLib",
               "LandmarkLabel", "__main__", *sys.stdlib_module_names}  # fmt: skip
    place = ROOT / "slicer_extension"
    wrong = []
    for path in python_files(place):
        found = set()
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module)
        own = {p.stem for p in python_files(place)} | {p.parent.name for p in python_files(place)}
        wrong += [(relative(path), n) for n in found if n.split(".")[0] not in allowed | own]
    assert wrong == []


def test_nobody_imports_a_package_called_lib():
    wrong = [relative(p) for p, t in TREES.items() for n in ast.walk(t)
             if isinstance(n, ast.ImportFrom) and (n.module or "").split(".")[0] == "lib"
             or isinstance(n, ast.Import) and any(a.name.split(".")[0] == "lib" for a in n.names)]  # fmt: skip
    assert wrong == []
