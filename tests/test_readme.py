"""README leads each of its readers to a first step; commands, links and figures of all pages are looked at in ``tests/docs``."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_two_commands_begin():
    first = BLOCKS[0].splitlines()
    assert [line.split("#")[0].split() for line in first] == [["python3", "scripts/dev.py", verb] for verb in ("setup", "demo")]
    assert all(re.search(r"# .*\d+ (minutes|GB)", line) for line in first), "time and disk are said"


def test_the_pipeline_ends_in_a_server():
    pipeline = next(block for block in BLOCKS if "landmarklabel task new" in block)
    verbs = [line.split()[1] for line in pipeline.splitlines()]
    assert verbs == ["task", "import", "train", "predict", "evaluate", "simulate", "serve"]


def test_every_reader_has_a_first_page():
    rows = TEXT[TEXT.index("| If you are") :].split("\n\n")[0].splitlines()[2:]
    assert len(rows) == 6 and all("](docs/" in row for row in rows)
    assert all(
        word in " ".join(rows) for word in ("clinician", "researcher", "orthodontist", "operator", "MONAI Label", "developer")
    )


def test_pictures_one_table_and_limits():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT)
    assert len(pictures) == 2 and all((ROOT / picture).is_file() for picture in pictures)
    assert TEXT.count("<!-- results:") == 1
    assert "\n## Limits\n" in TEXT and "not a medical device" in TEXT
