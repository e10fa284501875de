"""The state of annotating one case, kept on disk at every change: points, undo, where it came from.

No Qt, no MRML, no HTTP: what the panel shows and what is sent is decided here.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .wire import ABSENT, ACCEPTED, PLACED, PREDICTED, UNSET, Point, Task, merged

MOST_UNDO = 100
VISIBLE = 0.003  # of the shape's extent: moves below it are not counted


@dataclass
class Session:
    """One case.

    Args:
        task: the landmarks.
        image_id: of the case.
        points: in the task's order.
        base_revision: the server's revision this started from.
        reason: why the case was chosen.
        next: what the server says should be placed next.
        repeat: a second reading of a case somebody has labelled, whose landmarks are not shown.
    """

    task: Task
    image_id: str
    points: list[Point]
    base_revision: int = 0
    reason: str = ""
    next: str | None = None
    repeat: bool = False
    _undo: list[tuple[str, str, list[Point]]] = field(default_factory=list)
    _moving: str | None = None  # the point that is being dragged

    @staticmethod
    def fresh(task: Task, image_id: str, reason: str = "") -> Session:
        """A case nobody has touched."""
        return Session(task, image_id, [Point(name) for name in task.names], reason=reason)

    def point(self, name: str) -> Point:
        return self.points[self.task.names.index(name)]

    @property
    def reviewed(self) -> int:
        """How many points a person has spoken about and need no further look."""
        return sum(p.state in (ACCEPTED, ABSENT) for p in self.points)

    def place(self, name: str, position: Sequence[float], final: bool = True) -> None:
        """A person put the point here; all moves of one drag are undone together."""
        x, y, z = (float(v) for v in position)
        goes_on = self._moving == name
        self._change("place {}", {name: Point(name, PLACED, (x, y, z))}, name, goes_on)
        self._moving = None if final else name

    def accept(self, name: str) -> None:
        """A person agrees with the position. ValueError when there is none."""
        point = self.point(name)
        if point.position is None:
            raise ValueError(f"{name} has no position to accept: place it, or call it absent")
        self._change("accept {}", {name: replace(point, state=ACCEPTED, flagged=False)}, name)

    def unlock(self, name: str) -> None:
        """An accepted point may be moved again; an absent one may be placed again."""
        point = self.point(name)
        back = Point(name) if point.state == ABSENT else replace(point, state=PLACED)
        self._change("unlock {}", {name: back if point.state in (ABSENT, ACCEPTED) else point}, name)

    def accept_all(self) -> None:
        """Agree with everything that has a position."""
        changes = {p.name: replace(p, state=ACCEPTED, flagged=False) for p in self.points if p.position and p.state != ACCEPTED}
        self._change("accept all", changes)

    def mark_absent(self, name: str) -> None:
        """A person says the landmark is not in the image."""
        self._change("call {} absent", {name: Point(name, ABSENT)}, name)

    def propose(self, proposed: Sequence[Point], what: str = "prediction", following: str | None = None) -> int:
        """Take in proposals; points of a person stay. Returns how many points moved visibly or changed state."""
        new = merged(self.points, proposed)
        least = VISIBLE * _extent(new)
        moved = sum(_differ(a, b, least) for a, b in zip(self.points, new, strict=True))
        self._change(what, {p.name: p for p in new})
        self.next = following
        return moved

    def replace_all(self, points: Sequence[Point], what: str) -> None:
        """Another version of the whole case; undo brings this one back."""
        self._change(what, {p.name: p for p in points})

    def doubtful(self) -> list[str]:
        """Names of points nobody has spoken about, the most doubtful first: unset, flagged, then by expected error."""
        left = [p for p in self.points if not p.by_person]
        order = {UNSET: 2, PREDICTED: 0}
        return [p.name for p in sorted(left, key=lambda p: (-order.get(p.state, 0), not p.flagged, -(p.expected_error_mm or 0)))]

    @property
    def undo_text(self) -> tuple[str, str]:
        """What ``undo`` would take back, with {} for the landmark, and the landmark; empty when there is nothing."""
        return self._undo[-1][:2] if self._undo else ("", "")

    def undo(self) -> bool:
        """Take the last change back."""
        if not self._undo:
            return False
        self.points = self._undo.pop()[-1]
        return True

    def _change(self, what: str, changes: dict[str, Point], name: str = "", goes_on: bool = False) -> None:
        new = [changes.get(p.name, p) for p in self.points]
        self._moving = None
        if new != self.points:
            if not goes_on:
                self._undo = [*self._undo[-MOST_UNDO + 1 :], (what, name, self.points)]
            self.points = new

    def save(self, path: str | Path) -> None:
        """Write the state; a crash leaves the old file or the new one."""
        content = {
            "task": list(self.task.names),
            "image_id": self.image_id,
            "base_revision": self.base_revision,
            "reason": self.reason,
            "next": self.next,
            "repeat": self.repeat,
            "points": [asdict(p) for p in self.points],
        }
        write_atomically(Path(path), json.dumps(content))

    @staticmethod
    def load(path: str | Path, task: Task) -> Session | None:
        """The state as it was; None where there is none, or it is of another task."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["task"] != list(task.names):
                return None
            points = [_point(row) for row in content["points"]]
            if [p.name for p in points] != list(task.names):
                return None
            where = str(content["image_id"]), points, int(content["base_revision"])
            return Session(task, *where, str(content["reason"]), content["next"], bool(content.get("repeat", False)))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _point(row: dict) -> Point:
    position = row["position"]
    return Point(**{**row, "position": tuple(float(v) for v in position) if position else None})


def _extent(points: Sequence[Point]) -> float:
    """Diagonal of the box around all positions, mm."""
    places = [p.position for p in points if p.position]
    return math.dist([min(x) for x in zip(*places, strict=True)], [max(x) for x in zip(*places, strict=True)]) if places else 0.0


def _differ(a: Point, b: Point, least: float) -> bool:
    if a.position is None or b.position is None:
        return a.state != b.state
    return math.dist(a.position, b.position) > least


def write_atomically(path: Path, text: str) -> None:
    """Through a temporary file and a rename, synced to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
