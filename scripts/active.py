"""Which cases to label: campaigns over the radiographs."""

from __future__ import annotations

import json
from pathlib import Path

from experiment import hand_split, import_hands, landmarklabel


def labels(data: Path, runs: Path, seeds: int = 5, minutes: float = 2.0) -> dict:
    """Error against labels, adaptive and random, from three labels on; tested on the 21 of the valid split. Hours."""
    return _campaigns(data, runs, "adaptive,random", seeds, "3,5,8,12,20,32,50", minutes)


def few_labels(data: Path, runs: Path, minutes: float = 10.0) -> dict:
    """One, three and ten labels that adaptive has chosen, with the other images unlabelled."""
    return _campaigns(data, runs, "adaptive", 1, "1,3,10", minutes)


def _campaigns(data: Path, runs: Path, strategies: str, seeds: int, counts: str, minutes: float) -> dict:
    study, tests = import_hands(data, runs), runs / "valid.txt"
    tests.write_text("\n".join(hand_split(data, "valid")) + "\n")
    words = ("--strategies", strategies, "--seeds", seeds, "--counts", counts, "--minutes", minutes, "--valid", tests)
    out = landmarklabel("simulate", "labels", study, "--task", "hand_xray", *words, "--out", runs / "out", "--json", output=True)
    return {"minutes": minutes, **json.loads(out)}


EXPERIMENTS = (labels, few_labels)
