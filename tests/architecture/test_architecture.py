"""The shape of the code: imports point one way, files and functions stay short, nothing dangerous is called.

Exemptions are in the tables below, each with its reason; a stale one fails too.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lib" / "landmarklabel"
PLACES = [PACKAGE, ROOT / "apps", ROOT / "slicer_extension", ROOT / "scripts"]

# Lower numbers may not import higher ones.
LEVELS = {
    "errors": 0,
    "configuration": 0,
    "plugins": 0,
    "portability": 0,
    "landmarks": 1,
    "task_pictures": 1,
    "task_faults": 1,
    "landmark_arrays": 1,
    "measurement_definitions": 1,
    "measurements": 1,
    "measurement_program": 1,
    "task_measurements": 1,
    "agreement": 1,
    "display": 1,
    "geometry": 1,
    "metrics": 1,
    "io": 2,
    "store": 3,
    "data": 4,
    "networks": 4,
    "inference": 5,
    "training": 6,
    "active": 7,
    "report": 8,
    "services": 9,
    "tasks": 9,
    "server": 10,
    "cli": 10,
    "api": 10,
    "evaluation": 10,
    "extending": 10,
    "__main__": 11,
}
TORCH_FREE = (
    "errors",
    "configuration",
    "plugins",
    "landmarks",
    "measurement_definitions",
    "measurements",
    "measurement_program",
    "task_measurements",
    "display",
    "geometry",
    "metrics",
    "io.markups",
    "io.tables",
    "io.files",
    "store",
)
SERVER_PACKAGES = ("monailabel", "fastapi", "starlette", "uvicorn")
TRAINING_PATH = ("configuration", "data", "networks", "inference", "training")
READS_FILES = ("inference.export",)  # tries what it wrote on an image file
NOT_NEEDED_TO_TRAIN = ("SimpleITK", "sqlalchemy", "nibabel", "pydicom", *SERVER_PACKAGES)
LAZY_MONAILABEL = {"cli.doctor"}  # it examines the installation, inside a function
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "joblib.load",
    "shutil.unpack_archive",
}
FORBIDDEN_METHODS = {"extractall"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "yaml", "joblib"}
MAX_LINES, MAX_FUNCTION = 400, 60

# name: reason. Checked to be needed.
_STAGE = "documented once, in the protocol training.loop.Stage"
UNDOCUMENTED: dict[str, str] = {
    f"lib/landmarklabel/training/stages.py:{stage}.{method}": _STAGE
    for stage in ("CoarseStage", "FineStage")
    for method in ("batch", "loss")
}
UPWARD_IMPORTS: dict[tuple[str, str], str] = {
    ("landmarks", "io.markups"): "inside LandmarkSet.to_markups, for people: the module itself stays numpy only",
}


def python_files(*places):
    skipped = {"__pycache__", "node_modules"}
    return sorted(p for place in places if place.is_dir() for p in place.rglob("*.py") if not skipped & set(p.parts))


def relative(path):
    return path.relative_to(ROOT).as_posix()


def module_name(path):
    """``io.files`` for lib/landmarklabel/io/files.py, ``io`` for its __init__, "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {p: ast.parse(p.read_text(encoding="utf-8"), str(p)) for p in python_files(*PLACES)}
LIB = {p: t for p, t in TREES.items() if p.is_relative_to(PACKAGE)}


def level(module):
    return LEVELS.get(module.split(".")[0])


def imports(path, tree):
    """(absolute module name, whether inside a function, whether for type checkers only) of every import."""
    found = []

    def walk(node, lazy, typing_only):
        for child in ast.iter_child_nodes(node):
            inside = lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typed = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            if isinstance(child, ast.Import):
                found.extend((alias.name, inside, typed) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    own = ["landmarklabel", *path.relative_to(PACKAGE).parent.parts]
                    base = ".".join([*own[: len(own) - child.level + 1], *filter(None, [base])])
                names = [f"{base}.{alias.name}" for alias in child.names]
                submodules = [n for n in names if is_own_module(n)]
                found.extend((n, inside, typed) for n in submodules or [base])
            walk(child, inside, typed)

    walk(tree, False, False)
    return found


def is_own_module(name):
    if not name.startswith("landmarklabel."):
        return False
    place = PACKAGE.joinpath(*name.split(".")[1:])
    return place.is_dir() or place.with_suffix(".py").is_file()


def own_imports(path, tree):
    return [name.partition(".")[2] for name, *_ in imports(path, tree) if name.split(".")[0] == "landmarklabel"]


def functions(tree):
    """(qualified name, node, enclosing class or None) of every function and method."""
    found = []

    def walk(node, prefix, owner):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append((prefix + child.name, child, owner))
                walk(child, f"{prefix}{child.name}.", None)
            elif isinstance(child, ast.ClassDef):
                walk(child, f"{prefix}{child.name}.", child)
            else:
                walk(child, prefix, owner)

    walk(tree, "", None)
    return found


# ------------------------------------------------------------------ imports


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


@pytest.mark.parametrize(
    "modules, absent",
    [
        (TORCH_FREE, ("torch", "monai", "monailabel", "fastapi")),
        (("networks.presets", "tasks"), ("torch", "monailabel", "fastapi")),
        (("training.fit", "inference.model_folder"), ("monailabel", "fastapi", "sqlalchemy.dialects.postgresql")),
    ],
)
def test_importing_really_loads_no_more_than_that(modules, absent):
    """Also through others, which the walk over single files cannot see."""
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module("landmarklabel." + name)
print([name for name in {absent!r} if name in sys.modules])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120, encoding="utf-8")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def without_readers_and_servers(code, *arguments):
    """What a program prints in a process where ``import`` of the packages in NOT_NEEDED_TO_TRAIN fails."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({NOT_NEEDED_TO_TRAIN!r}))\n{code}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, timeout=300, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_training_path_imports_without_image_readers_databases_and_servers():
    names = sorted(module_name(p) for p in LIB if module_name(p).split(".")[0] in TRAINING_PATH)
    names = [name for name in names if name not in READS_FILES]
    code = f"import importlib\nfor name in {names!r}: print(importlib.import_module('landmarklabel.' + name).__name__)"
    assert without_readers_and_servers(code) == [f"landmarklabel.{name}" for name in names]
    for name in READS_FILES:
        with pytest.raises(AssertionError, match="SimpleITK"):
            without_readers_and_servers(f"import landmarklabel.{name}")


def test_a_model_trains_is_judged_and_predicts_without_image_readers_databases_and_servers(tmp_path):
    code = """
