"""The site is built without a warning, and loads nothing from anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from tests.docs.pages import DOCS, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a broken link or anchor, or any other warning, fails here."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return folder


class Loads(HTMLParser):
    """What a browser loads for a page by itself."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found += [attrs["src"]] if attrs.get("src") else []
        if tag == "link" and attrs.get("rel") != "canonical":
            self.found.append(attrs.get("href") or "")


def test_every_page_is_built(site):
    pages = [page.relative_to(DOCS).with_suffix(".html").as_posix() for page in DOCS.rglob("*.md")]
    assert pages
    for page in (*pages, "CHANGELOG.html", "CONTRIBUTING.html", "SECURITY.html"):
        assert (site / page.replace("README.html", "index.html")).is_file(), page


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found and not [one for one in loads.found if re.match(r"(https?:)?//", one)], page.name
        for one in loads.found:
            file = (page.parent / one.partition("?")[0].partition("#")[0]).resolve()
            assert page.name == "404.html" or file.exists(), f"{page.name}: {one}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_formulas_need_no_script(site):
    text = (site / "methods.html").read_text(encoding="utf-8")
    formulas = re.findall(r"<math.*?</math>", text, re.DOTALL)
    assert len(formulas) > 20 and "arithmatex" not in text
    assert not [formula for formula in formulas if "\\" in formula], "a word that was not understood"


def test_pictures_come_along(site):
    for name in ("picture.png", "panel.png", "views.png", "labels.png"):
        assert (site / "files" / name).read_bytes().startswith(b"\x89PNG")
