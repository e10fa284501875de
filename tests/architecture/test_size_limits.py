"""Files and functions stay short."""

from __future__ import annotations

from tests.architecture.sources import TREES, functions, relative

MAX_LINES, MAX_FUNCTION = 400, 60


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
