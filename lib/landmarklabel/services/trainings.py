"""A study's cases, the fit and the gate; ``training_run`` and ``train_and_publish`` publish what the gate accepts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from landmarklabel.data.cases import Case
from landmarklabel.data.split import split_ids
from landmarklabel.errors import LandmarkLabelError, ModelError, StudyError, listed
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_folder import load_model
from landmarklabel.inference.model_record import read_record
from landmarklabel.inference.template import Template
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.services.cases import load_cases, read_cases
from landmarklabel.store.study import Study
from landmarklabel.training.configuration import GateConfig
from landmarklabel.training.fit import FitConfig, fit, forget_state, label_hash
from landmarklabel.training.group import TrainingGroup
from landmarklabel.training.loop import Budget, Progress
from landmarklabel.training.planning import never_labelled
from landmarklabel.training.publishing import Decision, ModelRegistry, Predictor, decide
from landmarklabel.training.validation import InTime, part_of_time


@dataclass
class Material:
    """What a training is made of.

    Args:
        train, valid: labelled cases.
        unlabelled: images without labels.
        left_out: what could not be used, one text each.
        remarks: what a person should know of what is there, one text each.
    """

    train: list[Case]
    valid: list[Case]
    unlabelled: list[Path]
    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """A finished training: the model, its metrics on the validation cases, and what the gate says; nothing is published yet."""

    model: Localizer
    metrics: dict
    decision: Decision


def gather(study: Study, valid_ids: list[str] | None = None, processes: int = 1) -> Material:
    """Read the study's labelled cases, after a look at hand-edited files and changed images.

    Args:
        study: whose.
        valid_ids: the validation cases; by default a fixed fifth, by a hash of the id.
        processes: as ``load_cases``.

    Raises:
        StudyError: nothing to train on, or a validation id without labels.
    """
    problems = study.sync()
    study.verify()
    labels = study.labelled()
    if not labels:
        raise StudyError("no labelled image to train on: submit the landmarks of at least one image first")
    if unknown := sorted(set(valid_ids or ()) - set(labels)):
        raise StudyError(f"the validation cases name {len(unknown)} images without labels in the study, first {unknown[0]!r}")
    found, unreadable = read_cases(study, labels, processes)
    cases = {case.image_id: case for case in found}
    train, valid = split_ids(cases)
    if valid_ids is not None:
        train, valid = [i for i in cases if i not in set(valid_ids)], sorted(set(valid_ids) & set(cases))
        if cases and not train:
            raise StudyError("all labelled images are validation cases, so none is left to train on")
    changed = study.changed()
    unlabelled = [path for i, path in sorted(study.images().items()) if i not in labels and i not in changed]
    material = Material([cases[i] for i in train], [cases[i] for i in valid], unlabelled, [*problems, *unreadable])
    material.remarks += [*_proposals(study, cases), *_remarks(study.task, material)]
    return material


def _proposals(study: Study, cases: Collection[str]) -> list[str]:
    open_points = {i: int((x.defined & ~x.by_person).sum()) for i, x in study.newest().items() if i in cases}
    open_points = {i: n for i, n in open_points.items() if n}
    text = f"{sum(open_points.values())} points are proposals that nobody has confirmed, and are not learned from"
    return [f"{text}: {listed(sorted(open_points))}"] if open_points else []


def _remarks(task: LandmarkTask, material: Material) -> list[str]:
    """Remarks on cases that a training cannot learn from as it should."""
    remarks = []
    if material.train and (never := never_labelled(task, material.train)):
        what = f"{len(never)} of {len(task)} landmarks have no label in any training case"
        remarks.append(f"{what} and will be answered unset: {listed(never)}")
    constant = [c.image_id for c in (*material.train, *material.valid) if np.ptp(c.image.pixels) == 0]
    if constant:
        text = f"{len(constant)} images have the same grey value everywhere, nothing can be learned from them: {listed(constant)}"
        remarks.append(text)
    if not material.valid:
        remarks.append(
            "no validation cases: how far the model is off will not be measured and its confidence not be calibrated "
            "(a fifth of the labelled cases is kept for that once there are enough; --valid names some)"
        )
    return remarks


def fit_and_decide(
    study: Study,
    material: Material,
    config: FitConfig,
    folder: Path,
    live: Localizer | None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    check: bool = True,
    known: Collection[str] = (),
) -> Trained:
    """Train a model into ``folder`` and hold it against what answers now (unless ``check`` is False); publishes nothing.

    A first model without validation cases is held against the template by further, shorter trainings that leave one case out
    each, where the budget allows it: they and the model itself share the budget. Cases that the live model was trained on
    (``known``, see ``trained_on``) tell nothing of it. Raises as ``training.fit.fit``.
    """
    task, train = study.task, material.train
    gate = config.training.gate
    folds, part = _left_out(config.budget, train, gate) if check and live is None and not material.valid else ([], config.budget)
    share = 1 - gate.left_out_share if folds else 1.0
    whole = config.budget.part(share) if folds else config.budget
    assessments = 1 + (2 if check else 0)  # by the model for its metrics and for the gate, and by what answers now

    def show(begin: float, share: float, name: str = "") -> Callable[[Progress], None]:
        return lambda p: on_progress(replace(p, stage=name or p.stage, fraction=begin + share * p.fraction))

    left_out, each = [], (1 - share) / max(len(folds), 1)
    config.group.share(len(folds))
    for number, case in enumerate(folds):  # before the model itself: a run that is stopped in it can go on
        others = [c for c in train if c is not case]
        settings = _without_one(config, part)
        without, _ = fit(task, others, [], settings, folder / "left_out", show(number * each, each, "check"), should_stop)
        left_out.append((without.case(case.image_id, case.image, case.landmarks), without, _template(study, others)))
    shutil.rmtree(folder / "left_out", ignore_errors=True)
    report = show(1 - share, share)
    # the state is kept for a run that is stopped in what follows
    settings = replace(config, budget=whole, assessments=assessments, keeps_state=True)
    model, metrics = fit(task, train, material.valid, settings, folder, report, should_stop)
    if not check:
        forget_state(folder)
        return Trained(model, metrics, Decision(False, "not held against anything"))
    valid = [model.case(c.image_id, c.image, c.landmarks) for c in material.valid if c.image_id not in set(known)]
    template: Predictor | None = _template(study, train) if live is None else None
    candidate = InTime(model, part_of_time(config.ends_at, 2), len(valid))
    now = None if live is None else InTime(live, config.ends_at, len(valid))
    decision = decide(candidate, now, valid, template, left_out)
    forget_state(folder)
    return Trained(model, metrics, decision)


def _without_one(config: FitConfig, budget: Budget) -> FitConfig:
    """The settings of a training that leaves a case out."""
    return replace(config, budget=budget, resume=False, unlabelled=(), oversampled_ids=frozenset(), ends_at=None)


def tell_material(
    group: TrainingGroup, material: Material, start_from: Path | None = None, oversampled: Collection[str] = ()
) -> None:
    """Tell the other processes what the leading one trains on, from which model, and which cases come twice as often."""
    group.share(
        {
            "train": {case.image_id: label_hash(case.labels) for case in material.train},
            "unlabelled": [str(path.absolute()) for path in material.unlabelled],
            "start_from": start_from and str(start_from.absolute()),
            "oversampled": [*oversampled],
        }
    )


def hear_material(group: TrainingGroup) -> dict[str, Any]:
    """What ``tell_material`` of the leading process has told."""
    told: dict[str, Any] = group.share()
    return told


def train_along(study: Study, config: FitConfig, told: dict[str, Any]) -> None:
    """What a process does that does not lead: the same trainings on the same cases; it measures nothing and writes no model.

    Raises:
        StudyError: labels that the leading process has read are not in the study. As ``fit`` otherwise.
    """
    mine = load_cases(study, _labels(study, told["train"]), config.group.on_this_computer)
    cases = {case.image_id: case for case in mine}
    train = [cases[i] for i in told["train"]]
    folds, part = _left_out(config.budget, train, config.training.gate)
    folds = folds[: config.group.share()]  # all or none
    with tempfile.TemporaryDirectory(prefix="landmarklabel-") as nothing:
        for case in folds:
            fit(study.task, [c for c in train if c is not case], [], _without_one(config, part), nothing)
        whole = config.budget.part(1 - config.training.gate.left_out_share) if folds else config.budget
        unlabelled = [Path(path) for path in told["unlabelled"]]
        fit(study.task, train, [], replace(config, budget=whole, unlabelled=unlabelled), nothing)


def _labels(study: Study, hashes: Mapping[str, str]) -> dict[str, LandmarkSet]:
    """The labels with these hashes by image id, of earlier revisions where somebody has saved meanwhile. Raises StudyError."""
    now, gone = study.labelled(), list[str]()
    found: dict[str, LandmarkSet] = {}
    for image_id, known in hashes.items():
        label = now.get(image_id)
        if label is None or label_hash(label) != known:
            before = (study.read(revision).stated() for revision in reversed(study.history(image_id)))
            label = next((one for one in before if label_hash(one) == known), None)
        if label is None:
            gone.append(image_id)
        else:
            found[image_id] = label
    if gone:
        raise StudyError(f"labels of {listed(gone)} are no longer in the study: start the training again")
    return found


def compare_with_live(
    study: Study, material: Material, record: dict, model: Localizer, live: Localizer | None, known: Collection[str] = ()
) -> Decision:
    """What the gate would say of a model that was trained elsewhere, on cases that it was not trained on.

    Args:
        study: to which the model is offered.
        material: the study's cases.
        record: of the offered model.
        model: the offered model.
        live: the model that answers now.
        known: images that the live model was trained on.
    """
    seen = {*(record.get("train_labels") or ()), *known}
    unseen = [c for c in material.valid if c.image_id not in seen]
    valid = [model.case(c.image_id, c.image, c.landmarks) for c in unseen]
    template = _template(study, material.train) if live is None and material.train else None
    return decide(model, live, valid, template)


def live_model(study: Study, registry: ModelRegistry, device=None) -> Localizer | None:
    """The model that answers now; None where there is none, or it is of other landmarks, or damaged: it cannot be better."""
    try:
        live = registry.live()
        return load_model(live, study.task, device) if live else None
    except ModelError:
        return None


def trained_on(registry: ModelRegistry) -> frozenset[str]:
    """Images that the live model was trained on; none where there is none, or it does not say."""
    with suppress(LandmarkLabelError, AttributeError, TypeError):
        live = registry.live()
        return frozenset(read_record(live).get("train_labels") or ()) if live else frozenset()
    return frozenset()


def publish_if_accepted(study: Study, registry: ModelRegistry, decision: Decision, model: Path | None = None) -> int:
    """Publish or drop a model as ``decision`` says; the audit trail gets a line for one that goes live.

    Args:
        study: whose.
        registry: of the model; its training lock is held.
        decision: of the gate, or of a person.
        model: a copy of this folder is published; the registry's own candidate when None.

    Returns:
        The live version's number afterwards, 0 for none.
    """
    version = registry.finalize_candidate(decision) if model is None else registry.publish_copy(model, decision)
    if decision.publish and (live := registry.live()) is not None:
        weights = read_record(live)["weights_sha256"]
        study.revisions.log_change(f"model version {version} published", registry.folder.name, after=weights)
    return version


def publish_by_hand(study: Study, folder: Path, say: Callable[[str], None] = lambda _: None) -> tuple[str, int, str]:
    """Have a model answer in a study, whatever the gate would say.

    Returns:
        The name it answers under, its version, and what the gate would have said.

    Raises:
        ModelError, TaskMismatch: not a model of this study's task. StudyError: this model is being trained.
    """
    record, model = read_record(folder), load_model(folder, study.task)
    registry = ModelRegistry(study.models_dir / model.preset.served_as)
    with registry.training_lock():
        try:
            live, known = live_model(study, registry), trained_on(registry)
            material = gather(study)
            say(f"measuring the model on {len(material.valid)} validation cases")
            reason = compare_with_live(study, material, record, model, live, known).reason
        except LandmarkLabelError as error:
            reason = f"not measured: {error}"
        version = publish_if_accepted(study, registry, Decision(True, f"published by hand; {reason}"), folder)
    return registry.folder.name, version, reason


def _template(study: Study, cases: list[Case]) -> Template:
    labelled: list[tuple] = [(c.image.geometry, c.landmarks) for c in cases]
    return Template(study.task, labelled)


def _left_out(budget: Budget, train: list[Case], gate: GateConfig) -> tuple[list[Case], Budget]:
    """The cases that are left out of one training each, and the budget of such a training; none where it would teach nothing."""
    folds = train[: gate.max_left_out] if len(train) > 1 else []
    if not folds:
        return [], budget
    part = budget.part(gate.left_out_share / len(folds))
    too_short = part.minutes is not None and part.minutes < gate.min_minutes
    too_few = part.steps is not None and part.steps < gate.min_steps
    return ([], budget) if too_short or too_few else (folds, part)
