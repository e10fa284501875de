"""An image in memory. Needs numpy alone: training and predicting on arrays work where no image reader is installed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landmarklabel.errors import ImageRejected
from landmarklabel.geometry import ImageGeometry


@dataclass(frozen=True)
class Image:
    """An image's pixels and its geometry.

    Args:
        geometry: size in x, y[, z] order.
        pixels: array axes [z, ]y, x; the scalar type as stored (colours become luminance of the same type).
        unit: of distances in the image: ``mm``, or ``px`` where its file states no spacing.
    """

    geometry: ImageGeometry
    pixels: np.ndarray
    unit: str = "mm"

    def __post_init__(self) -> None:
        if self.pixels.shape != self.geometry.size[::-1]:
            raise ImageRejected("image", [f"pixels {self.pixels.shape} do not fit size {self.geometry.size} reversed"])
