"""Plain pages: short README, no laboratory log, a glossary with sentences and sources."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import DOCS, PAGES, ROOT, name_of

LOG_WORDS = re.compile(r"\b(asked|missed:|was tried|we tried|not taken)\b", re.IGNORECASE)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_tells_of_demands_and_trials(page):
    assert LOG_WORDS.findall(page.read_text(encoding="utf-8")) == []


def terms() -> list[list[str]]:
    lines = (DOCS / "glossary.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ")][1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_glossary_has_the_vocabulary():
    known = {row[0] for row in terms()}
    assert len(known) == len(terms()) > 60
    assert known >= {
        *("coarse network", "fine network", "shape prior", "shape fit", "candidate", "evidence", "expected pose"),
        *("predicted absent", "leave-one-out", "model registry", "second pass", "prediction interval", "prediction region"),
        *("adaptive strategy", "MRE", "SDR", "heatmap", "control point", "fiducial", "spacing", "direction"),
    }


@pytest.mark.parametrize("row", terms(), ids=lambda row: row[0])
def test_term_has_a_sentence_and_a_source(row):
    assert len(row) == 3
    _, sentence, source = row
    assert re.fullmatch(r"[A-Z“].{15,}\.", sentence) and len(sentence) < 220
    assert source


def test_papers_of_the_glossary_are_listed():
    """A paper is listed on the methods page, or the glossary says where it appeared."""
    methods = (DOCS / "methods.md").read_text(encoding="utf-8")
    for row in terms():
        for name, rest in re.findall(r"\b([A-Z][a-zü]+ \d{4})([^;]*)", row[2]):
            assert f"**{name}**" in methods or rest.startswith(",") or name in EXPLAINED, f"{row[0]}: {name}"


EXPLAINED = {name for row in terms() for name in re.findall(r"\b([A-Z][a-z]+ \d{4}),", row[2])}


def test_terms_are_in_order():
    names = [row[0].lower() for row in terms()]
    assert names == sorted(names)


def test_methods_name_their_sources():
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^- \*\*([^*]+)\*\*:", text, re.MULTILINE))
    used = set(re.findall(r"(?:Sources?: |; |MICCAI )([A-Z][a-zü]+ \d{4})", text.split("## Sources")[0]))
    assert len(used) > 10 and used <= listed
