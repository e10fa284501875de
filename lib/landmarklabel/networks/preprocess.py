"""Grey values as the published networks expect them; images of any dimension in, float32 of the same shape out."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from landmarklabel.errors import UsageError


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


def percentile_window(pixels: np.ndarray, low: float = 5.0, high: float = 95.0) -> np.ndarray:
    """Map the low and high percentile to -1 and 1 linearly; values beyond them go beyond, nothing is clamped.

    Where both percentiles are the same value, the whole range is used; a constant image becomes zeros.

    Args:
        pixels: image of any dimension and unit.
        low, high: percentiles, 0 <= low < high <= 100.

    Returns:
        float32, shape of ``pixels``.

    Raises:
        UsageError: percentiles out of order or range.

    Source: Payer 2016, implementation (hand radiographs: 5th and 95th percentile to [-1, 1]).
    """
    if not 0 <= low < high <= 100:
        raise UsageError(f"percentiles {low:g} and {high:g} are no window; they need 0 <= low < high <= 100")
    pixels = np.asarray(pixels, dtype=np.float64)
    bottom, top = np.percentile(pixels, [low, high])
    if bottom == top:
        bottom, top = pixels.min(), pixels.max()
    span = top - bottom if top > bottom else np.inf
    made: np.ndarray = (2 * ((pixels - (bottom + top) / 2) / span)).astype(np.float32)
    return made


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
