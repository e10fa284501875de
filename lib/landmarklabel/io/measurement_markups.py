"""Distances and angles as Slicer's own line and angle nodes, which measure the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from landmarklabel.geometry import SlicePlane
from landmarklabel.io.files import atomic_write
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.markups import SCHEMA
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.measurement_definitions import Measurement

FloatArray = npt.NDArray[np.float64]
_TYPES = {"distance": "Line", "angle": "Angle"}
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)\s*", re.IGNORECASE)  # by Windows, whatever the ending
_NO_FILE_NAME = re.compile(r"[^\w .()'+-]+")


def write_lines_and_angles(folder: Path, landmarks: LandmarkSet, plane: SlicePlane | None = None) -> list[str]:
    """Write a .mrk.json file for each distance and angle of a case whose points are all there; returns the files' names.

    Distances of a task with a scale rule are left out: Slicer would measure what the image says, not what the rule makes of it.

    Args:
        folder: of the case; made where there is something to write.
        landmarks: of the case.
        plane: the slice on which a 2D image lies in its volume; without one, it lies at z = 0.
    """
    written: list[str] = []
    for measurement in landmarks.task.measurements:
        kind = slicer_type(landmarks.task, measurement)
        places = [] if kind is None else [_place(landmarks, point) for point in measurement.points]
        if kind is None or not np.isfinite(places).all():
            continue
        written.append(_file_name(measurement.name, written))
        folder.mkdir(parents=True, exist_ok=True)
        text = _text(kind, measurement, [_in_space(place, plane) for place in places])
        atomic_write(folder / written[-1], text, durable=False)
    return written


def slicer_type(task: LandmarkTask, measurement: Measurement) -> str | None:
    """The kind of Slicer's nodes that measures the same; None where there is none."""
    return None if task.scale and measurement.kind == "distance" else _TYPES.get(measurement.kind)


def _place(landmarks: LandmarkSet, point: Sequence[str]) -> FloatArray:
    """Where a point of a measurement is: a landmark, or the middle of several; NaN where one of them has no place."""
    mean: FloatArray = landmarks.positions_mm[[landmarks.task.names.index(name) for name in point]].mean(0)
    return mean


def _in_space(place: FloatArray, plane: SlicePlane | None) -> list[float]:
    if plane is not None:
        return [float(v) for v in plane.lift(place)]
    return [*(float(v) for v in place), *[0.0] * (3 - len(place))]


def _text(kind: str, measurement: Measurement, places: list[list[float]]) -> str:
    points = [
        {"id": str(number), "label": _label(point), "position": place, "positionStatus": "defined"}
        for number, (point, place) in enumerate(zip(measurement.points, places, strict=True), 1)
    ]
    markup = {"type": kind, "coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": True, "controlPoints": points}
    return json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _label(point: Sequence[str]) -> str:
    return point[0] if len(point) == 1 else f"middle of {', '.join(point)}"


def _file_name(name: str, taken: Sequence[str]) -> str:
    """A measurement's name as a file's: what file systems refuse is left out, and no two are the same."""
    stem = _NO_FILE_NAME.sub("_", name).encode()[: LIMITS.file_name_bytes].decode("utf-8", "ignore").strip(" .") or "measurement"
    stem = f"_{stem}" if _RESERVED.fullmatch(stem.split(".")[0]) else stem
    lower, number, found = {t.lower() for t in taken}, 1, f"{stem}.mrk.json"
    while found.lower() in lower:
        number += 1
        found = f"{stem} {number}.mrk.json"
    return found
