"""What an exported model is tried on: an image that nobody took, and how far it may be from the model itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from landmarklabel.data.grids import GridPlan
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.image_array import Image
from landmarklabel.networks.ops import LINEAR

AGREEMENT = 0.01  # samples that a position may differ by between an export and torch


def probe_image(grid: GridPlan) -> Image:
    """A smooth random image, where sizes are open one that needs a larger grid than the graph was made with."""
    size = tuple(s + (i == 0 and grid.spacing_mm is not None) for i, s in enumerate(grid.size))
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 1, *(max(2, s // 8) for s in size[::-1]), generator=rng)
    pixels = F.interpolate(coarse, size=size[::-1], mode=LINEAR[len(size)], align_corners=True)[0, 0]
    spacing = grid.spacing_mm or 1.0
    return Image(ImageGeometry.identity(size, spacing, (0.0,) * len(size)), pixels.numpy())
