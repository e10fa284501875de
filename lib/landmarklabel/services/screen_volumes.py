"""Volumes as a screen shows them: 16 bits a sample, whole or a piece, at full resolution or averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from landmarklabel.errors import UsageError
from landmarklabel.io.image_array import Image
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.screen_copies import ScreenCopies, listed, thinned
from landmarklabel.services.screen_images import window_of

_LOWEST, _HIGHEST = int(np.iinfo(np.int16).min), int(np.iinfo(np.int16).max)


@dataclass(frozen=True)
class ScreenVolume:
    """A volume's samples as they are sent.

    Args:
        samples: int16, axes z, y, x; mapped from a file.
        slope, intercept: a sample's grey value is ``slope * sample + intercept``.
        window: values that are shown black and white at first.
        range: lowest and highest value.
    """

    samples: np.ndarray
    slope: float
    intercept: float
    window: tuple[float, float]
    range: tuple[float, float]

    def piece(self, first: Sequence[int], size: Sequence[int], step: Sequence[int]) -> np.ndarray:
        """Part of it, int16, axes z, y, x; of every ``step`` samples along an axis the mean.

        Args:
            first: x, y, z of the first sample.
            size: samples along x, y, z before they are averaged; what reaches beyond the end is cut.
            step: along x, y, z.

        Raises:
            UsageError: nothing of the volume is there, or it is more than is sent at once.
        """
        whole = self.samples.shape[::-1]
        last = [min(f + n, w) for f, n, w in zip(first, size, whole, strict=True)]
        if any(not 0 <= f < e for f, e in zip(first, last, strict=True)) or min(step) < 1:
            raise UsageError(f"from {listed(first)} to {listed(last)} by {listed(step)}: the volume is {listed(whole)} samples")
        step = [min(s, e - f) for f, e, s in zip(first, last, step, strict=True)]  # a larger one says the same and takes memory
        count = np.prod([-(-(e - f) // s) for f, e, s in zip(first, last, step, strict=True)])
        if count > LIMITS.samples_sent:
            raise UsageError(f"{count} samples at once; at most {LIMITS.samples_sent} are sent: ask for fewer, or a larger step")
        x, y, z = (slice(f, e) for f, e in zip(first, last, strict=True))
        return _averaged(self.samples[z, y, x], tuple(step)[::-1])


class ScreenVolumes(ScreenCopies[ScreenVolume]):
    """The copies of a study's volumes."""

    def _opened(self, samples: np.ndarray, about: dict[str, Any]) -> ScreenVolume:
        low, high = about["range"]
        black, white = about["window"]
        return ScreenVolume(samples, float(about["slope"]), float(about["intercept"]), (black, white), (low, high))

    def _prepared(self, image: Image) -> tuple[np.ndarray, dict[str, Any]]:
        pixels = image.pixels
        low, high = float(pixels.min()), float(pixels.max())
        whole = np.issubdtype(pixels.dtype, np.integer)
        if whole and low >= _LOWEST and high <= _HIGHEST:
            slope, intercept, stored = 1.0, 0.0, pixels.astype("<i2")
        else:
            slope = 1.0 if whole and high - low <= _HIGHEST - _LOWEST else max(high - low, 1e-30) / (_HIGHEST - _LOWEST)
            intercept = low - slope * _LOWEST
            stored = np.empty(pixels.shape, "<i2")
            for out, one in zip(stored, pixels, strict=True):  # a slice at a time: float64 of all would be eight times as much
                out[:] = np.clip(np.round((one.astype(np.float64) - intercept) / slope), _LOWEST, _HIGHEST)
        about = {"slope": slope, "intercept": intercept, "window": window_of(thinned(pixels)), "range": [low, high]}
        return stored, about


def _averaged(samples: np.ndarray, step: tuple[int, ...]) -> np.ndarray:
    """The mean of every block of ``step`` samples; a block at the end is filled up with the last sample."""
    if step == (1, 1, 1):
        return np.ascontiguousarray(samples)
    slabs = [samples[z : z + step[0]] for z in range(0, len(samples), step[0])]  # one at a time: all of it may be gigabytes
    return np.concatenate([_slab(slab, step) for slab in slabs])


def _slab(samples: np.ndarray, step: tuple[int, ...]) -> np.ndarray:
    missing = [-n % s for n, s in zip(samples.shape, step, strict=True)]
    if any(missing):
        samples = np.pad(samples, [(0, m) for m in missing], mode="edge")
    total = samples
    for axis, count in enumerate(step):  # one axis after the other: as many sums as steps, not as their product
        along = np.moveaxis(total, axis, 0)
        summed = along[::count].astype(np.int64)
        for at in range(1, count):
            summed += along[at::count]
        total = np.moveaxis(summed, 0, axis)
    made: np.ndarray = np.round(total / np.prod(step)).astype("<i2")
    return made
