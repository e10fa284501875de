"""Copies of images for screens: samples in mapped files, so that a piece of one is read without the rest."""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from landmarklabel.io.files import write_json
from landmarklabel.io.image_array import Image
from landmarklabel.services.limits import LIMITS
from landmarklabel.store.database import file_faults
from landmarklabel.store.pixels import stamp

_WHAT = "a copy of the image for the screen"
Copy = TypeVar("Copy")


class ScreenCopies(ABC, Generic[Copy]):
    """The copies of a study's images, made when they are first looked at; the oldest go when they become too many.

    Args:
        folder: of the copies; it may be lost.
    """

    def __init__(self, folder: Path):
        self._folder, self._making = folder, threading.Lock()

    @abstractmethod
    def _prepared(self, image: Image) -> tuple[np.ndarray, dict[str, Any]]:
        """The samples to keep, and what ``_opened`` needs beside them, as JSON."""

    @abstractmethod
    def _opened(self, samples: np.ndarray, about: dict[str, Any]) -> Copy:
        """The copy, its samples mapped from a file. Raises ValueError, KeyError or TypeError where the files were damaged."""

    def of(self, path: Path, read: Callable[[], Image]) -> Copy:
        """The copy of an image file or DICOM folder as it is now; ``read`` is called where there is none yet.

        Raises:
            StoreFault: the disk refused. Otherwise as ``read``.
        """
        name = hashlib.sha256(f"{path.name}\n{stamp(path)}".encode()).hexdigest()[:32]
        samples, about = self._folder / f"{name}.npy", self._folder / f"{name}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            return self._load(samples, about)  # one that is there waits for no other that is made
        with self._making:  # of two who open a case at once, one makes it
            with suppress(OSError, ValueError, KeyError, TypeError):
                return self._load(samples, about)
            stored, content = self._prepared(read())
            with file_faults(_WHAT):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._make_room(stored.nbytes)
                part = samples.with_suffix(".part")
                with part.open("wb") as file:
                    np.save(file, stored)
                part.replace(samples)
                write_json(about, content)  # last: it says what the other file holds
                return self._load(samples, about)

    def _load(self, samples: Path, about: Path) -> Copy:
        content = json.loads(about.read_text(encoding="utf-8"))
        return self._opened(np.load(samples, mmap_mode="r"), content)

    def _make_room(self, needed: int) -> None:
        """Remove the copies that were made first, until another one fits."""
        found = []
        for path in self._folder.glob("*.npy"):
            with suppress(OSError):
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in found) + needed
        for _, size, path in sorted(found):
            if total <= LIMITS.screen_copies_bytes:
                return
            with suppress(OSError):  # Windows keeps one that is open
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)
                total -= size


def thinned(pixels: np.ndarray) -> np.ndarray:
    """About a million samples: they tell the percentiles of all."""
    most = round(1e6 ** (1 / pixels.ndim))  # along an axis
    return pixels[tuple(slice(None, None, max(1, n // most)) for n in pixels.shape)]


def listed(numbers: Sequence[int]) -> str:
    """Numbers as an error states them."""
    return ", ".join(str(int(n)) for n in numbers)
