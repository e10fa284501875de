"""Files and functions stay short."""

from __future__ import annotations

from tests.architecture.sources import PACKAGE, ROOT, TREES, functions, python_files, relative

MAX_LINES, MAX_FUNCTION = 400, 60


def test_files_are_short():
    front_end = sorted((PACKAGE / "server" / "web" / "src").rglob("*.ts"))
    files = [*TREES, *python_files(ROOT / "tests"), *front_end]
    assert len(front_end) > 10
    assert {relative(p): n for p in files if (n := len(p.read_text(encoding="utf-8").splitlines())) > MAX_LINES} == {}


def test_functions_are_short():
    long = {}
    for path, tree in TREES.items():
        for name, node, _ in functions(tree):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if node.end_lineno - first + 1 > MAX_FUNCTION:
                long[f"{relative(path)}:{name}"] = node.end_lineno - first + 1
    assert long == {}
