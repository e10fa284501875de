"""The active-learning strategies as MONAI Label tasks."""

from __future__ import annotations

import numpy as np
from monailabel.interfaces.tasks.strategy import Strategy

from landmarklabel.active.strategies import STRATEGIES, Choice
from landmarklabel.landmarks import Status
from landmarklabel.server.pool import PoolWatch
from landmarklabel.store.leases import Leases
from landmarklabel.store.study import REPEAT, Study


class LandmarkStrategy(Strategy):
    """Serves one of ``active.strategies``: a case nobody else has in hand, with the reason.

    Args:
        name: of the strategy.
        study: whose images.
        watch: what is known of them.
        leases: who has what.
        repeat_every: every so many cases one that is labelled is handed out again, for a second reading; 0 for never.
    """

    def __init__(self, name: str, study: Study, watch: PoolWatch, leases: Leases, repeat_every: int = 0):
        super().__init__(" ".join(STRATEGIES[name].__doc__.split()))
        self.choose, self.study, self.watch, self.leases = STRATEGIES[name], study, watch, leases
        self.repeat_every = repeat_every

    def __call__(self, request, datastore):
        client, reasons = str((request or {}).get("client_id") or ""), {}

        def choose(free: list[str]) -> str:
            choice: Choice = self.choose(self.watch.pool(free), np.random.default_rng())
            reasons[choice.image_id] = choice.reason
            return choice.image_id

        labelled = self.study.labelled()
        if (again := self._repeat(client, list(labelled))) is not None:
            reason = "a second reading, to measure how far people differ: the first is not shown"
            return {"id": again, "reason": reason, "repeat": True}
        untouched = [i for i in self.study.images() if i not in labelled]
        chosen = self.leases.take(client, untouched, choose) if untouched else None
        if chosen is not None:
            return {"id": chosen, "reason": reasons.get(chosen, "skipped before, and nothing else is left")}
        left = {i: n for i, n in ((i, _to_do(landmarks)) for i, landmarks in labelled.items()) if n}
        chosen = self.leases.take(client, sorted(left), lambda free: free[0]) if left else None
        return {"id": chosen, "reason": f"{left[chosen]} points nobody has looked at yet"} if chosen else None

    def _repeat(self, client: str, labelled: list[str]) -> str | None:
        """A labelled case nobody has read twice, when it is time for one."""
        if not self.repeat_every or not labelled:
            return None
        repeats = self.study.repeats()
        once = [f"{i}{REPEAT}" for i in labelled if i not in repeats]
        if not once or len(labelled) // self.repeat_every <= len(repeats):
            return None
        rng = np.random.default_rng()
        chosen = self.leases.take(client, once, lambda free: free[int(rng.integers(len(free)))])
        return None if chosen is None else chosen.removesuffix(REPEAT)


def _to_do(landmarks) -> int:
    """Points of a saved case that nobody has spoken about."""
    return sum(status in (Status.UNSET, Status.PREDICTED) for status in landmarks.status)
