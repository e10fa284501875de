"""How a label file relates to its image's revisions, and what is remembered of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from landmarklabel.landmarks import LandmarkSet


class State(Enum):
    """How a label file relates to the image's revisions."""

    MISSING = auto()
    NEWEST = auto()
    OLDER = auto()  # an earlier revision's, left by a program that was stopped
    PUT_BACK = auto()  # an earlier revision's, put there by a person
    FRAGMENT = auto()  # a half-written revision
    EDITED = auto()  # what no revision says
    UNREADABLE = auto()

    @property
    def by_person(self) -> bool:
        return self in (State.PUT_BACK, State.EDITED)


@dataclass(frozen=True)
class FileState:
    """What a label file held when it was read: its bytes (None where there was none), what they are, and when it was changed."""

    state: State
    data: bytes | None = None
    landmarks: LandmarkSet | None = None
    fault: str = ""
    changed_ns: int | None = None

    @property
    def edit(self) -> LandmarkSet:
        """What a person has put into the file. Raises ValueError where nothing of it can be read."""
        if self.landmarks is None:
            raise ValueError(f"a file that is {self.state.name} holds no landmarks")
        return self.landmarks


@dataclass(frozen=True)
class FileStamp:
    """What the last sync left: the file's stamp (None: examine again), the newest number, and what was wrong."""

    stamp: list[int] | None
    number: int
    problem: str | None = None
