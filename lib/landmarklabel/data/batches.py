"""Training batches: what one step of a network sees, a pure function of (cases, plan, random seed)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from landmarklabel.data.augment import AugmentRange, draw_cuts, draw_grey, draw_warp, random_rotation
from landmarklabel.data.cases import Case
from landmarklabel.data.crops import CropPlan, read_crops
from landmarklabel.data.grids import GridPlan, grid_points
from landmarklabel.data.presence import Presence, landmark_state


@dataclass(frozen=True)
class Part:
    """One of the equal parts of a batch; those of a device, and those it looks at one after another."""

    number: int = 0
    of: int = 1

    def rows(self, total: int) -> tuple[int, int]:
        """The first row and the one after the last."""
        return total * self.number // self.of, total * (self.number + 1) // self.of


WHOLE = Part()


class Batch(NamedTuple):
    """``images`` (b, c, *shape); ``index`` (b, n, d) landmark positions in input samples, array order, NaN if not in the
    image; ``state`` (b, n) ``Presence``; ``landmark`` (b,) numbers for one-landmark crops, else empty.

    ``rows``: where it is a part of a batch, the number of its first row, and how many rows the whole batch has."""

    images: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody wants of a batch
    state: Tensor
    landmark: Tensor
    rows: tuple[int, int] | None = None


def whole_image_batch(
    cases: Sequence[Case], plan: GridPlan, ranges: AugmentRange | None, seed: Sequence[int], part: Part = WHOLE
) -> Batch:
    """Whole fields of view, augmented when ``ranges`` is given; the same for a ``seed``. A ``part`` makes its rows alone."""
    first, end = part.rows(len(cases))
    made = [_whole_image(cases[i], plan, ranges, np.random.default_rng([*seed, i])) for i in range(first, end)]
    images, index, state = (torch.from_numpy(np.stack(x)) for x in zip(*made, strict=True))
    rows = None if part == WHOLE else (first, len(cases))
    return Batch(images[:, None], index.float(), state, torch.empty(0, dtype=torch.long), rows)


def _whole_image(
    case: Case, plan: GridPlan, ranges: AugmentRange | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    grid = plan.training_grid(case.image.geometry)
    spacing = float(grid.spacing[0])
    positions, state = case.labels.positions_mm, landmark_state(case.labels)
    if ranges is None:
        source = grid_points(grid)
        pixels = case.sample(source, spacing)
    else:
        warp = draw_warp(rng, grid, ranges)
        pixels = draw_grey(rng, ranges).apply(case.sample(warp.on_grid(grid), spacing))
        positions = warp.inverse(positions)
        for normal, offset in draw_cuts(rng, grid, ranges) if ranges.cut else ():
            pixels[grid_points(grid) @ normal.astype(np.float32) > offset] = 0.0
            state = np.where((state == Presence.PRESENT) & (positions @ normal > offset), Presence.UNKNOWN, state)
        if warp.mirrored:
            order = case.labels.task.mirror_permutation() if case.mirror is None else case.mirror.order
            positions, state = positions[order], np.where(order < 0, Presence.UNKNOWN, state[order])
    index = grid.world_to_index(positions)
    inside = ((index > -0.5) & (index < np.array(grid.size) - 0.5)).all(-1)
    state = np.where((state == Presence.PRESENT) & ~inside, Presence.ABSENT, state)
    index[state != Presence.PRESENT] = np.nan
    return pixels.astype(np.float32), index[:, ::-1].copy(), state


def crop_batch(
    cases: Sequence[Case],
    grid_plan: GridPlan,
    plan: CropPlan,
    ranges: AugmentRange,
    count: int,
    seed: Sequence[int],
    negative_fraction: float = 0.4,
    part: Part = WHOLE,
) -> Batch:
    """About ``count`` jittered, rotated, scaled crops round true positions, landmarks and cases drawn evenly.

    ``negative_fraction`` of the crops of absent landmarks show the place of another one. A ``part`` reads the cases of its rows.
    """
    share = -(-count // len(cases))
    asked = [(i, where) for i, c in enumerate(cases) if (where := np.flatnonzero(np.isfinite(_places(c, plan)).all(1))).size]
    total = min(count, share * len(asked))
    first, end = part.rows(total)
    made, before = [], first // share * share  # rows of the cases that are left to other parts
    for i, where in asked[first // share : -(-end // share)]:
        rng = np.random.default_rng([*seed, i])
        chosen = np.resize(rng.permutation(where), share)
        made.append(_crops(cases[i], chosen, grid_plan, plan, ranges, rng, negative_fraction))
    images, index, state, numbers = (np.concatenate(x)[first - before : end - before] for x in zip(*made, strict=True))
    return Batch(
        torch.from_numpy(images.astype(np.float32)),
        torch.from_numpy(index).float()[:, None],
        torch.from_numpy(state)[:, None],
        torch.from_numpy(numbers),
        None if part == WHOLE else (first, total),
    )


def _places(case: Case, plan: CropPlan) -> np.ndarray:
    """(n, d) where to look for each landmark: where it is or, with ``presence``, would be; NaN for the others."""
    state = landmark_state(case.labels)[:, None]
    places = np.where(state == Presence.PRESENT, case.labels.positions_mm, np.nan)
    if not plan.presence or case.implied_absent_mm is None:
        return places
    return np.where(state == Presence.ABSENT, case.implied_absent_mm, places)


def _crops(
    case: Case,
    chosen: np.ndarray,
    grid_plan: GridPlan,
    plan: CropPlan,
    ranges: AugmentRange,
    rng: np.random.Generator,
    negative_fraction: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(k, scales, *shape) pixels, (k, d) positions in samples, array order, NaN for absent ones, (k,) states and (k,) numbers.

    An absent landmark is looked for where it would be or, as by mistake, where another one is. Where the study's shape has a
    mirror, every other crop is mirrored and shows the landmark's partner.
    """
    places, state = _places(case, plan), landmark_state(case.labels)[chosen]
    truth = places[chosen]
    if (state == Presence.ABSENT).any():
        negative = (state == Presence.ABSENT) & (rng.random(len(chosen)) < negative_fraction)
        truth = np.where(negative[:, None], places[rng.permutation(chosen)], truth)
    spacing = grid_plan.spacing_for(case.image.geometry) / plan.zoom
    jitter = np.stack([_jitter(plan, truth.shape[1], rng) for _ in chosen])
    matrices = np.stack([_crop_matrix(ranges, truth.shape[1], rng) for _ in chosen])
    if case.mirror is not None:
        partner = case.mirror.order[chosen]
        flip = (rng.random(len(chosen)) < ranges.mirror) & (partner >= 0)
        matrices = np.where(flip[:, None, None], case.mirror.reflection @ matrices, matrices)
        chosen = np.where(flip, partner, chosen)
    matrices = matrices if case.rotation is None else case.rotation @ matrices
    centres = truth - np.einsum("kij,kj->ki", matrices, jitter) * spacing
    pixels = draw_grey(rng, ranges).apply(read_crops(case, centres, spacing, plan, matrices))
    index = np.where((state == Presence.PRESENT)[:, None], jitter + (plan.size - 1) / 2, np.nan)
    return pixels, index[:, ::-1].copy(), state, chosen


def _jitter(plan: CropPlan, d: int, rng: np.random.Generator) -> np.ndarray:
    """Where the truth lies in the crop, in samples from its middle: mostly near, sometimes anywhere."""
    wide = rng.random() < plan.outlier_share
    jitter = rng.uniform(-1, 1, d) * plan.outlier_jitter if wide else rng.normal(size=d) * plan.jitter
    return np.clip(jitter, -0.45 * plan.size, 0.45 * plan.size)


def _crop_matrix(ranges: AugmentRange, d: int, rng: np.random.Generator) -> np.ndarray:
    matrix = random_rotation(rng, d, ranges.rotation) * np.exp(rng.uniform(-ranges.scale, ranges.scale))
    made: np.ndarray = matrix @ (np.eye(d) + rng.uniform(-ranges.shear, ranges.shear, (d, d)) * (1 - np.eye(d)))
    return made
