"""What the README tells people to type and to open is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from landmarklabel.cli.parser import build_parser
from landmarklabel.networks.presets import PRESETS, find_preset
from landmarklabel.tasks import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [line for line in LINES if line.startswith("landmarklabel ")]


def test_there_are_commands():
    assert {shlex.split(line)[1] for line in COMMANDS} >= {"task", "import", "train", "predict", "evaluate", "serve"}


@pytest.mark.parametrize("line", COMMANDS)
def test_command_parses(line):
    arguments = build_parser().parse_args(shlex.split(line, comments=True)[1:])
    assert arguments.run
    if hasattr(arguments, "model") and hasattr(arguments, "steps"):
        assert find_preset(arguments.model)


def test_verbs_in_the_running_text():
    for words in re.findall(r"`landmarklabel ([a-z][^`]*)`", TEXT):
        with pytest.raises(SystemExit) as end:
            build_parser().parse_args([words.split()[0], "--help"])
        assert end.value.code == 0


def test_every_model_is_listed():
    rows = TEXT[TEXT.index("| `--model` |") :].split("\n\n")[0].splitlines()[2:]
    listed = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert {find_preset(name).key for name in listed} == {p.key for p in PRESETS}


def test_shipped_tasks_are_named():
    for path in SHIPPED.glob("*.json"):
        assert f"`{path.stem}`" in TEXT


def test_scripts_have_the_verbs():
    verbs = [line.split()[2] for line in LINES if line.startswith("python scripts/dev.py ")]
    assert sorted(set(verbs)) == ["demo", "test"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "dev.py"), "--help"], capture_output=True, timeout=60, encoding="utf-8"
    )
    assert done.returncode == 0 and all(re.search(rf"^ +{verb} ", done.stdout, re.MULTILINE) for verb in verbs)


def tree() -> list[str]:
    """Every path that the README's tree names."""
    block = next(b for b in BLOCKS if b.startswith("apps/landmarks/"))
    paths, top = [], ""
    for line in block.splitlines():
        if not line.startswith(" "):
            top, _, line = line.partition(" ")
            paths.append(top)
        if top == "lib/landmarklabel/":
            names = re.split(r" {3,}", line.strip())[0]
            paths += [f"{top}{name}" for name in re.split(r",? +", names)]
        elif top == "scripts/":
            paths += [f"{top}{name}" for name in re.sub(r"\(.*?\)", "", line).replace(",", " ").split()]
    return paths


@pytest.mark.parametrize("path", tree())
def test_the_tree_exists(path):
    assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", TEXT))))
def test_pictures_and_links_exist(target):
    assert (ROOT / target).exists()
