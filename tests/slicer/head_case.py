"""A case with one landmark of every state."""

from __future__ import annotations

from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED, UNSET, Point, Task

NAMES = ("nasion", "sella", "orbit_L", "orbit_R", "menton")
TASK = Task("head", NAMES, 3, {}, (("orbit_L", "orbit_R"),))
POINTS = [
    Point("nasion", PREDICTED, (1.0, 2.0, 3.0), 1.5),
    Point("sella", PLACED, (-4.0, 5.0, 6.5)),
    Point("orbit_L", ACCEPTED, (25.0, -7.0, 8.0)),
    Point("orbit_R", ABSENT),
    Point("menton", UNSET),
]
