"""Images as a screen shows them: where they lie, and their grey values in a window, as PNG."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image as Picture

from landmarklabel.geometry import ImageGeometry, SlicePlane
from landmarklabel.report.configuration import CONFIG


@dataclass(frozen=True)
class Frame:
    """Where an image lies.

    Args:
        size: samples along each axis.
        to_mm: (w, d + 1) from sample numbers and 1 to LPS mm, with as many rows as points of the image have numbers.
        to_index: (d, w + 1) the way back.
    """

    size: tuple[int, ...]
    to_mm: np.ndarray
    to_index: np.ndarray


def frame_of(geometry: ImageGeometry, plane: SlicePlane | None) -> Frame:
    """The frame of an image; of a 2D image that is a slice of a volume, points have three numbers."""

    def world(index: np.ndarray) -> np.ndarray:
        flat = geometry.index_to_world(index)
        return flat if plane is None else plane.lift(flat)

    dims = geometry.dims
    origin = world(np.zeros(dims))
    columns = np.stack([world(np.eye(dims)[axis]) - origin for axis in range(dims)], axis=1)
    back = np.linalg.pinv(columns)
    return Frame(geometry.size, np.column_stack([columns, origin]), np.column_stack([back, -back @ origin]))


def window_of(pixels: np.ndarray) -> tuple[float, float]:
    """The values that are shown black and white at first: all of an image with 8 bits, else all but the outermost."""
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    low, high = np.percentile(pixels, [CONFIG.black_percentile, CONFIG.white_percentile])
    return float(low), float(max(high, low + 1e-6))


def greys_of(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as 8 bits; ``low`` is black, ``high`` white."""
    if values.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return values
    share = np.clip((values.astype(np.float64) - low) / max(high - low, 1e-6), 0, 1)
    return np.round(255 * share).astype(np.uint8)


def png_of(greys: np.ndarray) -> bytes:
    """(height, width) greys of 8 bits as a PNG."""
    out = io.BytesIO()
    Picture.fromarray(np.ascontiguousarray(greys)).save(out, "png", compress_level=1)  # quicker than the network
    return out.getvalue()
