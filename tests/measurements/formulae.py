"""Other formulae for what is measured, of single points."""

from __future__ import annotations

import math

import numpy as np


def apart(p, q):
    return math.dist(p, q)


def at_vertex(a, v, b):
    """Law of cosines in the form of half angles, which keeps its digits for flat triangles."""
    x, y, z = apart(v, a), apart(v, b), apart(a, b)
    s = (x + y + z) / 2
    return math.degrees(2 * math.atan2(math.sqrt(max((s - x) * (s - y), 0)), math.sqrt(max(s * (s - z), 0))))


def between(a, b, c, d):
    return at_vertex(b - a, np.zeros_like(a), d - c)


def heading(a, b):
    return math.atan2(b[1] - a[1], b[0] - a[0])


def left_of(a, b, p):
    """Twice the triangle's area by the shoelace formula: positive where p is on the left."""
    return a[0] * b[1] - b[0] * a[1] + b[0] * p[1] - p[0] * b[1] + p[0] * a[1] - a[0] * p[1]


def turned(a, b, c, d, p):
    turn = math.degrees(heading(c, d) - heading(a, b))
    turn = turn - 360 * round(turn / 360)
    return math.copysign(1, left_of(a, b, p)) * turn


def foot_distance(p, a, b):
    """Distance from the foot of the perpendicular."""
    t = (p - a) @ (b - a) / apart(a, b) ** 2
    return apart(p, a + t * (b - a))


def height(p, a, b, c):
    """A tetrahedron's signed volume over its base; the base's area after Heron."""
    volume = np.linalg.det(np.array([b - a, c - a, p - a])) / 6
    x, y, z = sorted((apart(a, b), apart(b, c), apart(c, a)))
    area = math.sqrt((x + y + z) * (x + y - z) * (x - y + z) * (-x + y + z)) / 4
    return 3 * volume / area


def inclination(a, b, p, q, r):
    """90° less the angle to the normal, which comes from a null space."""
    normal = np.linalg.svd(np.array([q - p, r - p]))[2][2]
    to_normal = at_vertex(b - a, np.zeros(3), normal)
    return abs(90 - to_normal)
