"""How often the tests repeat what may fail once in a thousand: less in every run, in full before an issue is closed."""

from __future__ import annotations

import os

THOROUGH = os.environ.get("LANDMARKLABEL_TESTS") == "thorough"  # set by ``scripts/dev.py release-check``


def times(often: int, in_full: int) -> int:
    """``often`` in every run of the suite, ``in_full`` in a release check."""
    return in_full if THOROUGH else often
