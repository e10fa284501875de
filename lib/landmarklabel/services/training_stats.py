"""``train_stats.json``: how far a training is, written by the process that trains and read by the server."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from landmarklabel.errors import Gone
from landmarklabel.io.files import write_json
from landmarklabel.services.configuration import TRAINING
from landmarklabel.store.image_files import GONE
from landmarklabel.training.publishing import BeingTrained, ModelRegistry

if TYPE_CHECKING:
    from landmarklabel.training.loop import Budget, Progress


class TrainingStats:
    """The statistics of a model's trainings."""

    def __init__(self, registry: ModelRegistry):
        self.registry = registry

    @property
    def file(self) -> Path:
        """Where they are kept."""
        return self.registry.folder / "train_stats.json"

    def stats(self) -> dict:
        """The newest run's statistics; a run whose process is gone is reported as stopped."""
        stats = self._written()
        if stats.get("state") == "running" and not self.registry.is_training():
            stats = self._written()  # it may have ended between the two
            if stats.get("state") == "running":
                stats |= {"state": "stopped", "reason": "the training process ended before it was done; train again to go on"}
        return stats

    def end_failed(self, reason: str, begun: float | None = None) -> None:
        """The run has failed for a reason that its leading process could not know.

        Nothing where another one has begun, or where the run that began no earlier than ``begun`` (seconds since 1970) has ended.
        """
        if not self.registry.folder.parent.is_dir():  # the study has moved, and the lock would make its folder anew
            return
        with suppress(BeingTrained), self.registry.training_lock():
            running = self._written()
            known = running if running.get("state") == "running" else {"start_ts": int(time.time())}
            if known is not running and begun is not None and running.get("start_ts", 0) >= int(begun):
                return
            write_json(self.file, known | {"state": "failed", "reason": reason})

    def _written(self) -> dict:
        try:
            written = json.loads(self.file.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        except (OSError, ValueError, RecursionError):
            return {}
        return written if isinstance(written, dict) else {}


class TrainingReport:
    """Keeps ``train_stats.json`` up to date, with MONAI Label's keys and ours. Raises Gone where the study has moved."""

    def __init__(self, path: Path):
        self.path, self.started, self.written = path, time.time(), 0.0
        self.stats: dict = {"start_ts": int(self.started)}

    def start(self, budget: Budget, train: int, valid: int, left_out: Sequence[str] = ()) -> None:
        """The first step comes: of so many training and validation cases, without those that the texts name."""
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
            "left_out": list(left_out)[: TRAINING.max_reported],
            "train": {},
            "eval": {},
        }
        self._write()

    def progress(self, p: Progress) -> None:
        """A step was made; written once a second."""
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
        """Trained to the end: what the gate said, the live version now, and the metrics; the statistics."""
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
        """The run is over, as ``state`` says; the statistics."""
        self.stats |= {"state": state, "reason": reason, "total_time": f"{time.time() - self.started:.0f} s"}
        self._write()
        return self.stats

    def _write(self) -> None:
        if not self.path.parent.is_dir():
            raise Gone(GONE)
        write_json(self.path, self.stats)
        self.written = time.time()
