"""Small pictures of images with their landmarks on them, many to a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image as Picture

from landmarklabel.data.cases import Case
from landmarklabel.data.grids import small_copy
from landmarklabel.geometry import axis_aligned_grid
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.report.configuration import CONFIG
from landmarklabel.report.page import small_jpeg

_FRONT = {2: (0, 1), 3: (0, 2)}  # the world axes that are seen: a picture as it is, a volume from the front


@dataclass(frozen=True)
class Thumbnail:
    """An image at the size of a stamp.

    Args:
        jpeg: the picture; of a volume its largest values from front to back.
        size: width and height in pixels.
        low, high: (2,) LPS mm of the edges along the two axes that are seen.
        axes: which ones.
    """

    jpeg: bytes
    size: tuple[int, int]
    low: np.ndarray
    high: np.ndarray
    axes: tuple[int, int]

    def places(self, positions_mm: np.ndarray) -> np.ndarray:
        """(n, 2) pixels from the upper left corner of (n, d) LPS mm."""
        share = (positions_mm[:, [*self.axes]] - self.low) / (self.high - self.low)
        if self.axes[1] == 2:  # up in the patient is up in the picture
            share[:, 1] = 1 - share[:, 1]
        return share * self.size


def make_thumbnail(case: Case, longest: int) -> Thumbnail:
    """A thumbnail of an image, ``longest`` pixels at its longest side."""
    geometry = case.image.geometry
    low, high = geometry.bounds_mm
    axes = _FRONT[geometry.dims]
    grid = axis_aligned_grid(geometry, float((high - low)[[*axes]].max()) / longest)
    spacing = float(grid.spacing[0])
    picture = small_copy(case, grid)
    if geometry.dims == 3:
        picture = picture.max(axis=1)[::-1]
    dark, bright = np.percentile(picture, [CONFIG.black_percentile, CONFIG.white_percentile])
    grey = np.clip((picture - dark) / max(float(bright - dark), 1e-6), 0, 1)
    drawn = Picture.fromarray((255 * grey).astype(np.uint8))
    edges = (grid.origin - spacing / 2)[[*axes]], (grid.origin + (np.array(grid.size) - 0.5) * spacing)[[*axes]]
    return Thumbnail(small_jpeg(drawn), drawn.size, *edges, axes)


def thumbnail_html(
    thumbnail: Thumbnail, landmarks: LandmarkSet | None, caption: str, href: str = "", marked: bool = False
) -> str:
    """A thumbnail with its points (each says its name under the mouse) and a line below; points outside lie on its edge.

    Args:
        thumbnail: the picture.
        landmarks: shown on it.
        caption: the line.
        href: where a click on the line leads.
        marked: the line stands out.
    """
    width, height = thumbnail.size
    radius = max(1.5, max(width, height) / 70)
    points = "" if landmarks is None else "".join(_points(thumbnail, landmarks, radius))
    data = base64.b64encode(thumbnail.jpeg).decode()
    text = f'<a href="{escape(href)}">{escape(caption)}</a>' if href else escape(caption)
    label = f'role="img" aria-label="{escape(caption)}"'
    return (
        f'<figure class="stamp{" marked" if marked else ""}"><svg viewBox="0 0 {width} {height}" {label}>'
        f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/>{points}</svg>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _points(thumbnail: Thumbnail, landmarks: LandmarkSet, radius: float) -> list[str]:
    there = np.flatnonzero(landmarks.defined)
    places = thumbnail.places(landmarks.positions_mm[there])
    inside = np.clip(places, 0, thumbnail.size)
    out = []
    for i, place, shown in zip(there, places, inside, strict=True):
        colour = "#35d07f" if np.allclose(place, shown) else "#ff4d4d"
        name = escape(landmarks.task.names[i])
        x, y = shown
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"><title>{name}</title></circle>')
    return out


def sheet(stamps: Sequence[str], rem: float = 8) -> str:
    """Thumbnails side by side, each so many times as large as the page's letters."""
    return f'<div class="sheet" style="--stamp: {rem:g}rem">' + "\n".join(stamps) + "</div>"
