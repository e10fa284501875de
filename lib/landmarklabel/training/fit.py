"""The whole recipe for one model: plan, train the stages, measure on validation cases, calibrate, save."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landmarklabel.configuration import to_json
from landmarklabel.data.cases import Case
from landmarklabel.data.mirror import find_mirror
from landmarklabel.data.presence import Presence, landmark_state
from landmarklabel.errors import StudyError, UsageError, listed
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_folder import save_model
from landmarklabel.inference.shape_prior import learn_prior
from landmarklabel.io.files import write_json
from landmarklabel.io.pixels import pixel_hash
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.networks.build import build_fine_net
from landmarklabel.networks.ops import laid_out
from landmarklabel.networks.presets import Preset, Refinement
from landmarklabel.training.configuration import TrainingConfig
from landmarklabel.training.group import ALONE, TrainingGroup
from landmarklabel.training.loop import Budget, Progress, run_stage
from landmarklabel.training.planning import (
    arbitrarily_oriented_shape,
    implied_absent_positions,
    never_labelled,
    plan_crops,
    untrained_model,
    with_rotation,
)
from landmarklabel.training.self_training import find_pseudo_labels, labelled_image, pseudo_labelled, together
from landmarklabel.training.stages import CoarseStage, FineStage, trained_network
from landmarklabel.training.validation import calibrate_and_validate, part_of_time

Shapes = list[tuple[ImageGeometry, LandmarkSet]]
_RECORD = "run.json"  # in the folder of a training's state: what it is about


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
        unlabelled: images without labels: what is found in them teaches a second round of training, and the shape prior.
        oversampled_ids: of cases that are shown twice as often.
        ends_at: ``time.monotonic()`` by which all must be done where the budget is one of time: measuring and calibrating
            included, and what comes before the first step. None counts the seconds of training steps alone.
        assessments: how often the validation cases are assessed once the networks are trained.
        training: the numbers of the recipe.
        group: the processes that train this model together, each with the same cases and numbers.
        accumulate: parts in which each device looks at its share of a batch.
        keeps_state: leave the training state to the caller, who has more to do before ``forget_state``.
    """

    preset: Preset
    budget: Budget
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    resume: bool = False
    start_from: Localizer | None = None
    unlabelled: Sequence[Path] = ()
    oversampled_ids: frozenset[str] = frozenset()
    ends_at: float | None = None
    assessments: int = 1
    training: TrainingConfig = field(default_factory=TrainingConfig)
    group: TrainingGroup = ALONE
    accumulate: int = 1
    keeps_state: bool = False


def fit(
    task: LandmarkTask,
    train: Sequence[Case],
    valid: Sequence[Case],
    config: FitConfig,
    folder: str | Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Localizer, dict[str, Any]]:
    """Train a model and write its folder; in a group of processes the leading one does, and measures.

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
        StudyError: no usable labels. ImageRejected: a validation case far larger than the training cases.
        Cancelled: stopped; ``resume`` goes on from there.
    """
    folder, preset = Path(folder), config.preset
    usable = _usable(train)
    if not usable:
        raise StudyError("no labelled image to train on: place and submit the landmarks of at least one image first")
    about = _about(task, usable, config)
    torch.manual_seed(config.seed)
    inference = InferenceConfig()
    alignment_shape = arbitrarily_oriented_shape(preset, usable, inference.mean_shape)
    model = untrained_model(task, preset, usable, config.start_from, alignment_shape, config.training.sampling, inference)
    model.networks.device = config.device
    shapes = [(c.image.geometry, c.landmarks) for c in usable if c.landmarks is not None]
    model.prior, model.never_labelled = learn_prior(shapes, model.config), never_labelled(task, usable)
    usable = _prepared(model, usable, config)
    valid = [model.case(c.image_id, c.image, c.landmarks) for c in valid]
    for case in valid:
        model.check_extent(case)  # now, not after all the time of a training
    run = _Run(config, folder / "state", on_progress, should_stop)
    run.check(about)
    run.assessed_later = list(valid) * config.assessments
    _train_in_rounds(run, model, usable, shapes)
    if not config.group.leads:
        return model, {}
    metrics = calibrate_and_validate(model, valid, should_stop, part_of_time(config.ends_at, config.assessments))
    unusable = {pixel_hash(c.image) for c in train if c.image_id not in about["pixels"]}
    seen = {
        "train_labels": about["labels"],
        "valid_ids": sorted(c.image_id for c in valid),
        "train_pixels": sorted({*about["pixels"].values(), *unusable}),
    }
    save_model(folder, model, {**run.record(), **seen, "metrics": metrics})
    if not config.keeps_state:
        forget_state(folder)
    return model, metrics


