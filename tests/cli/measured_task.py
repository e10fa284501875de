"""A task of three landmarks that measures a length and an angle."""

from landmarklabel.landmarks import LandmarkTask

NAMES = ("a", "b", "c")
MEASURED = [
    {"name": "length", "kind": "distance", "points": ["a", "b"], "norm": {"mean": 40, "sd": 2, "source": "a book"}},
    {"name": "opening", "kind": "angle", "points": ["a", "b", "c"]},
]


LEARNED = {"length": 1.0, "opening": 1.0}


def a_task(dims: int = 3) -> LandmarkTask:
    landmarks = [{"name": n} for n in NAMES]
    content = {"format": "landmarklabel-task", "version": 1, "name": "t", "dims": dims, "landmarks": landmarks}
    return LandmarkTask.from_json(content | {"measurements": MEASURED})
