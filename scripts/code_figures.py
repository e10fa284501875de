"""Figures of the code base that must not get worse: ``python scripts/code_figures.py``.

Counted in ``lib/landmarklabel``:
    constants   module-level names bound to a number, or to a tuple, list, set or dict of numbers, by thousand lines;
    PLR2004     numbers compared with in the code itself ("magic values"), by ruff;
    mypy        errors, by the configuration in setup.cfg;
    infer       functions of this package that one POST /infer walks through, and their files (``--infer MODEL IMAGE``);
    readme      share of README's words that are figures, or stand in a sentence or row with one.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout, for a comparison (default this one)")
    parser.add_argument("--skip-mypy", action="store_true", help="mypy takes a minute")
    parser.add_argument("--infer", nargs=2, metavar=("MODEL_DIR", "IMAGE"), help="trace one inference of a model on an image")
    args = parser.parse_args()
    package = args.root / "lib" / "landmarklabel"
    constants, lines = numeric_constants(package)
    figures = {
        "lines": lines,
        "numeric_constants": len(constants),
        "numeric_constants_per_1000_lines": round(1000 * len(constants) / lines, 2),
        "PLR2004": _ruff(package, "PLR2004"),
        "readme_words": readme_words(args.root / "README.md"),
    }
    if not args.skip_mypy:
        figures["mypy_errors"] = _mypy(args.root)
    if args.infer:
        figures["infer"] = traced(package, *args.infer)
    print(json.dumps(figures, indent=1))
    return 0


def numeric_constants(package: Path) -> tuple[list[str], int]:
    """Names of the numeric module constants of a package, and its lines."""
    found, lines = [], 0
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines += len(text.splitlines())
        for statement in ast.parse(text).body:
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            value = getattr(statement, "value", None)
            if not isinstance(statement, ast.Assign | ast.AnnAssign) or value is None:
                continue
            pairs = [(targets[0], value)]
            if isinstance(targets[0], ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(targets[0].elts, value.elts, strict=True))
            found += [f"{path.relative_to(package)}:{t.id}" for t, v in pairs if isinstance(t, ast.Name) and _is_numeric(v)]
    return found, lines


def _is_numeric(value: ast.expr) -> bool:
    match value:
        case ast.Constant():
            return isinstance(value.value, int | float) and not isinstance(value.value, bool)
        case ast.UnaryOp():
            return _is_numeric(value.operand)
        case ast.BinOp():
            return _is_numeric(value.left) and _is_numeric(value.right)
        case ast.Tuple() | ast.List() | ast.Set():
            return bool(value.elts) and all(map(_is_numeric, value.elts))
        case ast.Dict():
            return bool(value.values) and all(map(_is_numeric, value.values))
    return False


def readme_words(path: Path) -> dict[str, float]:
    """Words of a Markdown file outside of code blocks, and the share of those in lines that hold a measured figure."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    parts = [part for part in re.split(r"(?<=[.!?])\s+|\n\s*\n|\n(?=\|)", text) if part.strip()]
    words = [len(re.findall(r"\w+", part)) for part in parts]
    figure = re.compile(r"\d[\d ]*(?:\.\d+)?\s*(?:mm|px|%|ms|s\b|MB|GB|GiB|×|min|of \d)|\| *\**\d")
    measured = sum(n for n, part in zip(words, parts, strict=True) if figure.search(part))
    return {"words": sum(words), "share_with_figures": round(measured / max(sum(words), 1), 2)}


def _ruff(package: Path, rule: str) -> int:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", rule, "--output-format", "json", str(package)]
    return len(json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout))


def _mypy(root: Path) -> int:
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "setup.cfg"), "lib/landmarklabel"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    found = re.search(r"Found (\d+) errors?", done.stdout)
    return int(found[1]) if found else 0


def traced(package: Path, model_dir: str, image_path: str) -> dict[str, int]:
    """Functions and files of the package that a prediction walks through, the model loaded already."""
    from landmarklabel.inference.model_folder import load_model
    from landmarklabel.io.images import read_image

    model = load_model(model_dir)
    image, seen = read_image(image_path, model.task.dims), set()

    def trace(frame, event: str, _argument: object) -> None:
        if event == "call" and str(package) in frame.f_code.co_filename:
            seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    sys.setprofile(trace)
    try:
        model.predict(image)
    finally:
        sys.setprofile(None)
    return {"functions": len({name for _, name in seen}), "files": len({file for file, _ in seen})}


if __name__ == "__main__":
    sys.exit(main())
