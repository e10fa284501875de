"""Inference as a MONAI Label task: image path in, .mrk.json and JSON out."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask

from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.model_record import read_record
from landmarklabel.io.files import MARKUPS_SUFFIX
from landmarklabel.io.markups import dump_markups
from landmarklabel.networks.presets import Preset
from landmarklabel.server.wire import given_points, suggestion_to_wire
from landmarklabel.services.assistant import Answer, Assistant
from landmarklabel.services.descriptions import image_plane, image_unit
from landmarklabel.services.models import what_answers
from landmarklabel.store.study import Study
from landmarklabel.training.publishing import ModelRegistry

_METRICS = ("mre_mm", "median_mm", "sdr", "n_images", "unit")


class LandmarkInfer(InferTask):
    """The assistant of one model, as MONAI Label calls it."""

    def __init__(self, study: Study, preset: Preset, registry: ModelRegistry):
        task = study.task
        super().__init__("landmarks", {n: i for i, n in enumerate(task.names)}, task.dims, f"{task.name}: {preset.about}")
        self.study, self.preset, self.registry = study, preset, registry
        self.assistant = Assistant(study, registry)

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        task, state = self.study.task, what_answers(self.study, self.registry)
        more = {
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
            more["metrics"] = {k: metrics[k] for k in _METRICS if k in metrics}
        return {**super().info(), **more}

    def get_path(self, validate: bool = True) -> str | None:
        live = self.registry.live()
        return str(live / "model.safetensors") if live else None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        started, path = time.monotonic(), Path(request["image"])
        plane = image_plane(path, self.study.task.dims)
        given = given_points(request, self.study.task, plane)
        answer = self.assistant.suggest(path, given, _device(request.get("device")))
        landmarks, origin = answer.suggestion.landmarks, answer.origin
        version = self.registry.record()["version"]
        place = self.study.cache_dir / "results"  # a client on this machine may save under the same name in its own place
        place.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place, suffix=MARKUPS_SUFFIX, delete=False, encoding="utf-8") as file:
            model = f"{self.preset.key} v{version}" if origin == "model" else origin
            file.write(dump_markups(landmarks, model, plane))
        return file.name, {
            **self.to_wire(answer, path),
            "label_names": {n: i for i, n in enumerate(landmarks.task.names)},
            "coordinateSystem": "LPS",
            "defined": int(np.sum(landmarks.defined)),
            "latencies": {"total": round(time.monotonic() - started, 4)},
        }

    def to_wire(self, answer: Answer, path: Path) -> dict[str, Any]:
        """What ``/infer`` and ``update`` have in common, of the image at ``path``."""
        model = self.assistant.model() if answer.origin == "model" else None
        calibration = model.calibration if model else Calibration()
        return {
            "landmarks": suggestion_to_wire(answer.suggestion, image_plane(path, self.study.task.dims)),
            "unit": image_unit(path),
            "next": answer.suggestion.next,
            "origin": answer.origin,
            "model_version": self.registry.record()["version"],
            "second_pass": answer.second_pass,
            "regions": {"level": calibration.level, "cases": calibration.cases, "case_factor": calibration.case_factor},
        }


def _device(asked: object) -> str:
    """What MONAI Label's clients send (``cuda`` by default, a list from Slicer's options) as something usable here."""
    asked = asked[0] if isinstance(asked, list) and asked else asked
    return "cpu" if asked == "cpu" else "auto"
