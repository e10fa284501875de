"""The whole recipe for one model: plan, train the stages, measure on validation cases, calibrate, save."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from landmarklabel.data.batches import ABSENT, PRESENT, CropPlan, GridPlan, landmark_state, plan_grid, with_field
from landmarklabel.data.cases import Case
from landmarklabel.data.mirror import find_mirror
from landmarklabel.data.pose import ShapePose, learn_pose
from landmarklabel.errors import StudyError, UsageError
from landmarklabel.inference.calibration import Calibration, fit_calibration, fit_regions, local_share, presence_threshold
from landmarklabel.inference.evidence import Evidence, mixed
from landmarklabel.inference.interactive import explain
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model import save_model
from landmarklabel.inference.prior import ShapePrior, learn_prior
from landmarklabel.io.files import write_json
from landmarklabel.io.pixels import pixel_hash
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.metrics import summarize, unit_of
from landmarklabel.networks.build import build_locator, build_refiner
from landmarklabel.networks.registry import Preset
from landmarklabel.training.loop import Budget, Cancelled, Progress, run_stage
from landmarklabel.training.pool import ENOUGH, find_cases, together, with_findings
from landmarklabel.training.stages import LocatorStage, RefinerStage, trained_network

LOOSE = (4.0, 8.0, 16.0, 64.0)  # tried for Calibration.loose …
ENOUGH_TO_CHOOSE = 8  # … with so many validation cases
LEAST_CROP, CROP_MULTIPLE = 16, 8  # samples a side of a 3D crop in a small volume; the refiner halves it three times
LOOK_FURTHER = 1.5  # a look at an image takes so many times as long as one pass of the networks, on the average
LEAST_SECONDS = 1.0  # of a stage whose time is up before it begins
FIRST_ROUND = 0.4  # of the budget, where unlabelled images teach a second one


@dataclass
class FitConfig:
    """What to train and how long.

    Args:
        preset: which model.
        budget: minutes or steps for all stages together.
        seed: of everything random.
        device: where.
        resume: go on from the state a stopped run left in the output folder.
        start_from: a model of the same task and preset whose weights to start from.
        pool: images without labels: what is found in them teaches a second round of training, and the shape prior.
        twice: ids of cases that are shown twice as often.
        ends_at: ``time.monotonic()`` by which all must be done where the budget is one of time: measuring and calibrating
            included, and what comes before the first step. None counts the seconds of training steps alone.
        looks_after: how often the validation cases are looked at once the networks are trained.
    """

    preset: Preset
    budget: Budget
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    resume: bool = False
    start_from: Localizer | None = None
    pool: Sequence[Path] = ()
    twice: frozenset[str] = frozenset()
    ends_at: float | None = None
    looks_after: int = 1


def fit(
    task: LandmarkTask,
    train: Sequence[Case],
    valid: Sequence[Case],
    config: FitConfig,
    folder: str | Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Localizer, dict]:
    """Train a model and write its folder.

    Args:
        task: the landmarks.
        train, valid: labelled cases; ``valid`` may be empty, then nothing is measured or calibrated.
        config: what and how long.
        folder: of the model; training state is kept in ``folder/state`` until the model is complete.
        on_progress: told after every step.
        should_stop: asked after every step.

    Returns:
        The model and the metrics on ``valid`` (empty without valid cases).

    Raises:
        StudyError: no usable labels. Cancelled: stopped; ``resume`` goes on from there.
    """
    folder, preset = Path(folder), config.preset
    usable = [c for c in train if (landmark_state(c.landmarks) == PRESENT).any()]
    if not usable:
        raise StudyError("no labelled image to train on: place and submit the landmarks of at least one image first")
    torch.manual_seed(config.seed)
    pose = _wild_pose(preset, usable)
    model = _untrained(task, usable, config, pose)
    shapes = [(c.image.geometry, c.landmarks) for c in usable]
    model.prior, model.untaught = learn_prior(shapes), never_labelled(task, usable)
    usable = [model.case(c.image_id, c.image, c.landmarks) for c in usable]
    usable += [c for c in usable if c.image_id in config.twice]
    if pose is not None:
        mirror = find_mirror(pose.mean, task)
        usable = [replace(c, mirror=mirror) for c in usable]
    if model.prior is not None:
        usable = [replace(c, hidden_mm=hidden_places(model.prior, c)) for c in usable]
    valid = [model.case(c.image_id, c.image, c.landmarks) for c in valid]
    run = _Run(config, folder / "state", on_progress, should_stop)
    run.check(task, usable)
    run.later = valid * config.looks_after
    _train_in_rounds(run, model, usable, shapes)
    metrics = measure(model, valid, should_stop)
    record = {
        "seed": config.seed,
        "minutes": run.minutes,
        "steps": run.steps,
        "train_labels": {c.image_id: label_hash(c.landmarks) for c in sorted(usable, key=lambda c: c.image_id)},
        "valid_ids": sorted(c.image_id for c in valid),
        "train_pixels": sorted({pixel_hash(c.image) for c in train}),
        "metrics": metrics,
        "device": str(config.device),
    }
    save_model(folder, model, record)
    shutil.rmtree(folder / "state", ignore_errors=True)
    return model, metrics


def _train_in_rounds(run: _Run, model: Localizer, cases: Sequence[Case], shapes: list) -> None:
    """One round on the labelled cases; with few of them, a second one on what the first finds in unlabelled images too."""
    pool = run.config.pool if run.config.preset.ours and model.prior is not None and len(cases) < ENOUGH else ()
    run.round(model, cases, 0.0, FIRST_ROUND if pool else 1.0)
    if not pool:
        return
    found = find_cases(model, len(cases), pool, run.should_stop)
    model.prior = learn_prior([*shapes, *((c.image.geometry, c.landmarks) for c in found)])
    found = [replace(c, mirror=cases[0].mirror) for c in with_findings(model, found)]
    run.round(model, together(cases, found), FIRST_ROUND, 1.0, again=True)
    found = with_findings(model, found)
    model.prior = learn_prior([*shapes, *((c.image.geometry, c.landmarks) for c in found)])


def label_hash(landmarks: LandmarkSet) -> str:
    """Short sha256 of a label's statuses and positions: tells whether a model has seen this very label."""
    text = ",".join(s.value for s in landmarks.status).encode() + landmarks.positions_mm.tobytes()
    return hashlib.sha256(text).hexdigest()[:16]


