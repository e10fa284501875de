"""Strategies that choose the next case; each choice says why."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from landmarklabel import plugins
from landmarklabel.active.unlabelled_pool import UnlabelledPool, image_distances
from landmarklabel.errors import UsageError, counted


class Choice(NamedTuple):
    """The chosen image and the reason in plain words."""

    image_id: str
    reason: str


Strategy = Callable[[UnlabelledPool, np.random.Generator], Choice]


def first(pool: UnlabelledPool, rng: np.random.Generator) -> Choice:
    """The first unlabelled image in the order of ids."""
    return Choice(sorted(pool.unlabelled)[0], f"first by name of {counted(len(pool.unlabelled), 'image')} without landmarks")


def random(pool: UnlabelledPool, rng: np.random.Generator) -> Choice:
    """Any unlabelled image, all equally likely."""
    chosen = sorted(pool.unlabelled)[int(rng.integers(len(pool.unlabelled)))]
    return Choice(chosen, f"drawn at random from {counted(len(pool.unlabelled), 'image')} without landmarks")


def diverse(pool: UnlabelledPool, rng: np.random.Generator) -> Choice:
    """The image that stands for most others that no labelled one stands for yet, by how images look."""
    gain = _gains(pool)
    if not gain:
        return random(pool, rng)
    chosen = max(sorted(gain), key=lambda i: gain[i])
    if not pool.labelled:
        return Choice(chosen, f"looks most like all {counted(len(pool.unlabelled), 'image')} without landmarks")
    return Choice(chosen, f"looks least like the {counted(len(pool.labelled), 'labelled image')} and stands for most others")


def uncertain(pool: UnlabelledPool, rng: np.random.Generator) -> Choice:
    """The image in which the model expects the largest errors and most contradictions."""
    assessed = {i: pool.assessments[i] for i in pool.unlabelled if i in pool.assessments}
    if not assessed:
        choice = diverse(pool, rng)
        return Choice(choice.image_id, f"{choice.reason} (no model has looked at the images yet)")
    chosen = max(sorted(assessed), key=lambda i: assessed[i].uncertainty)
    return Choice(chosen, _why_uncertain(pool, chosen))


def adaptive(pool: UnlabelledPool, rng: np.random.Generator) -> Choice:
    """The image that stands for most uncertainty in images unlike the labelled ones; with few labels, for most images. Some cases
    are drawn at random, to measure the model fairly."""
    config, every = pool.config, pool.config.validation_every
    if pool.validation and len(pool.labelled) % every == every - 1:
        chosen = sorted(pool.validation)[int(rng.integers(len(pool.validation)))]
        return Choice(chosen, f"drawn at random: every {every}th case measures the model fairly")
    left = [i for i in pool.unlabelled if i not in pool.validation] or list(pool.unlabelled)
    pool = replace(pool, unlabelled=left)
    if len(pool.labelled) < config.cold_start_labels or not any(i in pool.assessments for i in left):
        return diverse(pool, rng)
    uncertainty = {i: pool.assessments[i].uncertainty for i in left if i in pool.assessments}
    median = float(np.median(list(uncertainty.values())))
    power = 2 * max(pool.error_correlation, 0.0)  # as far as expected errors have not come true, they do not count
    gain = _gains(pool, lambda i: uncertainty.get(i, median) ** power, shapes=True)
    chosen = max(sorted(uncertainty), key=lambda i: (gain.get(i, 0.0), uncertainty[i]))
    unlike = _rank(_gains(pool), chosen) > config.unlike_rank
    return Choice(chosen, _why_uncertain(pool, chosen) + (", and looks unlike the labelled images" if unlike else ""))


def _why_uncertain(pool: UnlabelledPool, image_id: str) -> str:
    own = pool.assessments[image_id]
    others = (pool.assessments[i].uncertainty for i in pool.unlabelled if i in pool.assessments)
    rank = sum(u > own.uncertainty for u in others) + 1
    text = f"number {rank} of {len(pool.unlabelled)} by uncertainty, highest at {own.worst}"
    notable = own.disagreement > pool.config.notable_disagreement
    return text + (f"; {own.disagreement:.0%} of the points contradict the others" if notable else "")


def _gains(pool: UnlabelledPool, weight: Callable[[str], float] = lambda _: 1.0, shapes: bool = False) -> dict[str, float]:
    """By how much labelling an image would bring all images, each by its weight, nearer to a labelled one."""
    ids, distance = image_distances(pool, shapes)
    if not ids:
        return {}
    labelled = np.isin(ids, list(pool.labelled))
    furthest = distance.max() if distance.size else 1.0
    nearest = distance[:, labelled].min(1) if labelled.any() else np.full(len(ids), furthest)
    gain = np.array([weight(i) for i in ids]) @ np.maximum(nearest[:, None] - distance, 0.0)
    free = set(pool.unlabelled)
    return {i: float(g) for i, g, known in zip(ids, gain, labelled, strict=True) if not known and i in free}


def _rank(values: dict[str, float], key: str) -> float:
    """0 for the smallest, 1 for the largest; one half where it is not known."""
    if key not in values or len(values) < 2:
        return 0.5
    return sum(v < values[key] for v in values.values()) / (len(values) - 1)


def _of_plugin(name: str, choose: object) -> Strategy:
    """A plugin's strategy, whose mistakes are named as its own. Raises ValueError for what cannot be one."""
    if not callable(choose) or not (getattr(choose, "__doc__", None) or "").strip():
        raise ValueError(
            "a strategy is a function of the pool and a random generator, with a docstring that says what it chooses"
        )

    @functools.wraps(choose)
    def run(pool: UnlabelledPool, rng: np.random.Generator) -> Choice:
        try:
            chosen = choose(pool, rng)
            if not isinstance(chosen, tuple):
                raise TypeError(f"it gave {chosen!r}, which is no Choice")
            choice = Choice(*chosen)
        except Exception as error:
            raise UsageError(f"strategy {name!r} of a plugin failed ({error!r}); choose another one") from error
        if choice.image_id not in pool.unlabelled:
            raise UsageError(f"strategy {name!r} of a plugin chose {choice.image_id!r}, which is not among the images to label")
        return choice

    return run


_OWN: dict[str, Strategy] = {"adaptive": adaptive, "diverse": diverse, "uncertain": uncertain, "random": random, "first": first}
STRATEGIES = plugins.Extended(_OWN, plugins.STRATEGIES, _of_plugin)
