"""Image in, landmarks out: whole-image network, sub-cell decoding, local refinement, presence, expected error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.batches import CropPlan, GridPlan, grid_points, read_crops
from landmarklabel.data.cases import Case, grey_window
from landmarklabel.data.pose import ShapePose, Similarity
from landmarklabel.errors import ModelError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.evidence import Candidates, Evidence, LocalMaps, mixed
from landmarklabel.inference.interactive import FREE, Explained, explain, rough_pose
from landmarklabel.inference.prior import PosePrior, ShapePrior
from landmarklabel.inference.sides import about_the_middle, is_unusual, sides
from landmarklabel.inference.suggest import Suggestion, suggest, turned_unseen
from landmarklabel.io.image_array import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.networks import readout
from landmarklabel.networks.precision import autocast
from landmarklabel.networks.preprocess import match_to_reference
from landmarklabel.networks.registry import Preset

CANDIDATES, LEAST_WEIGHT = 3, 0.02  # places kept for each landmark, and the least share of the map of all but the first
MOST_CANDIDATES = 6  # with those found by looking for them
LOOKED_FOR = 0.05  # share that a place found by looking for it counts as
FOLLOWED = 3  # poses that are looked at closely, of those that a first look from all sides suggests
POSE_ROUNDS = 2, 4  # of the local stage in the usual orientation: at least, and at most while the shape is doubtful
SIDES = 8  # directions a case is looked at from, while what is found does not look like the mean shape
FEW_CROPS = 16  # at a time, where the memory of the device does not suffice for all
DOUBTFUL = 2.0  # times the study's own deviation from its mean shape


def within_memory(look: Callable) -> Callable:
    """A method that runs networks: where the device lacks memory, again with few crops at a time, and then on the CPU."""

    @wraps(look)
    def run(self: Localizer, *args, **more):
        device = self.device
        try:
            for self.most_crops in (None, FEW_CROPS):
                try:
                    return look(self, *args, **more)
                except torch.OutOfMemoryError:
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
            self._move(torch.device("cpu"))
            return look(self, *args, **more)
        except torch.OutOfMemoryError:
            raise ModelError("the memory of this machine does not suffice for this image") from None
        finally:
            self.most_crops = None
            self._move(device)

    return run


@dataclass
class Localizer:
    """A trained model, ready to run.

    Args:
        task, preset, grid: what it finds, how, and on which grid.
        locator: the whole-image network.
        crops, refiner: the local stage, or None.
        pose: mean shape, where cases come in any orientation: the local stage then looks in the usual orientation.
        prior: what the training labels say about the shape, or None where they say too little.
        calibration: presence threshold and expected errors.
        reference: pixels whose grey values images are matched to (``hand2024``), or None.
        untaught: names of landmarks that no training case had: they are answered unset.
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
    prior: ShapePrior | None = None
    reference: np.ndarray | None = None
    untaught: tuple[str, ...] = ()
    device: torch.device = torch.device("cpu")
    precision: str | None = None
    most_crops: int | None = field(default=None, init=False, repr=False)  # at a time; None for all

    def _move(self, device: torch.device) -> None:
        if device != self.device:
            self.device = device
            with torch.inference_mode(False):
                for network in (self.locator, self.refiner):
                    if network is not None:
                        network.to(device)

    def case(self, image_id: str, image: Image, landmarks: LandmarkSet | None = None) -> Case:
        """An image prepared the way this model wants it."""
        return prepare_case(self.preset, image_id, image, landmarks, self.reference)

    def predict(self, image: Image | Case) -> LandmarkSet:
        """Landmarks of one image, all PREDICTED or ABSENT, with expected errors where the model is calibrated.

        Where the shape prior contradicts a detection, another candidate takes its place; see ``inference.suggest``.
        """
        case = image if isinstance(image, Case) else self.case("image", image)
        return self.suggest(self.look(case), case.image.geometry).landmarks

    def suggest(self, evidence: Evidence, geometry: ImageGeometry, **given) -> Suggestion:
        """``inference.suggest.suggest`` with what this model knows; ``given``: ``fixed`` and ``absent``."""
        return suggest(self.task, geometry, self.prior, evidence, self.calibration, **given, untaught=self.untaught)

    def look(self, case: Case) -> Evidence:
        """Run the networks on one image, from further sides where what they find makes no sense."""
        seen = self.detect(case)
        if self.prior is None:
            return seen
        story = self._story(case, seen)
        if self.pose is None:
            seen, story = self._from_the_right_side(case, seen, story)
        return self.look_further(case, seen, story) if self.wants_another_look(seen, case.image.geometry, story) else seen

    @within_memory
    @torch.inference_mode()
    def detect(self, case: Case, view: Similarity | None = None) -> Evidence:
        """Run the networks once, on the world as ``view`` shows it, with several candidates a landmark."""
        with autocast(self.device, self.precision or self.preset.optimization.precision):
            if self.pose is not None:
                return self._in_any_pose(case)
            seen = self._whole_image(case, view)
            for _ in range(0 if self.refiner is None else self.crops.rounds):
                seen = self._refined(case, seen, view)
            return seen

    @within_memory
    @torch.inference_mode()
    def look_near(self, case: Case, seen: Evidence, places_mm: np.ndarray) -> Evidence:
        """Ask the local stage about further places (n, d), NaN for none, and add what it finds to the candidates."""
        asked = np.flatnonzero(np.isfinite(places_mm).all(1))
        if self.refiner is None or not len(asked):
            return seen
        with autocast(self.device, self.precision or self.preset.optimization.precision):
            found = self._local(case, places_mm[asked], asked, seen.view)
        more = np.full((len(self.task), 1, self.task.dims), np.nan)
        more[asked, 0] = found.positions_mm
        weight = np.full((len(self.task), 1), LOOKED_FOR)
        spread = np.tile(np.eye(self.task.dims), (len(self.task), 1, 1, 1))
        spread[asked, 0] = found.covariance_mm2
        return replace(seen, candidates=seen.candidates.first(MOST_CANDIDATES - 1).and_then(Candidates(more, weight, spread)))

    def _from_the_right_side(self, case: Case, seen: Evidence, story: Explained) -> tuple[Evidence, Explained]:
        """Where what is seen does not look like the study's shape, or not in its usual pose: look again from there."""
        usual = self._usual(case.image.geometry)
        for _ in range(2):
            if story.convincing and not is_unusual(story.posterior.pose, usual):
                return seen, story
            before = seen
            seen, story = self._better(case, seen, story, story.posterior.pose)
            if seen is before:
                break
        if not story.convincing:
            views = sides(case.image.geometry)
            rough = [rough_pose(self.prior, usual, self._first_look(case, v).candidates, v.mirrored) for v in views]
            rough = sorted(((p, s) for p, s in rough if p is not None), key=lambda found: -found[1])
            for pose, _ in rough[:FOLLOWED]:
                seen, story = self._better(case, seen, story, pose)
                if story.convincing:
                    break
        return seen, story

    def wants_another_look(self, seen: Evidence, geometry: ImageGeometry, explained: Explained | None) -> bool:
        """Whether ``look_further`` has something to look for: a pose not looked at yet, or landmarks nothing was found for."""
        if explained is None:
            return False
        lost = self.refiner is not None and bool((explained.chosen == FREE).any())
        return lost or self._is_turned(seen, geometry, explained)

    def look_further(self, case: Case, seen: Evidence, explained: Explained) -> Evidence:
        """A second pass, where a first explanation or a person's points show that the first looked the wrong way."""
        if self._is_turned(seen, case.image.geometry, explained):
            return self.look_again(case, explained.posterior.pose)
        return self.look_near(case, seen, np.where((explained.chosen == FREE)[:, None], explained.posterior.mean, np.nan))

    def _is_turned(self, seen: Evidence, geometry: ImageGeometry, explained: Explained) -> bool:
        return self.pose is None and turned_unseen(self.prior, self._usual(geometry), explained, seen)

    def _usual(self, geometry: ImageGeometry) -> PosePrior:
        return self.prior.usual.in_image(geometry)

    def look_again(self, case: Case, pose: Similarity) -> Evidence:
        """Look with the shape brought into its usual pose; ``pose`` is where it lies now."""
        return self.detect(case, pose.after(self._usual(case.image.geometry).expected.inverse()))

    def _better(self, case: Case, seen: Evidence, story: Explained, pose: Similarity) -> tuple[Evidence, Explained]:
        """What is seen with the shape in its usual pose, or what was seen before if that makes more sense."""
        other = self.look_again(case, pose)
        told = self._story(case, other)
        return (other, told) if told.cost < story.cost else (seen, story)

    def _story(self, case: Case, seen: Evidence) -> Explained:
        gone = seen.presence < self.calibration.presence_threshold
        return explain(self.prior, self._usual(case.image.geometry), seen.candidates.without(gone), {}, np.flatnonzero(gone))

    @within_memory
    @torch.inference_mode()
    def _first_look(self, case: Case, view: Similarity) -> Evidence:
        with autocast(self.device, self.precision or self.preset.optimization.precision):
            return self._whole_image(case, view)

    def _in_any_pose(self, case: Case) -> Evidence:
        """Look from a side, lay the mean shape, refine in the usual orientation; from further sides while in doubt."""
        rng, best, least = np.random.default_rng(0), None, np.inf
        for side in range(SIDES):
            turn = None if side == 0 else about_the_middle(case.image.geometry, random_rotation(rng, self.task.dims, None))
            first = self._whole_image(case, turn)
            seen, placed, doubt = first.best_only(), first, self._doubt(first)
            rotation = np.eye(self.task.dims)
            for round_ in range(POSE_ROUNDS[1] if self.refiner is not None else 0):
                placed, rotation = self._in_pose(seen)
                seen = self._refined(case, placed, Similarity(rotation, np.zeros(self.task.dims)))
                doubt = self._doubt(seen)
                if round_ + 1 >= POSE_ROUNDS[0] and doubt <= DOUBTFUL:
                    break
            if best is None or doubt < least:
                turn = Similarity(rotation, np.zeros(self.task.dims))
                best, least = self._with_others(case, replace(seen, first_mm=first.positions_mm), first.candidates, turn), doubt
            if least <= DOUBTFUL:
                break
        return best

    def _with_others(self, case: Case, seen: Evidence, others: Candidates, view: Similarity) -> Evidence:
        """Further candidates beside the best ones, refined like them."""
        if self.refiner is None or others.weight.shape[1] == 1:
            return seen
        more = Candidates(others.positions_mm[:, 1:], others.weight[:, 1:], others.covariance_mm2[:, 1:])
        which = np.argwhere(np.isfinite(more.positions_mm).all(-1))
        if len(which):
            found = self._local(case, more.positions_mm[tuple(which.T)], which[:, 0], view)
            more.positions_mm[tuple(which.T)], more.covariance_mm2[tuple(which.T)] = found.positions_mm, found.covariance_mm2
        return replace(seen, candidates=seen.candidates.and_then(more))

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

    def _whole_image(self, case: Case, view: Similarity | None = None) -> Evidence:
        """The best evidence for each landmark of all windows (nearly always there is one)."""
        minimum = getattr(self.locator, "input_minimum", 1)
        windows = self.grid.windows(case.image.geometry, minimum, self.preset.most)
        if self.grid.field is not None:
            windows = [self.grid.training_grid(case.image.geometry), *windows]
        seen = [self._window(case, grid, view) for grid in windows]
        score = [s["presence"] * s["weight"][:, 0] * _inside(g, s["places"][:, 0]) for g, s in zip(windows, seen, strict=True)]
        if self.grid.field is not None:  # what has been trained on is seen best as in training: others tell of places beyond
            score[1:] = [x * ~windows[0].contains(s["places"][:, 0]) for x, s in zip(score[1:], seen[1:], strict=True)]
        best = np.argmax(score, axis=0)
        places, covariance, weight, presence = (
            np.stack([s[key] for s in seen])[best, np.arange(len(best))] for key in ("places", "covariance", "weight", "presence")
        )
        if view is not None:
            places, covariance = view.apply(places), view.matrix @ covariance @ view.matrix.T
        weight[:, 1:] *= weight[:, 1:] >= LEAST_WEIGHT
        candidates = Candidates(np.where(weight[..., None] > 0, places, np.nan), weight, covariance)
        return Evidence(places[:, 0], covariance[:, 0], presence, weight[:, 0], places[:, 0], candidates, view=view)

    def _window(self, case: Case, grid: ImageGeometry, view: Similarity | None) -> dict[str, np.ndarray]:
        """What the network says of a window, in the world as it is viewed."""
        spacing, points = float(grid.spacing[0]), grid_points(grid)
        if view is None:
            pixels = case.sample(points, spacing)
        else:
            pixels = case.sample(view.apply(points.reshape(-1, grid.dims)).reshape(points.shape), spacing * view.scale)
        pixels = torch.from_numpy(pixels.astype(np.float32, copy=False))[None, None]
        pixels = pixels * 2 - 1 if self.preset.signed else pixels
        if self.task.dims == 2 and self.refiner is not None:
            with torch.inference_mode(False):  # the weights may be trained on
                self.locator.to(memory_format=torch.channels_last)  # a quarter quicker here, but much slower in training
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        output = self.locator(pixels.to(self.device))
        count = 1 if self.prior is None else CANDIDATES
        readings = readout.read_several(self.locator, output, self.preset.stride, self.preset.target, count)
        index, covariance, presence, mass = (np.stack([r[i][0].double().cpu().numpy() for r in readings], 1) for i in range(4))
        places = grid.index_to_world(index[..., ::-1].reshape(-1, grid.dims)).reshape(index.shape)
        return {
            "places": places,
            "covariance": covariance[..., ::-1, ::-1] * spacing**2,
            "weight": mass,
            "presence": presence[:, 0],
        }

    def _refined(self, case: Case, first: Evidence, view: Similarity | None = None) -> Evidence:
        """Every candidate moved to where the local stage sees the landmark, on crops turned and scaled as in ``view``."""
        c = first.candidates
        places = np.concatenate([first.positions_mm[:, None], c.positions_mm[:, 1:]], axis=1)
        which = np.argwhere(np.isfinite(places).all(-1))
        if not len(which):  # the network has lost its way altogether
            return first
        at = tuple(which.T)
        found = self._local(case, places[at], which[:, 0], view)
        places, covariance, agree = places.copy(), c.covariance_mm2.copy(), np.zeros(places.shape[:2])
        there = np.zeros(places.shape[:2])
        places[at], covariance[at], agree[at], there[at] = found.positions_mm, found.covariance_mm2, found.mass, found.presence
        own = which[:, 1] == 0
        opinions = None
        if self.crops.presence:
            whole = first.presence if first.opinions is None else first.opinions[0]
            opinions = np.stack([whole, np.where(np.isfinite(places[:, 0]).all(-1), there[:, 0], 0.0)])
        return replace(
            first,
            positions_mm=places[:, 0],
            covariance_mm2=covariance[:, 0],
            mass=agree[:, 0],
            presence=first.presence if opinions is None else mixed(opinions, self.calibration.local_share),
            opinions=opinions,
            candidates=Candidates(places, c.weight, covariance),
            maps=LocalMaps(found.logits[own], found.places_mm[own]),
        )

    def _local(self, case: Case, centres_mm: np.ndarray, landmarks: np.ndarray, view: Similarity | None) -> _Found:
        """The local stage on m crops, turned and scaled as in ``view``."""
        if (most := self.most_crops) is not None and len(centres_mm) > most:
            some = range(0, len(centres_mm), most)
            parts = [self._local(case, centres_mm[i : i + most], landmarks[i : i + most], view) for i in some]
            return _Found(*map(np.concatenate, zip(*parts, strict=True)))
        plan, d = self.crops, self.task.dims
        spacing = self.grid.spacing_for(case.image.geometry) / plan.zoom * (1.0 if view is None else view.scale)
        turn = np.eye(d) if view is None else view.rotation
        turned = None if view is None else np.broadcast_to(turn, (len(centres_mm), d, d))
        crops = torch.from_numpy(read_crops(case, centres_mm, spacing, plan, turned).astype(np.float32, copy=False))
        output = self.refiner(crops.to(self.device), torch.as_tensor(landmarks, device=self.device))
        reading = readout.read_crops(self.refiner, output)
        index, covariance, presence, mass = (x[:, 0].double().cpu().numpy() for x in reading)
        to_world = lambda index: (index - (plan.size - 1) / 2)[..., ::-1] * spacing @ turn.T  # noqa: E731
        covariance = turn @ (covariance[:, ::-1, ::-1] * spacing**2) @ turn.T
        logits, places = readout.crop_cells(self.refiner, output)
        places = centres_mm[:, None] + to_world(places.double().cpu().numpy())
        return _Found(centres_mm + to_world(index), covariance, presence, mass, logits[:, 0].float().cpu().numpy(), places)


class _Found(NamedTuple):
    """Of m crops: (m, d), (m, d, d), (m,), (m,), and the map: (m, p) and (m, p, d)."""

    positions_mm: np.ndarray
    covariance_mm2: np.ndarray
    presence: np.ndarray
    mass: np.ndarray
    logits: np.ndarray
    places_mm: np.ndarray


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
