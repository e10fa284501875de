"""Volumes as a screen shows them: 16 bits a sample in mapped files, so that a piece of one is read without the rest."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from landmarklabel.errors import UsageError
from landmarklabel.io.files import write_json
from landmarklabel.io.image_array import Image
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.screen_images import window_of
from landmarklabel.store.database import file_faults
from landmarklabel.store.pixels import stamp

_LOWEST, _HIGHEST = -(2**15), 2**15 - 1
_WHAT = "a copy of the volume for the screen"


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
            raise UsageError(
                f"from {_listed(first)} to {_listed(last)} by {_listed(step)}: the volume is {_listed(whole)} samples"
            )
        step = [min(s, e - f) for f, e, s in zip(first, last, step, strict=True)]  # a larger one says the same and takes memory
        count = np.prod([-(-(e - f) // s) for f, e, s in zip(first, last, step, strict=True)])
        if count > LIMITS.samples_sent:
            raise UsageError(f"{count} samples at once; at most {LIMITS.samples_sent} are sent: ask for fewer, or a larger step")
        x, y, z = (slice(f, e) for f, e in zip(first, last, strict=True))
        return _averaged(self.samples[z, y, x], tuple(step)[::-1])


class ScreenVolumes:
    """The copies of a study's volumes, made when they are first looked at; the oldest go when they become too many.

    Args:
        folder: of the copies; it may be lost.
    """

    def __init__(self, folder: Path):
        self._folder, self._making = folder, threading.Lock()

    def of(self, path: Path, read: Callable[[], Image]) -> ScreenVolume:
        """The copy of an image file or DICOM folder as it is now; ``read`` is called where there is none yet.

        Raises:
            StoreFault: the disk refused. Otherwise as ``read``.
        """
        name = hashlib.sha256(f"{path.name}\n{stamp(path)}".encode()).hexdigest()[:32]
        samples, about = self._folder / f"{name}.npy", self._folder / f"{name}.json"
        with self._making:  # of two who open a case at once, one makes it
            with suppress(OSError, ValueError, KeyError, TypeError):
                return _opened(samples, about)
            image = read()
            with file_faults(_WHAT):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._make_room(image.pixels.size * 2)
                _write(image, samples, about)
                return _opened(samples, about)

    def _make_room(self, needed: int) -> None:
        """Remove the copies that were made first, until another one fits."""
        found = []
        for path in self._folder.glob("*.npy"):
            with suppress(OSError):
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in found) + needed
        for _, size, path in sorted(found):
            if total <= LIMITS.volume_copies_bytes:
                return
            with suppress(OSError):  # Windows keeps one that is open
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)
                total -= size


def _opened(samples: Path, about: Path) -> ScreenVolume:
    content = json.loads(about.read_text(encoding="utf-8"))
    low, high = content["range"]
    black, white = content["window"]
    mapped = np.load(samples, mmap_mode="r")
    return ScreenVolume(mapped, float(content["slope"]), float(content["intercept"]), (black, white), (low, high))


def _write(image: Image, samples: Path, about: Path) -> None:
    """Both files; the one that says what the other holds comes last. Raises OSError."""
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
    part = samples.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, stored)
    part.replace(samples)
    thin = tuple(slice(None, None, max(1, n // 100)) for n in pixels.shape)  # a million samples tell the percentiles
    write_json(about, {"slope": slope, "intercept": intercept, "window": window_of(pixels[thin]), "range": [low, high]})


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


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(int(n)) for n in numbers)