def measure(model: Localizer, valid: Sequence[Case], should_stop: Callable[[], bool] = lambda: False) -> dict:
    """Metrics on validation cases, and calibration of the model by them; {} without cases. Raises Cancelled."""
    if not valid:
        return {}
    evidence = []
    for case in valid:
        if should_stop():
            raise Cancelled("stopped while the validation cases were looked at")
        evidence.append(model.look(case))
    calibrate(model, valid, evidence)
    decided = [model.suggest(e, c.image.geometry).landmarks for e, c in zip(evidence, valid, strict=True)]
    pairs = [(landmarks, c.landmarks) for landmarks, c in zip(decided, valid, strict=True)]
    return summarize(pairs, unit=unit_of(model.task, (c.image.unit for c in valid)))


def calibrate(model: Localizer, valid: Sequence[Case], evidence: Sequence[Evidence]) -> None:
    """Learn the model's presence threshold, expected errors and regions from labelled cases it was not trained on."""
    states = [landmark_state(c.landmarks) for c in valid]
    truth = [c.landmarks.positions_mm for c in valid]
    share = local_share(evidence, states)
    for e in evidence:
        e.presence = e.presence if e.opinions is None else mixed(e.opinions, share)
    plain = Calibration(presence_threshold=presence_threshold(evidence, states), local_share=share)

    def decided(calibration: Calibration) -> list[Evidence]:
        model.calibration = calibration
        return [model.suggest(e, c.image.geometry).decided for e, c in zip(evidence, valid, strict=True)]

    def distance(found: Sequence[Evidence]) -> float:
        return float(np.nanmean(np.linalg.norm(np.stack([e.positions_mm for e in found]) - np.stack(truth), axis=2)))

    if len(valid) >= ENOUGH_TO_CHOOSE:
        plain = min((replace(plain, loose=loose) for loose in LOOSE), key=lambda c: distance(decided(c)))
    found = decided(plain)
    fitted = fit_regions(fit_calibration(found, truth, states), found, truth)
    model.calibration = replace(fitted, loose=plain.loose, local_share=share)


