"""Inference as a MONAI Label task: image path in, .mrk.json and JSON out."""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask

from landmarklabel.data.cases import Case
from landmarklabel.errors import FaultsError, ModelError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.calibration import LEVEL, Calibration
from landmarklabel.inference.evidence import Evidence
from landmarklabel.inference.interactive import Explained
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model import load_model, read_record
from landmarklabel.inference.prior import ShapePrior, learn_prior
from landmarklabel.inference.suggest import Suggestion, suggest
from landmarklabel.inference.template import template_landmarks
from landmarklabel.io.files import MARKUPS_SUFFIX
from landmarklabel.io.images import read_geometry, read_image
from landmarklabel.io.markups import dump_markups
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.networks.precision import choose_device
from landmarklabel.networks.registry import Preset
from landmarklabel.server.console import tell
from landmarklabel.server.wire import given_points, suggestion_to_wire
from landmarklabel.services.descriptions import image_plane, image_unit
from landmarklabel.services.models import what_answers
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study
from landmarklabel.training.publishing import ModelShelf

OPEN_BYTES = 512 * 2**20  # of stored pixels of images kept open
REMEMBERED = 16  # images whose evidence is kept: a few MB each in 3D
MANY_SHAPES, KEPT_S = 20, 10.0  # of so many one more changes little: looked for anew after so many seconds
MOST_SHAPES = 200  # labelled cases a shape is learned from while there is no model


@dataclass
class _Seen:
    """What is known of an image between two requests; ``model``, which saw it, is kept so that its id stays its own."""

    model: Localizer
    geometry: ImageGeometry
    evidence: Evidence
    explained: Explained | None = None
    looked_for: str = ""  # the person's points for which there was a further look


@dataclass(frozen=True)
class Answer:
    """``origin``: model, template or none; ``second_pass``: looking again would tell more."""

    suggestion: Suggestion
    origin: str
    second_pass: bool = False


