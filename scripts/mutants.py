"""Do the tests see small faults? Sampled changes of four modules, each in a copy of the tree: ``python scripts/mutants.py``.

A mutant is a module with one expression or statement changed, texts excepted. It is killed when a test of the module's list
fails and survives when all pass. A sample is the same for one seed and a larger one contains it. ``results/mutants.json`` keeps
the outcomes: a further run does what is missing, and the survivors again once the tests have changed. Mutants that no test can
see are in ``equivalent_mutants.json``, each with its reason.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import importlib.util
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "scripts" / "results" / "mutants.json"
EQUIVALENT = ROOT / "scripts" / "equivalent_mutants.json"
PACKAGE = Path("lib") / "landmarklabel"
MODULES = {  # what pytest is asked for: the quickest files that run the module first
    "store/revisions.py": "tests/store/test_revision_rules.py tests/store/test_revisions.py -k 'not (postgresql or very_long)'",
    "active/strategies.py": "tests/active/test_choices.py tests/active/test_strategies.py tests/api/test_plugins.py"
    " -k 'choices or strateg'",
    "inference/shape_fit.py": "tests/inference/test_confusion_by_hand.py tests/inference/test_shape_fit_by_hand.py"
    " tests/inference/test_shape_fit.py tests/inference/test_groups.py tests/inference/test_suggestion.py",
    "inference/calibration.py": "tests/inference/test_calibration_by_hand.py tests/inference/test_calibration.py",
}
WANTED = 0.85  # of the mutants that are not equivalent
PYTEST = ("-o", "addopts=--strict-markers", "-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=ci")  # ci: no chance
SLOWER, GRACE_S = 6, 30.0  # a mutant may take so many times what the module itself takes, and this
PRELOADED = ("numpy", "SimpleITK", "sqlalchemy", "torch", "hypothesis", "pytest")  # once, not in every run

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Mutant(NamedTuple):
    """One change: ``key`` says it in words that stay the same while other lines move."""

    key: str
    before: bytes
    after: bytes


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """What is replaced, and by what: every way to change this one node."""
    yield from ((node, new) for new in (*_statements(node), *_expressions(node)))
    tests = node.ifs if isinstance(node, ast.comprehension) else [node.test] if hasattr(node, "test") else []
    yield from ((test, ast.UnaryOp(ast.Not(), test)) for test in tests if not isinstance(test, (ast.Compare, ast.UnaryOp)))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Name(id=name)], value=value):  # of a name that had a value before
            yield from [ast.Pass()] if name in {n.id for n in ast.walk(value) if isinstance(n, ast.Name)} else []


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield from (_with(node, ops=[*ops[:i], other(), *ops[i + 1 :]]) for other in COMPARISONS[type(op)])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in ARITHMETIC and not any(map(_is_text, vars(node).values())):
            yield _with(node, op=ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield from (ast.Constant(2 * value or 1.0), ast.Constant(value / 2 or -1.0))
        case ast.Call(func=ast.Name(id=name)) if name in NAMES:
            yield _with(node, func=ast.Name(NAMES[name]))


def _is_text(operand: object) -> bool:
    """Or a dict: another operator would be an error rather than another value."""
    return isinstance(operand, (ast.JoinedStr, ast.Dict)) or isinstance(getattr(operand, "value", None), str)


def _with(node: ast.AST, **fields) -> ast.AST:
    return type(node)(**{name: getattr(node, name) for name in node._fields} | fields)


def nodes(tree: ast.AST, where: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node that may be changed, after the name of the function it is in: no annotations, no texts."""
    for name, value in ast.iter_fields(tree):
        for node in value if isinstance(value, list) else [value]:
            if name in ("annotation", "returns") or not isinstance(node, ast.AST) or isinstance(node, ast.JoinedStr):
                continue
            inner = f"{where}.{node.name}".lstrip(".") if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else where
            yield inner, node
            yield from nodes(node, inner)


def mutants(module: str, source: bytes) -> list[Mutant]:
    """All mutants of a module."""
    starts, found, count = [0, *accumulate(map(len, source.splitlines(keepends=True)))], [], Counter()
    for where, node in nodes(ast.parse(source)):
        for old, new in changes(node):
            begin, end = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(new))
            text = f"({text})" if not isinstance(new, (ast.stmt, ast.Constant)) else text
            after = source[:begin] + text.encode() + source[end:]
            key = f"{module} {where or 'module'}: {' '.join(source[begin:end].decode().split())} → {text}"
            count[key] += 1
            found.append(Mutant(key if count[key] == 1 else f"{key} ({count[key]})", source, after))
    return found


