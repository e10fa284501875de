"""Images of formats that plugins read (entry points ``landmarklabel.readers``, docs/extending.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from landmarklabel import plugins
from landmarklabel.errors import ImageRejected
from landmarklabel.io.files import image_suffix, plugin_readers
from landmarklabel.io.image_array import Image


def is_read_by_plugin(path: str | Path) -> bool:
    """Whether a file's suffix is one that a plugin has brought."""
    return image_suffix(path) in plugin_readers()


def read_by_plugin(path: Path) -> Image:
    """What a plugin's reader makes of a file, with finite pixels.

    Raises:
        ImageRejected: the plugin refuses the file, fails, or gives something that is no image; its name is in the message.
    """
    suffix = str(image_suffix(path))
    point = plugin_readers()[suffix]
    who = f"the plugin that reads {suffix} ({point.value})"
    if not path.is_file():
        raise ImageRejected(path.name, ["no such image file"])
    read = plugins.load(point)
    if not callable(read):
        raise ImageRejected(path.name, [f"{who} cannot be used; reinstall or remove it"])
    try:
        image = read(path)
    except ImageRejected:
        raise
    except (Exception, SystemExit) as error:
        raise ImageRejected(path.name, [f"{who} failed: {' '.join(f'{type(error).__name__}: {error}'.split())[:200]}"]) from error
    if not isinstance(image, Image) or image.pixels.dtype.kind not in "buif":
        raise ImageRejected(path.name, [f"{who} gave {type(image).__name__}, which is no Image with grey values"])
    return replace(image, pixels=finite_pixels(image.pixels, path.name))


def finite_pixels(pixels: np.ndarray, name: str) -> np.ndarray:
    """Pixels where NaN and infinity became the smallest finite value, as in files. Raises ImageRejected where all are such."""
    known = np.isfinite(pixels)
    if known.all():
        return pixels
    if not known.any():
        raise ImageRejected(name, [f"all {pixels.size} pixels are NaN or infinite"])
    return np.where(known, pixels, pixels[known].min())
