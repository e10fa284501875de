"""Running the networks on an image: the coarse network on all of it, the fine network on crops, within the device's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from landmarklabel.data.cases import Case
from landmarklabel.data.crops import CropPlan, read_crops
from landmarklabel.data.grids import GridPlan, grid_points
from landmarklabel.data.procrustes import Similarity
from landmarklabel.errors import ModelError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.inference.evidence import Candidates, Evidence, FineMaps, blend_presence
from landmarklabel.networks import decoding
from landmarklabel.networks.ops import laid_out
from landmarklabel.networks.precision import autocast
from landmarklabel.networks.presets import Preset


def within_memory(run: Callable[..., Any]) -> Callable[..., Any]:
    """A method that runs networks: where the device lacks memory, again with few crops at a time, and then on the CPU."""

    @wraps(run)
    def retried(self: NetworkRunner, *args: Any, **more: Any) -> Any:
        device = self.device
        try:
            for most in (None, self.few_crops):
                self.crops_at_once = most
                try:
                    return run(self, *args, **more)
                except torch.OutOfMemoryError:
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
            self.move(torch.device("cpu"))
            return run(self, *args, **more)
        except torch.OutOfMemoryError:
            raise ModelError("the memory of this machine does not suffice for this image") from None
        finally:
            self.crops_at_once = None
            self.move(device)

    return retried


@dataclass
class NetworkRunner:
    """The networks of a model, and where and how they run.

    Args:
        preset, grid: what the coarse network is, and on which grid it works.
        coarse_net: on the whole image.
        crops, fine_net: on crops around first estimates, or None.
        device: where they run.
        precision: ``bf16`` or ``fp32``; None for the preset's.
        fine_presence_weight: of the fine network's presence, beside the coarse network's.
        config: numbers the answer depends on beside the weights.
    """

    preset: Preset
    grid: GridPlan
    coarse_net: nn.Module
    crops: CropPlan | None = None
    fine_net: nn.Module | None = None
    device: torch.device = torch.device("cpu")
    precision: str | None = None
    fine_presence_weight: float = 0.5
    config: InferenceConfig = field(default_factory=InferenceConfig)
    few_crops: int = 16  # at a time, where the memory of the device does not suffice for all
    crops_at_once: int | None = field(default=None, init=False, repr=False)  # None for all

    def move(self, device: torch.device) -> None:
        """Have the networks on another device."""
        if device != self.device:
            self.device = device
            with torch.inference_mode(False):
                for network in (self.coarse_net, self.fine_net):
                    if network is not None:
                        network.to(device)

    @property
    def _dims(self) -> int:
        return len(self.grid.size)

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.precision or self.preset.optimization.precision)

    @within_memory
    @torch.inference_mode()
    def coarse_pass(self, case: Case, transform: Similarity | None = None, count: int = 1) -> Evidence:
        """The coarse network on the whole image, sampled as ``transform`` moves it.

        Where the image takes several windows (nearly always it takes one), each landmark is taken from the best of them.

        Args:
            case: the image.
            transform: moves the frame of sampling to the world; None where that is the same.
            count: candidates per landmark.
        """
        minimum = getattr(self.coarse_net, "input_minimum", 1)
        windows = self.grid.windows(case.image.geometry, minimum, self.preset.tiling_threshold)
        if self.grid.field is not None:
            windows = [self.grid.training_grid(case.image.geometry), *windows]
        with self._autocast():
            found = [self._window(case, grid, transform, count) for grid in windows]
        score = [f.presence * f.weight[:, 0] * _centrality(g, f.places[:, 0]) for g, f in zip(windows, found, strict=True)]
        if self.grid.field is not None:  # best seen as in training: the other windows count for places beyond
            score[1:] = [x * ~windows[0].contains(f.places[:, 0]) for x, f in zip(score[1:], found[1:], strict=True)]
        best = np.argmax(score, axis=0)
        places, covariance, weight, presence = (np.stack(x)[best, np.arange(len(best))] for x in zip(*found, strict=True))
        if transform is not None:
            places, covariance = transform.apply(places), transform.matrix @ covariance @ transform.matrix.T
        weight[:, 1:] *= weight[:, 1:] >= self.config.candidates.min_peak_mass
        candidates = Candidates(np.where(weight[..., None] > 0, places, np.nan), weight, covariance)
        first = places[:, 0]
        return Evidence(first, covariance[:, 0], presence, weight[:, 0], places[:, 0], candidates, sampling_transform=transform)

    def _window(self, case: Case, grid: ImageGeometry, transform: Similarity | None, count: int) -> _CoarseFindings:
        """What the coarse network finds in one window, in the frame of sampling."""
        spacing, points = float(grid.spacing[0]), grid_points(grid)
        if transform is None:
            pixels = case.sample(points, spacing)
        else:
            moved = transform.apply(points.reshape(-1, grid.dims)).reshape(points.shape)
            pixels = case.sample(moved, spacing * transform.scale)
        image = torch.from_numpy(pixels.astype(np.float32, copy=False))[None, None]
        image = image * 2 - 1 if self.preset.scale_to_minus1_1 else image
        if self._dims == 2 and self.fine_net is not None:
            with torch.inference_mode(False):  # the weights may be trained on
                laid_out(self.coarse_net, torch.channels_last)  # a quarter quicker here, but much slower in training
            image = image.contiguous(memory_format=torch.channels_last)
        output = self.coarse_net(image.to(self.device))
        decoded = decoding.decode_candidates(self.coarse_net, output, self.preset.stride, self.preset.target, count)
        index, covariance, presence, mass = (np.stack([d[i][0].double().cpu().numpy() for d in decoded], 1) for i in range(4))
        places = grid.index_to_world(index[..., ::-1].reshape(-1, grid.dims)).reshape(index.shape)
        return _CoarseFindings(places, covariance[..., ::-1, ::-1] * spacing**2, mass, presence[:, 0])

    def refine(self, case: Case, evidence: Evidence, transform: Similarity | None = None) -> Evidence:
        """Every candidate moved to where the fine network finds the landmark, on crops turned and scaled by ``transform``."""
        c = evidence.candidates
        places = np.concatenate([evidence.positions_mm[:, None], c.positions_mm[:, 1:]], axis=1)
        which = np.argwhere(np.isfinite(places).all(-1))
        if not len(which):  # the coarse network has found nothing at all
            return evidence
        at = tuple(which.T)
        found = self.find_near(case, places[at], which[:, 0], transform)
        places, covariance, mass = places.copy(), c.covariance_mm2.copy(), np.zeros(places.shape[:2])
        presence = np.zeros(places.shape[:2])
        places[at], covariance[at], mass[at], presence[at] = found.positions_mm, found.covariance_mm2, found.mass, found.presence
        first = which[:, 1] == 0
        by_stage = None
        if self.crops is not None and self.crops.presence:
            coarse = evidence.presence if evidence.presence_by_stage is None else evidence.presence_by_stage[0]
            by_stage = np.stack([coarse, np.where(np.isfinite(places[:, 0]).all(-1), presence[:, 0], 0.0)])
        return replace(
            evidence,
            positions_mm=places[:, 0],
            covariance_mm2=covariance[:, 0],
            peak_mass=mass[:, 0],
            presence=evidence.presence if by_stage is None else blend_presence(by_stage, self.fine_presence_weight),
            presence_by_stage=by_stage,
            candidates=Candidates(places, c.weight, covariance),
            maps=FineMaps(found.logits[first], found.places_mm[first]),
        )

    @within_memory
    @torch.inference_mode()
    def find_near(self, case: Case, centres_mm: np.ndarray, landmarks: np.ndarray, transform: Similarity | None) -> FineFindings:
        """The fine network on m crops, turned and scaled by ``transform``.

        Args:
            case: the image.
            centres_mm: (m, d) LPS mm.
            landmarks: (m,) which landmark is looked for in each crop.
            transform: its rotation and scale are the crops'; None for upright crops.
        """
        most = self.crops_at_once or max(len(centres_mm), 1)
        some = [slice(i, i + most) for i in range(0, len(centres_mm), most)]
        with self._autocast():
            parts = [self._run_fine_net(case, centres_mm[s], landmarks[s], transform) for s in some]
        return FineFindings(*map(np.concatenate, zip(*parts, strict=True))) if len(parts) > 1 else parts[0]

    def _run_fine_net(
        self, case: Case, centres_mm: np.ndarray, landmarks: np.ndarray, transform: Similarity | None
    ) -> FineFindings:
        if self.crops is None or self.fine_net is None:
            raise ValueError("this model has no fine network")
        plan, d = self.crops, self._dims
        spacing = self.grid.spacing_for(case.image.geometry) / plan.zoom * (1.0 if transform is None else transform.scale)
        rotation = np.eye(d) if transform is None else transform.rotation
        rotations = None if transform is None else np.broadcast_to(rotation, (len(centres_mm), d, d))
        crops = torch.from_numpy(read_crops(case, centres_mm, spacing, plan, rotations).astype(np.float32, copy=False))
        output = self.fine_net(crops.to(self.device), torch.as_tensor(landmarks, device=self.device))
        decoded = decoding.decode_crops(self.fine_net, output, self.config.suggestion.temperature(d))
        index, covariance, presence, mass = (x[:, 0].double().cpu().numpy() for x in decoded)

        def to_offsets_mm(samples: np.ndarray) -> np.ndarray:
            offsets: np.ndarray = (samples - (plan.size - 1) / 2)[..., ::-1] * spacing @ rotation.T
            return offsets

        covariance = rotation @ (covariance[:, ::-1, ::-1] * spacing**2) @ rotation.T
        logits, cells = decoding.crop_map(self.fine_net, output)
        places = centres_mm[:, None] + to_offsets_mm(cells.double().cpu().numpy())
        found = centres_mm + to_offsets_mm(index)
        return FineFindings(found, covariance, presence, mass, logits[:, 0].float().cpu().numpy(), places)


class _CoarseFindings(NamedTuple):
    """What one window holds: k candidates for n landmarks: (n, k, d), (n, k, d, d), (n, k), and presence (n,)."""

    places: np.ndarray
    covariance: np.ndarray
    weight: np.ndarray
    presence: np.ndarray


class FineFindings(NamedTuple):
    """What m crops hold: (m, d) LPS mm, (m, d, d), (m,), (m,), and the map: logits (m, p) and places (m, p, d) LPS mm."""

    positions_mm: np.ndarray
    covariance_mm2: np.ndarray
    presence: np.ndarray
    mass: np.ndarray
    logits: np.ndarray
    places_mm: np.ndarray


def _centrality(window: ImageGeometry, positions_mm: np.ndarray) -> np.ndarray:
    """(n,) 1 in the middle of a window, falling towards its borders, where only part of a structure is seen."""
    low, high = window.bounds_mm
    border = np.minimum(positions_mm - low, high - positions_mm) / (0.2 * (high - low))
    centrality: np.ndarray = np.clip(border.min(axis=1), 0.05, 1.0)
    return centrality
