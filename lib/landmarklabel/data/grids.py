"""The grids that networks work on, and the samples of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import map_coordinates

from landmarklabel.data.cases import Case
from landmarklabel.data.presence import Presence, landmark_state
from landmarklabel.geometry import ImageGeometry, axis_aligned_grid


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


def grid_points(grid: ImageGeometry) -> np.ndarray:
    """(*array shape, d) float32 LPS mm of the samples of an axis-aligned grid."""
    axes = [(grid.origin[a] + grid.spacing[a] * np.arange(grid.size[a])).astype(np.float32) for a in range(grid.dims)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    made: np.ndarray = points.transpose(*reversed(range(grid.dims)), grid.dims)
    return made


def small_copy(case: Case, grid: ImageGeometry) -> np.ndarray:
    """Grey values on a coarse axis-aligned grid, linear, the lower end of the window outside: (*array shape) float32.

    For pictures of many images: by scipy, as a server that only shows them need not have PyTorch in memory.
    """
    pixels, geometry = case.coarse(float(grid.spacing[0]))
    index = geometry.world_to_index(grid_points(grid))
    places = np.moveaxis(index, -1, 0)[::-1]
    made: np.ndarray = map_coordinates(np.asarray(pixels, np.float32), places, order=1, mode="grid-constant", cval=case.window[0])
    return made
