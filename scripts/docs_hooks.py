"""What MkDocs calls while it builds the site: formulas become MathML, and files from outside ``docs/`` come along.

MathML needs no script, so the site loads nothing from anywhere. Pages link to files of the repository as on GitHub
(``../slicer_extension/panel.png``); in the site the files lie beside the pages.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
FILES = (
    *("LICENSE", "CITATION.cff", "apps/landmarks/picture.png", "scripts/results/labels.png"),
    *("slicer_extension/panel.png", "slicer_extension/panel_dark.png", "slicer_extension/views.png"),
)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files, config):
    """Add the files that lie outside of ``docs/``."""
    for name in PAGES:
        files.append(File.generated(config, name, content=_page(name)))
    for name in FILES:
        files.append(File.generated(config, f"files/{Path(name).name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links to files outside of ``docs/`` point to where they lie in the site."""
    up = "../" * page.file.src_uri.count("/")
    for name in PAGES:
        markdown = markdown.replace(f"]({up}../{name}", f"]({up}{name}")
    for name in FILES:
        markdown = markdown.replace(f"]({up}../{name})", f"]({up}files/{Path(name).name})")
    return markdown


def on_page_content(content, page, config, files):
    """Formulas as MathML."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[2] == "[" else "inline"
    return convert(html.unescape(found[3]).strip(), display=display)


def _page(name: str) -> str:
    """A page of the repository's root, its links as seen from ``docs/``."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\((?!https?:|#|mailto:)docs/", "](", text)
    for file in FILES:
        text = text.replace(f"]({file})", f"](files/{Path(file).name})")
    return text
