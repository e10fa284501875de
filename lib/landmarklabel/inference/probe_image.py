"""What an exported model is tried on: an image that nobody took, and how far it may be from the model itself."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from landmarklabel.data.grids import GridPlan
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.image_array import Image
from landmarklabel.networks.ops import LINEAR
from landmarklabel.scale_rules import PixelSize, ScaleRule

AGREEMENT = 0.01  # samples that a position may differ by between an export and torch


def probe_image(grid: GridPlan, scale: ScaleRule | PixelSize | None = None) -> Image:
    """A smooth random image, where sizes are open one that needs a larger grid than the graph was made with.

    ``scale``: rule of the model's task; one for pictures without a spacing wants such a picture, whose spacing counts as 1.
    """
    spacing = grid.spacing_mm or 1.0
    size = tuple(s + (i == 0 and grid.spacing_mm is not None) for i, s in enumerate(grid.size))
    unit = "px" if isinstance(scale, PixelSize) else "mm"
    if unit == "px":
        size, spacing = tuple(math.ceil(s * spacing) for s in size), 1.0
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 1, *(max(2, s // 8) for s in size[::-1]), generator=rng)
    pixels = F.interpolate(coarse, size=size[::-1], mode=LINEAR[len(size)], align_corners=True)[0, 0]
    return Image(ImageGeometry.identity(size, spacing, (0.0,) * len(size)), pixels.numpy(), unit)
