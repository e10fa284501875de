"""What is wrong with a task, in words; ``landmarks.LandmarkTask`` asks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from landmarklabel.task_limits import LIMITS
from landmarklabel.task_measurements import reference_faults
from landmarklabel.task_pictures import picture_faults

if TYPE_CHECKING:
    from landmarklabel.landmarks import LandmarkTask

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")


def task_faults(task: LandmarkTask) -> list[str]:
    """Every fault of a task's fields, one text each, whatever was put into them."""
    faults = []
    if not isinstance(task.name, str) or not _NAME.fullmatch(task.name):
        faults.append(f"name {str(task.name)[:80]!r} must be 1 to 100 letters, digits, '_', '.' or '-'")
    if task.dims not in (2, 3) or not isinstance(task.dims, int):
        faults.append(f"dims {task.dims!r} must be 2 or 3")
    if not 1 <= len(task.names) <= LIMITS.landmarks:
        faults.append(f"{len(task.names)} landmarks; allowed are 1 to {LIMITS.landmarks}")
    bad = [n for n in task.names if not isinstance(n, str) or not n.strip() or len(n) > 200 or not n.isprintable()]
    faults += [f"landmark name {n!r} must be printable text of 1 to 200 characters" for n in bad[:5]]
    seen: set[str] = set()
    for n in filter(lambda n: isinstance(n, str), task.names):
        if n in seen:
            faults.append(f"landmark name {n!r} appears twice")
        seen.add(n)
    paired: set[str] = set()
    for a, b in task.mirror_pairs:
        faults += [f"mirror pair names {n!r}, which is no landmark" for n in (a, b) if n not in seen]
        if a == b or a in paired or b in paired:
            faults.append(f"mirror pair ({a!r}, {b!r}): a landmark can be in one pair only, and not with itself")
        paired |= {a, b}
    if task.scale:
        faults += task.scale.faults(seen, task.dims)
    faults += picture_faults(task.pictures, task.names)
    return faults + reference_faults(task.measurements, task.names, task.dims)
