"""2D images as a screen shows them: parts of them as pictures of 8 bits, at full resolution or averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landmarklabel.errors import UsageError
from landmarklabel.io.image_array import Image
from landmarklabel.services.descriptions import describe
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.screen_copies import ScreenCopies, listed, thinned
from landmarklabel.services.screen_images import greys_of, window_of

_AT_ONCE = 2**20  # samples that are worked on as float64: 8 MiB


@dataclass(frozen=True)
class ScreenPicture:
    """A 2D image's samples.

    Args:
        samples: (height, width) grey values as stored; of a large image mapped from a file.
        window: values that are shown black and white at first.
        range: lowest and highest value.
    """

    samples: np.ndarray
    window: tuple[float, float]
    range: tuple[float, float]

    def part(
        self,
        window: tuple[float, float],
        first: Sequence[int] = (0, 0),
        size: Sequence[int] | None = None,
        step: int | None = None,
    ) -> tuple[np.ndarray, int]:
        """Part of it as 8 bits, axes y, x, and its step: of every ``step`` x ``step`` samples the mean.

        Args:
            window: values that become black and white.
            first: x, y of the first sample.
            size: samples along x, y before they are averaged, all by default; what reaches beyond the end is cut.
            step: by default the least with which no more is sent than is at once.

        Raises:
            UsageError: nothing of the image is there, it is more than is sent at once, or the window is none.
        """
        low, high = window
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(f"low {low:g} must be below high {high:g}, and both numbers")
        whole = self.samples.shape[::-1]
        last = [min(f + n, w) for f, n, w in zip(first, size or whole, whole, strict=True)]
        if any(not 0 <= f < e for f, e in zip(first, last, strict=True)) or (step is not None and step < 1):
            by = "" if step is None else f" by {step}"
            raise UsageError(f"from {listed(first)} to {listed(last)}{by}: the image is {listed(whole)} samples")
        extent = [e - f for f, e in zip(first, last, strict=True)]
        step = least_step(extent) if step is None else step
        count = _count(extent, step)
        if count > LIMITS.picture_samples:
            most = LIMITS.picture_samples
            raise UsageError(f"{count} samples at once; at most {most} are sent: ask for fewer, or a larger step")
        x, y = (slice(f, e) for f, e in zip(first, last, strict=True))
        return _greys(self.samples[y, x], step, low, high), step


def least_step(size: Sequence[int]) -> int:
    """Along x and y, with which no more samples are left than are sent at once."""
    step = max(1, math.isqrt(math.prod(size) // LIMITS.picture_samples))
    while _count(size, step) > LIMITS.picture_samples:
        step += 1
    return step


class ScreenPictures(ScreenCopies[ScreenPicture]):
    """A study's 2D images; those that are sent in parts have copies, so that no file is read anew for each part."""

    def of(self, path: Path, read: Callable[[], Image]) -> ScreenPicture:
        """An image as it is now; ``read`` is called unless there is a copy.

        Raises:
            ImageRejected: as ``describe``.
            StoreFault: the disk refused. Otherwise as ``read``.
        """
        if math.prod(describe(path, 2).geometry.size) > LIMITS.picture_samples:
            return super().of(path, read)
        pixels = read().pixels
        return ScreenPicture(pixels, window_of(pixels), _range(pixels))

    def _prepared(self, image: Image) -> tuple[np.ndarray, dict[str, Any]]:
        return image.pixels, {"window": window_of(thinned(image.pixels)), "range": _range(image.pixels)}

    def _opened(self, samples: np.ndarray, about: dict[str, Any]) -> ScreenPicture:
        (black, white), (low, high) = about["window"], about["range"]
        return ScreenPicture(samples, (black, white), (low, high))


def _range(pixels: np.ndarray) -> tuple[float, float]:
    return float(pixels.min()), float(pixels.max())


def _count(size: Sequence[int], step: int) -> int:
    return math.prod(-(-n // step) for n in size)


def _greys(samples: np.ndarray, step: int, low: float, high: float) -> np.ndarray:
    height, width = samples.shape
    if step == 1:
        rows = max(1, _AT_ONCE // width)
        return np.concatenate([greys_of(samples[y : y + rows], low, high) for y in range(0, height, rows)])
    return np.stack([greys_of(_mean_row(samples[y : y + step], step), low, high) for y in range(0, height, step)])


def _mean_row(samples: np.ndarray, step: int) -> np.ndarray:
    """The mean of every ``step`` columns of these rows; of the last ones, of as many as there are."""
    height, width = samples.shape
    kind: type = np.int64 if np.issubdtype(samples.dtype, np.integer) else np.float64
    rows = max(1, _AT_ONCE // width)
    total: np.ndarray = np.sum([samples[y : y + rows].sum(axis=0, dtype=kind) for y in range(0, height, rows)], axis=0)
    starts = np.arange(0, width, step)
    mean: np.ndarray = np.add.reduceat(total, starts) / (np.diff(starts, append=width) * height)
    return mean
