"""A reader of ``.grid`` files, a made-up format: a line of text with size and spacing, then a line of numbers per row of pixels.

grid 64 80 0.5 0.5
0 12 7 …
"""

from pathlib import Path

import numpy as np

import landmarklabel as ll


def read_grid(path: Path) -> ll.Image:
    """One 2D image; an exception of whatever kind is told to the user as the reason why the file is refused."""
    with path.open(encoding="utf-8") as file:
        word, *numbers = file.readline().split()
        if word != "grid" or len(numbers) != 4:
            raise ValueError("the first line must be: grid, size in x and y, spacing in x and y")
        size, spacing = (int(numbers[0]), int(numbers[1])), (float(numbers[2]), float(numbers[3]))
        pixels = np.loadtxt(file, dtype=np.uint8, ndmin=2)
    return ll.Image(ll.ImageGeometry.identity(size, spacing), pixels)