class LandmarkInfer(InferTask):
    """Answers with the live model, else with a template from the labelled cases, else with all landmarks unset."""

    def __init__(self, study: Study, preset: Preset, shelf: ModelShelf):
        task = study.task
        super().__init__("landmarks", {n: i for i, n in enumerate(task.names)}, task.dims, f"{task.name}: {preset.about}")
        self.study, self.preset, self.shelf = study, preset, shelf
        self._lock = threading.Lock()
        self._loaded: tuple[Path, Localizer] | None = None
        self._open: dict[tuple, Case] = {}  # oldest first
        self._seen: dict[tuple, _Seen] = {}  # likewise
        self._labels: tuple[tuple, list, float] | None = None  # what it was made of, the cases, when
        self._prior: tuple[list, ShapePrior | None] | None = None

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict:
        task, state = self.study.task, what_answers(self.study, self.shelf)
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
        if state.answers:
            metrics = read_record(self.shelf.live()).get("metrics") or {}
            more["metrics"] = {k: metrics[k] for k in ("mre_mm", "median_mm", "sdr", "n_images", "unit") if k in metrics}
        return {**super().info(), **more}

    def get_path(self, validate=True):
        live = self.shelf.live()
        return str(live / "model.safetensors") if live else None

    def alone(self) -> threading.Lock:
        """Held by whoever runs the networks: one pass at a time bounds memory, and two at once would disturb each other."""
        return self._lock

    def model(self, device: str = "auto") -> Localizer | None:
        """The live model, loaded once a version; None where none can answer."""
        live = self.shelf.live()
        if live is None:
            return None
        loaded = self._loaded  # without the lock, which a network pass holds: an update must not wait for another's
        if loaded is None or loaded[0] != live:
            with self._lock:
                if self._loaded is None or self._loaded[0] != live:
                    self._loaded = live, self._load(live, device)
                loaded = self._loaded
        return loaded[1]

    def _load(self, live: Path, device: str) -> Localizer | None:
        """None for a damaged model or one of other landmarks: it must not stop the template, and ``info`` says why."""
        try:
            return load_model(live, self.study.task, choose_device(device))
        except ModelError as error:
            tell(f"model {self.shelf.folder.name}: its live version cannot answer, the template does ({type(error).__name__})")
            return None

    def suggest(self, path: Path, given: dict, device: str = "auto", further: bool = True) -> Answer:
        """Landmarks of an image file or DICOM folder, given a person's points.

        Args:
            path: of the image.
            given: ``fixed`` and ``absent``, as ``inference.suggest`` takes them.
            device: where the networks run, if they have to.
            further: let a second network pass follow at once where the points ask for one.
        """
        model = self.model(device)
        if model is None:
            return self._without_model(path, given)
        key = self._key(path, model)
        seen = self._seen.get(key)  # without the lock, likewise
        if seen is None:
            with self._lock:  # one network pass at a time bounds memory; waiting requests wait outside the event loop
                seen = self._seen.get(key) or self._keep(key, path, model)
        suggestion = model.suggest(seen.evidence, seen.geometry, **given, before=seen.explained)
        seen.explained = suggestion.explained
        if further and self._looked_further(path, model, seen, suggestion, given):
            suggestion = model.suggest(seen.evidence, seen.geometry, **given, before=seen.explained)
        wanted = seen.looked_for != str(given) and model.wants_another_look(seen.evidence, seen.geometry, suggestion.explained)
        return Answer(suggestion, "model", wanted)

    def look_further(self, path: Path, given: dict) -> None:
        """The second pass that an answer announced; the next answer has what it finds."""
        model = self.model()
        seen = self._seen.get(self._key(path, model)) if model else None
        if seen is not None:
            suggestion = model.suggest(seen.evidence, seen.geometry, **given, before=seen.explained)
            self._looked_further(path, model, seen, suggestion, given)

    def _looked_further(self, path: Path, model: Localizer, seen: _Seen, suggestion: Suggestion, given: dict) -> bool:
        if seen.looked_for == str(given) or not model.wants_another_look(seen.evidence, seen.geometry, suggestion.explained):
            return False
        with self._lock:
            found = model.look_further(self._opened(path, model), seen.evidence, suggestion.explained)
        seen.looked_for = str(given)
        again = model.suggest(found, seen.geometry, **given, before=suggestion.explained)
        better = again.explained.cost <= suggestion.explained.cost
        if better:
            seen.evidence, seen.explained = found, again.explained
        return better

    def _without_model(self, path: Path, given: dict) -> Answer:
        task, geometry, labelled = self.study.task, read_geometry(path, self.study.task.dims), self._labelled_geometries()
        if not labelled:
            return Answer(suggest(task, geometry, None, None, Calibration(), **given), "none")
        if self._prior is None or self._prior[0] is not labelled:
            self._prior = labelled, learn_prior(labelled)
        prior = self._prior[1]
        if prior is not None:
            return Answer(suggest(task, geometry, prior, None, Calibration(), **given), "template")
        landmarks = template_landmarks(task, geometry, labelled)
        for name, position in given["fixed"].items():
            landmarks = landmarks.with_landmark(name, position, Status.PLACED)
        for name in given["absent"]:
            landmarks = landmarks.with_landmark(name, None, Status.ABSENT)
        nowhere = np.full((len(task), task.dims), np.nan)
        return Answer(Suggestion(landmarks, np.zeros(len(task), bool), nowhere, None, None), "template")

    def _key(self, path: Path, model: Localizer) -> tuple:
        return *_file_state(path), id(model)

    def _keep(self, key: tuple, path: Path, model: Localizer) -> _Seen:
        """Look at an image, and remember what was seen."""
        case = self._opened(path, model)
        self._seen[key] = seen = _Seen(model, case.image.geometry, model.look(case))
        while len(self._seen) > REMEMBERED:
            self._seen.pop(next(iter(self._seen)))
        return seen

    def _opened(self, path: Path, model: Localizer) -> Case:
        """The image as the model wants it, with its pyramid; the last few stay open, so a second look costs only networks."""
        key = _file_state(path)
        case = self._open.pop(key, None)
        if case is None:
            before, image = stamp(path), read_image(path, model.task.dims)
            self.study.note_file(path, image, before)
            case = model.case(path.name, image)
        self._open[key] = case
        while len(self._open) > 1 and sum(c.image.pixels.nbytes for c in self._open.values()) > OPEN_BYTES:
            self._open.pop(next(iter(self._open)))
        return case

    def _labelled_geometries(self) -> list[tuple[ImageGeometry, LandmarkSet]]:
        """Of the labelled cases; the same list until a label changes, and with many of them for some seconds longer."""
        known, now = self._labels, time.monotonic()
        if known is not None and len(known[1]) >= MANY_SHAPES and now - known[2] < KEPT_S:
            return known[1]
        row = self.study.revisions.latest_row()  # before the labels: what is saved in between is seen the next time
        labels = self.study.labelled()
        state = row, tuple(labels)
        if self._labels is None or self._labels[0] != state:
            out = []
            for image_id, landmarks in list(labels.items())[:MOST_SHAPES]:
                try:
                    out.append((read_geometry(self.study.image_path(image_id), self.study.task.dims), landmarks))
                except FaultsError:
                    continue  # an image that was damaged later must not stop inference on another
            self._labels = state, out, now
        return self._labels[1]

    def __call__(self, request: dict) -> tuple[str, dict]:
        started = time.monotonic()
        plane = image_plane(request["image"], self.study.task.dims)
        given = given_points(request, self.study.task, plane)
        answer = self.suggest(Path(request["image"]), given, _device(request.get("device")))
        landmarks, origin = answer.suggestion.landmarks, answer.origin
        version = self.shelf.record()["version"]
        place = self.study.cache_dir / "results"  # a client on this machine may save under the same name in its own place
        place.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place, suffix=MARKUPS_SUFFIX, delete=False, encoding="utf-8") as file:
            model = f"{self.preset.key} v{version}" if origin == "model" else origin
            file.write(dump_markups(landmarks, model, plane))
        return file.name, {
            **self.to_wire(answer, Path(request["image"])),
            "label_names": {n: i for i, n in enumerate(landmarks.task.names)},
            "coordinateSystem": "LPS",
            "defined": int(np.sum(landmarks.defined)),
            "latencies": {"total": round(time.monotonic() - started, 4)},
        }

    def to_wire(self, answer: Answer, path: Path) -> dict:
        """What ``/infer`` and ``update`` have in common, of the image at ``path``."""
        model = self.model() if answer.origin == "model" else None
        calibration = model.calibration if model else Calibration()
        return {
            "landmarks": suggestion_to_wire(answer.suggestion, image_plane(path, self.study.task.dims)),
            "unit": image_unit(path),
            "next": answer.suggestion.next,
            "origin": answer.origin,
            "model_version": self.shelf.record()["version"],
            "second_pass": answer.second_pass,
            "regions": {"level": LEVEL, "cases": calibration.cases, "case_factor": calibration.case_factor},
        }


def _file_state(path: Path) -> tuple:
    """Tells a file that has changed from what it was."""
    return str(path), stamp(path)


def _device(asked: object) -> str:
    """What MONAI Label's clients send (``cuda`` by default, a list from Slicer's options) as something usable here."""
    asked = asked[0] if isinstance(asked, list) and asked else asked
    return "cpu" if asked == "cpu" else "auto"
