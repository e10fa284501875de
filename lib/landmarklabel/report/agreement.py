"""How far readers agree, as a page: a table, and for each measurement the differences against the means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from landmarklabel.agreement import Agreement
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.report import pictures
from landmarklabel.report.page import Page


def write_agreement(path: str | Path, task: LandmarkTask, found: Sequence[Agreement]) -> None:
    """Write the report. Raises UsageError for a name that is none of a page."""
    page = Page(f"{task.name}: how far readers agree")
    page.text(
        "Bias: mean of the first reader's values less the other's. Limits: 1.96 standard deviations of the differences on either "
        "side of it (Bland and Altman 1986). ICC: absolute agreement of single readings (McGraw and Wong 1996, ICC(A,1))."
    )
    header = ["measurement", "unit", "readers", "cases", "bias", "lower limit", "upper limit", "ICC"]
    page.table(header, [[a.measurement, a.unit, " and ".join(a.readers), len(a.means), a.bias, *a.limits, a.icc] for a in found])
    for a in found:
        caption = f"{a.measurement}: {a.readers[0]} less {a.readers[1]}, {len(a.means)} cases; dashed: bias and limits."
        page.picture(pictures.bland_altman(a.means, a.differences, (a.bias, *a.limits), f"{a.measurement} ({a.unit})"), caption)
    page.write(path)
