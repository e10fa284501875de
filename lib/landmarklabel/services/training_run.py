"""A training that a server runs in a process of its own; it ends when its server does."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from landmarklabel.data.cases import Case
from landmarklabel.errors import Cancelled, LandmarkLabelError, ModelError, UsageError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_record import read_record
from landmarklabel.networks.devices import choose_device, use_all_cores
from landmarklabel.networks.presets import Preset
from landmarklabel.services.configuration import TRAINING
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.pool_monitor import PoolMonitor
from landmarklabel.services.request_values import device_of, training_number
from landmarklabel.services.server_process import server_is_gone
from landmarklabel.services.training_stats import TrainingReport, TrainingStats
from landmarklabel.services.trainings import (
    Material,
    Trained,
    fit_and_decide,
    gather,
    live_model,
    publish_if_accepted,
    trained_on,
)
from landmarklabel.store.study import Study
from landmarklabel.training.fit import FitConfig, label_hash
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import ModelRegistry

log = logging.getLogger(__name__)


class TrainingRun:
    """Trains a candidate on the study's labels and publishes it if it beats the live model."""

    def __init__(self, study: Study, preset: Preset, registry: ModelRegistry, device: str = "auto"):
        self.study, self.preset, self.registry, self.device = study, preset, registry, device

    def run(self, request: dict[str, Any], begins: Callable[[bool], bool] | None = None) -> dict[str, Any]:
        """Train to the end; the statistics.

        Args:
            request: as ``Jobs`` lists it.
            begins: asked when this run's turn has come, and told whether it had to wait for another process that trains this
                model; where it says no, nothing is done. Without it nobody is waited for.

        Raises:
            BeingTrained: another process trains this model, and was not waited for or the server has ended meanwhile.
            Gone: the study has moved. LandmarkLabelError: nothing can be trained.
        """
        self.study.check_there()
        use_all_cores()
        waited, gone = list[bool](), server_is_gone()

        def gives_up() -> bool:
            if begins is not None and not waited:
                log.info("waits for another process that trains this model")
                waited.append(True)
            time.sleep(LIMITS.look_s if begins is not None else 0)
            self.study.check_there()  # the lock would make its folder anew
            return begins is None or gone()

        with self.registry.training_lock(gives_up=gives_up):  # without it the statistics are another run's
            if begins is not None and not begins(bool(waited)):
                return {"state": "done"}
            report = TrainingReport(TrainingStats(self.registry).file)
            try:
                return self._train(request, report)
            except Cancelled as error:
                return report.end("stopped", str(error))
            except LandmarkLabelError as error:
                report.end("failed", str(error))
                raise
            except torch.OutOfMemoryError:
                return report.end("failed", "the memory of the GPU does not suffice; train with device cpu")

    def _train(self, request: dict, report: TrainingReport) -> dict:
        begun, material = time.monotonic(), gather(self.study)
        device = self._device(device_of(request))
        live = live_model(self.study, self.registry, device)
        config = FitConfig(
            self.preset,
            _budget(request, len(material.train), self.preset.batch[self.study.task.dims]),
            seed=int(training_number(request, "seed", 0) or 0),
            device=device,
            start_from=live if request.get("pretrained", True) and live and live.preset == self.preset else None,
            unlabelled=material.unlabelled,
            oversampled_ids=self._new_or_hard(material.train) if live is not None else frozenset(),
        )
        if config.budget.minutes is not None:
            config.ends_at = begun + 60 * config.budget.minutes
        report.start(config.budget, len(material.train), len(material.valid), [*material.left_out, *material.remarks])
        done = self._fit(config, material, live, report)
        self.study.check_there()
        version = publish_if_accepted(self.study, self.registry, done.decision)
        return report.finish(done.decision.publish, done.decision.reason, version, done.metrics)

    def _device(self, wanted: str) -> torch.device:
        """The server's own, unless a request wants another kind."""
        own = wanted == "auto" or self.device.partition(":")[0] == wanted
        return choose_device(self.device if own else wanted)

    def _fit(self, config: FitConfig, material: Material, live: Localizer | None, report: TrainingReport) -> Trained:
        """Go on where a stopped run of the same labels left off; start over otherwise."""
        stop, folder, known = server_is_gone(), self.registry.candidate, trained_on(self.registry)
        if (folder / "state").is_dir():
            with contextlib.suppress(UsageError, ModelError):
                again = replace(config, resume=True, ends_at=None)
                return fit_and_decide(self.study, material, again, folder, live, report.progress, stop, known=known)
        shutil.rmtree(folder, ignore_errors=True)
        return fit_and_decide(self.study, material, config, folder, live, report.progress, stop, known=known)

    def _new_or_hard(self, train: list[Case]) -> frozenset[str]:
        """Cases whose labels the live model has not learned, and those it was furthest off in before a person looked."""
        live = self.registry.live()
        known = {} if live is None else read_record(live).get("train_labels") or {}
        new = {c.image_id for c in train if known.get(c.image_id) != label_hash(c.labels)}
        observed = PoolMonitor(self.study).observed()
        off = {i: float(np.nanmean(x)) for i, (_, x) in observed.items() if np.isfinite(x).any()}
        hard = {i for i, x in off.items() if x > TRAINING.hard_factor * np.median(list(off.values()))}
        return frozenset(new | hard)


def _budget(request: dict, cases: int, batch: int) -> Budget:
    """``minutes``, or ``max_epochs`` passes over the training cases, or both (whichever ends first)."""
    minutes, epochs = training_number(request, "minutes", None), training_number(request, "max_epochs", None)
    steps = math.ceil(epochs * max(1, cases / batch)) if epochs else None
    if minutes is None and not steps:
        minutes = TRAINING.default_minutes
    return Budget(minutes, max(2, steps) if steps else None)
