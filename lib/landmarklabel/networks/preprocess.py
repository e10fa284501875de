"""Grey values as the published networks expect them; images of any dimension in, float32 of the same shape out."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def match_to_reference(pixels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give the object in ``pixels`` the histogram of the object in ``reference``; the background stays as it is.

    An image without an object (one grey value only) comes back unchanged.

    Args:
        pixels: 2D or 3D image, any unit.
        reference: 2D or 3D image of the same kind; sizes may differ.

    Returns:
        float32, shape of ``pixels``, the object in the unit of ``reference``.

    Source: DonggeJia/SpatialConfiguration-Net (histogram matching inside the Otsu foreground).
    """
    matched = np.array(pixels, dtype=np.float32)
    inside, target = outline(pixels), outline(reference)
    if inside.any() and target.any():
        matched[inside] = _match(np.asarray(pixels)[inside], np.asarray(reference)[target])
    return matched


def outline(pixels: np.ndarray) -> np.ndarray:
    """The largest bright object without its holes: boolean mask of the shape of ``pixels`` (2D or 3D)."""
    bright = np.asarray(pixels) > otsu_threshold(pixels)
    if not bright.any():
        return bright
    parts, _ = ndimage.label(bright)
    sizes = np.bincount(parts.ravel())[1:]
    made: np.ndarray = ndimage.binary_fill_holes(parts == 1 + sizes.argmax())
    return made


def otsu_threshold(pixels: np.ndarray, bins: int = 256) -> float:
    """The grey value that splits the image into the two classes farthest apart; the upper class lies above it.

    Args:
        pixels: image of any dimension and unit.
        bins: of the histogram between its smallest and largest value.

    Source: Otsu 1979 (largest variance between the classes).
    """
    pixels = np.asarray(pixels, dtype=np.float64)
    if pixels.min() == pixels.max():
        return float(pixels.max())
    counts, edges = np.histogram(pixels, bins=bins)
    below = np.cumsum(counts)[:-1]
    above = pixels.size - below
    sums = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    gap = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
    return float(edges[1 + np.argmax(below * above * gap**2.0)])


def _match(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    levels, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    reference_levels, reference_counts = np.unique(reference, return_counts=True)
    quantiles = np.cumsum(counts) / values.size
    reference_quantiles = np.cumsum(reference_counts) / reference.size
    return np.interp(quantiles, reference_quantiles, reference_levels)[where]
