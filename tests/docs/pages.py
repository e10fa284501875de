"""The pages that people read, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / name for name in ("slicer_extension/README.md", "apps/landmarks/README.md")),
    *sorted(DOCS.rglob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: the page, the line it begins at, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks() -> list[Block]:
    """All fenced blocks of all pages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            indent = match[1]
            inside = "".join(line.removeprefix(indent) for line in match[3].splitlines(keepends=True))
            found.append(Block(page, text[: match.start()].count("\n") + 1, match[2], inside))
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks and its generated tables."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"<!-- (\w+): \w+ -->.*?<!-- end -->", "", text, flags=re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """(where, command) of every line in ``sh`` blocks, and of every `landmarklabel …` in the text that says more than a name."""
    found = []
    for block in blocks():
        if block.language == "sh":
            lines = block.text.replace("\\\n", " ").splitlines()
            found += [(str(block), line) for line in lines if line.strip() and not line.startswith("#")]
    for page in PAGES:
        for words in re.findall(r"`(landmarklabel [a-z][^`]*)`", prose(page)):
            if len(words.split()) > 3 and "…" not in words:
                found.append((name_of(page), words))
    return found
