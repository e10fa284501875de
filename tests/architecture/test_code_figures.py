"""Settings live in configurations, with their reasons, and not as numbers in modules."""

from __future__ import annotations

import sys

from tests.architecture.sources import PACKAGE, ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import code_figures


def test_few_modules_hold_numbers_of_their_own():
    constants, lines = code_figures.numeric_constants(PACKAGE)
    assert lines > 30_000 and 1000 * len(constants) / lines <= 1.5, sorted(constants)
