"""An image ready to be sampled anywhere in the world, at any coarseness, quickly."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from landmarklabel.data.mapped_pixels import where_it_was
from landmarklabel.data.mirror import Mirror
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.image_array import Image
from landmarklabel.landmarks import LandmarkSet


@dataclass
class Case:
    """One image, what is known of its landmarks, and a cache of coarser copies (the pyramid).

    Args:
        image_id: its id.
        image: pixels as stored, and geometry.
        landmarks: None when unlabelled.
        window: grey values that map to 0 and 1; measured when None.
        rotation: (d, d) that turns the usual orientation of the study into this image's; None where it has no meaning.
        mirror: of the study's shape, where it is symmetric and may be trained on mirrored.
        implied_absent_mm: (n, d) where the shape would have the landmarks that a person called absent; None where nobody knows.
    """

    image_id: str
    image: Image
    landmarks: LandmarkSet | None = None
    window: tuple[float, float] = None  # type: ignore[assignment]  # None only until __post_init__ has measured it
    rotation: np.ndarray | None = None
    mirror: Mirror | None = None
    implied_absent_mm: np.ndarray | None = None
    _pyramid: dict[tuple[int, ...], tuple[np.ndarray, ImageGeometry]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.window is None:
            self.window = grey_window(self.image.pixels)

    @property
    def labels(self) -> LandmarkSet:
        """The landmarks of a labelled case. Raises ValueError where it has none."""
        if self.landmarks is None:
            raise ValueError(f"case {self.image_id!r} has no landmarks; it cannot be used as a labelled one")
        return self.landmarks

    def coarse(self, spacing_mm: float) -> tuple[np.ndarray, ImageGeometry]:
        """Pixels and geometry averaged down by powers of two per axis, while still finer than ``spacing_mm``."""
        geometry = self.image.geometry
        ratio = np.maximum(spacing_mm * 1.05 / geometry.spacing, 1.0)
        wanted = 2 ** np.floor(np.log2(ratio)).astype(int)
        factors = tuple(int(min(f, s)) for f, s in zip(wanted, geometry.size, strict=True))
        if factors not in self._pyramid:
            pixels, shrunk = shrink(self.image.pixels, geometry, factors)
            self._pyramid[factors] = where_it_was(pixels, self.image.pixels), shrunk
        return self._pyramid[factors]

    def sample(self, positions_mm: np.ndarray, spacing_mm: float) -> np.ndarray:
        """Grey values at positions (*shape, d) LPS mm, by linear interpolation.

        The window is mapped to 0..1, what lies beyond is cut at -0.5 and 1.5, and outside of the image is 0.
        ``spacing_mm`` is the distance of neighbouring positions: the coarse copy that avoids aliasing is read.
        """
        pixels, geometry = self.coarse(spacing_mm)
        return self._windowed(sample_linear(pixels, geometry, positions_mm, fill=self.window[0]))

    def boxes(self, centres_mm: np.ndarray, offsets_mm: np.ndarray, matrices: np.ndarray | None, spacing_mm: float) -> np.ndarray:
        """Grey values like ``sample``, at the same offsets around many centres.

        Args:
            centres_mm: (k, d) LPS mm.
            offsets_mm: (p, d) mm, before turning.
            matrices: (k, d, d) applied to the offsets, or None.
            spacing_mm: distance of neighbouring offsets.

        Returns:
            (k, p) float32.
        """
        pixels, geometry = self.coarse(spacing_mm)
        inverse = np.linalg.inv(geometry.matrix)
        linear = inverse[None] if matrices is None else inverse @ matrices
        start = geometry.world_to_index(centres_mm).astype(np.float32)
        index = offsets_mm.astype(np.float32) @ linear.transpose(0, 2, 1).astype(np.float32)
        index = index + start[:, None]  # (k, p, d)
        if pixels.size <= 16 * index[..., 0].size:
            values = interpolate(pixels, index.reshape(-1, index.shape[-1]), self.window[0]).reshape(index.shape[:2])
        else:  # read only what lies around each centre
            values = np.stack([interpolate(pixels, x, self.window[0]) for x in index])
        return self._windowed(values)

    def _windowed(self, values: np.ndarray) -> np.ndarray:
        low, high = self.window
        values -= np.float32(low)
        values *= np.float32(1 / max(high - low, 1e-6))
        return np.clip(values, -0.5, 1.5, out=values)


def grey_window(pixels: np.ndarray, low: float = 2.0, high: float = 98.0) -> tuple[float, float]:
    """Percentiles of (at most about 60 000 regularly spaced) grey values; never an empty interval."""
    step = max(1.0, (pixels.size / 60_000) ** (1 / pixels.ndim))
    values = pixels
    for axis, length in enumerate(pixels.shape):
        count = max(1, int(length / step))
        chosen = np.floor((np.arange(count) + 0.5) * length / count).astype(int)  # the same ones from either end
        values = values.take(chosen, axis=axis)
    values = values.astype(np.float32)
    a, b = np.percentile(values, [low, high])
    if b - a < 1e-6 * max(abs(b), 1.0):
        a, b = float(values.min()), float(values.max())
    return float(a), float(b if b > a else a + 1.0)


def shrink(pixels: np.ndarray, geometry: ImageGeometry, factors: tuple[int, ...]) -> tuple[np.ndarray, ImageGeometry]:
    """Block means; ``factors`` an index axis (x, y[, z]). An incomplete block is dropped, at the side that lies towards
    positive world axes, so that the same image stored flipped gives the same blocks."""
    if all(f == 1 for f in factors):
        return pixels, geometry
    size = [s // f for s, f in zip(geometry.size, factors, strict=True)]
    steps = factors[::-1]
    flipped = [column[np.abs(column).argmax()] < 0 for column in geometry.direction.T]
    skipped = [s % f if flip else 0 for s, f, flip in zip(geometry.size, factors, flipped, strict=True)]
    used = tuple(slice(k, k + c * f) for k, c, f in zip(skipped[::-1], size[::-1], steps, strict=True))
    pixels = pixels[used]
    out = np.empty(size[::-1], np.float32)
    at_once = 2**22  # samples
    rows = max(1, int(at_once / (steps[0] * np.prod(pixels.shape[1:]))))  # floats of a whole volume would not fit
    for start in range(0, len(out), rows):
        slab = pixels[start * steps[0] : min(start + rows, len(out)) * steps[0]]
        out[start : start + rows] = _block_means(np.asarray(slab, np.float32), steps)
    origin = geometry.index_to_world(np.array(skipped) + (np.array(factors) - 1) / 2)
    return out, ImageGeometry(tuple(size), geometry.spacing * factors, origin, geometry.direction)


def _block_means(values: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    for axis, step in enumerate(steps):  # sums of slices: several times quicker than a mean over a short axis
        before = (slice(None),) * axis
        values = reduce(np.add, (values[(*before, slice(k, None, step))] for k in range(step))) / np.float32(step)
    return values


def sample_linear(pixels: np.ndarray, geometry: ImageGeometry, positions_mm: np.ndarray, fill: float) -> np.ndarray:
    """Linear interpolation at world positions (*shape, d); ``fill`` outside. Where the entries of the first axis lie far
    apart, each reads its own block of pixels."""
    shape, d = positions_mm.shape[:-1], positions_mm.shape[-1]
    inverse = np.linalg.inv(geometry.matrix)
    offset = (inverse @ geometry.origin).astype(positions_mm.dtype)
    index = positions_mm.reshape(-1, d) @ inverse.T.astype(positions_mm.dtype) - offset
    if len(shape) > d and pixels.size > 16 * len(index):
        values = np.concatenate([interpolate(pixels, x, fill) for x in index.reshape(shape[0], -1, d)])
    else:
        values = interpolate(pixels, index, fill)
    made: np.ndarray = values.reshape(shape)
    return made


def interpolate(pixels: np.ndarray, index: np.ndarray, fill: float) -> np.ndarray:
    """Linear interpolation at (n, d) indices (x, y[, z]), ``fill`` outside: (n,) float32. Reads the block it needs.

    All but the interpolation is numpy: torch would wake its other threads for these small sums, which costs more than it saves.
    """
    import torch  # here, not above: what only describes and shows images, such as a server without a model, starts without it
    import torch.nn.functional as F

    d = index.shape[1]
    last = np.array(pixels.shape[::-1]) - 1
    if pixels.size <= 8 * len(index):  # not worth looking for the part that is needed
        low, high = np.zeros_like(last), last
    else:
        columns = [index[:, a] for a in range(d)]  # a reduction along one column is ten times quicker than along axis 0
        low, high = np.floor([x.min() for x in columns]).astype(int), np.ceil([x.max() for x in columns]).astype(int) + 1
    if (high < 0).any() or (low > last).any():
        return np.full(len(index), fill, np.float32)
    low = np.clip(low, 0, np.maximum(last - 1, 0))  # two samples per axis where there are two: one has no beyond
    high = np.clip(high, np.minimum(low + 1, last), last)
    block = np.array(pixels[tuple(slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))], np.float32)
    block -= np.float32(fill)
    grid = ((index - low.astype(index.dtype)) * (2 / np.maximum(high - low, 1)).astype(index.dtype) - 1).astype(np.float32)
    places = torch.from_numpy(grid).reshape(1, *(1,) * (d - 1), -1, d)
    image = torch.from_numpy(block)[None, None]
    out = F.grid_sample(image, places, mode="bilinear", padding_mode="zeros", align_corners=True).reshape(-1).numpy()
    thin = high == low
    if thin.any():  # a single sample along an axis: seen by positions within half a sample of it
        out = np.where((np.abs(grid[:, thin] + 1) <= 1).all(axis=1), out, np.float32(0))
    return out + np.float32(fill)
