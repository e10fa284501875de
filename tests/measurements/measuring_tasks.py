"""Tasks that measure something, and positions and covariances to measure."""

from __future__ import annotations

import numpy as np

from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

NAMES = ("a", "b", "c", "d", "e", "f")
RANDOM = 1000  # configurations that every kind is compared on


def content(*measurements, dims=2, names=NAMES):
    landmarks = [{"name": name} for name in names]
    base = {"format": "landmarklabel-task", "version": 1, "name": "t", "dims": dims, "landmarks": landmarks}
    return {**base, "measurements": [{"name": f"m{i}", **m} for i, m in enumerate(measurements)]}


def task_of(*measurements, dims=2, names=NAMES):
    return LandmarkTask.from_json(content(*measurements, dims=dims, names=names))


DISTANCE = {"kind": "distance", "points": ["a", "b"]}
ANGLE = {"kind": "angle", "points": ["a", "b", "c"]}
LINES = {"kind": "line_angle", "lines": [["a", "b"], ["c", "d"]]}
LINES_SIGNED = {**LINES, "positive_towards": "e"}
TO_LINE = {"kind": "distance_to_line", "point": "a", "line": ["b", "c"]}
TO_LINE_SIGNED = {**TO_LINE, "positive_towards": "d"}
TO_LINE_AWAY = {**TO_LINE, "negative_towards": "d"}
TO_PLANE = {"kind": "distance_to_plane", "point": "a", "plane": ["b", "c", "d"]}
TO_PLANE_SIGNED = {**TO_PLANE, "positive_towards": "e"}
PLANE_ANGLE = {"kind": "plane_angle", "line": ["a", "b"], "plane": ["c", "d", "e"]}
PROJECTION = {"kind": "projection", "points": ["a", "b"], "line": ["c", "d"]}
MEANS = {"kind": "angle", "points": [["a", "b"], "c", ["d", "e", "f"]]}

ALL_2D = (DISTANCE, ANGLE, LINES, LINES_SIGNED, TO_LINE, TO_LINE_AWAY, PROJECTION, MEANS)
ALL_3D = (DISTANCE, ANGLE, LINES, TO_LINE, TO_PLANE, TO_PLANE_SIGNED, PLANE_ANGLE, PROJECTION, MEANS)
COMPOSITES = ({"kind": "sum", "of": {"m1": 1, "m2": -1}}, {"kind": "ratio", "of": ["m0", "m4"], "percent": True})


def configurations(dims, n=RANDOM, seed=0):
    return np.random.default_rng(seed).uniform(0, 200, (n, len(NAMES), dims))


P2 = {"a": (0, 0), "b": (30, 0), "c": (60, 0), "d": (60, 40), "e": (10, 20), "f": (5, 5)}
P3 = {name: (*p, z) for (name, p), z in zip(P2.items(), (0, 0, 0, 0, 25, 8), strict=True)}


def set_of(task, **moved):
    at = {**(P2 if task.dims == 2 else P3), **moved}
    return LandmarkSet.of_positions(task, [at[name] for name in task.names])


def spread(task, seed=0, size=0.3):
    """Covariances (n, d, d) of that size, every one another."""
    factor = np.random.default_rng(seed).standard_normal((len(task), task.dims, task.dims)) * size
    return factor @ factor.transpose(0, 2, 1) + 0.1 * size**2 * np.eye(task.dims)


def predicted(task, positions, covariance):
    return LandmarkSet(task, positions, (Status.PREDICTED,) * len(task), covariance_mm2=covariance)
