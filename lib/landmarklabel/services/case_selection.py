"""Which case an annotator gets next: one that nobody else has in hand, with the reason."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from landmarklabel.active.strategies import STRATEGIES, Choice
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.services.callers import caller
from landmarklabel.services.pool_monitor import PoolMonitor
from landmarklabel.services.quality import CHECK
from landmarklabel.store.checks import KEPT
from landmarklabel.store.leases import Leases
from landmarklabel.store.revisions import Revision
from landmarklabel.store.study import REPEAT, Study
from landmarklabel.store.study_changes import BY_VERB

CHANGED = "the image was changed since it was labelled: its points need a look"


class CaseSelection:
    """Hands out cases by one of ``active.strategies``: a case nobody else has in hand, with the reason.

    Args:
        name: of the strategy.
        study: whose images.
        monitor: what is known of them.
        leases: who has what.
        repeat_every: every so many cases one that is labelled is handed out again, for a second reading; 0 for never.
    """

    def __init__(self, name: str, study: Study, monitor: PoolMonitor, leases: Leases, repeat_every: int = 0):
        self.choose, self.study, self.monitor, self.leases = STRATEGIES[name], study, monitor, leases
        self.repeat_every = repeat_every

    @property
    def description(self) -> str:
        """The strategy in one line."""
        return " ".join((self.choose.__doc__ or "").split())

    def next_case(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """``id`` and ``reason`` of the next case of who asks, ``repeat`` for a second reading; None when nothing is left."""
        reasons: dict[str, str] = {}

        def choose(free: list[str]) -> str:
            choice: Choice = self.choose(self.monitor.pool(free), np.random.default_rng())
            reasons[choice.image_id] = choice.reason
            return choice.image_id

        labelled = self.study.labelled()
        untouched = [i for i in self.study.images() if i not in labelled]
        left = {i: n for i, n in ((i, to_do(landmarks)) for i, landmarks in labelled.items()) if n}
        due = self._due_second_readings(labelled)
        take = functools.partial(self._take, request or {}, {*untouched, *left, *due})
        if self._time_for_a_second_reading(labelled, len(due), False) and (again := take(due, _any_of)) is not None:
            return _second_reading(again)
        if untouched and (chosen := take(untouched, choose)) is not None:
            reason = reasons.get(chosen, "skipped before, and nothing else is left")
            return {"id": chosen, "reason": CHANGED if chosen in self.study.changed() else reason}
        if self._time_for_a_second_reading(labelled, len(due), True) and (again := take(due, _any_of)) is not None:
            return _second_reading(again)
        chosen = take(sorted(left), lambda free: free[0]) if left else None
        return {"id": chosen, "reason": f"{left[chosen]} points nobody has looked at yet"} if chosen else None

    def _take(self, request: dict, unfinished: set[str], open_ids: list[str], choose: Callable) -> str | None:
        """A case for who asks: a token's holder has one at a time, whatever the client calls itself."""
        holder = caller().name
        client, address = holder or str(request.get("client_id") or ""), None if holder else str(request.get("address") or "")
        return self.leases.take(client, open_ids, choose, address=address, others=unfinished)

    def _due_second_readings(self, labelled: dict) -> list[str]:
        """Second readings of labelled cases that nobody has made; none where none are asked for."""
        if not self.repeat_every:
            return []
        repeats = self.study.repeats()
        return [f"{i}{REPEAT}" for i in labelled if i not in repeats]

    def _time_for_a_second_reading(self, labelled: dict, due: int, nothing_else: bool) -> bool:
        """One for every ``repeat_every`` cases that people have labelled; imported ones count where nothing else is to do."""
        if not due:
            return False
        made, heads = len(labelled) - due, self.study.heads()
        count = sum(nothing_else or self._by_people(heads[i]) for i in labelled)
        return made < count // self.repeat_every

    def _by_people(self, head: Revision) -> bool:
        """Whether somebody has labelled a case here; who renames a landmark or calls a point right labels nothing."""
        if _only_follows(head):
            own = [r for r in self.study.history(head.image_id) if not _only_follows(r)]
            return bool(own) and own[-1].source != "import"
        return head.source != "import"


def _only_follows(revision: Revision) -> bool:
    return revision.source in (KEPT, CHECK) or revision.source.startswith(BY_VERB)


def _second_reading(again: str) -> dict[str, Any]:
    reason = "a second reading, to measure how far people differ: the first is not shown"
    return {"id": again.removesuffix(REPEAT), "reason": reason, "repeat": True}


def _any_of(free: list[str]) -> str:
    return free[int(np.random.default_rng().integers(len(free)))]


def to_do(landmarks: LandmarkSet) -> int:
    """Number of points of a saved case that nobody has placed, accepted or called absent."""
    return sum(status in (Status.UNSET, Status.PREDICTED) for status in landmarks.status)
