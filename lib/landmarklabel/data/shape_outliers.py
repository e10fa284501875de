"""Points that do not lie where the other cases have them: slips of the mouse, swapped names, other frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from landmarklabel.configuration import Configuration, number
from landmarklabel.data.mean_shape import learn_mean_shape
from landmarklabel.landmarks import LandmarkSet


@dataclass(frozen=True)
class OutlierConfig(Configuration):
    """When a point counts as lying in the wrong place. Chosen on ISBI 2015, the wings and the head circumferences."""

    min_cases: int = number(8, 2)  # with fewer there is no typical place
    factor: float = number(8.0, 1)  # times as far from its typical place as in half of the cases
    min_share: float = number(0.05, 0)  # of the shape's size: what is nearer is no slip, however exact the other cases are


@dataclass(frozen=True)
class Outlier:
    """A point far from its typical place: which, how far (mm or px), and how far it is in half of the cases."""

    image_id: str
    name: str
    off_mm: float
    typical_mm: float


def shape_outliers(labelled: Mapping[str, LandmarkSet], config: OutlierConfig | None = None) -> list[Outlier]:
    """The points that lie far from where the mean shape, laid robustly on its case, has them; the furthest first.

    Args:
        labelled: image id to landmarks of one task.
        config: the defaults when None.
    """
    config = config or OutlierConfig()
    sets = {i: x for i, x in labelled.items() if x.defined.sum() > x.task.dims + 1}
    if len(sets) < config.min_cases:
        return []
    shape = learn_mean_shape(list(sets.values()))
    if not shape.usable:
        return []
    fits = [shape.align_to(x.positions_mm) for x in sets.values()]
    scale = np.array([abs(np.linalg.det(fit.matrix)) ** (1 / len(fit.matrix)) for fit, _ in fits])
    share = np.stack([off for _, off in fits]) / (scale * shape.size)[:, None]
    typical = np.nanmedian(np.where(np.isfinite(share).any(axis=0), share, 0), axis=0)
    # Where the fit hangs on a landmark, it lies still: the median over all landmarks counts at least.
    far = share > np.maximum(config.factor * np.maximum(typical, np.median(typical)), config.min_share)
    ids, names = list(sets), next(iter(sets.values())).task.names
    rank = np.argsort(-np.where(far, share, -1), axis=None)[: int(far.sum())]
    out = []
    for i, k in zip(*np.unravel_index(rank, far.shape), strict=True):
        size = float(scale[i] * shape.size)
        out.append(Outlier(ids[i], names[k], float(share[i, k]) * size, float(typical[k]) * size))
    return out
