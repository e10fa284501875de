"""Cross-validation of a recipe on a study: every labelled case is predicted by a model that has not seen it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from landmarklabel.data.cases import Case
from landmarklabel.errors import Cancelled, ImageRejected, StudyError, UsageError, listed
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_card import hardly_trained
from landmarklabel.inference.model_folder import load_model
from landmarklabel.inference.model_record import RECORD, read_record
from landmarklabel.io.files import check_empty, write_json
from landmarklabel.io.images import slice_plane
from landmarklabel.io.locks import NOT_LOCKED
from landmarklabel.io.pixels import pixel_hash
from landmarklabel.io.prediction_folder import Found, PredictionFolder
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.training.fit import FitConfig, can_go_on, fit, label_hash
from landmarklabel.training.loop import Progress

RECIPE = "crossval.json"


@dataclass
class Fold:
    """A part of the cases: ``held`` is predicted by a model that is trained on ``train``."""

    number: int
    train: list[Case]
    held: list[Case]


def deal(cases: Sequence[Case], folds: int) -> list[Fold]:
    """Parts of as many images, by a hash of the ids: the same for the same cases, in whichever order they come.

    One image under several ids is in one part: else a model would be measured on an image that it was trained on.

    Raises:
        UsageError: fewer than two folds. StudyError: fewer images than folds.
    """
    if folds < 2:
        raise UsageError(f"--folds {folds} must be at least 2")
    shuffled = sorted(cases, key=lambda c: hashlib.sha256(c.image_id.encode()).digest())
    hashes = {case.image_id: pixel_hash(case.image) for case in shuffled}
    images = {image: number % folds for number, image in enumerate(dict.fromkeys(hashes.values()))}
    if len(images) < folds:
        raise StudyError(f"{len(images)} labelled images cannot be divided into {folds} folds")
    part = {image_id: images[image] for image_id, image in hashes.items()}
    return [
        Fold(n + 1, [c for c in shuffled if part[c.image_id] != n], [c for c in shuffled if part[c.image_id] == n])
        for n in range(folds)
    ]


class CrossValidation:
    """The folds of one recipe, and the folder where their models and predictions are kept.

    Nothing of a fold's own cases reaches its model: they are no validation cases either, so its confidence is not calibrated.

    Args:
        task: of all cases.
        config: what to train and how long, for each fold; models go on from where a stopped call left them.
        folds: of ``deal``.
        paths: image id to file.
        folder: ``fold1`` and so on have the models, ``predictions`` what they found, ``crossval.json`` the recipe.

    Raises:
        UsageError: the folder has something else in it, such as the folds of another recipe.
    """

    def __init__(self, task: LandmarkTask, config: FitConfig, folds: list[Fold], paths: dict[str, Path], folder: Path):
        self.task, self.config, self.folds, self.paths, self.folder = task, config, folds, paths, folder
        self.changed_by_hand: list[str] = []  # ids of cases whose predictions a person has changed since, found by ``run``
        self.remarks: list[str] = []  # what a person should know of ``run``, one text each
        labels = {case.image_id: label_hash(case.labels) for fold in folds for case in fold.held}
        self._recipe = {
            "task": task.hash,
            "model": config.preset.key,
            "minutes": config.budget.minutes,
            "steps": config.budget.steps,
            "seed": config.seed,
            "folds": len(folds),
            "labels": hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest(),
        }
        self._check_folder()

    def _check_folder(self) -> None:
        record = self.folder / RECIPE
        if not record.is_file():
            check_empty(self.folder, "--out")
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(record, self._recipe)
            return
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            known = None
        if not isinstance(known, dict):
            raise UsageError(f"{record} is damaged: give another --out")
        if other := [key for key, value in self._recipe.items() if known.get(key) != value]:
            raise UsageError(f"{self.folder} has a cross-validation with other {listed(other)}: give another --out")

    @property
    def predictions(self) -> Path:
        """The folder with the predictions of all folds."""
        return self.folder / "predictions"

    def run(self, fold: Fold, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> None:
        """Train the fold's model unless it is there, and predict the fold's own cases.

        Raises as ``fit``, and UsageError where a model is there that was not trained on this fold.
        """
        recipe = hashlib.sha256(json.dumps(self._recipe, sort_keys=True).encode()).hexdigest()
        with PredictionFolder(self.predictions, recipe) as kept:
            if not kept.is_locked and (text := f"{self.predictions}: {NOT_LOCKED}") not in self.remarks:
                self.remarks.append(text)
            found = [(case, kept.find(case.image_id, pixel_hash(case.image))) for case in fold.held]
            changed = (Found.CHANGED, Found.CHANGED_OTHER)
            self.changed_by_hand += [case.image_id for case, what in found if what in changed]  # they stay as they are
            left = [case for case, what in found if what in (Found.NOTHING, Found.OTHER)]
            if not left:
                return
            model, place = self._trained(fold, on_progress, should_stop)
            record = read_record(place)
            few, seen = bool(hardly_trained(record)), set(record.get("train_pixels") or ())
            for case in left:
                if should_stop():
                    raise Cancelled("stopped while predicting")
                plane = slice_plane(self.paths[case.image_id], self.task.dims)
                try:
                    landmarks = model.predict(model.case(case.image_id, case.image))
                except ImageRejected as error:
                    self.remarks.append(f"{case.image_id} was not predicted: {error}")
                    continue
                kept.write(case.image_id, pixel_hash(case.image), landmarks, model.preset.key, plane)
                kept.tell(case.image_id, case.image.unit, trained_on=pixel_hash(case.image) in seen, hardly_trained=few)

    def _trained(
        self, fold: Fold, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> tuple[Localizer, Path]:
        place = self.folder / f"fold{fold.number}"
        if (place / RECORD).is_file():
            labels = {case.image_id: label_hash(case.labels) for case in fold.train}
            record = read_record(place)
            known, pixels = record.get("train_labels") or {}, {pixel_hash(case.image) for case in fold.train}
            if not known or not known.items() <= labels.items() or not pixels.issuperset(record.get("train_pixels") or ()):
                text = f"the model in {place} was not trained on the cases of this fold as they are now"
                raise UsageError(f"{text}: move it away, and the same command trains one")
            return load_model(place, self.task, self.config.device), place
        config = replace(self.config, resume=can_go_on(place, self.task, fold.train, self.config))
        return fit(self.task, fold.train, [], config, place, on_progress, should_stop)[0], place
