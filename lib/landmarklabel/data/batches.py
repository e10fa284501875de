"""Training batches: what one step of a network sees, a pure function of (cases, plan, random seed)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from landmarklabel.data.augment import AugmentRange, draw_cuts, draw_grey, draw_warp, random_rotation
from landmarklabel.data.cases import Case
from landmarklabel.geometry import ImageGeometry, axis_aligned_grid
from landmarklabel.landmarks import LandmarkSet, Status


class Presence(IntEnum):
    """What a person has said of a landmark."""

    ABSENT = 0
    PRESENT = 1
    UNKNOWN = -1


class Batch(NamedTuple):
    """``images`` (b, c, *shape); ``index`` (b, n, d) landmark positions in input samples, array order, NaN if not in the
    image; ``state`` (b, n) ``Presence``; ``landmark`` (b,) numbers for one-landmark crops, else empty."""

    images: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody wants of a batch
    state: Tensor
    landmark: Tensor


@dataclass(frozen=True)
class GridPlan:
    """The grid a network works on.

    Args:
        size: samples (x, y[, z]) during training, a multiple of the network's.
        spacing_mm: the same for all images, or None: each image is fitted into ``size`` (for images without spacing).
        multiple: sizes are rounded up to it.
        field: samples during training where they are fewer than ``size``: the middle of the images, with all the landmarks.
    """

    size: tuple[int, ...]
    spacing_mm: float | None
    multiple: int
    field: tuple[int, ...] | None = None

    def spacing_for(self, geometry: ImageGeometry) -> float:
        """Sample distance in mm for an image."""
        if self.spacing_mm is not None:
            return self.spacing_mm
        low, high = geometry.bounds_mm
        return float(((high - low) / np.array(self.size)).max())

    def training_grid(self, geometry: ImageGeometry) -> ImageGeometry:
        """A grid of exactly ``field`` or ``size`` samples centred on the image."""
        return centred_grid(geometry, self.spacing_for(geometry), self.field or self.size)

    def grid(self, geometry: ImageGeometry, minimum: int = 1) -> ImageGeometry:
        """A grid that covers the whole image, of at least ``minimum`` samples and one ``multiple`` a side."""
        spacing = self.spacing_for(geometry)
        covered = axis_aligned_grid(geometry, spacing).size
        size = tuple(-(-max(s, minimum) // self.multiple) * self.multiple for s in covered)
        return centred_grid(geometry, spacing, size if self.spacing_mm is not None else self.size)

    def count_windows(self, geometry: ImageGeometry) -> int:
        """How many ``windows`` of the training size cover an image; counted without making them."""
        return math.prod(self._tiles(self.grid(geometry), 1)[1])

    def _tiles(self, whole: ImageGeometry, minimum: int) -> tuple[tuple[int, ...], list[int]]:
        """Samples of a window along every axis, and how many windows, overlapping by half, there are."""
        size = tuple(min(w, max(s, minimum)) for w, s in zip(whole.size, self.size, strict=True))
        return size, [1 + -(-(w - s) // max(s // 2, 1)) for w, s in zip(whole.size, size, strict=True)]

    def windows(self, geometry: ImageGeometry, minimum: int = 1, most: float = 1.0) -> list[ImageGeometry]:
        """``grid``, or windows of the training size that overlap by half where it has over ``most`` times as many samples.

        So a whole-body scan takes no more memory than the scans a model was trained on.
        """
        whole = self.grid(geometry, minimum)
        if np.prod(whole.size) <= most * np.prod(self.size):
            return [whole]
        size, counts = self._tiles(whole, minimum)
        starts = [np.linspace(0, w - s, n).round() for w, s, n in zip(whole.size, size, counts, strict=True)]
        corners = np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, len(size))
        spacing = float(whole.spacing[0])
        return [ImageGeometry.identity(size, spacing, tuple(whole.origin + c * spacing)) for c in corners]


def centred_grid(geometry: ImageGeometry, spacing_mm: float, size: tuple[int, ...]) -> ImageGeometry:
    """An axis-aligned grid of ``size`` samples around the middle of an image's field of view."""
    low, high = geometry.bounds_mm
    origin = (low + high) / 2 - (np.array(size) - 1) / 2 * spacing_mm
    return ImageGeometry.identity(size, spacing_mm, tuple(origin))


def plan_grid(geometries: Sequence[ImageGeometry], samples: int, multiple: int, fit_each: bool) -> GridPlan:
    """Choose the working grid from the training images: their shape, and about ``samples`` samples.

    Args:
        geometries: of the training images.
        samples: about how many samples a grid may have.
        multiple: of the network.
        fit_each: fit each image into the grid instead of one spacing for all.
    """
    extents = np.stack([np.subtract(*reversed(g.bounds_mm)) for g in geometries])
    shape = np.median(extents / extents.max(axis=1, keepdims=True), axis=0) if fit_each else extents.max(axis=0)
    edge = (np.prod(shape) / samples) ** (1 / len(shape))
    longest = float(np.median([max(g.size) for g in geometries]))
    finest = 1 / longest if fit_each else min(float(g.spacing.min()) for g in geometries)
    edge = max(edge, finest)  # a grid finer than the images would only cost time
    size = tuple(int(max(round(s / edge / multiple), 1)) * multiple for s in shape)
    if fit_each:
        return GridPlan(size, None, multiple)
    spacing = max(float((extents.max(axis=0) / size).max()), finest)
    return GridPlan(size, spacing, multiple)


