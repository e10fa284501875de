"""How far a cohort is: counts, reasons and rates of its results."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.run_folder import OK, CohortRun


@dataclass
class Progress:
    """Args:
    cases: of the cohort.
    done, failed: cases with such a result.
    reasons: of the failures, and how many have each; names and numbers in them are left out.
    doubtful: cases with flagged landmarks, and how many each has, most first.
    read_s, predict_s: seconds in all.
    begun, ended: times of the first and the last result, None where there is none.
    recent: results a second of late; 0 where there was none.
    """

    cases: int
    done: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    doubtful: list[tuple[str, int]] = field(default_factory=list)
    read_s: float = 0.0
    predict_s: float = 0.0
    begun: float | None = None
    ended: float | None = None
    recent: float = 0.0

    @property
    def left(self) -> int:
        """Cases without a result."""
        return self.cases - self.done - self.failed

    @property
    def seconds_left(self) -> float | None:
        """At the rate of late; None where nothing is predicted now."""
        return self.left / self.recent if self.recent else None

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        known = {"cases": self.cases, "done": self.done, "failed": self.failed, "left": self.left, "reasons": dict(self.reasons)}
        return known | {"doubtful": len(self.doubtful), "per_second": self.recent, "seconds_left": self.seconds_left}


def progress_of(run: CohortRun) -> Progress:
    """How far a cohort is now."""
    found, doubtful, times = Progress(0), list[tuple[int, str]](), list[float]()
    for case, row in run.rows():
        found.cases += 1
        if row is None:
            continue
        times.append(row["time"])
        found.read_s += row.get("read_s", 0.0)
        found.predict_s += row.get("predict_s", 0.0)
        if row["state"] == OK:
            found.done += 1
            if row["flagged"]:
                doubtful.append((-len(row["flagged"]), case.id))
        else:
            found.failed += 1
            found.reasons[_kind(row["reason"], case.path)] += 1
    found.doubtful = [(i, -count) for count, i in sorted(doubtful)]
    if times:
        found.begun, found.ended = min(times), max(times)
        now = time.time()
        recent = [t for t in times if now - t < CONFIG.recent_s]
        found.recent = len(recent) / max(now - min(recent), CONFIG.look_s) if recent else 0.0
    return found


def _kind(reason: str, path: str) -> str:
    """A reason without what is the case's own: its path and name, and numbers."""
    name = re.split(r"[/\\]", path)[-1]
    return re.sub(r"(?<!\w)\d+(\.\d+)?", "#", reason.replace(path, "…").replace(name, "…"))
