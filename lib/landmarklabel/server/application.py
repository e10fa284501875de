"""A study as it is served: its task, models, trainings and case selection, whoever asks for them."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landmarklabel import __version__
from landmarklabel.active.retraining import why_retrain
from landmarklabel.active.strategies import STRATEGIES
from landmarklabel.errors import Busy, LandmarkLabelError, NotFound, UsageError
from landmarklabel.networks.devices import check_device
from landmarklabel.server.guard import CONTRACT
from landmarklabel.server.infer import answer_to_wire
from landmarklabel.server.wire import given_points
from landmarklabel.services.case_selection import CaseSelection
from landmarklabel.services.configuration import TRAINING
from landmarklabel.services.console import NOTICE, said_of_models
from landmarklabel.services.datastore import ORIGINAL, StudyDatastore
from landmarklabel.services.descriptions import image_plane
from landmarklabel.services.drafts import Drafts
from landmarklabel.services.inference import ServedModel, keep_label, markups_file, prediction_tag, train_config
from landmarklabel.services.jobs import Jobs
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.models import what_answers
from landmarklabel.services.pool_monitor import PoolMonitor
from landmarklabel.services.server_process import SERVER_PID
from landmarklabel.services.sessions import Sessions
from landmarklabel.services.settings import ServerSettings, live_models
from landmarklabel.services.task_queue import TaskQueue
from landmarklabel.store.leases import Leases
from landmarklabel.store.study import Study
from landmarklabel.tasks import SHIPPED, resolve_models, resolve_study_task
from landmarklabel.training.publishing import ModelRegistry

if TYPE_CHECKING:
    from landmarklabel.inference.localizer import Localizer

log = logging.getLogger(__name__)


class Application:
    """Landmark models of one task over one study.

    Args:
        studies: folder.
        settings: of the operator; its task may be left out where the study knows its own.
        tasks: further folders in which a task may be named.
        training_turn: held during a training; shared by all studies of a server.

    Raises:
        UsageError: settings that cannot be used. StudyError, TaskMismatch: as ``Study``.
    """

    def __init__(
        self,
        studies: str,
        settings: ServerSettings,
        tasks: tuple[Path, ...] = (),
        training_turn: threading.Lock | None = None,
    ):
        if studies.startswith(("http://", "https://")):
            raise UsageError(f"--studies {studies}: only folders are served; copy the images into one")
        check_device(settings.device)  # one that is not there is said at once
        self.settings = settings
        self.task = resolve_study_task(settings.task or None, studies, (*tasks, SHIPPED), settings.store)
        self.presets = resolve_models(settings.models or live_models(Path(studies), self.task.dims), self.task.dims)
        self.study = Study(studies, self.task, settings.store, verify_s=0)  # ``pool_monitor`` looks at changed images
        for text in self.study.notices:
            log.log(NOTICE, text)
        self.models = {
            name: ServedModel(self.study, preset, self.registry(name), settings.device) for name, preset in self.presets.items()
        }
        self.pool_monitor = PoolMonitor(self.study, self._live, lambda: self.model().assistant.inference_lock())
        self.leases = Leases(self.study.folder / ".landmarklabel" / "leases.json")
        self.selections = {
            name: CaseSelection(name, self.study, self.pool_monitor, self.leases, settings.repeat) for name in STRATEGIES
        }
        self.store = StudyDatastore(self.study, settings.allow_outside)
        self.sessions = Sessions(self.study.folder / ".landmarklabel" / "sessions")
        self.drafts = Drafts(self.study.folder / ".landmarklabel" / "drafts")
        self.batches = TaskQueue("batch_infer", self._served)
        trainings = TaskQueue("train", self._served, training_turn)
        self.jobs = Jobs(self.study.folder, tuple(self.presets), trainings, self._training_failed)
        self._retraining = threading.Lock()
        self._labels_tried = 0  # how many there were when a training was last started by itself

    def begin(self) -> None:
        """What a server does beside answering: looks over the pool and the files, goes on with trainings, tidies up."""
        self.pool_monitor.start()
        os.environ[SERVER_PID] = str(os.getpid())  # for its training processes
        self.jobs.go_on()
        threading.Thread(target=self._tidy, name="sessions", daemon=True).start()
        self._look_at_files()

    def leave(self) -> None:
        """The server was asked to end."""
        try:
            self.jobs.leave()
        except LandmarkLabelError as error:
            log.log(NOTICE, f"the list of trainings was not kept ({type(error).__name__})")

    def _training_failed(self, model: str, reason: str, begun: float) -> None:
        self.models[model].training.end_failed(reason, begun)

    def registry(self, model: str) -> ModelRegistry:
        """The versions of a model of this study."""
        return ModelRegistry(self.study.models_dir / model)

    def model(self, name: object = None) -> ServedModel:
        """A served model by name; the first one when no name is given. Raises NotFound."""
        name = next(iter(self.models)) if name is None else name
        if not isinstance(name, str) or name not in self.models:
            raise NotFound(f"there is no model {str(name)[:80]!r}; served are {', '.join(self.models)}")
        return self.models[name]

    # --- what is asked of it -----------------------------------------------------------------------------------------

    def infer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Landmarks of an image of the study (``image`` is its id) or, where ``uploaded_file`` is its path, of any other.

        Returns:
            MONAI Label's keys ``label``, ``tag``, ``file`` (the caller removes it) and ``params``.
        """
        name, started = request.get("model"), time.monotonic()
        model, uploaded = self.model(name if name is not None else ""), request.get("uploaded_file")
        image_id = None if uploaded else request.get("image")
        path = Path(uploaded or self.store.get_image_uri(str(image_id)))
        keep = image_id and str(request.get("save_label", False)).lower() in ("1", "true")
        tag = request.get("label_tag") or ORIGINAL
        if keep:
            tag = prediction_tag(self.store, tag)  # before anything slow
        given = given_points(request, self.task, image_plane(path, self.task.dims))
        prediction = model.predict(path, given)
        label = keep_label(self.store, str(image_id), tag, prediction, str(name)) if keep else None
        file = str(markups_file(self.study, prediction))
        landmarks = prediction.answer.suggestion.landmarks
        said = model.cautions if prediction.answer.origin == "model" else ()
        params = {
            **answer_to_wire(model, prediction.answer, path),
            **({"cautions": list(said)} if said else {}),
            "label_names": {n: i for i, n in enumerate(landmarks.task.names)},
            "coordinateSystem": "LPS",
            "defined": int(np.sum(landmarks.defined)),
            "latencies": {"total": round(time.monotonic() - started, 4)},
        }
        return {"label": label or file, "tag": tag, "file": file, "params": params}

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The next case by ``strategy``, and why; {} where there is none. Raises NotFound."""
        strategy = request.get("strategy") or "adaptive"
        if strategy not in self.selections:
            raise NotFound(f"there is no strategy {str(strategy)[:80]!r}; there are {', '.join(self.selections)}")
        chosen = self.selections[strategy].next_case(request)
        return {**chosen, "path": self.store.get_image_uri(chosen["id"])} if chosen else {}

    def retrain_if_due(self) -> None:
        """To be called after a case was submitted: perhaps it is time to train."""
        if not self.settings.retrain:
            return
        with self._retraining:
            name, model = next(iter(self.models.items()))
            stats, labelled = model.training.stats(), self.study.labelled()
            trained_on = int(stats.get("train_cases", 0)) + int(stats.get("valid_cases", 0))
            new = len(labelled) - max(trained_on, self._labels_tried)
            if new <= 0 or stats.get("state") == "running":
                return
            recent = [
                float(np.nanmean(off)) for _, off in list(self.pool_monitor.observed().values())[-new:] if np.isfinite(off).any()
            ]
            reason = why_retrain(new, self.settings.retrain, recent, (stats.get("eval") or {}).get("mre_mm"))
            if reason and self.jobs.start(name, {"minutes": self.settings.retrain_minutes}) is not None:
                self._labels_tried = len(labelled)
                log.log(NOTICE, f"training {name}: {reason}")

    # --- what it says of itself --------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """``GET /info/``: MONAI Label's keys, and the task."""
        return {
            "name": f"LandmarkLabel: {self.task.name}",
            "description": f"{len(self.task)} landmarks in {self.task.dims}D images",
            "version": __version__,
            "contract": CONTRACT,
            "labels": list(self.task.names),
            "models": {name: model.info() for name, model in self.models.items()},
            "trainers": {name: self.trainer_info(name) for name in self.models},
            "strategies": {name: {"description": one.description} for name, one in self.selections.items()},
            "scoring": {},
            "train_stats": self.train_stats(),
            "datastore": self.store.status(),
            "task": self.task.to_json(pictures=False),
        }

    def trainer_info(self, name: str) -> dict[str, Any]:
        """What may be sent to train a model."""
        return {"description": self.models[name].description, "config": dict(train_config(TRAINING.default_minutes))}

    def train_stats(self) -> dict[str, dict[str, Any]]:
        """The newest training's statistics by model."""
        return {name: model.training.stats() for name, model in self.models.items()}

    def answers(self) -> dict[str, str]:
        """What answers under every served model's name, and why, in words."""
        return {name: what_answers(self.study, model.registry).text for name, model in self.models.items()}

    def model_versions(self) -> dict[str, int]:
        """The live version of every served model; 0 for none trained yet."""
        return {name: model.version for name, model in self.models.items()}

    def summary(self) -> str:
        """Which study is served and what answers, in one line."""
        images, labelled = self.study.images(), self.study.labelled()
        cases = f'study "{self.study.folder.name}", {len(labelled)} of {len(images)} cases labelled'
        return f"{cases} · {said_of_models(self.model_versions(), len(labelled))}"

    # --- beside answering --------------------------------------------------------------------------------------------

    def _live(self) -> tuple[Localizer | None, int]:
        """The newest model and its version, for looking over the pool."""
        model = next(iter(self.models.values()))
        return model.assistant.model(), model.version

    def _served(self) -> dict[str, Any]:
        """What a process of a training or batch has to know."""
        return {
            "study": str(self.study.folder),
            "task": self.task.to_json(),  # with its pictures: a process that opens the study records the task it has
            "store": self.settings.store,
            "models": ",".join(preset.key for preset in self.presets.values()),
            "allow_outside": self.settings.allow_outside,
            "device": self.settings.device,
            "train_devices": self.settings.train_devices,
        }

    def _tidy(self) -> None:
        while True:
            try:
                self.sessions.remove_expired()
            except OSError as error:  # the study may be gone for a while
                log.log(NOTICE, f"expired uploads were not looked at ({error.strerror})")
            time.sleep(LIMITS.cleanup_s)

    def _look_at_files(self) -> None:
        try:
            problems = len(self.study.sync())  # their names stay out of the log
        except Busy as error:  # hand edits are taken in when a case is saved, too
            log.log(NOTICE, str(error))
            return
        if problems:
            name = self.study.folder.name
            log.log(NOTICE, f"{problems} things in the study need a look: landmarklabel study status {name} says which")
