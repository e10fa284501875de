"""The command line: ``landmarklabel VERB``. One file per group of verbs; ``parser`` lists them all."""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    # The program's numpy sums are small: waking OpenBLAS's second thread costs more than it does. Torch has threads of its own.
    # It must be said before numpy is loaded, and here, not at import: the environment of who uses the package is theirs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from landmarklabel.cli.parser import main as run

    return run(argv)
