"""Generated parts of the documentation: from ``<!-- results: NAME -->`` to ``<!-- end -->`` a program writes the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pattern(kind: str) -> re.Pattern[str]:
    """Matches one block: its name, and what stands in it."""
    return re.compile(rf"<!-- {kind}: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


def renew(kind: str, render: Callable[[str], str], pages: Iterable[Path], check: bool) -> list[str]:
    """Write every block of a kind anew, or only say which are stale.

    Args:
        kind: first word of the block's marker.
        render: content of a block, by its name.
        pages: Markdown files to look through.
        check: leave the files alone.

    Returns:
        One line for each stale block: the page, the block, and the first cell that differs.
    """
    stale = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for name, old in pattern(kind).findall(text):
            if (new := f"\n{render(name)}\n\n") != old:
                where = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page.name
                stale.append(f"{where}, {name}: {first_difference(old, new)}")
        if not check:
            new_text = pattern(kind).sub(lambda m: f"<!-- {kind}: {m[1]} -->\n\n{render(m[1])}\n\n<!-- end -->", text)
            if new_text != text:
                page.write_text(new_text, encoding="utf-8")
    return stale


def first_difference(old: str, new: str) -> str:
    """The first figure that differs, with the row and the column of its table."""
    before, after = ([line for line in text.splitlines() if line.strip()] for text in (old, new))
    header: list[str] = []
    for number, right in enumerate(after):
        cells = split_row(right)
        header = cells if number == 0 or not after[number - 1].startswith("|") else header
        said = before[number] if number < len(before) else ""
        if said == right:
            continue
        for column, cell in enumerate(cells if right.startswith("|") else ()):
            there = split_row(said)
            if column >= len(there) or there[column] != cell:
                found = there[column] if column < len(there) else "nothing"
                title = header[column] if column < len(header) else f"column {column + 1}"
                return f"row {cells[0]!r}, column {title!r}: the page says {found!r}, the source {cell!r}"
        return f"the page says {said!r}, the source {right!r}"
    return f"the page has more than the source: {before[len(after)]!r}" if len(before) > len(after) else "blank lines differ"


def split_row(line: str) -> list[str]:
    """Cells of a table's row."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def table(header: list[str], rows: Iterable[list[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
