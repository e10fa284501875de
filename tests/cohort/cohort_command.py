"""The words of ``landmarklabel cohort``, and how many scans its tests have."""

from __future__ import annotations

import sys

COUNT = 40


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "landmarklabel", "cohort", *map(str, words)]
