"""Training as a MONAI Label task, which MONAI Label runs in a process of its own."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.tasks.train import TrainTask

from landmarklabel.networks.presets import Preset
from landmarklabel.services.training_run import CONFIG, TrainingRun
from landmarklabel.store.study import Study
from landmarklabel.training.publishing import ModelRegistry


class LandmarkTrain(TrainTask):
    """The training of one model, as MONAI Label calls it."""

    def __init__(self, study: Study, preset: Preset, registry: ModelRegistry):
        super().__init__(f"{study.task.name}: {preset.about}")
        self.training = TrainingRun(study, preset, registry)

    def config(self) -> dict[str, Any]:
        return {
            "name": "train_01",
            "pretrained": True,
            "device": ["auto", "cpu", "cuda"],
            "max_epochs": 0,
            "minutes": CONFIG.default_minutes,
            "seed": 0,
        }

    def stats(self) -> dict[str, Any]:
        return self.training.stats()

    def __call__(self, request: dict[str, Any] | None, datastore: object) -> dict[str, Any]:
        return self.training.run(request or {})
