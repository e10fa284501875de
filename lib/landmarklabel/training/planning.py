"""What is trained: the grid, the untrained networks and the crops of a model, chosen from its training cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from landmarklabel.data.cases import Case
from landmarklabel.data.crops import CropPlan
from landmarklabel.data.grids import GridPlan, plan_grid, with_field
from landmarklabel.data.mean_shape import MeanShape, MeanShapeConfig, learn_mean_shape
from landmarklabel.data.presence import Presence, landmark_state
from landmarklabel.errors import UsageError
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.shape_fit import fit_shape_to_candidates
from landmarklabel.inference.shape_prior import ShapePrior
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.networks.build import build_coarse_net
from landmarklabel.networks.presets import Preset
from landmarklabel.training.configuration import CropConfig, SamplingConfig


def never_labelled(task: LandmarkTask, cases: Sequence[Case]) -> tuple[str, ...]:
    """Names of landmarks of which no case says anything, not even that they are absent."""
    stated = np.any([[s.by_person or s.has_position for s in c.landmarks.status] for c in cases if c.landmarks], axis=0)
    return tuple(name for name, known in zip(task.names, stated, strict=True) if not known)


def implied_absent_positions(prior: ShapePrior, case: Case) -> np.ndarray | None:
    """(n, d) where the shape of the present landmarks would have the absent ones, LPS mm; None where none is absent."""
    if case.landmarks is None:
        return None
    state = landmark_state(case.landmarks)
    if not (state == Presence.ABSENT).any() or (state == Presence.PRESENT).sum() <= case.image.geometry.dims:
        return None
    given = {int(i): case.landmarks.positions_mm[i] for i in np.flatnonzero(state == Presence.PRESENT)}
    return fit_shape_to_candidates(prior, prior.pose_distribution.in_image(case.image.geometry), None, given).positions_mm


def arbitrarily_oriented_shape(preset: Preset, cases: Sequence[Case], config: MeanShapeConfig) -> MeanShape | None:
    """The study's mean shape if its cases come in any orientation and the preset can use it."""
    if preset.refine is None or preset.refine.network != "shared":
        return None
    shape = learn_mean_shape([c.landmarks for c in cases if c.landmarks is not None], config)
    return shape if shape.arbitrary_orientation and shape.usable else None


def place_varies(cases: Sequence[Case], spread: float, min_cases: int) -> bool:
    """Whether the shape lies so differently from image to image that where it lies in one says little of the next.

    Args:
        spread: of the landmarks around their mean places, in units of the shape's size, from which on it does.
        min_cases: fewer do not tell.
    """
    places = []
    for case in (c for c in cases if c.landmarks is not None):
        low, high = case.image.geometry.bounds_mm
        places.append((case.labels.positions_mm - (low + high) / 2) / (high - low).mean())
    if len(places) < min_cases:
        return False
    inside = np.stack(places)  # (m, n, d), of the field's side
    known = np.isfinite(inside).all(2)[..., None]
    mean = np.where(known, inside, 0).sum(0) / np.maximum(known.sum(0), 1)
    centres = np.where(known, inside, 0).sum(1) / np.maximum(known.sum(1), 1)
    off = np.where(known, inside - mean, 0)
    size = np.where(known, inside - centres[:, None], 0)
    return bool(np.sqrt((off**2).sum()) > spread * np.sqrt((size**2).sum()))


def untrained_model(
    task: LandmarkTask,
    preset: Preset,
    cases: Sequence[Case],
    start: Localizer | None,
    alignment_shape: MeanShape | None,
    config: SamplingConfig,
    inference: InferenceConfig,
) -> Localizer:
    """A model on the CPU with a fresh coarse network, or that of ``start``, and no fine one yet. Raises UsageError."""
    d = task.dims
    if d not in preset.dims:
        raise UsageError(f"model {preset.key!r} is made for {preset.dims[0]}D images, the task is {d}D")
    finds_pose = preset.refine is not None and preset.refine.network == "shared"
    lies_anywhere = d == 2 and finds_pose and place_varies(cases, preset.PLACE_SPREAD, inference.mean_shape.min_cases_for_spread)
    wanted = preset.grid_size_any_orientation[d] if lies_anywhere or alignment_shape is not None else preset.grid_size[d]
    networks = NetworkRunner(preset, _plan(preset, cases, wanted), build_coarse_net(preset, d, len(task)), config=inference)
    model = Localizer(task, networks, alignment_shape=alignment_shape)
    if preset.match_histogram:
        model.reference = np.asarray(min(cases, key=lambda c: c.image_id).image.pixels, np.float32)
    if start is not None:
        networks.grid = start.networks.grid
        networks.coarse_net.load_state_dict(start.networks.coarse_net.state_dict())
    own_network = preset.supports_self_training
    if d == 3 and own_network and alignment_shape is None and networks.grid.spacing_mm is not None:
        networks.grid = with_field(networks.grid, cases, config.field_margin)
    return model


def _plan(preset: Preset, cases: Sequence[Case], wanted: int | tuple[int, ...]) -> GridPlan:
    d = cases[0].image.geometry.dims
    geometries = [c.image.geometry for c in cases]
    fit_each = d == 2 and all((g.spacing == 1).all() for g in geometries)
    if isinstance(wanted, tuple):
        extents = np.stack([np.subtract(*reversed(g.bounds_mm)) for g in geometries])
        spacing = None if fit_each else float((extents.max(axis=0) / np.array(wanted)).max())
        return GridPlan(wanted, spacing, preset.multiple[d])
    return plan_grid(geometries, wanted, preset.multiple[d], fit_each)


def plan_crops(preset: Preset, grid: GridPlan, cases: Sequence[Case], config: CropConfig) -> CropPlan:
    """Crops at about the images' own resolution, but at most 4 times finer than the coarse grid.

    In a small volume they are smaller: one that shows over half of it costs several times the time and tells little more.
    """
    if preset.refine is None:
        raise ValueError(f"{preset.key} has no fine network")
    dims = len(grid.size)
    size, scales = preset.refine.size[dims], preset.refine.scales
    if preset.refine.zoom is not None:  # as published
        return CropPlan(size, preset.refine.zoom, scales, jitter=0.2 * size, outlier_jitter=0.45 * size)
    geometries = [c.image.geometry for c in cases]
    ratio = [grid.spacing_for(g) / float(np.median(g.spacing)) for g in geometries]
    zoom = float(np.clip(np.median(ratio) * config.zoom_margin, config.min_zoom, config.max_zoom))
    if dims == 3:
        sides = [(np.array(g.size) * g.spacing).min() / grid.spacing_for(g) for g in geometries]
        half = int(np.median(sides) * zoom / 2) // config.multiple * config.multiple
        size = min(size, max(config.min_size, half))
    rounds = config.small_rounds if size < preset.refine.size[dims] else 1
    jitter, outlier_jitter = config.jitter * size, config.outlier_jitter * size
    return CropPlan(size, zoom, scales, jitter=jitter, outlier_jitter=outlier_jitter, rounds=rounds)


def with_rotation(mean_shape: MeanShape, cases: Sequence[Case]) -> list[Case]:
    """The cases with the rotation that turns the mean shape into theirs."""
    return [
        replace(c, rotation=mean_shape.align_to(c.landmarks.positions_mm)[0].rotation) if c.landmarks is not None else c
        for c in cases
    ]
