"""The files in ``scripts/results`` and the line that says where a table's figures come from."""

from __future__ import annotations

import json
from functools import cache

from doc_blocks import ROOT

RESULTS = ROOT / "scripts" / "results"


@cache
def result(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def about(data: str, *names: str, note: str = "") -> str:
    """What every table ends with: data, hardware, and the commands that measure it."""
    machines = " and ".join(dict.fromkeys(str(result(name)["hardware"]) for name in names))
    commands = ", ".join(f"`{name}`" for name in names)
    what = "Experiment" if len(names) == 1 else "Experiments"
    return f"\n\nData: {data}. Hardware: {machines}. {what}: {commands}." + (f" {note}" if note else "")
