"""A training that a server runs in a process of its own; it ends when its server does, and keeps its statistics on disk."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landmarklabel.data.cases import Case
from landmarklabel.errors import Cancelled, Gone, LandmarkLabelError, ModelError, UsageError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_record import read_record
from landmarklabel.io.files import write_json
from landmarklabel.networks.precision import choose_device
from landmarklabel.networks.presets import Preset
from landmarklabel.portability import Parent
from landmarklabel.services.configuration import TrainingServiceConfig
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.pool_monitor import PoolMonitor
from landmarklabel.services.request_values import device_of
from landmarklabel.services.trainings import (
    Material,
    Trained,
    fit_and_decide,
    gather,
    live_model,
    publish_if_accepted,
    trained_on,
)
from landmarklabel.store.image_files import GONE
from landmarklabel.store.study import Study
from landmarklabel.training.fit import FitConfig, label_hash
from landmarklabel.training.loop import Budget, Progress, use_all_cores
from landmarklabel.training.publishing import ModelRegistry

log = logging.getLogger(__name__)

CONFIG = TrainingServiceConfig()
SERVER_PID = "LANDMARKLABEL_SERVER_PID"  # environment variable


class TrainingRun:
    """Trains a candidate on the study's labels and publishes it if it beats the live model."""

    def __init__(self, study: Study, preset: Preset, registry: ModelRegistry, device: str = "auto"):
        self.study, self.preset, self.registry, self.device = study, preset, registry, device

    @property
    def stats_file(self) -> Path:
        return self.registry.folder / "train_stats.json"

    def stats(self) -> dict:
        """The newest run's statistics; a run whose process is gone is reported as stopped."""
        stats = self._written()
        if stats.get("state") == "running" and not self.registry.is_training():
            stats = self._written()  # it may have ended between the two
            if stats.get("state") == "running":
                stats |= {"state": "stopped", "reason": "the training process ended before it was done; train again to go on"}
        return stats

    def _written(self) -> dict:
        try:
            written = json.loads(self.stats_file.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        except (OSError, ValueError, RecursionError):
            return {}
        return written if isinstance(written, dict) else {}

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
            report = _Report(self.stats_file)
            try:
                return self._train(request, report)
            except Cancelled as error:
                return report.end("stopped", str(error))
            except LandmarkLabelError as error:
                report.end("failed", str(error))
                raise
            except torch.OutOfMemoryError:
                return report.end("failed", "the memory of the GPU does not suffice; train with device cpu")

    def _train(self, request: dict, report: _Report) -> dict:
        begun, material = time.monotonic(), gather(self.study)
        device = self._device(device_of(request))
        live = live_model(self.study, self.registry, device)
        config = FitConfig(
            self.preset,
            _budget(request, len(material.train), self.preset.batch[self.study.task.dims]),
            seed=int(_number(request, "seed", 0) or 0),
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

    def _fit(self, config: FitConfig, material: Material, live: Localizer | None, report: _Report) -> Trained:
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
        hard = {i for i, x in off.items() if x > CONFIG.hard_factor * np.median(list(off.values()))}
        return frozenset(new | hard)


def server_is_gone() -> Callable[[], bool]:
    """True once the server that started this process has ended, even before this was called: no orphans."""
    return Parent(int(os.environ.get(SERVER_PID, "0"))).is_gone


def _budget(request: dict, cases: int, batch: int) -> Budget:
    """``minutes``, or ``max_epochs`` passes over the training cases, or both (whichever ends first)."""
    minutes, epochs = _number(request, "minutes", None), _number(request, "max_epochs", None)
    steps = math.ceil(epochs * max(1, cases / batch)) if epochs else None
    if minutes is None and not steps:
        minutes = CONFIG.default_minutes
    return Budget(minutes, max(2, steps) if steps else None)


def check_training_request(request: dict) -> None:
    """Raise UsageError for a number that no training can use, before one is started."""
    for key in ("minutes", "max_epochs", "seed"):
        _number(request, key, None)


def _number(request: dict, key: str, default: float | None) -> float | None:
    value = request.get(key, default)
    if value is None or value == "":
        return default
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and 0 <= number <= 1e6):
        raise UsageError(f"{key} {str(value)[:40]!r} must be a number from 0 to 1000000")
    if key == "seed" and number != int(number):
        raise UsageError(f"seed {str(value)[:40]!r} must be a whole number")
    return number


class _Report:
    """Keeps ``train_stats.json`` up to date, with MONAI Label's keys and ours."""

    def __init__(self, path: Path):
        self.path, self.started, self.written = path, time.time(), 0.0
        self.stats: dict = {"start_ts": int(self.started)}

    def start(self, budget: Budget, train: int, valid: int, left_out: Sequence[str] = ()) -> None:
        self.stats = {
            "state": "running",
            "start_ts": int(self.started),
            "rank": 0,
            "epoch": 0,
            "total_epochs": 100,
            "current_epoch": 0,
            "current_iteration": 0,
            "total_iterations": budget.steps or 0,
            "best_metric": 0.0,
            "train_cases": train,
            "valid_cases": valid,
            "left_out": list(left_out)[: CONFIG.max_reported],
            "train": {},
            "eval": {},
        }
        self._write()

    def progress(self, p: Progress) -> None:
        percent = int(100 * p.fraction)
        self.stats |= {
            "epoch": percent,
            "current_epoch": percent,
            "current_iteration": p.step,
            "stage": p.stage,
            "train": {"loss": round(p.loss, 4)},
            "total_time": f"{p.seconds:.0f} s",
        }
        if time.time() - self.written > 1.0:
            self._write()

    def finish(self, published: bool, reason: str, version: int, metrics: dict) -> dict:
        sdr = (metrics.get("sdr") or {}).get("2")
        self.stats |= {
            "epoch": 100,
            "current_epoch": 100,
            "best_metric": (sdr or 0.0) / 100,
            "eval": {k: metrics[k] for k in ("mre_mm", "median_mm", "sdr", "outliers", "unit") if k in metrics},
            "published": published,
            "version": version,
        }
        return self.end("done", reason)

    def end(self, state: str, reason: str) -> dict:
        self.stats |= {"state": state, "reason": reason, "total_time": f"{time.time() - self.started:.0f} s"}
        self._write()
        return self.stats

    def _write(self) -> None:
        if not self.path.parent.is_dir():
            raise Gone(GONE)
        write_json(self.path, self.stats)
        self.written = time.time()
