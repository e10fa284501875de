"""Points that do not lie where the other cases have them: slips of the mouse, swapped names, other frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from landmarklabel.data.mean_shape import learn_mean_shape
from landmarklabel.landmarks import LandmarkSet

LEAST_CASES = 8  # with fewer there is no usual place
FAR = 8.0  # times as far from its usual place as in half of the cases
LEAST_SHARE = 0.05  # of the shape's size: what is nearer is no slip, however exact the other cases are


@dataclass(frozen=True)
class Outlier:
    """A point far from its usual place: which, how far (mm or px), and how far it is in half of the cases."""

    image_id: str
    name: str
    off_mm: float
    typical_mm: float


def shape_outliers(labelled: Mapping[str, LandmarkSet]) -> list[Outlier]:
    """The points that lie far from where the mean shape, laid robustly on its case, has them; the furthest first.

    Args:
        labelled: image id to landmarks of one task.
    """
    sets = {i: x for i, x in labelled.items() if x.defined.sum() > x.task.dims + 1}
    if len(sets) < LEAST_CASES:
        return []
    pose = learn_mean_shape(list(sets.values()))
    if not pose.usable:
        return []
    fits = [pose.lay(x.positions_mm) for x in sets.values()]
    scale = np.array([abs(np.linalg.det(fit.matrix)) ** (1 / len(fit.matrix)) for fit, _ in fits])
    share = np.stack([off for _, off in fits]) / (scale * pose.size)[:, None]
    usual = np.nanmedian(np.where(np.isfinite(share).any(axis=0), share, 0), axis=0)
    far = share > np.maximum(FAR * np.maximum(usual, np.median(usual)), LEAST_SHARE)  # some lie still: the fit hangs on them
    ids, names = list(sets), next(iter(sets.values())).task.names
    rank = np.argsort(-np.where(far, share, -1), axis=None)[: int(far.sum())]
    out = []
    for i, k in zip(*np.unravel_index(rank, far.shape), strict=True):
        size = float(scale[i] * pose.size)
        out.append(Outlier(ids[i], names[k], float(share[i, k]) * size, float(usual[k]) * size))
    return out
