"""Strategies that choose the next case; each choice says why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Choice(NamedTuple):
    """The chosen image and the reason in plain words."""

    image_id: str
    reason: str


def first(unlabelled: Sequence[str], rng: np.random.Generator) -> Choice:
    """The first unlabelled image in the order of ids."""
    return Choice(sorted(unlabelled)[0], f"first by name of {len(unlabelled)} images without landmarks")


def random(unlabelled: Sequence[str], rng: np.random.Generator) -> Choice:
    """Any unlabelled image, all equally likely."""
    chosen = sorted(unlabelled)[int(rng.integers(len(unlabelled)))]
    return Choice(chosen, f"drawn at random from {len(unlabelled)} images without landmarks")


STRATEGIES = {"random": random, "first": first}
