"""Strategies that choose the next case; each choice says why."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from landmarklabel import plugins
from landmarklabel.active.pool import Pool, distances
from landmarklabel.errors import UsageError

COLD = 10  # labelled cases up to which typical ones teach more than doubtful ones (Hacohen 2022)
STREAM = 5  # every so many cases one is drawn at random, for validation that nobody has chosen


class Choice(NamedTuple):
    """The chosen image and the reason in plain words."""

    image_id: str
    reason: str


def first(pool: Pool, rng: np.random.Generator) -> Choice:
    """The first unlabelled image in the order of ids."""
    return Choice(sorted(pool.unlabelled)[0], f"first by name of {len(pool.unlabelled)} images without landmarks")


def random(pool: Pool, rng: np.random.Generator) -> Choice:
    """Any unlabelled image, all equally likely."""
    chosen = sorted(pool.unlabelled)[int(rng.integers(len(pool.unlabelled)))]
    return Choice(chosen, f"drawn at random from {len(pool.unlabelled)} images without landmarks")


def diverse(pool: Pool, rng: np.random.Generator) -> Choice:
    """The image that stands for most others that no labelled one stands for yet, by how images look."""
    gain = _gains(pool)
    if not gain:
        return random(pool, rng)
    chosen = max(sorted(gain), key=gain.get)
    if not pool.labelled:
        return Choice(chosen, f"looks most like all {len(pool.unlabelled)} images without landmarks")
    return Choice(chosen, f"looks least like the {len(pool.labelled)} labelled images and stands for most others")


def uncertain(pool: Pool, rng: np.random.Generator) -> Choice:
    """The image in which the model expects the largest errors and most contradictions."""
    seen = {i: pool.seen[i] for i in pool.unlabelled if i in pool.seen}
    if not seen:
        choice = diverse(pool, rng)
        return Choice(choice.image_id, f"{choice.reason} (no model has looked at the images yet)")
    chosen = max(sorted(seen), key=lambda i: seen[i].uncertainty)
    return Choice(chosen, _doubts(pool, chosen))


def adaptive(pool: Pool, rng: np.random.Generator) -> Choice:
    """The image that stands for most doubt in images no labelled one stands for; while there are few labels, for most images."""
    if pool.calibration and len(pool.labelled) % STREAM == STREAM - 1:
        chosen = sorted(pool.calibration)[int(rng.integers(len(pool.calibration)))]
        return Choice(chosen, f"drawn at random: every {STREAM}th case measures the model fairly")
    left = [i for i in pool.unlabelled if i not in pool.calibration] or list(pool.unlabelled)
    pool = replace(pool, unlabelled=left)
    if len(pool.labelled) < COLD or not any(i in pool.seen for i in left):
        return diverse(pool, rng)
    doubt = {i: pool.seen[i].uncertainty for i in left if i in pool.seen}
    usual, power = float(np.median(list(doubt.values()))), 2 * max(pool.trust, 0.0)  # not trusted, doubt does not count
    gain = _gains(pool, lambda i: doubt.get(i, usual) ** power, shapes=True)
    chosen = max(sorted(doubt), key=lambda i: (gain.get(i, 0.0), doubt[i]))
    unlike = ", and looks unlike the labelled images" if _rank(_gains(pool), chosen) > 0.7 else ""
    return Choice(chosen, _doubts(pool, chosen) + unlike)


def _doubts(pool: Pool, image_id: str) -> str:
    seen = pool.seen[image_id]
    place = sum(pool.seen[i].uncertainty > seen.uncertainty for i in pool.unlabelled if i in pool.seen) + 1
    text = f"number {place} of {len(pool.unlabelled)} by doubt, most of it at {seen.worst}"
    return text + (f"; {seen.doubt:.0%} of the points contradict the others" if seen.doubt > 0.02 else "")


def _gains(pool: Pool, weight: Callable[[str], float] = lambda _: 1.0, shapes: bool = False) -> dict[str, float]:
    """By how much labelling an image would bring all images, each by its weight, nearer to a labelled one."""
    ids, apart = distances(pool, shapes)
    if not ids:
        return {}
    labelled = np.isin(ids, list(pool.labelled))
    far = apart.max() if apart.size else 1.0
    nearest = apart[:, labelled].min(1) if labelled.any() else np.full(len(ids), far)
    gain = np.array([weight(i) for i in ids]) @ np.maximum(nearest[:, None] - apart, 0.0)
    free = set(pool.unlabelled)
    return {i: float(g) for i, g, known in zip(ids, gain, labelled, strict=True) if not known and i in free}


def _rank(values: dict[str, float], key: str) -> float:
    """0 for the smallest, 1 for the largest; one half where it is not known."""
    if key not in values or len(values) < 2:
        return 0.5
    return sum(v < values[key] for v in values.values()) / (len(values) - 1)


def _of_plugin(name: str, choose: object) -> Callable[[Pool, np.random.Generator], Choice]:
    """A plugin's strategy, whose mistakes are named as its own. Raises ValueError for what cannot be one."""
    if not callable(choose) or not (getattr(choose, "__doc__", None) or "").strip():
        raise ValueError(
            "a strategy is a function of the pool and a random generator, with a docstring that says what it chooses"
        )

    @functools.wraps(choose)
    def run(pool: Pool, rng: np.random.Generator) -> Choice:
        try:
            choice = Choice(*choose(pool, rng))
        except Exception as error:
            raise UsageError(f"strategy {name!r} of a plugin failed ({error!r}); choose another one") from error
        if choice.image_id not in pool.unlabelled:
            raise UsageError(f"strategy {name!r} of a plugin chose {choice.image_id!r}, which is not among the images to label")
        return choice

    return run


_OWN = {"adaptive": adaptive, "diverse": diverse, "uncertain": uncertain, "random": random, "first": first}
STRATEGIES = plugins.Extended(_OWN, plugins.STRATEGIES, _of_plugin)
