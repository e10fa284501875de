"""The assistant of one study: its live model, what it has found in the images of late, and the answers to people's points."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landmarklabel.data.cases import Case
from landmarklabel.errors import FaultsError, ImageRejected, ModelError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.configuration import EXTENT
from landmarklabel.inference.evidence import Evidence
from landmarklabel.inference.shape_fit import ShapeFit
from landmarklabel.inference.shape_prior import ShapePrior, learn_prior
from landmarklabel.inference.suggestion import Suggestion, suggest
from landmarklabel.inference.template import template_landmarks
from landmarklabel.io.images import read_geometry, read_image
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.services.configuration import AssistantConfig
from landmarklabel.services.descriptions import describe
from landmarklabel.services.internal_errors import log_internal_error
from landmarklabel.services.surfaces import Surfaces
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study
from landmarklabel.training.publishing import ModelRegistry

if TYPE_CHECKING:
    from landmarklabel.inference.localizer import Localizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """What a person has said of an image: ``fixed`` (d,) LPS mm by name, and the names of ``absent`` landmarks."""

    fixed: Mapping[str, Sequence[float] | np.ndarray]
    absent: Sequence[str] = ()


@dataclass
class CachedEvidence:
    """What is known of an image between two requests; ``model``, which found it, is kept so that its id stays its own."""

    model: Localizer
    geometry: ImageGeometry
    evidence: Evidence
    shape_fit: ShapeFit | None = None
    looked_again_for: str = ""  # the person's points for which there was a second pass

    def suggestion(self, given: Given, unconditioned: ShapeFit | None = None) -> Suggestion:
        """The model's suggestion, given a person's points."""
        start = None if unconditioned is not None else self.shape_fit
        return self.model.suggest(self.evidence, self.geometry, given.fixed, given.absent, before=start, shape_fit=unconditioned)


@dataclass(frozen=True)
class Answer:
    """``origin``: model, template or none; ``second_pass``: looking again would tell more; ``moved_mm``: onto a surface."""

    suggestion: Suggestion
    origin: str
    second_pass: bool = False
    moved_mm: Mapping[str, float] = field(default_factory=dict)


class Assistant:
    """Answers with the live model, else with a template from the labelled cases, else with all landmarks unset.

    Args:
        study: whose images.
        registry: of the model that answers.
        device: where its networks run, see ``choose_device``.
        config: how much is remembered.
    """

    def __init__(self, study: Study, registry: ModelRegistry, device: str = "auto", config: AssistantConfig | None = None):
        self.study, self.registry, self.device, self.config = study, registry, device, config or AssistantConfig()
        self._lock = threading.Lock()
        self._loaded: tuple[Path, Localizer | None] | None = None
        self._open: dict[tuple[str, str], Case] = {}  # oldest first
        self._evidence: dict[tuple[str, str, int], CachedEvidence] = {}  # likewise
        self._surfaces = Surfaces(self.config.remembered_surfaces)
        self._labels: _Labels | None = None
        self._template: _Template | None = None
        self._template_without: tuple[_Labels, int, _Template] | None = None  # of the last image that has labels of its own
        self._learning = threading.Lock()  # held while a template is learned

    def inference_lock(self) -> threading.Lock:
        """Held by whoever runs the networks: one pass at a time bounds memory, and two at once would disturb each other."""
        return self._lock

    def model(self) -> Localizer | None:
        """The live model, loaded once per version; None where none can answer."""
        live = self.registry.live()
        if live is None:
            return None
        loaded = self._loaded  # without the lock, which a network pass holds: an update must not wait for another's
        if loaded is None or loaded[0] != live:
            with self._lock:
                loaded = self._loaded
                if loaded is None or loaded[0] != live:
                    self._loaded = loaded = live, self._load(live)
        return loaded[1]

    def _load(self, live: Path) -> Localizer | None:
        """None for a damaged model or one of other landmarks: it must not stop the template."""
        from landmarklabel.inference.model_folder import load_model  # the first model brings PyTorch
        from landmarklabel.networks.devices import choose_device

        try:
            return load_model(live, self.study.task, choose_device(self.device))
        except ModelError as error:
            name, kind = self.registry.folder.name, type(error).__name__
            log.warning("model %s: its live version cannot answer, the template does (%s)", name, kind)
            return None

    def suggest(self, path: Path, given: Given, wait_for_second_pass: bool = True) -> Answer:
        """Landmarks of an image file or DICOM folder, given a person's points.

        Args:
            path: of the image.
            given: the person's points.
            wait_for_second_pass: let a second network pass follow at once where the points ask for one.
        """
        answer = self._answer(path, given, wait_for_second_pass)
        suggestion, moved_mm = self._surfaces.put_on(path, answer.suggestion)
        return replace(answer, suggestion=suggestion, moved_mm=moved_mm)

    def _answer(self, path: Path, given: Given, wait_for_second_pass: bool) -> Answer:
        model = self.model()
        if model is None:
            return self._without_model(path, given)
        key = self._key(path, model)
        known = self._evidence.get(key)  # without the lock, likewise
        unconditioned = None
        if known is None:
            with self._lock:  # waiting requests wait outside the event loop
                known = self._evidence.get(key)
                if known is None:
                    known = self._assess(key, path, model)
                    unconditioned = known.shape_fit
        nothing_said = not given.fixed and not given.absent
        suggestion = known.suggestion(given, unconditioned if nothing_said else None)
        known.shape_fit = suggestion.shape_fit
        if wait_for_second_pass:
            suggestion = self._after_second_pass(path, known, suggestion, given)
        return Answer(suggestion, "model", self._wants_second_pass(known, suggestion, given))

    def second_pass(self, path: Path, given: Given) -> None:
        """The second pass that an answer announced; the next answer has what it finds."""
        model = self.model()
        known = self._evidence.get(self._key(path, model)) if model else None
        if known is not None:
            self._after_second_pass(path, known, known.suggestion(given), given)

    def _wants_second_pass(self, known: CachedEvidence, suggestion: Suggestion, given: Given) -> bool:
        new = known.looked_again_for != str(given)
        return new and known.model.needs_second_pass(known.evidence, known.geometry, suggestion.shape_fit)

    def _after_second_pass(self, path: Path, known: CachedEvidence, suggestion: Suggestion, given: Given) -> Suggestion:
        """The suggestion that a second pass leads to, where one is wanted."""
        if not self._wants_second_pass(known, suggestion, given):
            return suggestion
        with self._lock:
            case = self._opened(path, known.model)
            evidence, better = known.model.suggest_after_second_pass(case, known.evidence, suggestion, given.fixed, given.absent)
        known.looked_again_for = str(given)
        known.evidence, known.shape_fit = evidence, better.shape_fit
        return better

    def _without_model(self, path: Path, given: Given) -> Answer:
        task, geometry = self.study.task, read_geometry(path, self.study.task.dims)
        template = self._without(path, self._newest_template())
        labelled, prior = template.labels.cases, template.prior
        if not labelled:
            return Answer(suggest(task, geometry, None, None, Calibration(), given.fixed, given.absent), "none")
        _check_extent(path.name, geometry, labelled)
        if prior is not None:
            return Answer(suggest(task, geometry, prior, None, Calibration(), given.fixed, given.absent), "template")
        landmarks = template_landmarks(task, geometry, labelled)
        for name, position in given.fixed.items():
            landmarks = landmarks.with_landmark(name, tuple(position), Status.PLACED)
        for name in given.absent:
            landmarks = landmarks.with_landmark(name, None, Status.ABSENT)
        nowhere = np.full((len(task), task.dims), np.nan)
        return Answer(Suggestion(landmarks, np.zeros(len(task), bool), nowhere, None, None), "template")

    def _without(self, path: Path, template: _Template) -> _Template:
        """The template without the image's own labels: a second reading must not be shown the first.

        With so many cases that learning takes a while, one counts for little.
        """
        labels, images = template.labels, self.study.images()
        own = next((n for n, image_id in enumerate(labels.ids) if images.get(image_id) == path), None)
        if own is None or template.seconds > self.config.quick_learning_s:
            return template
        known = self._template_without
        if known is None or known[0] is not labels or known[1] != own:
            self._template_without = known = labels, own, _template_of(labels.without(own))
        return known[2]

    def _newest_template(self) -> _Template:
        """Learned from the labelled cases as they are; where that takes a while, from those just before, and anew meanwhile."""
        labelled, known = self._labelled_geometries(), self._template
        if known is not None and known.labels is labelled:
            return known
        if known is None or known.seconds <= self.config.quick_learning_s:
            return self._learned(labelled)
        if self._learning.acquire(blocking=False):  # one at a time, and nobody waits: of many annotators one saves every second
            threading.Thread(target=self._learn_beside, args=(labelled,), name="template", daemon=True).start()
        return known

    def _learned(self, labelled: _Labels) -> _Template:
        with self._learning:
            known = self._template
            if known is None or known.labels is not labelled:
                self._template = known = _template_of(labelled)
            return known

    def _learn_beside(self, labelled: _Labels) -> None:
        """In a thread that has been given the lock."""
        try:
            self._template = _template_of(labelled)
        except Exception as error:  # the answers are those of the cases before; the next label tries again
            log_internal_error(error)
            if self._template is not None:
                self._template = replace(self._template, labels=labelled)
        finally:
            self._learning.release()

    def _key(self, path: Path, model: Localizer) -> tuple[str, str, int]:
        return *_file_state(path), id(model)

    def _assess(self, key: tuple[str, str, int], path: Path, model: Localizer) -> CachedEvidence:
        """Run the networks on an image, and remember what they found."""
        case = self._opened(path, model)
        evidence, shape_fit = model.assess(case)
        self._evidence[key] = known = CachedEvidence(model, case.image.geometry, evidence, shape_fit)
        while len(self._evidence) > self.config.remembered_images:
            self._evidence.pop(next(iter(self._evidence)))
        return known

    def _opened(self, path: Path, model: Localizer) -> Case:
        """The image as the model wants it, with its pyramid; the last few stay open, so a second pass costs only networks."""
        key = _file_state(path)
        case = self._open.pop(key, None)
        if case is None:
            before, image = stamp(path), read_image(path, model.task.dims)
            self.study.note_file(path, image, before)
            case = model.case(path.name, image)
        self._open[key] = case
        while len(self._open) > 1 and sum(c.image.pixels.nbytes for c in self._open.values()) > self.config.open_bytes:
            self._open.pop(next(iter(self._open)))
        return case

    def _labelled_geometries(self) -> _Labels:
        """Of the labelled cases; the same object until a label changes, and with many of them for some seconds longer."""
        known, now, config = self._labels, time.monotonic(), self.config
        if known is not None and len(known.cases) >= config.many_shapes and now - known.made_at < config.many_shapes_kept_s:
            return known
        row = self.study.revisions.latest_row()  # before the labels: what is saved in between is seen the next time
        labels = self.study.labelled()
        state = row, tuple(labels)
        if known is None or known.state != state:
            cases, ids = [], []
            for image_id, landmarks in list(labels.items())[: config.max_shapes]:
                try:
                    cases.append((describe(self.study.image_path(image_id), self.study.task.dims).geometry, landmarks))
                except FaultsError:
                    continue  # an image that was damaged later must not stop inference on another
                ids.append(image_id)
            self._labels = known = _Labels(state, cases, ids, now)
        return known


@dataclass(frozen=True)
class _Labels:
    """The cases a shape prior is learned from while there is no model; ``state`` tells whether labels have changed since."""

    state: Any
    cases: list[tuple[ImageGeometry, LandmarkSet]]
    ids: list[str]  # of their images
    made_at: float

    def without(self, number: int) -> _Labels:
        """But for one case."""
        cases = self.cases[:number] + self.cases[number + 1 :]
        return _Labels((self.state, number), cases, self.ids[:number] + self.ids[number + 1 :], self.made_at)


@dataclass(frozen=True)
class _Template:
    """What is proposed without a model: learned from these labels, in so many seconds."""

    labels: _Labels
    prior: ShapePrior | None
    seconds: float


def _template_of(labelled: _Labels) -> _Template:
    started = time.monotonic()
    prior = learn_prior(labelled.cases) if labelled.cases else None
    return _Template(labelled, prior, time.monotonic() - started)


def _check_extent(name: str, geometry: ImageGeometry, labelled: list[tuple[ImageGeometry, LandmarkSet]]) -> None:
    """Raise ImageRejected for a volume far larger or smaller than the labelled ones, as with a wrong unit; pictures have none."""
    if geometry.dims != 3:
        return
    sides = np.ptp(geometry.bounds_mm, axis=0)
    largest = np.max([np.ptp(known.bounds_mm, axis=0) for known, _ in labelled], axis=0)
    spans = [float(np.linalg.norm(np.ptp(x.positions_mm[x.defined], axis=0))) for _, x in labelled if x.defined.any()]
    span = float(np.median(spans)) if spans else 0.0
    if (sides > EXTENT.most_times * largest).all():
        known = f"the labelled images up to {_as_sides(largest)} mm"
    elif np.linalg.norm(sides) < EXTENT.least_share * span:
        known = f"the landmarks of the labelled images span {span:.3g} mm"
    else:
        return
    raise ImageRejected(name, [f"it measures {_as_sides(sides)} mm, and {known}: is its unit or pixel spacing right?"])


def _as_sides(sides_mm: np.ndarray) -> str:
    return " x ".join(f"{side:.3g}" for side in sides_mm)


def _file_state(path: Path) -> tuple[str, str]:
    """A value that differs once the file has changed."""
    return str(path), stamp(path)
