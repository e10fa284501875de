"""Nothing runs what it reads, and only the command line prints."""

from __future__ import annotations

import ast

from tests.architecture.sources import LIB, PACKAGE, imports, module_name, relative

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