from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.inference.model_folder import load_model
from landmarklabel.io.image_array import Image
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import decide

task = phantom_task(2, 4)
cases = [Case(str(seed), Image(p.geometry, p.pixels), p.landmarks)
         for seed in range(5) for p in [draw_phantom(task, seed, size=64, absent_fraction=0)]]
fit(task, cases[:4], cases[4:], FitConfig(find_preset("scn:default", 2), Budget(steps=3)), sys.argv[1])
model = load_model(sys.argv[1])
decision = decide(model, None, cases[4:])
print(len(model.predict(cases[4].image).positions_mm), decision.publish, decision.candidate_score > 0)
"""
    assert without_readers_and_servers(code, str(tmp_path / "model")) == ["4", "True", "True"]


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


# ------------------------------------------------------------------ size


def test_files_are_short():
    long = {relative(p): n for p in TREES if (n := len(p.read_text(encoding="utf-8").splitlines())) > MAX_LINES}
    assert long == {}


def test_functions_are_short():
    long = {}
    for path, tree in TREES.items():
        for name, node, _ in functions(tree):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if node.end_lineno - first + 1 > MAX_FUNCTION:
                long[f"{relative(path)}:{name}"] = node.end_lineno - first + 1
    assert long == {}


# ------------------------------------------------------------------ danger


def faults(path, tree):
    for node in ast.walk(tree):
        where = f"{relative(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS or name.split(".")[-1] in FORBIDDEN_METHODS:
                yield f"{where} {name}()"
            if any(k.arg == "shell" and not (isinstance(k.value, ast.Constant) and not k.value.value) for k in node.keywords):
                yield f"{where} {name}(shell=…)"
            if any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords):
                yield f"{where} {name}(allow_pickle=…)"
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "torch", "shutil", "builtins"):
            wrong = {f"{node.module}.{a.name}" for a in node.names} & FORBIDDEN_CALLS
            yield from (f"{where} {name}" for name in sorted(wrong))


def test_nothing_that_runs_what_it_reads():
    assert [fault for path, tree in LIB.items() for fault in faults(path, tree)] == []
    modules = {(relative(p), n) for p, t in LIB.items() for n, *_ in imports(p, t) if n.split(".")[0] in FORBIDDEN_MODULES}
    assert modules == set()


def test_the_search_for_danger_finds_it():
    source = (
        "import os, torch\nfrom shutil import unpack_archive\ntorch.load(x)\neval('1')\nos.system('x')\n"
        "z.extractall()\nsubprocess.run('x', shell=True)\nnp.load(f, allow_pickle=True)\n"
        "model.eval()\nre.compile('x')\nsubprocess.run(['x'], shell=False)\n"
    )
    path = PACKAGE / "example.py"
    assert [f.split(":")[1].split(" ")[0] for f in sorted(faults(path, ast.parse(source)))] == list("2345678")


def test_only_the_command_line_prints():
    printing = ("print", "pprint", "pprint.pprint", "sys.stdout.write")
    trees = {relative(p): t for p, t in LIB.items() if module_name(p).split(".")[0] != "cli"}
    calls = [(where, n) for where, tree in trees.items() for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert [f"{where}:{n.lineno}" for where, n in calls if ast.unparse(n.func) in printing] == []


# ------------------------------------------------------------------ docstrings


def undocumented(path, tree):
    """Public modules, classes, functions and methods without a docstring; methods of classes with bases may override."""
    own = relative(path)
    if not ast.get_docstring(tree):
        yield own
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            yield f"{own}:{node.name}"
    for name, node, owner in functions(tree):
        if any(part.startswith("_") for part in name.split(".")) or ast.get_docstring(node):
            continue
        nested = owner is None and "." in name
        derived = owner is not None and (owner.bases or owner.name.startswith("_"))
        one_line = owner is not None and len(node.body) == 1 and not isinstance(node.body[0], (ast.For, ast.While, ast.If))
        if not nested and not derived and not one_line:
            yield f"{own}:{name}"


def test_what_is_public_is_documented():
    missing = [name for path, tree in LIB.items() for name in undocumented(path, tree)]
    assert sorted(set(missing) - set(UNDOCUMENTED)) == []
    assert set(UNDOCUMENTED) <= set(missing), "stale exemption"
