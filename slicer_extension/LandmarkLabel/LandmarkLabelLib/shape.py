"""Moving the other points without the server: by the last proposal as a template, pulled smoothly to what a person placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .wire import ACCEPTED, PLACED, WITH_POSITION, Point

LENGTH = 0.5  # over which a correction is felt, in units of the size of the shape
NOISE = 1e-3  # of a person's points, likewise


def propagate(template: Sequence[Point], points: Sequence[Point]) -> list[Point]:
    """The points with those nobody has spoken about moved along.

    A person's points give displacements from the template; a similarity explains what it can (from two points in 2D and three
    in 3D on; one point shifts), a Gaussian process with neighbouring points alike the rest.

    Args:
        template: the proposal the corrections started from, in the same order.
        points: as they are now.
    """
    known = [i for i, p in enumerate(points) if p.state in (PLACED, ACCEPTED) and template[i].position is not None]
    free = [i for i, p in enumerate(points) if not p.by_person and p.state in WITH_POSITION and template[i].position is not None]
    if not known or not free:
        return list(points)
    source = np.array([template[i].position for i in known])
    target = np.array([points[i].position for i in known])
    query = np.array([template[i].position for i in free])
    matrix, offset = _similarity(source, target)
    everything = np.array([p.position for p in template if p.position is not None])
    size = max(float(np.sqrt(((everything - everything.mean(0)) ** 2).sum(1).mean())), 1e-6)
    near = lambda a, b: np.exp(-0.5 * (np.linalg.norm(a[:, None] - b[None], axis=-1) / (LENGTH * size)) ** 2)  # noqa: E731
    left = target - (source @ matrix.T + offset)
    weights = np.linalg.solve(near(source, source) + NOISE * np.eye(len(known)), left)
    found = query @ matrix.T + offset + near(query, source) @ weights
    out = list(points)
    for i, position in zip(free, found):
        old = points[i]
        out[i] = replace(old, position=tuple(float(v) for v in position))
    return out


def _similarity(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares similarity, or a shift where the points do not tell one. Source: Umeyama 1991."""
    a, b = source.mean(0), target.mean(0)
    x, y = source - a, target - b
    spread = (x**2).sum()
    rank = np.linalg.matrix_rank(x, tol=1e-3 * max(np.sqrt(spread), 1e-9))
    flat = bool(np.ptp(source[:, 2]) < 1e-9 and np.ptp(target[:, 2]) < 1e-9)
    if rank < (1 if flat else 2):
        return np.eye(3), b - a
    u, s, vt = np.linalg.svd(y.T @ x)
    signs = np.ones(3)
    signs[-1] = np.sign(np.linalg.det(u @ vt))
    matrix = (u * signs) @ vt * ((s * signs).sum() / spread)
    return matrix, b - matrix @ a
