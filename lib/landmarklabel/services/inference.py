"""A model as a server offers it: what it is, what it answers, and what is kept of an answer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from landmarklabel.errors import LandmarkLabelError, UsageError
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.model_card import cautions
from landmarklabel.inference.model_record import WEIGHTS, ModelRecord, read_record
from landmarklabel.io.files import MARKUPS_SUFFIX
from landmarklabel.io.markups import dump_markups
from landmarklabel.networks.presets import Preset
from landmarklabel.services.assistant import Answer, Assistant, Given
from landmarklabel.services.datastore import FINAL, StudyDatastore
from landmarklabel.services.descriptions import image_plane
from landmarklabel.services.models import what_answers
from landmarklabel.services.training_stats import TrainingStats
from landmarklabel.store.study import Study
from landmarklabel.training.publishing import ModelRegistry

_METRICS = ("mre_mm", "median_mm", "sdr", "n_images", "unit")


@dataclass(frozen=True)
class Prediction:
    """An answer and the content of its markups file."""

    answer: Answer
    markups: str
    version: int
    seconds: float


class ServedModel:
    """One model of a study: its assistant, which runs on ``device`` (see ``choose_device``), and how far its trainings are."""

    def __init__(self, study: Study, preset: Preset, registry: ModelRegistry, device: str = "auto"):
        self.study, self.preset, self.registry = study, preset, registry
        self.assistant = Assistant(study, registry, device)
        self.training = TrainingStats(registry)

    @property
    def version(self) -> int:
        """Of the live model; 0 for none."""
        return int(self.registry.record()["version"])

    @property
    def description(self) -> str:
        """In words."""
        return f"{self.study.task.name}: {self.preset.about}"

    @property
    def weights_file(self) -> Path | None:
        """Of the live model."""
        live = self.registry.live()
        return live / WEIGHTS if live else None

    @property
    def answers(self) -> bool:
        """Whether a trained model answers; else the template does."""
        return what_answers(self.study, self.registry).answers

    @property
    def interval_factors(self) -> Mapping[str, float]:
        """Of the live model, as ``LandmarkSet.interval_factors``; none where the template answers. It is not loaded for this."""
        try:
            live = self.registry.live()
            return _interval_factors(live, self.study.task.hash) if live else {}
        except LandmarkLabelError:  # damaged
            return {}

    @property
    def cautions(self) -> tuple[str, ...]:
        """What whoever looks at the live model's answers should know of it first, as ``model_card.cautions``."""
        try:
            live = self.registry.live()
            return _cautions(live) if live else ()
        except LandmarkLabelError:  # damaged, since it answered
            return ()

    def info(self) -> dict[str, Any]:
        """What clients are told of it; the first five keys are MONAI Label's."""
        task, state = self.study.task, what_answers(self.study, self.registry)
        about: dict[str, Any] = {
            "type": "landmarks",
            "labels": {name: i for i, name in enumerate(task.names)},
            "dimension": task.dims,
            "description": self.description,
            "config": {},
            "task": task.name,
            "dims": task.dims,
            "preset": self.preset.key,
            "coordinateSystem": "LPS",
            "units": "mm",
            "mirror_pairs": [list(p) for p in task.mirror_pairs],
            "version": state.version,
            "trained": state.answers,
            "state": state.text,
        }
        live = self.registry.live() if state.answers else None
        if live is not None:
            metrics = read_record(live).get("metrics") or {}
            about["metrics"] = {k: metrics[k] for k in _METRICS if k in metrics}
        return about

    def predict(self, path: Path, given: Given) -> Prediction:
        """The landmarks of an image file, given a person's points; as ``Assistant.suggest``."""
        started, plane = time.monotonic(), image_plane(path, self.study.task.dims)
        answer = self.assistant.suggest(path, given)
        version = self.version
        made_by = f"{self.preset.key} v{version}" if answer.origin == "model" else answer.origin
        return Prediction(answer, dump_markups(answer.suggestion.landmarks, made_by, plane), version, time.monotonic() - started)

    def calibration(self, answer: Answer) -> Calibration:
        """That of the model behind an answer; the plain one without a model."""
        model = self.assistant.model() if answer.origin == "model" else None
        return model.calibration if model else Calibration()


@lru_cache(maxsize=8)  # a version's folder does not change
def _cautions(model: Path) -> tuple[str, ...]:
    return tuple(cautions(read_record(model)))


@lru_cache(maxsize=8)
def _interval_factors(model: Path, task_hash: str) -> Mapping[str, float]:
    record = ModelRecord.of(read_record(model), model)
    return record.calibration.interval_factors if record.task.hash == task_hash else {}


def prediction_tag(store: StudyDatastore, tag: str) -> str:
    """A tag that predictions may be kept under. Raises UsageError for ``final``, which only people's labels are."""
    if (tag := store.tag(tag)) == FINAL:
        raise UsageError("a prediction is not a final label; save it with another tag, or let a person submit it")
    return tag


def keep_label(store: StudyDatastore, image_id: str, tag: str, prediction: Prediction, model: str) -> str:
    """Keep a prediction in the study under a tag; see ``prediction_tag``."""
    tag = prediction_tag(store, tag)
    with tempfile.TemporaryDirectory(dir=_results(store.study)) as folder:
        file = Path(folder) / f"{image_id}{MARKUPS_SUFFIX}"
        file.write_text(prediction.markups, encoding="utf-8")
        return store.save_label(image_id, str(file), tag, {"model": f"{model} v{prediction.version}"})


def keep_prediction(model: ServedModel, store: StudyDatastore, image_id: str, tag: str) -> str:
    """Predict an image of the study and keep the result under a tag."""
    prediction = model.predict(Path(store.get_image_uri(image_id)), Given({}))
    return keep_label(store, image_id, tag, prediction, model.registry.folder.name)


def _results(study: Study) -> Path:
    place = study.cache_dir / "results"
    place.mkdir(exist_ok=True)
    return place


def markups_file(study: Study, prediction: Prediction) -> Path:
    """A prediction as a file, for whoever asked for it: it is theirs to remove."""
    with tempfile.NamedTemporaryFile("w", dir=_results(study), suffix=MARKUPS_SUFFIX, delete=False, encoding="utf-8") as file:
        file.write(prediction.markups)
    return Path(file.name)


def train_config(minutes: float) -> Mapping[str, Any]:
    """What a client may send to train, with the defaults."""
    return {
        "name": "train_01",
        "pretrained": True,
        "device": ["auto", "cpu", "cuda"],
        "max_epochs": 0,
        "minutes": minutes,
        "seed": 0,
    }
