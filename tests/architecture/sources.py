"""The program's sources as trees, and what is imported and defined in them."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lib" / "landmarklabel"
PLACES = [PACKAGE, ROOT / "apps", ROOT / "slicer_extension", ROOT / "scripts"]


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
