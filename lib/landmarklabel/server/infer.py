"""Inference as a MONAI Label task: image path in, .mrk.json and JSON out."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask

from landmarklabel.data.cases import Case
from landmarklabel.errors import FaultsError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model import load_model, read_record
from landmarklabel.inference.template import template_landmarks
from landmarklabel.io.files import MARKUPS_SUFFIX
from landmarklabel.io.images import read_geometry, read_image
from landmarklabel.io.markups import dump_markups
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.networks.precision import choose_device
from landmarklabel.networks.registry import Preset
from landmarklabel.server.wire import to_wire, with_fixed
from landmarklabel.store.study import Study
from landmarklabel.training.publishing import ModelShelf

OPEN_BYTES = 512 * 2**20  # of stored pixels of images kept open


class LandmarkInfer(InferTask):
    """Answers with the live model, else with a template from the labelled cases, else with all landmarks unset."""

    def __init__(self, study: Study, preset: Preset, shelf: ModelShelf):
        task = study.task
        super().__init__("landmarks", {n: i for i, n in enumerate(task.names)}, task.dims, f"{task.name}: {preset.about}")
        self.study, self.preset, self.shelf = study, preset, shelf
        self._lock = threading.Lock()
        self._loaded: tuple[Path, Localizer] | None = None
        self._open: dict[tuple, Case] = {}  # oldest first

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict:
        task, live = self.study.task, self.shelf.live()
        more = {
            "task": task.name,
            "dims": task.dims,
            "preset": self.preset.key,
            "coordinateSystem": "LPS",
            "units": "mm",
            "mirror_pairs": [list(p) for p in task.mirror_pairs],
            "version": self.shelf.record()["version"],
            "trained": live is not None,
        }
        if live is not None:
            metrics = read_record(live).get("metrics") or {}
            more["metrics"] = {k: metrics[k] for k in ("mre_mm", "median_mm", "sdr", "n_images") if k in metrics}
        return {**super().info(), **more}

    def get_path(self, validate=True):
        live = self.shelf.live()
        return str(live / "model.safetensors") if live else None

    def model(self, device: str = "auto") -> Localizer | None:
        """The live model, loaded once a version."""
        live = self.shelf.live()
        if live is None:
            return None
        with self._lock:
            if self._loaded is None or self._loaded[0] != live:
                self._loaded = (live, load_model(live, self.study.task, choose_device(device)))
            return self._loaded[1]

    def landmarks(self, path: Path, device: str = "auto") -> tuple[LandmarkSet, str]:
        """Landmarks of an image file or DICOM folder, and where they come from: model, template or none."""
        task, model = self.study.task, self.model(device)
        if model is None:
            geometry = read_geometry(path, task.dims)
            labelled = self._labelled_geometries()
            return template_landmarks(task, geometry, labelled), "template" if labelled else "none"
        with self._lock:  # one network pass at a time bounds memory; waiting requests wait outside the event loop
            return model.predict(self._opened(path, model)), "model"

    def _opened(self, path: Path, model: Localizer) -> Case:
        """The image as the model wants it, with its pyramid; the last few stay open, so a second look costs only networks."""
        state = path.stat()
        key = (str(path), state.st_mtime_ns, state.st_size, model.preset.key)
        case = self._open.pop(key, None) or model.case(path.name, read_image(path, model.task.dims))
        self._open[key] = case
        while len(self._open) > 1 and sum(c.image.pixels.nbytes for c in self._open.values()) > OPEN_BYTES:
            self._open.pop(next(iter(self._open)))
        return case

    def _labelled_geometries(self) -> list:
        out = []
        for image_id, landmarks in list(self.study.labelled().items())[:200]:
            try:
                out.append((read_geometry(self.study.image_path(image_id), self.study.task.dims), landmarks))
            except FaultsError:
                continue  # an image that was damaged later must not stop inference on another
        return out

    def __call__(self, request: dict) -> tuple[str, dict]:
        started = time.monotonic()
        landmarks, origin = self.landmarks(Path(request["image"]), _device(request.get("device")))
        landmarks = with_fixed(landmarks, request)
        version = self.shelf.record()["version"]
        place = self.study.cache_dir / "results"  # a client on this machine may save under the same name in its own place
        place.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place, suffix=MARKUPS_SUFFIX, delete=False, encoding="utf-8") as file:
            file.write(dump_markups(landmarks, f"{self.preset.key} v{version}" if origin == "model" else origin))
        return file.name, {
            "landmarks": to_wire(landmarks),
            "label_names": {n: i for i, n in enumerate(landmarks.task.names)},
            "coordinateSystem": "LPS",
            "origin": origin,
            "model_version": version,
            "defined": int(np.sum(landmarks.defined)),
            "latencies": {"total": round(time.monotonic() - started, 4)},
        }


def _device(asked: object) -> str:
    """What MONAI Label's clients send (``cuda`` by default, a list from Slicer's options) as something usable here."""
    asked = asked[0] if isinstance(asked, list) and asked else asked
    return "cpu" if asked == "cpu" else "auto"