def never_labelled(task: LandmarkTask, cases: Sequence[Case]) -> tuple[str, ...]:
    """Names of landmarks of which no case says anything, not even that they are absent."""
    stated = np.any([[s.by_person or s.has_position for s in c.landmarks.status] for c in cases], axis=0)
    return tuple(name for name, known in zip(task.names, stated, strict=True) if not known)


def hidden_places(prior: ShapePrior, case: Case) -> np.ndarray | None:
    """(n, d) where the shape of the present landmarks would have the absent ones, LPS mm; None where none is absent."""
    state = landmark_state(case.landmarks)
    if not (state == ABSENT).any() or (state == PRESENT).sum() <= case.image.geometry.dims:
        return None
    given = {int(i): case.landmarks.positions_mm[i] for i in np.flatnonzero(state == PRESENT)}
    return explain(prior, prior.usual.in_image(case.image.geometry), None, given).positions_mm


def _wild_pose(preset: Preset, cases: Sequence[Case]) -> ShapePose | None:
    """The study's mean shape if its cases come in any orientation and the preset can use it."""
    if preset.refine is None or preset.refine.network != "shared":
        return None
    pose = learn_pose([c.landmarks for c in cases])
    return pose if pose.wild and pose.usable else None


def _untrained(task: LandmarkTask, cases: Sequence[Case], config: FitConfig, pose: ShapePose | None = None) -> Localizer:
    preset, d = config.preset, task.dims
    if d not in preset.dims:
        raise UsageError(f"model {preset.key!r} is made for {preset.dims[0]}D images, the task is {d}D")
    grid = _plan(preset, cases, preset.samples[d] if pose is None else preset.pose_samples[d])
    model = Localizer(task, preset, grid, build_locator(preset.network, d, len(task)), pose=pose, device=config.device)
    if preset.match_histogram:
        model.reference = np.asarray(min(cases, key=lambda c: c.image_id).image.pixels, np.float32)
    if config.start_from is not None:
        model.grid = config.start_from.grid
        model.locator.load_state_dict(config.start_from.locator.state_dict())
    if d == 3 and preset.ours and pose is None and model.grid.spacing_mm is not None:
        model.grid = with_field(model.grid, cases)
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


