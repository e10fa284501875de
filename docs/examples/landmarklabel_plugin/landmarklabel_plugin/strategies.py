"""Strategies: which image is labelled next."""

import numpy as np

from landmarklabel.extending import Choice, UnlabelledPool


def latest(pool: UnlabelledPool, rng: np.random.Generator) -> Choice:
    """The image whose name comes last: where names are dates or numbers, the newest one."""
    chosen = max(pool.unlabelled)
    return Choice(chosen, f"last by name of {len(pool.unlabelled)} images without landmarks")