def forget_state(folder: Path) -> None:
    """Remove what a stopped training would go on from: the model in the folder is complete."""
    shutil.rmtree(folder / "state", ignore_errors=True)


def has_stopped(folder: Path) -> bool:
    """Whether a training in a folder was stopped before its end."""
    return (folder / "state" / _RECORD).is_file()


def can_go_on(folder: Path, task: LandmarkTask, train: Sequence[Case], config: FitConfig) -> bool:
    """Whether ``folder`` holds a stopped run of the same task, preset, seed, labels and pixels.

    Args:
        folder: of the model.
        task, train, config: as ``fit`` would be given them.
    """
    try:
        record: object = json.loads((folder / "state" / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record == _about(task, _usable(train), config)


def _usable(train: Sequence[Case]) -> list[Case]:
    return [c for c in train if c.landmarks is not None and (landmark_state(c.landmarks) == Presence.PRESENT).any()]


def _about(task: LandmarkTask, cases: Sequence[Case], config: FitConfig) -> dict[str, Any]:
    """What a run is about: one that was stopped can go on where this is the same."""
    ids = [c.image_id for c in cases]
    return {
        "task": task.hash,
        "preset": config.preset.key,
        "seed": config.seed,
        "ids": sorted([*ids, *(i for i in ids if i in config.oversampled_ids)]),
        "labels": {c.image_id: label_hash(labels) for c, labels in _by_id(cases)},
        "pixels": {c.image_id: pixel_hash(c.image) for c in cases},
    }


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What a stopped run had that is not so now, in words; empty where nothing differs."""
    if "labels" not in before:
        return "no note of its labels, as of an earlier version"
    said = ["other landmarks"] if before["task"] != now["task"] else []
    settings = {"preset": "model", "seed": "seed"}
    said += [f"{name} {before[key]}, not {now[key]}" for key, name in settings.items() if before[key] != now[key]]
    if more := sorted({*before["ids"]} - {*now["ids"]}):
        said.append(f"training images that are none now, without a label or kept for validation: {listed(more)}")
    if fewer := sorted({*now["ids"]} - {*before["ids"]}):
        said.append(f"not these training images: {listed(fewer)}")
    for key in ("labels", "pixels"):
        known = before[key]
        if other := sorted(i for i, value in now[key].items() if i in known and known[i] != value):
            said.append(f"other {key} of {listed(other)}")
    if not said and before != now:
        said.append("other training images counted twice")
    return " and ".join(said)


def _by_id(cases: Sequence[Case]) -> list[tuple[Case, LandmarkSet]]:
    return [(c, c.landmarks) for c in sorted(cases, key=lambda c: c.image_id) if c.landmarks is not None]


def _prepared(model: Localizer, cases: Sequence[Case], config: FitConfig) -> list[Case]:
    """The training cases as the networks see them: grey values, mirror, and where absent landmarks would be."""
    prepared = [model.case(c.image_id, c.image, c.landmarks) for c in cases]
    prepared += [c for c in prepared if c.image_id in config.oversampled_ids]
    if model.alignment_shape is not None:
        mirror = find_mirror(model.alignment_shape.points, model.task, model.config.mirror)
        prepared = [replace(c, mirror=mirror) for c in prepared]
    if (prior := model.prior) is not None:
        prepared = [replace(c, implied_absent_mm=implied_absent_positions(prior, c)) for c in prepared]
    return prepared


def _train_in_rounds(run: _Run, model: Localizer, cases: Sequence[Case], shapes: Shapes) -> None:
    """One round on the labelled cases; with few of them, a second one on what the first finds in unlabelled images too."""
    config = run.config.training.self_training
    possible = run.config.preset.supports_self_training and model.prior is not None and len(cases) < config.max_cases
    unlabelled = run.config.unlabelled if possible else ()
    run.round(model, cases, 0.0, config.first_round if unlabelled else 1.0)
    if not unlabelled:
        return
    found = [replace(c, mirror=cases[0].mirror) for c in _pseudo_labels(run, model, len(cases), shapes)]
    run.round(model, together(cases, found, config.min_labelled_share), config.first_round, 1.0, again=True)
    if not run.config.group.leads:
        return
    found = pseudo_labelled(model, found)
    model.prior = learn_prior([*shapes, *((c.image.geometry, labels) for c, labels in _labelled(found))], model.config)


def _pseudo_labels(run: _Run, model: Localizer, labelled: int, shapes: Shapes) -> list[Case]:
    """What the leading process finds; other devices might find something else, and all must train on the same."""
    group, config = run.config.group, run.config.training.self_training
    if not group.leads:
        return [labelled_image(model, Path(path), np.array(positions, float)) for path, positions in group.share()]
    found = find_pseudo_labels(model, labelled, run.config.unlabelled, config, run.should_stop)
    model.prior = learn_prior(
        [*shapes, *((c.image.geometry, labels) for c, labels in _labelled([*found.values()]))], model.config
    )
    again = [(path, case) for path, first in found.items() for case in pseudo_labelled(model, [first])]
    if group.size > 1:
        group.share([(str(path), case.labels.positions_mm.tolist()) for path, case in again])
    return [case for _, case in again]


def _labelled(cases: Sequence[Case]) -> list[tuple[Case, LandmarkSet]]:
    return [(c, c.landmarks) for c in cases if c.landmarks is not None]


def label_hash(landmarks: LandmarkSet) -> str:
    """Short sha256 of a label's statuses and positions: tells whether a model has seen this very label."""
    text = ",".join(s.value for s in landmarks.status).encode() + landmarks.positions_mm.tobytes()
    return hashlib.sha256(text).hexdigest()[:16]


class _Run:
    """The stages of one fit with their shared settings."""

    def __init__(self, config: FitConfig, state: Path, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]):
        self.config, self.state, self.on_progress, self.should_stop = config, state, on_progress, should_stop
        self.share = config.preset.refine.share if config.preset.refine else 0.0
        self.minutes = 0.0
        self.steps: dict[str, int] = {}
        self.assessed_later: Sequence[Case] = ()  # when the networks are trained

    def check(self, about: dict[str, Any]) -> None:
        """Refuse to resume a run that was about something else; start a fresh record otherwise."""
        if not self.config.group.leads:
            return
        record = self.state / _RECORD
        if self.config.resume and record.exists():
            try:
                difference = _difference(json.loads(record.read_text(encoding="utf-8")), about)
            except (ValueError, KeyError, TypeError):
                raise UsageError(f"cannot resume: {record} is damaged; without --resume a training starts over") from None
            if difference:
                raise UsageError(f"cannot resume: the stopped run had {difference}; without --resume a training starts over")
            return
        shutil.rmtree(self.state, ignore_errors=True)
        write_json(record, about)

    def record(self) -> dict[str, Any]:
        """What the model's folder says of how it was trained."""
        c = self.config
        settings = {"device": str(c.device), "devices": c.group.size, "accumulate": c.accumulate, "training": to_json(c.training)}
        return {"seed": c.seed, "minutes": self.minutes, "steps": self.steps, **settings}

    def round(self, model: Localizer, cases: Sequence[Case], begin: float, end: float, again: bool = False) -> None:
        """Train all stages with a part of the budget; ``again``: go on from the networks as they are."""
        middle = end - self.share * (end - begin)
        networks, config = model.networks, self.config
        laid_out(networks.coarse_net, torch.contiguous_format, config.device)
        any_orientation = model.alignment_shape is not None
        stage = CoarseStage(
            *(networks.coarse_net, config.preset, networks.grid, cases, config.seed, config.training.sampling),
            any_orientation=any_orientation,
            devices=config.group.size,
        )
        networks.coarse_net = self._train(stage, begin, middle, again, self._assessments_take(model)).to(config.device)
        if config.preset.refine is not None:
            self._refine(model, config.preset.refine, cases, middle, end, again)

    def _refine(self, model: Localizer, refine: Refinement, cases: Sequence[Case], begin: float, end: float, again: bool) -> None:
        preset, networks, config = self.config.preset, model.networks, self.config
        if model.alignment_shape is not None:
            cases = with_rotation(model.alignment_shape, cases)
        if not again:
            self._untrained_fine_net(model, cases)
        if networks.fine_net is None or networks.crops is None:
            raise ValueError("the fine network was not made")  # _untrained_fine_net makes it in the first round
        stage = FineStage(
            *(networks.fine_net, preset, refine, networks.grid, networks.crops, cases, config.seed, config.training.sampling),
            devices=config.group.size,
        )
        networks.fine_net = self._train(stage, begin, end, again, self._assessments_take(model)).to(config.device)

    def _untrained_fine_net(self, model: Localizer, cases: Sequence[Case]) -> None:
        """A fresh fine network and its crops, or those of the model that the training starts from."""
        preset, networks, start = self.config.preset, model.networks, self.config.start_from
        presence = preset.supports_self_training and any(c.implied_absent_mm is not None for c in cases)
        networks.crops = replace(plan_crops(preset, networks.grid, cases, self.config.training.crops), presence=presence)
        torch.manual_seed(self.config.seed)  # also when the first stage was finished by an earlier run
        fine_net = build_fine_net(preset, model.task.dims, len(model.task), networks.crops.scales, presence)
        networks.fine_net = fine_net.to(self.config.device)
        if start is not None and start.networks.fine_net is not None and start.networks.crops is not None:
            networks.crops = replace(start.networks.crops, presence=presence)
            # Not strict: the part that tells presence may be new, or no longer asked for.
            fine_net.load_state_dict(start.networks.fine_net.state_dict(), strict=False)

    def _assessments_take(self, model: Localizer) -> float:
        """Seconds that assessing the validation cases will take, by one pass of the networks as they are now."""
        if self.config.ends_at is None or not self.assessed_later or not self.config.group.leads:
            return 0.0
        started = time.monotonic()
        model.detect(self.assessed_later[0])
        return (time.monotonic() - started) * self.config.training.clock.assessment_factor * len(self.assessed_later)

    def _part(self, begin: float, end: float, reserved_s: float) -> Budget:
        """The budget of a stage; by the clock it is its share of what is left, so that what else takes time is made up for."""
        part = self.config.budget.part(end - begin)
        if self.config.ends_at is None or part.minutes is None:
            return part
        left_s = max(self.config.ends_at - time.monotonic() - reserved_s, 0.0)
        minutes = max(left_s / 60 * (end - begin) / (1 - begin), self.config.training.clock.min_stage_seconds / 60)
        return replace(part, minutes=minutes)

    def _train(self, stage: CoarseStage | FineStage, begin: float, end: float, again: bool, reserved_s: float) -> torch.nn.Module:
        share = end - begin
        part = self._part(begin, end, reserved_s)

        def report(p: Progress) -> None:
            self.on_progress(Progress(p.stage, p.step, begin + share * p.fraction, p.loss, self.minutes * 60 + p.seconds))

        earlier = self.steps.get(stage.name, 0)
        done = run_stage(
            stage,
            part,
            seed=self.config.seed,
            device=self.config.device,
            state_file=self.state / f"{stage.name}{'_again' if again else ''}.safetensors",
            resume=self.config.resume,
            on_progress=report,
            should_stop=self.should_stop,
            group=self.config.group,
            accumulate=max(1, min(self.config.accumulate, stage.batch_size // self.config.group.size)),
        )
        self.minutes += done.seconds / 60
        self.steps[stage.name] = earlier + done.steps
        return trained_network(stage, done.weights)
