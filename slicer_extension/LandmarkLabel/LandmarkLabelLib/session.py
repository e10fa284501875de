"""The state of annotating one case: points, undo, and where it came from.

No Qt, no MRML, no HTTP: what the panel shows and what is sent is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from .wire import (
    ABSENT,
    ACCEPTED,
    PLACED,
    PREDICTED,
    STATES,
    UNSET,
    WITH_POSITION,
    Point,
    RevisionNumber,
    Task,
    covariance_of,
    is_position,
    merged,
    sha256_of,
)

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
        edits: how often a person has changed something.
        delivered: which of these edits the server has acknowledged.
        gone: landmarks that a person had placed, and the task no longer has.
        pixels: hash of those of the image that is looked at; empty where it is not known.
        is_other_image: whether some points were placed on another image than that, and nobody has said that they hold.
        author: who works on it.
    """

    task: Task
    image_id: str
    points: list[Point]
    base_revision: int = 0
    reason: str = ""
    next: str | None = None
    repeat: bool = False
    edits: int = 0
    delivered: int = 0
    gone: list[str] = field(default_factory=list)
    pixels: str = ""
    is_other_image: bool = False
    author: str = ""
    _undo: list[tuple[str, str, list[Point]]] = field(default_factory=list)
    _redo: list[tuple[str, str, list[Point]]] = field(default_factory=list)
    _moving: str | None = None  # the point that is being dragged
    _edits_before: int = 0  # that drag
    _submitted: tuple[str, list[Point]] | None = None  # key and points of what was submitted last; None where it was not taken

    @staticmethod
    def fresh(task: Task, image_id: str, reason: str = "") -> Session:
        """A case nobody has touched."""
        return Session(task, image_id, [Point(name) for name in task.names], reason=reason)

    def point(self, name: str) -> Point:
        return self.points[self.task.names.index(name)]

    @property
    def is_moving(self) -> bool:
        """Whether a hand holds a point."""
        return self._moving is not None

    @property
    def unsent(self) -> bool:
        """Whether a person has changed something that the server has not acknowledged."""
        return self.edits > self.delivered

    def place(self, name: str, position: Sequence[float], final: bool = True) -> None:
        """A person put the point here; all moves of one drag are undone together."""
        x, y, z = (float(v) for v in position)
        goes_on = self._moving == name
        self._moving = name if self._moving == name else None  # the end of another drag was never told
        steps, self._edits_before = self._undo, self._edits_before if goes_on else self.edits
        self._change("place {}", {name: Point(name, PLACED, (x, y, z))}, name, goes_on)
        is_a_step = goes_on or self._undo is not steps
        self._moving = name if is_a_step and not final else None
        if final and self._undo and self._undo[-1][-1] == self.points:  # nothing was moved since it was submitted meanwhile
            self._undo = self._undo[:-1]

    def take_move_back(self) -> None:
        """A drag has ended where the point cannot be: it is as before the drag, as if nobody had touched it."""
        if self._moving is not None and self._undo:
            self.points = self._undo.pop()[-1]
            self.edits = self._edits_before
        self._moving = None

    @property
    def is_submitted(self) -> bool:
        """Whether just this was submitted, and the server did not refuse it."""
        return self._submitted is not None and self._submitted[1] == self.points

    def submitted(self, key: str) -> None:
        """What the points are now is on its way under this key; a drag that goes on begins anew."""
        self._submitted, self._edits_before = (key, self.points), self.edits
        if self._moving is not None:
            self._undo = [*self._undo, (*self._undo[-1][:2], self.points)]

    def not_taken(self, key: str = "") -> None:
        """The server refused it (only what has this ``key``), or has another version: the same may be submitted again."""
        if self._submitted is not None and key in ("", self._submitted[0]):
            self._submitted = None

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

    def accept_all(self, but: Sequence[str] = ()) -> int:
        """Agree with everything that is proposed, but for some landmarks; what a person placed stays told apart from it.

        Returns how many points that were.
        """
        left = [p for p in self.points if p.state == PREDICTED and p.name not in but]
        self._change("accept all", {p.name: replace(p, state=ACCEPTED, flagged=False) for p in left})
        return len(left)

    def mark_absent(self, name: str) -> None:
        """A person says the landmark is not in the image."""
        self._change("call {} absent", {name: Point(name, ABSENT)}, name)

    def propose(self, proposed: Sequence[Point], what: str = "prediction", following: str | None = None) -> int:
        """Take in proposals; points of a person stay. Returns how many points moved visibly or changed state."""
        new = merged(self.points, proposed)
        least = VISIBLE * _extent(new)
        moved = sum(_differ(a, b, least) for a, b in zip(self.points, new))
        self._change(what, {p.name: p for p in new}, by_person=False)
        self.next = following
        return moved

    def replace_all(self, points: Sequence[Point], what: str) -> None:
        """Another version of the whole case; undo brings this one back."""
        self._change(what, {p.name: p for p in points})

    def take(self, point: Point) -> None:
        """One point of another version."""
        self._change("take the other {}", {point.name: point}, point.name)

    def acknowledged(self, edits: int, revision: int, key: str = "") -> None:
        """The server has saved the state after so many edits, as this revision.

        Where that was the submission with this ``key``, what was done and undone since does not count.
        """
        edits = self.edits if self._submitted == (key, self.points) else edits
        self.delivered, self.base_revision = max(self.delivered, edits), revision

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
        self._step(self._undo, self._redo)
        return True

    @property
    def redo_text(self) -> tuple[str, str]:
        """What ``redo`` would do again, as ``undo_text``."""
        return self._redo[-1][:2] if self._redo else ("", "")

    def redo(self) -> bool:
        """Do again what was taken back last."""
        if not self._redo:
            return False
        self._step(self._redo, self._undo)
        return True

    def _step(self, taken: list, given: list) -> None:
        what, name, points = taken.pop()
        given.append((what, name, self.points))
        self.edits += any(a.by_person or b.by_person for a, b in zip(self.points, points) if a != b)
        self.points, self._moving = points, None

    def _change(
        self, what: str, changes: dict[str, Point], name: str = "", goes_on: bool = False, by_person: bool = True
    ) -> None:
        new = [changes.get(p.name, p) for p in self.points]
        if new == self.points:
            return
        held = self._moving if not goes_on and self._undo else None
        if held is not None and changes.get(held, self.point(held)) == self.point(held):
            *earlier, (drag, of, before) = self._undo  # it goes on, and is undone as one step: this one comes before it
            after = [p if p.name == held else changes.get(p.name, p) for p in before]
            self._undo, self._redo = [*earlier, (what, name, before), (drag, of, after)], []
            self._edits_before += by_person
        elif not goes_on:
            self._undo, self._redo, self._moving = [*self._undo[-MOST_UNDO + 1 :], (what, name, self.points)], [], None
        self.points = new
        self.edits += by_person

    def content(self) -> dict:
        """As it is kept in a file."""
        return {
            "task": list(self.task.names),
            "image_id": self.image_id,
            "base_revision": int(self.base_revision),
            "base_sha256": sha256_of(self.base_revision),
            "reason": self.reason,
            "next": self.next,
            "repeat": self.repeat,
            "edits": self.edits,
            "delivered": self.delivered,
            "pixels": self.pixels,
            "is_other_image": self.is_other_image,
            "author": self.author,
            "points": [asdict(p) for p in self.points],
        }

    @staticmethod
    def of(content: dict, task: Task) -> Session:
        """From the content of a file; landmarks that the task no longer has are left out, new ones are unset.

        Raises:
            ValueError, KeyError, TypeError: the file is damaged.
        """
        every = [_point(row) for row in content["points"]]
        kept = {p.name: p for p in every if p.name in task.names}
        gone = [p.name for p in every if p.name not in task.names and p.by_person]
        following = content["next"] if content["next"] in task.names else None
        return Session(
            task,
            str(content["image_id"]),
            [kept.get(name, Point(name)) for name in task.names],
            RevisionNumber.of(_count(content["base_revision"]), content.get("base_sha256")),
            str(content["reason"]),
            following,
            bool(content.get("repeat", False)),
            _count(content.get("edits", 1)),
            _count(content.get("delivered", 0)),
            gone,
            str(content.get("pixels", "")),
            content.get("is_other_image") is True,
            str(content.get("author", "")),
        )


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value} is no number of edits or revisions")
    return value


def _point(row: dict) -> Point:
    """One as it was kept. Raises ValueError, KeyError, TypeError for anything that is none."""
    position, state, error = row["position"], row["state"], row["expected_error_mm"]
    if state not in STATES or (position is not None) != (state in WITH_POSITION):
        raise ValueError(f"{row['name']} cannot be {state} at {position}")
    if position is not None and not is_position(position, 3):
        raise ValueError(f"{position} is no position")
    if error is not None and not (type(error) in (int, float) and math.isfinite(error)):
        raise ValueError(f"{error} is no distance")
    place = tuple(float(v) for v in position) if position is not None else None
    unit, covariance = "px" if row["unit"] == "px" else "mm", covariance_of(row.get("covariance"))  # earlier files have none
    return Point(str(row["name"]), state, place, error, bool(row["flagged"]), unit, covariance)


def _extent(points: Sequence[Point]) -> float:
    """Diagonal of the box around all positions, mm."""
    places = [p.position for p in points if p.position]
    return math.dist([min(x) for x in zip(*places)], [max(x) for x in zip(*places)]) if places else 0.0


def _differ(a: Point, b: Point, least: float) -> bool:
    if a.position is None or b.position is None:
        return a.state != b.state
    return math.dist(a.position, b.position) > least
