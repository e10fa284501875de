"""A self-contained HTML page: text, numbers, tables and pictures; no script, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture

from landmarklabel.errors import UsageError
from landmarklabel.io.files import atomic_write
from landmarklabel.report.configuration import CONFIG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = str | float | None
_NOWHERE: Mapping[str, str] = MappingProxyType({})
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --line: #dfe4ea; --back: #ffffff; --card: #f5f7f9;
  --mark: #fdeccf; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #9aa5b3; --line: #323b47; --back: #14181e; --card: #1d232b; --mark: #4a3714; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.25rem 4rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(max(12rem, 30%), 1fr)); gap: .75rem; margin: 1.25rem 0; }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
dt, .note, figcaption { color: var(--soft); font-size: .85rem; }
dd { margin: 0; }
dd.value { font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; margin: 1rem 0; }
td:first-child, th { white-space: nowrap; }
table { border-collapse: collapse; font-size: .9rem; min-width: 24rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
tr.marked td { background: var(--mark); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(var(--stamp), 1fr)); gap: .75rem; margin: 1rem 0; }
figure.stamp { margin: 0; } figure.stamp svg { width: 100%; height: var(--stamp); background: #000; border-radius: .35rem; }
figure.stamp figcaption { font-size: .75rem; overflow-wrap: anywhere; }
figure.stamp.marked figcaption { background: var(--mark); }
a { color: inherit; }
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
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
"""


class Page:
    """Collects blocks in order; every text given to it is shown as text, whatever it contains.

    Args:
        title: of the page and its first heading.
    """

    def __init__(self, title: str):
        self.title = title
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

    def links(self, places: Mapping[str, str], here: str = "", before: str = "Page") -> None:
        """Links side by side after a word, by their texts; ``here`` is the one that one has followed."""
        parts = [f"<b>{escape(t)}</b>" if t == here else f'<a href="{escape(to)}">{escape(t)}</a>' for t, to in places.items()]
        self._blocks.append(f"<p>{escape(before)} {' '.join(parts)}</p>")

    def html_block(self, html: str) -> None:
        """HTML that a function of this package has made, unescaped."""
        self._blocks.append(html)

    def table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        marked: Collection[int] = (),
        links: Mapping[str, str] | None = None,
    ) -> None:
        """A table; numbers are right-aligned, floats get two decimals, None and NaN a dash.

        Args:
            header, rows: its cells.
            marked: numbers of the rows that stand out.
            links: where the texts of the first column lead.
        """
        rows = [list(row) for row in rows]
        numeric = [
            any(_is_number(row[i]) for row in rows) and not any(isinstance(row[i], str) for row in rows)
            for i in range(len(header))
        ]
        parts = ["<thead>", _row("th", header, numeric), "</thead><tbody>"]
        parts += [_row("td", row, numeric, n in marked, links or {}) for n, row in enumerate(rows)]
        self._blocks.append('<div class="wide"><table>' + "\n".join(parts) + "</tbody></table></div>")

    def picture(self, figure: Figure, caption: str, photograph: bool = False) -> None:
        """A figure inside the page, as a PNG of few colours or, a photograph, as a JPEG; the figure is cleared afterwards."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # of no use to a server that shows no picture

        figure.set_dpi((1.0 if photograph else 1.5) * CONFIG.pixels_per_inch)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = Picture.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        width = round(figure.get_figwidth() * CONFIG.pixels_per_inch)
        figure.clear()
        kind, content = ("jpeg", small_jpeg(drawn)) if photograph else ("png", _small_png(drawn))
        data = base64.b64encode(content).decode()
        text = escape(caption)
        self._blocks.append(
            f'<figure><img width="{width}" alt="{text}" src="data:image/{kind};base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def html(self) -> str:
        """The whole page."""
        head = _HEAD.format(title=escape(self.title), style=_STYLE)
        return head + "\n".join(self._blocks) + "\n</body>\n</html>\n"

    def write(self, path: str | Path) -> None:
        """Write the page, whole or not at all. Raises UsageError for a name that is none of a page: it may be somebody's file."""
        if Path(path).suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"{path}: a page's name must end in .html")
        atomic_write(path, self.html().encode("utf-8", "replace"))


def small_jpeg(picture: Picture.Image, most_bytes: int = CONFIG.picture_bytes) -> bytes:
    """A JPEG of at most so many bytes, as fine as they allow: first of lower quality, then smaller."""
    for scale in (1.0, 0.75, 0.5, 0.35, 0.25):
        size = [max(1, round(scale * n)) for n in picture.size]
        scaled = picture if scale == 1 else picture.resize(size, Picture.Resampling.LANCZOS)
        for quality in (80, 65, 50):
            buffer = BytesIO()
            scaled.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0)  # thin coloured lines stay
            if buffer.tell() <= most_bytes:
                return buffer.getvalue()
    return buffer.getvalue()


def _small_png(picture: Picture.Image) -> bytes:
    buffer = BytesIO()
    picture.quantize(256, dither=Picture.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _row(
    tag: str, cells: Sequence[Cell], numeric: Sequence[bool], marked: bool = False, links: Mapping[str, str] = _NOWHERE
) -> str:
    marks = [' class="number"' if n else "" for n in numeric]
    texts = [_cell(c) for c in cells]
    if texts and (to := links.get(str(cells[0]))):
        texts[0] = f'<a href="{escape(to)}">{texts[0]}</a>'
    row = "".join(f"<{tag}{m}>{text}</{tag}>" for text, m in zip(texts, marks, strict=True))
    return f'<tr class="marked">{row}</tr>' if marked else f"<tr>{row}</tr>"


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, Real) and not isinstance(cell, bool)


def _cell(cell: Cell) -> str:
    if cell is None or (isinstance(cell, Real) and math.isnan(cell)):
        return "–"
    return escape(f"{cell:.2f}" if isinstance(cell, Real) and not isinstance(cell, Integral) else str(cell))