def with_field(plan: GridPlan, cases: Sequence[Case], margin: float) -> GridPlan:
    """The plan with its ``field``: in which all landmarks lie, at least ``margin`` of its side from its border.

    Along the world's axes an oblique image has much empty space in its corners, which need not be learned from.
    """
    reach = np.zeros(len(plan.size))
    for case in cases:
        centre = np.mean(case.image.geometry.bounds_mm, axis=0)
        places = case.labels.positions_mm[landmark_state(case.labels) == Presence.PRESENT]
        reach = np.maximum(reach, np.abs(places - centre).max(axis=0, initial=0.0) / plan.spacing_mm)
    wanted = np.ceil(2 * reach / (1 - 2 * margin) / plan.multiple).astype(int) * plan.multiple
    field = tuple(int(np.clip(w, plan.multiple, s)) for w, s in zip(wanted, plan.size, strict=True))
    return replace(plan, field=None if field == plan.size else field)


def landmark_state(landmarks: LandmarkSet) -> np.ndarray:
    """(n,) ``Presence``: what a person has said; predictions nobody confirmed are unknown."""
    known = {Status.PLACED: Presence.PRESENT, Status.ACCEPTED: Presence.PRESENT, Status.ABSENT: Presence.ABSENT}
    return np.array([known.get(s, Presence.UNKNOWN) for s in landmarks.status])


def whole_image_batch(cases: Sequence[Case], plan: GridPlan, ranges: AugmentRange | None, seed: Sequence[int]) -> Batch:
    """Whole fields of view, augmented when ``ranges`` is given. ``seed`` makes it reproducible."""
    made = [_whole_image(c, plan, ranges, np.random.default_rng([*seed, i])) for i, c in enumerate(cases)]
    images, index, state = (torch.from_numpy(np.stack(x)) for x in zip(*made, strict=True))
    return Batch(images[:, None], index.float(), state, torch.empty(0, dtype=torch.long))


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


def grid_points(grid: ImageGeometry) -> np.ndarray:
    """(*array shape, d) float32 LPS mm of the samples of an axis-aligned grid."""
    axes = [(grid.origin[a] + grid.spacing[a] * np.arange(grid.size[a])).astype(np.float32) for a in range(grid.dims)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    made: np.ndarray = points.transpose(*reversed(range(grid.dims)), grid.dims)
    return made


@dataclass(frozen=True)
class CropPlan:
    """The crops of the fine network: ``size`` samples per side, the finest spaced ``zoom`` times finer than the coarse
    grid, further ``scales`` each coarser by ``step``; jitters are in samples of the finest. ``presence``: crops also show where
    absent landmarks would be, and the fine network says whether they are there; ``rounds``: the fine network looks again at what
    it has found, so many times in all."""

    size: int
    zoom: float
    scales: int = 3
    step: float = 2.5
    jitter: float = 5.0
    outlier_jitter: float = 18.0
    outlier_share: float = 0.2
    presence: bool = False
    rounds: int = 1


def read_crops(
    case: Case, centres_mm: np.ndarray, spacing_mm: float, plan: CropPlan, matrices: np.ndarray | None = None
) -> np.ndarray:
    """Grey values around positions, at all scales of the plan.

    Args:
        case: the image.
        centres_mm: (k, d) LPS mm.
        spacing_mm: sample distance of the finest scale.
        plan: size and scales.
        matrices: (k, d, d) that turn a crop's axes into the world's; upright when None.

    Returns:
        (k, scales, *array shape) float32.
    """
    d = centres_mm.shape[1]
    axis = (np.arange(plan.size) - (plan.size - 1) / 2) * spacing_mm
    offsets = np.stack(np.meshgrid(*(axis,) * d, indexing="ij"), -1).transpose(*reversed(range(d)), d).reshape(-1, d)
    scales = [plan.step**s for s in range(plan.scales)]
    made = [case.boxes(centres_mm, offsets * f, matrices, spacing_mm * f) for f in scales]
    crops: np.ndarray = np.stack(made, axis=1).reshape(len(centres_mm), plan.scales, *(plan.size,) * d)
    return crops


def crop_batch(
    cases: Sequence[Case],
    grid_plan: GridPlan,
    plan: CropPlan,
    ranges: AugmentRange,
    count: int,
    seed: Sequence[int],
    negative_fraction: float = 0.4,
) -> Batch:
    """About ``count`` jittered, rotated, scaled crops round true positions, landmarks and cases drawn evenly.

    ``negative_fraction`` of the crops of absent landmarks show the place of another one.
    """
    made = []
    share = -(-count // len(cases))
    for i, case in enumerate(cases):
        rng = np.random.default_rng([*seed, i])
        asked = np.flatnonzero(np.isfinite(_places(case, plan)).all(1))
        if asked.size:
            made.append(_crops(case, np.resize(rng.permutation(asked), share), grid_plan, plan, ranges, rng, negative_fraction))
    images, index, state, numbers = (np.concatenate(x)[:count] for x in zip(*made, strict=True))
    return Batch(
        torch.from_numpy(images.astype(np.float32)),
        torch.from_numpy(index).float()[:, None],
        torch.from_numpy(state)[:, None],
        torch.from_numpy(numbers),
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
