"""How long the tests take, by tier and file: written by ``scripts/dev.py test --record-durations``, so that the longest begin.

The seconds are those that a worker was busy; two workers take half of their sum.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from tests.tiers import TIERS, tier_of

FILE = Path(__file__).with_name("durations.json")
MEASURED_HERE = "as measured by --record-durations; run it while nothing else runs"


def recorded() -> dict[str, dict[str, float]]:
    """Seconds by tier and file."""
    return json.loads(FILE.read_text(encoding="utf-8"))["seconds"]


def longest_first(items: list[pytest.Item], tiers: tuple[str, ...]) -> None:
    """Sort tests by what their file takes in these tiers; those of a file stay together, in their order.

    A file nobody has measured comes first: it may be long.
    """
    known = recorded()
    seconds: dict[str, float] = defaultdict(float)
    for tier in tiers:
        for file, took in known[tier].items():
            seconds[file] += took
    items.sort(key=lambda item: (-seconds.get(file_of(item.nodeid), float("inf")), file_of(item.nodeid)))


def file_of(node_id: str) -> str:
    return node_id.partition("::")[0]


class Recorder:
    """A plugin of pytest that adds what it saw to the file; what did not run keeps its seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {tier: defaultdict(float) for tier in TIERS}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[tier_of(report.keywords)][file_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        content = json.loads(FILE.read_text(encoding="utf-8"))
        for tier, files in self.seconds.items():
            known = content["seconds"][tier]
            known.update({file: round(took, 1) for file, took in files.items()})
            content["seconds"][tier] = {file: known[file] for file in sorted(known) if (FILE.parents[1] / file).is_file()}
        content["measured"] = MEASURED_HERE
        FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
