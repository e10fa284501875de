"""The notebook runs from top to bottom, and the guides name things that are there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import landmarklabel as ll
from landmarklabel import extending, plugins
from landmarklabel.networks.presets import Preset

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOTEBOOK = DOCS / "notebook" / "getting_started.ipynb"

RUN = """
import ast, json, sys
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell["id"], "exec"), names)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)
            html = getattr(shown, "_repr_html_", str)()
            print(f"{cell['id']}: {shown!r} [{len(html)}]")
print("MRE", names["result"].mre, names["result"].metrics["n_images"])
"""


def test_the_notebook_runs_and_its_model_finds_landmarks(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib"), "MPLBACKEND": "Agg", "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", RUN, str(NOTEBOOK)]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=550)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("LandmarkSet of task 'phantom2d' (8 landmarks" in line for line in lines) == 3
    _, mre, images = lines[-1].split()
    assert 0 < float(mre) < 30 and images == "4"  # in images 112 mm high: on a busy machine a minute trains few steps


def test_the_notebook_is_kept_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 5 and not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_the_guides_name_what_is_there():
    python, guide = (DOCS / "python.md").read_text(encoding="utf-8"), (DOCS / "extending.md").read_text(encoding="utf-8")
    used = set(re.findall(r"\bll\.(\w+)", python + guide))
    assert len(used) > 8 and used <= set(ll.__all__)
    reference = python.partition("## Reference")[2]
    assert [name for name in ll.__all__ if not name.startswith("_") and f"`{name}" not in reference] == []
    assert all(group in guide for group in (plugins.NETWORKS, plugins.STRATEGIES, plugins.READERS))
    assert [name for name in extending.__all__ if f"`{name}" not in guide] == []


def test_members_in_the_reference_are_there():
    """What stands first in the rows below a heading of a class, or is listed in its text, is a member of the class."""
    reference = (DOCS / "python.md").read_text(encoding="utf-8").partition("## Reference")[2]
    checked = 0
    for part in reference.split("\n### ")[1:]:
        title, _, text = part.partition("\n")
        classes = [getattr(ll, name) for name in re.findall(r"`(\w+)`", title) if name in ll.__all__]
        members = set(re.findall(r"`(?:\w+\.)?([a-z_]\w*)\(", text)) - {"len"}
        for name in members if classes else ():
            assert any(hasattr(one, name) for one in classes), (title, name)
            checked += 1
    assert checked > 20


def test_names_for_plugins_are_loaded_when_they_are_asked_for():
    assert all(getattr(extending, name) is not None for name in extending.__all__) and set(extending.__all__) <= set(
        dir(extending)
    )


def test_the_preset_of_the_guide_can_be_made():
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text("utf-8"), re.S) if "WIDE" in b]
    names: dict[str, object] = {}
    exec(block, names)
    assert isinstance(names["WIDE"], Preset) and names["WIDE"].key == "example:wide"
