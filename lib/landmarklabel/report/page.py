"""A self-contained HTML page: text, numbers, tables and pictures; no script, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from landmarklabel.io.files import atomic_write

Cell = str | Real | None
_PIXELS_PER_INCH = 96  # of the page; pictures hold half as many again, for sharp screens
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --line: #dfe4ea; --back: #ffffff; --card: #f5f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #9aa5b3; --line: #323b47; --back: #14181e; --card: #1d232b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.25rem 4rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
dt, .note, figcaption { color: var(--soft); font-size: .85rem; }
dd { margin: 0; }
dd.value { font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; min-width: 24rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1.25rem 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .5rem; border: 1px solid var(--line); }
figcaption { margin-top: .35rem; }
@media print { body { max-width: none; padding: 0; } figure, dl div, tr { break-inside: avoid; } }
"""
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
{refresh}<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
"""


class Page:
    """Collects blocks in order; every text given to it is shown as text, whatever it contains.

    Args:
        title: of the page and its first heading.
        refresh_s: the browser loads it again after so many seconds.
    """

    def __init__(self, title: str, refresh_s: int | None = None):
        self.title, self.refresh_s = title, refresh_s
        self._blocks: list[str] = []

    def section(self, title: str) -> None:
        """A heading."""
        self._blocks.append(f"<h2>{escape(title)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._blocks.append(f"<p>{escape(text)}</p>")

    def numbers(self, items: Iterable[tuple[str, str, str]]) -> None:
        """Headline numbers: (what it is, the value, a note below it)."""
        tiles = [
            f'<div><dt>{name}</dt><dd class="value">{value}</dd><dd class="note">{note}</dd></div>'
            for name, value, note in (map(escape, item) for item in items)
        ]
        self._blocks.append("<dl>\n" + "\n".join(tiles) + "\n</dl>")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """A table; numbers are right-aligned, floats get two decimals, None and NaN a dash."""
        rows = [list(row) for row in rows]
        numeric = [
            any(_is_number(row[i]) for row in rows) and not any(isinstance(row[i], str) for row in rows)
            for i in range(len(header))
        ]
        parts = ["<thead>", _row("th", header, numeric), "</thead><tbody>"]
        parts += [_row("td", row, numeric) for row in rows]
        self._blocks.append('<div class="wide"><table>' + "\n".join(parts) + "</tbody></table></div>")

    def picture(self, figure: Figure, caption: str) -> None:
        """A figure as a PNG inside the page; the figure is cleared afterwards."""
        buffer = BytesIO()
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(1.5 * _PIXELS_PER_INCH)
        # Decision: no "Software" entry, so that the same data gives the same bytes and no web address.
        canvas.print_png(buffer, metadata={"Software": None})
        width = round(figure.get_figwidth() * _PIXELS_PER_INCH)
        figure.clear()
        data = base64.b64encode(buffer.getvalue()).decode()
        text = escape(caption)
        self._blocks.append(
            f'<figure><img width="{width}" alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def html(self) -> str:
        """The whole page."""
        again = f'<meta http-equiv="refresh" content="{int(self.refresh_s)}">\n' if self.refresh_s else ""
        head = _HEAD.format(title=escape(self.title), style=_STYLE, refresh=again)
        return head + "\n".join(self._blocks) + "\n</body>\n</html>\n"

    def write(self, path: str | Path) -> None:
        """Write the page, whole or not at all."""
        atomic_write(path, self.html().encode("utf-8", "replace"))


def _row(tag: str, cells: Sequence[Cell], numeric: Sequence[bool]) -> str:
    marks = [' class="number"' if n else "" for n in numeric]
    return "<tr>" + "".join(f"<{tag}{m}>{_cell(c)}</{tag}>" for c, m in zip(cells, marks, strict=True)) + "</tr>"


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, Real) and not isinstance(cell, bool)


def _cell(cell: Cell) -> str:
    if cell is None or (isinstance(cell, Real) and math.isnan(cell)):
        return "–"
    return escape(f"{cell:.2f}" if isinstance(cell, Real) and not isinstance(cell, Integral) else str(cell))
