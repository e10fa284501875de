"""Relative links, pictures and named files are there."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import DOCS, PAGES, ROOT, name_of, prose

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]*)\)")
LINKS = [(page, target) for page in PAGES for target in sorted(set(LINK.findall(prose(page))))]


def test_there_are_links():
    assert len(LINKS) > 60


@pytest.mark.parametrize("page, target", LINKS, ids=[f"{name_of(page)} {target}" for page, target in LINKS])
def test_link_resolves(page, target):
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.is_relative_to(ROOT) and file.exists(), f"{name_of(page)}: no {target}"
    if anchor:
        assert anchor in anchors(file), f"{name_of(page)}: no heading for {target}"


def anchors(file) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_page_is_in_the_navigation():
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1]
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert pages and all(f": {page}\n" in listed for page in pages)


def named_paths() -> list[tuple[str, str]]:
    """Paths of this repository that pages name as code."""
    pattern = r"`((?:tests|scripts|docs|apps|slicer_extension)/[\w./-]+)`"
    return [(name_of(page), path) for page in PAGES for path in sorted(set(re.findall(pattern, prose(page))))]


@pytest.mark.parametrize("page, path", named_paths(), ids=str)
def test_named_path_exists(page, path):
    assert (ROOT / path).exists()


def test_modules_of_the_methods_exist():
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    modules = re.findall(r"`(\w+/\w+\.py)`", text)
    assert len(modules) > 5
    for module in modules:
        assert (ROOT / "lib" / "landmarklabel" / module).is_file(), module


def test_the_tree_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"^([a-z_]+/\S*) {2,}", text, re.MULTILINE)
    assert len(paths) > 4 and all((ROOT / path).is_dir() for path in paths)
