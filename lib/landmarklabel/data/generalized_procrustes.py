"""Generalized Procrustes analysis, as morphometrics knows it: shapes of complete specimens laid over one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from landmarklabel.configuration import Configuration, number
from landmarklabel.data.procrustes import optimal_rotation

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AlignmentConfig(Configuration):
    """When the mean shape, which has size 1, has stopped changing."""

    rounds: int = number(100, 1)
    change: float = number(1e-12, 0)


CONFIG = AlignmentConfig()


@dataclass(frozen=True)
class Aligned:
    """Specimens laid over one another.

    Args:
        points: (m, n, d) each of centroid size 1 about 0.
        sizes: (m,) centroid sizes in the specimens' own unit.
        mean: (n, d) their mean shape, of centroid size 1.
    """

    points: FloatArray
    sizes: FloatArray
    mean: FloatArray


def generalized_procrustes(points: npt.ArrayLike) -> Aligned:
    """Lay (m, n, d) complete specimens over one another: moved, scaled to centroid size 1 and turned, never mirrored.

    The result stands along the mean shape's principal axes, so that it does not depend on the order of the specimens or on how
    they lay.

    Source: Rohlf and Slice 1990, Systematic Zoology 39, p. 40-59 (partial Procrustes fits).
    """
    x = np.asarray(points, np.float64)
    x = x - x.mean(1, keepdims=True)
    sizes = np.sqrt((x**2).sum((1, 2)))
    x = x / sizes[:, None, None]
    mean = x[0]
    for _ in range(CONFIG.rounds):
        left, right, _ = optimal_rotation(np.einsum("ni,mnj->mij", mean, x))
        x = x @ np.swapaxes(left @ right, 1, 2)
        new = x.mean(0)
        new = new / np.sqrt((new**2).sum())
        changed = ((new - mean) ** 2).sum()
        mean = new
        if changed < CONFIG.change**2:
            break
    _, axes = np.linalg.eigh(mean.T @ mean)
    axes = axes[:, ::-1]
    heavy = np.sign((np.sign(mean @ axes) * (mean @ axes) ** 2).sum(0))  # the heavier end of each axis is its positive one
    axes = axes * np.where(heavy == 0, 1.0, heavy)
    axes[:, -1] *= np.sign(np.linalg.det(axes))
    return Aligned(x @ axes, sizes, mean @ axes)
