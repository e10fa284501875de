"""A training that a server runs in a process of its own, or in several; it ends when its server does."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landmarklabel.data.cases import Case
from landmarklabel.errors import Cancelled, LandmarkLabelError, ModelError, StudyError
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
from landmarklabel.training.configuration import RENDEZVOUS
from landmarklabel.training.fit import FitConfig, can_go_on, label_hash
from landmarklabel.training.group import ALONE, ProcessLost, TrainingGroup, join
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import ModelRegistry

log = logging.getLogger(__name__)


def _device_name(own: str, request: dict) -> str:
    """The server's own device, unless the request wants another kind."""
    wanted = device_of(request)
    return own if wanted == "auto" or own.partition(":")[0] == wanted else wanted


class SeveralDevices:
    """The processes that do a training of a server together, of which this is one.

    Args:
        own: device of the server, which keeps a GPU to itself where there are others enough.
    """

    def __init__(self, own: str):
        self._own, self._begun = own, Path(os.environ[RENDEZVOUS]).with_name("begun")
        self._asked = False
        self.leads = os.environ["RANK"] == "0"
        if self.leads:
            signal.signal(signal.SIGTERM, self._ask)  # a training in one process is ended by it; several would not know why

    def _ask(self, *_: object) -> None:
        self._asked = True

    def asked_to_stop(self) -> bool:
        """Whether the leading process was."""
        return self._asked

    def join(self, request: dict) -> tuple[TrainingGroup, torch.device]:
        """Find the others once it is this training's turn, which the leading process says by calling this; and a device.

        Raises:
            As ``training.group.join``.
        """
        if self.leads:
            self._begun.touch()
        while not self._begun.exists():
            time.sleep(LIMITS.look_s)
        kind, _, number = self._own.partition(":")
        kept = None if kind in ("cpu", "mps") else int(number or 0)
        return join(_device_name(self._own, request).partition(":")[0], kept)


class TrainingRun:
    """Trains a candidate on the study's labels and publishes it if it beats the live model.

    Args:
        study, preset, registry: whose model of which kind, and where its versions are.
        device: the server's own.
        several: the processes that train it together; None for this one alone.
    """

    def __init__(
        self, study: Study, preset: Preset, registry: ModelRegistry, device: str = "auto", several: SeveralDevices | None = None
    ):
        self.study, self.preset, self.registry, self.device, self.several = study, preset, registry, device, several
        self.group: TrainingGroup = ALONE
        self._joined: torch.device | None = None

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
                self._join(request)
                return self._train(request, report)
            except Cancelled as error:
                return report.end("stopped", str(error))
            except ProcessLost:
                raise  # who started the processes says which one was lost
            except LandmarkLabelError as error:
                report.end("failed", str(error))
                raise
            except OSError as error:  # a full disk; the path may be a patient's name, and clients read this
                why = f"a file could not be written or read ({error.strerror}): mend that, and train again to go on"
                with suppress(OSError):
                    report.end("failed", why)
                raise StudyError(why) from None
            except torch.OutOfMemoryError:
                return report.end("failed", "the memory of the GPU does not suffice; train with device cpu")

    def along(self, request: dict[str, Any]) -> None:
        """What a process does that does not lead: train as the leading one says.

        Raises:
            Cancelled: the leading process stops. As ``services.trainings.train_along``.
        """
        self._join(request)
        told = hear_material(self.group)
        start = load_model(told["start_from"], self.study.task, self._joined) if told["start_from"] else None
        train_along(self.study, self._config(request, len(told["train"]), start, told["oversampled"]), told)

    def _join(self, request: dict) -> None:
        if self.several is None:
            use_all_cores()
        else:
            self.group, self._joined = self.several.join(request)

    def _device(self, request: dict) -> torch.device:
        return self._joined or choose_device(_device_name(self.device, request))

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
        begun, material = time.monotonic(), gather(self.study, processes=self.group.on_this_computer)
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
        gone, folder, known = server_is_gone(), self.registry.candidate, trained_on(self.registry)

        def stop() -> bool:
            return gone() or (self.several is not None and self.several.asked_to_stop())

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