class _Run:
    """The stages of one fit with their shared settings."""

    def __init__(self, config: FitConfig, state: Path, on_progress, should_stop):
        self.config, self.state, self.on_progress, self.should_stop = config, state, on_progress, should_stop
        self.share = config.preset.refine.share if config.preset.refine else 0.0
        self.minutes, self.steps = 0.0, {}
        self.later: Sequence[Case] = ()  # looked at when the networks are trained

    def check(self, task: LandmarkTask, cases: Sequence[Case]) -> None:
        """Refuse to resume a run that was about something else; start a fresh record otherwise."""
        c = self.config
        about = {"task": task.hash, "preset": c.preset.key, "seed": c.seed, "ids": sorted(x.image_id for x in cases)}
        record = self.state / "run.json"
        if c.resume and record.exists():
            if json.loads(record.read_text(encoding="utf-8")) != about:
                raise UsageError("cannot resume: the stopped run had another task, model, seed or other labelled images")
            return
        shutil.rmtree(self.state, ignore_errors=True)
        write_json(record, about)

    def round(self, model: Localizer, cases: Sequence[Case], begin: float, end: float, again: bool = False) -> None:
        """Train all stages with a part of the budget; ``again``: go on from the networks as they are."""
        middle = end - self.share * (end - begin)
        model.locator.to(memory_format=torch.contiguous_format)
        stage = LocatorStage(model.locator, self.config.preset, model.grid, cases, self.config.seed, wild=model.pose is not None)
        model.locator = self._train(stage, begin, middle, again, self._looking_takes(model)).to(self.config.device)
        if self.config.preset.refine is not None:
            self._refine(model, cases, middle, end, again)

    def _refine(self, model: Localizer, cases: Sequence[Case], begin: float, end: float, again: bool) -> None:
        preset, d, start = self.config.preset, model.task.dims, self.config.start_from
        if model.pose is not None:
            cases = [replace(c, rotation=model.pose.lay(c.landmarks.positions_mm)[0].rotation) for c in cases]
        if not again:
            model.crops = _plan_crops(preset, model, cases)
            model.crops = replace(model.crops, presence=preset.ours and any(c.hidden_mm is not None for c in cases))
            torch.manual_seed(self.config.seed)  # also when the first stage was finished by an earlier run
            model.refiner = build_refiner(preset.refine.network, d, len(model.task), model.crops.scales, model.crops.presence)
            if start is not None and start.refiner is not None:
                model.crops = replace(start.crops, presence=model.crops.presence)
                model.refiner.load_state_dict(
                    start.refiner.state_dict(), strict=False
                )  # presence may be new, or no longer asked for
        stage = RefinerStage(model.refiner, preset, model.grid, model.crops, cases, self.config.seed)
        model.refiner = self._train(stage, begin, end, again, self._looking_takes(model)).to(self.config.device)

    def _looking_takes(self, model: Localizer) -> float:
        """Seconds that the looks at the validation cases will take, by one look of the networks as they are now."""
        if self.config.ends_at is None or not self.later:
            return 0.0
        started = time.monotonic()
        model.detect(self.later[0])
        return (time.monotonic() - started) * LOOK_FURTHER * len(self.later)

    def _part(self, begin: float, end: float, reserved_s: float) -> Budget:
        """The budget of a stage; by the clock it is its share of what is left, so that what else takes time is made up for."""
        part = self.config.budget.part(end - begin)
        if self.config.ends_at is None or part.minutes is None:
            return part
        left_s = max(self.config.ends_at - time.monotonic() - reserved_s, 0.0)
        return replace(part, minutes=max(left_s / 60 * (end - begin) / (1 - begin), LEAST_SECONDS / 60))

    def _train(
        self, stage: LocatorStage | RefinerStage, begin: float, end: float, again: bool, reserved_s: float
    ) -> torch.nn.Module:
        share = end - begin
        part = self._part(begin, end, reserved_s)
        seconds = 0.0

        def report(p: Progress) -> None:
            nonlocal seconds
            seconds, self.steps[stage.name] = p.seconds, earlier + p.step
            self.on_progress(Progress(p.stage, p.step, begin + share * p.fraction, p.loss, self.minutes * 60 + p.seconds))

        earlier = self.steps.get(stage.name, 0)
        ema = run_stage(
            stage,
            part,
            seed=self.config.seed,
            device=self.config.device,
            state_file=self.state / f"{stage.name}{'_again' if again else ''}.safetensors",
            resume=self.config.resume,
            on_progress=report,
            should_stop=self.should_stop,
        )
        self.minutes += seconds / 60
        return trained_network(stage, ema)


def _plan_crops(preset: Preset, model: Localizer, cases: Sequence[Case]) -> CropPlan:
    """Crops at about the images' own resolution, but at most 4 times finer than the whole-image grid.

    In a small volume they are smaller: one that shows over half of it costs several times the time and tells little more.
    """
    size, scales = preset.refine.size[model.task.dims], preset.refine.scales
    if preset.refine.zoom is not None:
        return CropPlan(size, preset.refine.zoom, scales, jitter=0.2 * size, wide_jitter=0.45 * size)
    ratio = [model.grid.spacing_for(c.image.geometry) / float(np.median(c.image.geometry.spacing)) for c in cases]
    zoom = float(np.clip(np.median(ratio) * 1.05, 1.25, 4.0))
    if model.task.dims == 3:
        sides = [(np.array(g.size) * g.spacing).min() / model.grid.spacing_for(g) for g in (c.image.geometry for c in cases)]
        half = int(np.median(sides) * zoom / 2) // CROP_MULTIPLE * CROP_MULTIPLE
        size = min(size, max(LEAST_CROP, half))
    rounds = 2 if size < preset.refine.size[model.task.dims] else 1  # a small crop has little beside a place that is off
    return CropPlan(size, zoom, scales, jitter=0.1 * size, wide_jitter=0.35 * size, rounds=rounds)