def copy_of_the_tree(place: Path) -> Path:
    """The files git knows or would add, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in sorted({n for n in listed.decode().split("\0") if n and (ROOT / n).is_file()}):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, place / name)
    return place


def _tests(tree: Path, module: str, unchanged: bool) -> None:
    """In a process of its own, forked from one that has imported what is not under test."""
    os.setsid()
    os.dup2(os.open(tree / "tests.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    os.chdir(tree)
    sys.path[:1] = [str(tree), str(tree / "lib")]
    os.environ["PYTHONPATH"] = str(tree / "lib")
    if not unchanged:  # nothing of a mutant stays compiled
        sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
    assert Path(importlib.util.find_spec(PACKAGE.name).origin).is_relative_to(tree), "another copy would be tested"
    os._exit(importlib.import_module("pytest").main([*PYTEST, *shlex.split(MODULES[module])]))


def _begin(tree: Path, module: str, unchanged: bool = False) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=_tests, args=(tree, module, unchanged))
    process.start()
    return process


def run(module: str, todo: Sequence[Mutant], jobs: int, place: Path) -> Iterator[tuple[Mutant, str]]:
    """Each mutant with ``killed``, ``timeout`` or ``survived``, as they end."""
    free, running, left = [copy_of_the_tree(place / str(k)) for k in range(min(jobs, len(todo)))], {}, list(todo)
    limit_s = 0.0
    for tree in free:
        began, process = time.monotonic(), _begin(tree, module, unchanged=True)
        process.join()
        if process.exitcode:
            sys.exit(f"without a mutant its tests do not pass:\n{(tree / 'tests.log').read_text(errors='replace')[-3000:]}")
        limit_s = SLOWER * (time.monotonic() - began) + GRACE_S
    while left or running:
        while left and free:
            tree, mutant = free.pop(), left.pop(0)
            (tree / PACKAGE / module).write_bytes(mutant.after)
            running[_begin(tree, module)] = tree, mutant, time.monotonic() + limit_s
        time.sleep(0.1)
        for process, (tree, mutant, until) in list(running.items()):
            late = process.is_alive() and time.monotonic() > until
            if late:
                os.killpg(process.pid, signal.SIGKILL)
            if late or not process.is_alive():
                process.join()
                del running[process]
                free.append(tree)
                yield mutant, "timeout" if late else "killed" if process.exitcode else "survived"


def examine(module: str, chosen: Sequence[Mutant], jobs: int, known: dict) -> Iterator[dict]:
    """The record of a module, with ever more outcomes; what is known of the same source is not run again."""
    words = MODULES[module].split()
    tests = b"".join((ROOT / word).read_bytes() if word.endswith(".py") else word.encode() for word in words)
    now = {name: hashlib.sha256(text).hexdigest()[:16] for name, text in (("source", chosen[0].before), ("tests", tests))}
    old = known.get("outcomes", {}) if known.get("source") == now["source"] else {}
    lasting = {key for key, outcome in old.items() if outcome != "survived" or known.get("tests") == now["tests"]}
    outcomes = {mutant.key: old[mutant.key] for mutant in chosen if mutant.key in lasting}
    yield now | {"outcomes": outcomes}
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        for mutant, outcome in run(module, [m for m in chosen if m.key not in outcomes], jobs, Path(place)):
            outcomes[mutant.key] = outcome
            yield now | {"outcomes": outcomes}


def share_killed(module: str, chosen: Sequence[Mutant], outcomes: dict[str, str], reasons: dict[str, str]) -> float:
    """Of those that are not equivalent; prints the others that survived."""
    survived = [mutant for mutant in chosen if outcomes[mutant.key] == "survived"]
    for mutant in survived:
        texts = [text.decode().splitlines() for text in (mutant.before, mutant.after)]
        print(mutant.key, reasons.get(mutant.key, ""), *difflib.unified_diff(*texts, lineterm="", n=1), "", sep="\n")
    killed, equivalent = len(chosen) - len(survived), sum(mutant.key in reasons for mutant in survived)
    share = killed / max(len(chosen) - equivalent, 1)
    print(f"{module}: {killed} of {len(chosen)} killed, {equivalent} equivalent: {share:.0%}\n", flush=True)
    return share


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", choices=MODULES, help="below lib/landmarklabel; may be repeated")
    parser.add_argument("--count", type=int, default=50, help="mutants of each module (default: 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="mutants at the same time")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in PRELOADED:
        importlib.import_module(name)
    reasons, shares = json.loads(EQUIVALENT.read_text(encoding="utf-8")), []
    for module in arguments.module or MODULES:
        found = mutants(module, (ROOT / PACKAGE / module).read_bytes())
        chosen = sorted(found, key=lambda m: hashlib.sha256(f"{arguments.seed} {m.key}".encode()).digest())[: arguments.count]
        for record in examine(module, chosen, arguments.jobs, results.get(module, {})):
            results[module] = record
            RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        shares.append(share_killed(module, chosen, results[module]["outcomes"], reasons))
    return 0 if min(shares) >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
