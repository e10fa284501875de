"""A training that a server runs in a process of its own, or in several; it ends when its server does."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from landmarklabel.data.cases import Case
from landmarklabel.errors import Cancelled, LandmarkLabelError, ModelError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_folder import load_model
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
    hear_material,
    live_model,
    publish_if_accepted,
    tell_material,
    train_along,
    trained_on,
)
from landmarklabel.store.study import Study
from landmarklabel.training.fit import FitConfig, can_go_on, label_hash
from landmarklabel.training.group import ALONE, ProcessLost, TrainingGroup, join
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import ModelRegistry

log = logging.getLogger(__name__)


def join_others(own: str, request: dict) -> tuple[TrainingGroup, torch.device]:
    """Find the other processes of a training, and this one's device; where there are GPUs to spare, the server keeps its own.

    Args:
        own: device of the server.
        request: as ``Jobs`` lists it.

    Raises:
        As ``training.group.join``.
    """
    kind, _, number = own.partition(":")
    return join(_device_name(own, request).partition(":")[0], None if kind in ("cpu", "mps") else int(number or 0))


def _device_name(own: str, request: dict) -> str:
    """The server's own device, unless the request wants another kind."""
    wanted = device_of(request)
    return own if wanted == "auto" or own.partition(":")[0] == wanted else wanted


class TrainingRun:
    """Trains a candidate on the study's labels and publishes it if it beats the live model.

    Args:
        study, preset, registry: whose model of which kind, and where its versions are.
        device: the server's own.
        group: the processes that train it together, of which this is one, each on a device of its own.
        joined: this process's device, where there are several.
    """

    def __init__(
        self,
        study: Study,
        preset: Preset,
        registry: ModelRegistry,
        device: str = "auto",
        group: TrainingGroup = ALONE,
        joined: torch.device | None = None,
    ):
        self.study, self.preset, self.registry, self.device = study, preset, registry, device
        self.group, self.joined = group, joined

    def run(self, request: dict[str, Any], begins: Callable[[bool], bool] | None = None) -> dict[str, Any]:
        """Train to the end; the statistics.

        Args:
            request: as ``Jobs`` lists it.
            begins: asked when this run's turn has come, and told whether it had to wait for another process that trains this
                model; where it says no, nothing is done. Without it nobody is waited for.

        Raises:
            ProcessLost: another of the group has ended.
            BeingTrained: another process trains this model, and was not waited for or the server has ended meanwhile.
            Gone: the study has moved. LandmarkLabelError: nothing can be trained.
        """
        self.study.check_there()
        if self.joined is None:
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
                self.group.share(None)  # the other processes have nothing to do
                return {"state": "done"}
            report = TrainingReport(TrainingStats(self.registry).file)
            try:
                return self._train(request, report)
            except Cancelled as error:
                return report.end("stopped", str(error))
            except ProcessLost:
                raise  # who started the processes says which one was lost
            except LandmarkLabelError as error:
                report.end("failed", str(error))
                raise
            except torch.OutOfMemoryError:
                return report.end("failed", "the memory of the GPU does not suffice; train with device cpu")

    def along(self, request: dict[str, Any]) -> None:
        """What a process does that does not lead: train as the leading one says.

        Raises:
            Cancelled: the leading process stops. As ``services.trainings.train_along``.
        """
        told = hear_material(self.group)
        if told is not None:
            start = load_model(told["start_from"], self.study.task, self.joined) if told["start_from"] else None
            config = self._config(request, len(told["train"]), start, told["oversampled"])
            train_along(self.study, config, told)

    def _device(self, request: dict) -> torch.device:
        return self.joined or choose_device(_device_name(self.device, request))

    def _config(self, request: dict, cases: int, start: Localizer | None, oversampled: Collection[str]) -> FitConfig:
        return FitConfig(
            self.preset,
            _budget(request, cases, self.preset.batch[self.study.task.dims]),
            seed=int(training_number(request, "seed", 0) or 0),
            device=self._device(request),
            start_from=start,
            oversampled_ids=frozenset(oversampled),
            group=self.group,
        )

    def _train(self, request: dict, report: TrainingReport) -> dict:
        begun, material = time.monotonic(), gather(self.study, processes=self.group.size)
        live = live_model(self.study, self.registry, self._device(request))
        start = live if request.get("pretrained", True) and live and live.preset == self.preset else None
        oversampled = self._new_or_hard(material.train) if live is not None else frozenset()
        config = self._config(request, len(material.train), start, oversampled)
        config.unlabelled = material.unlabelled
        tell_material(self.group, material, self.registry.live() if start is not None else None, oversampled)
        if config.budget.minutes is not None:
            config.ends_at = begun + 60 * config.budget.minutes
        report.start(config.budget, len(material.train), len(material.valid), [*material.left_out, *material.remarks])
        done = self._fit(config, material, live, report)
        self.study.check_there()
        version = publish_if_accepted(self.study, self.registry, done.decision)
        return report.finish(done.decision.publish, done.decision.reason, version, done.metrics)

    def _fit(self, config: FitConfig, material: Material, live: Localizer | None, report: TrainingReport) -> Trained:
        """Go on where a stopped run of the same labels left off; start over otherwise."""
        stop, folder, known = server_is_gone(), self.registry.candidate, trained_on(self.registry)
        if can_go_on(folder, self.study.task, material.train, config):
            again = replace(config, resume=True, ends_at=None)
            try:
                return fit_and_decide(self.study, material, again, folder, live, report.progress, stop, known=known)
            except ModelError:  # a damaged state
                if config.group.size > 1:  # the others are on their way: the next training starts over
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
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
