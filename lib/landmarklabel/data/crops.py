"""The crops that the fine network looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landmarklabel.data.cases import Case


@dataclass(frozen=True)
class CropPlan:
    """The crops of the fine network: ``size`` samples per side, the finest spaced ``zoom`` times finer than the coarse
    grid, further ``scales`` each coarser by ``step``; jitters are in samples of the finest. ``presence``: crops also show where
    absent landmarks would be, and the fine network says whether they are there; ``rounds``: the fine network looks again at what
    it has found, so many times in all."""

    size: int
    zoom: float
    scales: int = 3
    step: float = 2.5
    jitter: float = 5.0
    outlier_jitter: float = 18.0
    outlier_share: float = 0.2
    presence: bool = False
    rounds: int = 1


def read_crops(
    case: Case, centres_mm: np.ndarray, spacing_mm: float, plan: CropPlan, matrices: np.ndarray | None = None
) -> np.ndarray:
    """Grey values around positions, at all scales of the plan.

    Args:
        case: the image.
        centres_mm: (k, d) LPS mm.
        spacing_mm: sample distance of the finest scale.
        plan: size and scales.
        matrices: (k, d, d) that turn a crop's axes into the world's; upright when None.

    Returns:
        (k, scales, *array shape) float32.
    """
    d = centres_mm.shape[1]
    axis = (np.arange(plan.size) - (plan.size - 1) / 2) * spacing_mm
    offsets = np.stack(np.meshgrid(*(axis,) * d, indexing="ij"), -1).transpose(*reversed(range(d)), d).reshape(-1, d)
    scales = [plan.step**s for s in range(plan.scales)]
    made = [case.boxes(centres_mm, offsets * f, matrices, spacing_mm * f) for f in scales]
    crops: np.ndarray = np.stack(made, axis=1).reshape(len(centres_mm), plan.scales, *(plan.size,) * d)
    return crops
