"""How far a cohort is: counts, reasons and rates of its results."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.run_folder import OK, CohortRun


@dataclass
class Progress:
    """How far a cohort is.

    Args:
        cases: of the cohort.
        done, failed: cases with such a result.
        reasons: of the failures: one of those that differ in names and numbers only, and how many there are.
        flagged: how many cases have each landmark flagged.
        doubtful: cases with flagged landmarks, and how many each has, most first.
        read_s, predict_s: seconds in all.
        busy_s: from the first result to the last, without the pauses in which nothing was predicted.
        recent: results a second of late; 0 where nothing is predicted now.
    """

    cases: int
    done: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    doubtful: list[tuple[str, int]] = field(default_factory=list)
    read_s: float = 0.0
    predict_s: float = 0.0
    busy_s: float = 0.0
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
    found, doubtful, times, kinds = Progress(0), list[tuple[int, str]](), list[float](), dict[str, str]()
    for case, row in run.rows():
        found.cases += 1
        if row is None:
            continue
        times.append(row["time"])
        found.read_s += row.get("read_s", 0.0)
        found.predict_s += row.get("predict_s", 0.0)
        if row["state"] == OK:
            found.done += 1
            found.flagged.update(run.task.names[i] for i in row["flagged"])
            if row["flagged"]:
                doubtful.append((-len(row["flagged"]), case.id))
        else:
            found.failed += 1
            found.reasons[kinds.setdefault(_kind(row["reason"], case.path), row["reason"])] += 1
    found.doubtful = [(i, -count) for count, i in sorted(doubtful)]
    if times:
        times.sort()
        now = time.time()
        found.busy_s = sum(after - before for before, after in pairwise(times) if after - before < CONFIG.pause_s)
        recent = [t for t in times if now - t < CONFIG.recent_s]
        if now - times[-1] < CONFIG.pause_s:
            found.recent = len(recent) / max(now - recent[0], CONFIG.look_s)
    return found


def _kind(reason: str, path: str) -> str:
    """What tells reasons apart: not the path and name of the case, and no numbers."""
    name = re.escape(re.split(r"[/\\]", path)[-1])
    reason = re.sub(rf"(?<!\w){name}(?!\w)", "…", reason.replace(path, "…"))
    return re.sub(r"(?<!\w)\d+(\.\d+)?", "#", reason)
