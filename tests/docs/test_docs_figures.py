"""Figures are those of ``scripts/results``, and stand nowhere else."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from tests.docs.pages import DOCS, PAGES, ROOT, name_of, prose

sys.path.insert(0, str(ROOT / "scripts"))

import doc_blocks
import results_files
import results_tables

SCRIPTS = ROOT / "scripts"


def check(script: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPTS / script), "--check"], capture_output=True, timeout=300, encoding="utf-8")


def test_no_figure_is_stale():
    done = check("results_tables.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # starts a server
def test_list_of_routes_is_not_stale():
    done = check("http_page.py")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def page(tmp_path):
    """A page with the table of hands, as it should be."""
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n<!-- results: hands -->\n<!-- end -->\n\nmore\n", encoding="utf-8")
    doc_blocks.renew("results", render, [page], check=False)
    return page


def render(name: str) -> str:
    return results_tables.BLOCKS[name]()


def test_stale_figure_is_named(page):
    text = page.read_text(encoding="utf-8")
    metrics = json.loads((results_files.RESULTS / "hands_best.json").read_text(encoding="utf-8"))["metrics"]
    right = f"{metrics['median_mm']:.3f} mm"
    assert right in text and doc_blocks.renew("results", render, [page], check=True) == []
    page.write_text(text.replace(right, "0.123 mm"), encoding="utf-8")
    said = doc_blocks.renew("results", render, [page], check=True)
    assert said == [f"page.md, hands: row 'hands', column 'median': the page says '0.123 mm', the source {right!r}"]
    assert "0.123 mm" in page.read_text(encoding="utf-8"), "looking changes nothing"


def test_stale_note_and_lost_row_are_named(page):
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"Hardware: \S+", "Hardware: another", text, count=1), encoding="utf-8")
    assert "Hardware: another" in doc_blocks.renew("results", render, [page], check=True)[0]
    page.write_text(re.sub(r"\| hands, 5-fold.*\n", "", text), encoding="utf-8")
    assert "row 'hands, 5-fold" in doc_blocks.renew("results", render, [page], check=True)[0]


def test_writing_keeps_the_rest_of_the_page(page):
    before = page.read_text(encoding="utf-8")
    doc_blocks.renew("results", render, [page], check=False)
    assert page.read_text(encoding="utf-8") == before
    assert before.startswith("# A page\n\n") and before.endswith("\n\nmore\n")


def test_every_result_is_shown():
    """A file that no page shows is forgotten; ``hands`` was decoded by an earlier rule."""
    shown = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *DOCS.glob("*.md")))
    names = {path.stem for path in results_files.RESULTS.glob("*.json")} - {"hands"}
    assert names and {name for name in names if f"`{name}`" not in shown} == set()


def test_every_table_says_data_and_hardware():
    for name, block in results_tables.BLOCKS.items():
        assert re.search(r"\n\nData: .+ Hardware: .+ Experiments?: `\w+`", block()), name


MEASURED = re.compile(r"\d+\.\d+ (?:mm\b|px\b|%|s\b|ms\b|GiB\b)|\b\d+ (?:ms|GiB)\b|\d(?:\.\d+)? ?×")


@pytest.mark.parametrize("page", [p for p in PAGES if "slicer_extension" not in name_of(p)], ids=name_of)
def test_no_measured_figure_stands_outside_the_tables(page):
    assert MEASURED.findall(prose(page)) == []


def test_the_pattern_of_measured_figures_finds_some():
    assert MEASURED.findall("0.69 mm, 94.7 % of, 42 ms, 5.2 × and 0.56 GiB") == [
        "0.69 mm",
        "94.7 %",
        "42 ms",
        "5.2 ×",
        "0.56 GiB",
    ]
