"""Image in, landmarks out: whole-image network, sub-cell decoding, local refinement, presence, expected error."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import nn

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.batches import CropPlan, GridPlan, grid_points, read_crops
from landmarklabel.data.cases import Case, grey_window
from landmarklabel.data.pose import ShapePose
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.calibration import Calibration
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.networks import readout
from landmarklabel.networks.precision import autocast
from landmarklabel.networks.preprocess import match_to_reference
from landmarklabel.networks.registry import Preset

POSE_ROUNDS = 2, 4  # of the local stage in the usual orientation: at least, and at most while the shape is doubtful
SIDES = 8  # directions a case is looked at from, while what is found does not look like the mean shape
DOUBTFUL = 2.0  # times the study's own deviation from its mean shape


@dataclass
class Evidence:
    """What the networks saw, before any decision; all in the task's order.

    Args:
        positions_mm: (n, d) LPS mm.
        covariance_mm2: (n, d, d) of the map around the position.
        presence: (n,) probability that the landmark is in the image.
        mass: (n,) share of the map that agrees with the position.
        first_mm: (n, d) the whole-image network's positions, before refinement.
    """

    positions_mm: np.ndarray
    covariance_mm2: np.ndarray
    presence: np.ndarray
    mass: np.ndarray
    first_mm: np.ndarray


@dataclass
class Localizer:
    """A trained model, ready to run.

    Args:
        task, preset, grid: what it finds, how, and on which grid.
        locator: the whole-image network.
        crops, refiner: the local stage, or None.
        pose: mean shape, where cases come in any orientation: the local stage then looks in the usual orientation.
        calibration: presence threshold and expected errors.
        reference: pixels whose grey values images are matched to (``hand2024``), or None.
        device: where to run.
    """

    task: LandmarkTask
    preset: Preset
    grid: GridPlan
    locator: nn.Module
    crops: CropPlan | None = None
    refiner: nn.Module | None = None
    calibration: Calibration = field(default_factory=Calibration)
    pose: ShapePose | None = None
    reference: np.ndarray | None = None
    device: torch.device = torch.device("cpu")
    precision: str | None = None

    def case(self, image_id: str, image: Image, landmarks: LandmarkSet | None = None) -> Case:
        """An image prepared the way this model wants it."""
        return prepare_case(self.preset, image_id, image, landmarks, self.reference)

    def predict(self, image: Image | Case) -> LandmarkSet:
        """Landmarks of one image, all PREDICTED or ABSENT, with expected errors where the model is calibrated."""
        case = image if isinstance(image, Case) else self.case("image", image)
        evidence = self.look(case)
        absent = evidence.presence < self.calibration.presence_threshold
        positions = np.where(absent[:, None], np.nan, evidence.positions_mm)
        expected = self.calibration.expected_error_mm(evidence)
        return LandmarkSet(
            self.task,
            positions,
            tuple(Status.ABSENT if a else Status.PREDICTED for a in absent),
            expected_error_mm=np.where(absent, np.nan, expected),
            covariance_mm2=evidence.covariance_mm2,
            presence=evidence.presence,
        )

    @torch.inference_mode()
    def look(self, case: Case) -> Evidence:
        """Run the networks on one image."""
        precision = self.precision or self.preset.optimization.precision
        with autocast(self.device, precision):
            if self.pose is not None:
                return self._in_any_pose(case)
            first = self._whole_image(case)
            return first if self.refiner is None else self._refined(case, first)

    def _in_any_pose(self, case: Case) -> Evidence:
        """Look from a side, lay the mean shape, refine in the usual orientation; from further sides while in doubt."""
        rng, best, least = np.random.default_rng(0), None, np.inf
        for side in range(SIDES):
            turn = None if side == 0 else random_rotation(rng, self.task.dims, None)
            first = seen = self._whole_image(case, turn)
            doubt = self._doubt(seen)
            for round_ in range(POSE_ROUNDS[1] if self.refiner is not None else 0):
                seen = self._refined(case, *self._in_pose(seen))
                doubt = self._doubt(seen)
                if round_ + 1 >= POSE_ROUNDS[0] and doubt <= DOUBTFUL:
                    break
            if best is None or doubt < least:
                best, least = replace(seen, first_mm=first.positions_mm), doubt
            if least <= DOUBTFUL:
                break
        return best

    def _doubt(self, seen: Evidence) -> float:
        """Median distance from the laid mean shape, in units of the study's own."""
        residual = self.pose.lay(seen.positions_mm, seen.mass * seen.presence)[1]
        return float(np.nanmedian(residual)) / (self.pose.spread * self.pose.size)

    def _in_pose(self, seen: Evidence) -> tuple[Evidence, np.ndarray]:
        """Evidence with wild positions put where the mean shape lies, and the orientation of the case."""
        fit, residual = self.pose.lay(seen.positions_mm, seen.mass * seen.presence)
        laid = fit.apply(self.pose.mean)
        gate = 3 * np.nanmedian(residual)
        near = np.where(residual[:, None] <= gate, (laid + seen.positions_mm) / 2, laid)
        return replace(seen, positions_mm=np.where(np.isfinite(near), near, seen.positions_mm)), fit.rotation

    def _whole_image(self, case: Case, rotation: np.ndarray | None = None) -> Evidence:
        """The best evidence for each landmark of all windows (nearly always there is one), the image turned by ``rotation``."""
        minimum = getattr(self.locator, "input_minimum", 1)
        windows = self.grid.windows(case.image.geometry, minimum, self.preset.most)
        seen = [self._window(case, grid, rotation) for grid in windows]
        best = np.argmax([e.presence * e.mass * _inside(grid, e.first_mm) for grid, e in zip(windows, seen, strict=True)], axis=0)
        pick = lambda name: np.stack([getattr(e, name) for e in seen])[best, np.arange(len(best))]  # noqa: E731
        return Evidence(*(pick(f.name) for f in fields(Evidence)))

    def _window(self, case: Case, grid: ImageGeometry, rotation: np.ndarray | None) -> Evidence:
        spacing, points, middle = float(grid.spacing[0]), grid_points(grid), np.mean(grid.bounds_mm, axis=0)
        turn = lambda p: p if rotation is None else (p - middle) @ rotation.T + middle  # noqa: E731
        pixels = torch.from_numpy(case.sample(turn(points), spacing).astype(np.float32, copy=False))[None, None]
        pixels = pixels * 2 - 1 if self.preset.signed else pixels
        if self.task.dims == 2 and self.refiner is not None:
            self.locator.to(memory_format=torch.channels_last)  # a quarter quicker here; in training it would be much slower
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        output = self.locator(pixels.to(self.device))
        reading = readout.read(self.locator, output, self.preset.stride, self.preset.target)
        index, covariance, presence, mass = (x[0].double().cpu().numpy() for x in reading)
        positions, covariance = turn(grid.index_to_world(index[:, ::-1])), covariance[:, ::-1, ::-1] * spacing**2
        if rotation is not None:
            covariance = rotation @ covariance @ rotation.T
        return Evidence(positions, covariance, presence, mass, positions)

    def _refined(self, case: Case, first: Evidence, rotation: np.ndarray | None = None) -> Evidence:
        plan = self.crops
        spacing = self.grid.spacing_for(case.image.geometry) / plan.zoom
        turned = None if rotation is None else np.broadcast_to(rotation, (len(self.task), *rotation.shape))
        crops = torch.from_numpy(read_crops(case, first.positions_mm, spacing, plan, turned).astype(np.float32, copy=False))
        numbers = torch.arange(len(self.task), device=self.device)
        output = self.refiner(crops.to(self.device), numbers)
        reading = readout.read_crops(self.refiner, output)
        index, covariance, _, mass = (x[:, 0].double().cpu().numpy() for x in reading)
        offset = (index - (plan.size - 1) / 2)[:, ::-1] * spacing
        covariance = covariance[:, ::-1, ::-1] * spacing**2
        if rotation is not None:
            offset, covariance = offset @ rotation.T, rotation @ covariance @ rotation.T
        return replace(first, positions_mm=first.positions_mm + offset, covariance_mm2=covariance, mass=mass)


def _inside(window: ImageGeometry, positions_mm: np.ndarray) -> np.ndarray:
    """(n,) 1 in the middle of a window, falling towards its borders, where only part of a structure is seen."""
    low, high = window.bounds_mm
    border = np.minimum(positions_mm - low, high - positions_mm) / (0.2 * (high - low))
    return np.clip(border.min(axis=1), 0.05, 1.0)


def prepare_case(
    preset: Preset, image_id: str, image: Image, landmarks: LandmarkSet | None, reference: np.ndarray | None
) -> Case:
    """An image with the preset's grey-value window, and its histogram matched where the preset asks for it."""
    if preset.match_histogram and reference is not None:
        image = Image(image.geometry, match_to_reference(np.asarray(image.pixels), reference))
    return Case(image_id, image, landmarks, grey_window(image.pixels, *preset.window))
