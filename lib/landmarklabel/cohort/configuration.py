"""Numbers of a cohort's run, its table and its report."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class CohortConfig(Configuration):
    """Numbers of a cohort's run, its table and its report."""

    ahead: int = number(3, 1)  # cases that a worker holds: one is looked at, the others are read meanwhile
    deaths: int = number(3, 1)  # of a worker that has one case only, until it is the case's fault
    failed_starts: int = number(10, 1)  # of workers one after the other, until it is no chance
    most_processes: int = number(10_000, 1)  # workers, threads and tasks that may be asked for
    case_s: float = number(1800.0, 1)  # by default, the longest that a worker may look at one case
    look_s: float = number(1.0, 0)  # between looks at whether a worker takes too long
    worker_bytes: int = number(2**31, 1)  # of memory for each worker where their number is not asked for
    sync_s: float = number(5.0, 0)  # results on disk at least so often: what a power failure may cost
    digits: int = number(3, 0)  # of mm in results: the same on other machines where their last bits differ
    rows_at_once: int = number(2000, 1)  # of the table, while it is written
    connect_s: float = number(10.0, 0)  # longest wait for a Ray cluster to be there at all
    told_s: float = number(30.0, 0)  # between lines of progress where there is no terminal
    pause_s: float = number(120.0, 1)  # without a result: nothing is predicted, or it was interrupted
    recent_s: float = number(600.0, 1)  # over which the rate is told
    open_files: int = number(64, 1)  # of results at once: systems allow a process 256 or more
    most_reasons: int = number(20, 1)  # for failures, in the report
    most_flagged: int = number(100, 1)  # cases listed in the report, those with the most doubtful points
    most_pictures: int = number(48, 0)  # of those, on its contact sheet


CONFIG = CohortConfig()
