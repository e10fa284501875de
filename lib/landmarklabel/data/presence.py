"""What a person has said of landmarks, as training reads it."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from landmarklabel.landmarks import LandmarkSet, Status


class Presence(IntEnum):
    """What a person has said of a landmark."""

    ABSENT = 0
    PRESENT = 1
    UNKNOWN = -1


def landmark_state(landmarks: LandmarkSet) -> np.ndarray:
    """(n,) ``Presence``: what a person has said; predictions nobody confirmed are unknown."""
    known = {Status.PLACED: Presence.PRESENT, Status.ACCEPTED: Presence.PRESENT, Status.ABSENT: Presence.ABSENT}
    return np.array([known.get(s, Presence.UNKNOWN) for s in landmarks.status])
