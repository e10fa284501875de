"""The app that ``monailabel start_server`` loads."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

import numpy as np
from monailabel.interfaces.app import MONAILabelApp
from uvicorn import Config

from landmarklabel import __version__
from landmarklabel.active.retraining import why_retrain
from landmarklabel.active.strategies import STRATEGIES
from landmarklabel.errors import Busy, LandmarkLabelError, NotFound, UsageError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.server.console import NOTICE, said_of_models, set_up_console
from landmarklabel.server.datastore import LandmarkDatastore
from landmarklabel.server.guard import Policy
from landmarklabel.server.infer import LandmarkInfer
from landmarklabel.server.jobs import Jobs
from landmarklabel.server.keycloak import keycloak
from landmarklabel.server.running import address, look_after, starting, this_server
from landmarklabel.server.sessions import SafeSessions
from landmarklabel.server.strategies import LandmarkStrategy
from landmarklabel.server.train import LandmarkTrain
from landmarklabel.services.case_selection import CaseSelection
from landmarklabel.services.datastore import FINAL, ORIGINAL
from landmarklabel.services.models import what_answers
from landmarklabel.services.pool_monitor import PoolMonitor
from landmarklabel.services.settings import ServerSettings, live_models
from landmarklabel.services.training_run import SERVER_PID
from landmarklabel.store.leases import Leases
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens
from landmarklabel.tasks import SHIPPED, resolve_models, resolve_study_task
from landmarklabel.training.publishing import ModelRegistry

log = logging.getLogger(__name__)


class LandmarkApp(MONAILabelApp):
    """Landmark models of one task over one study.

    ``--conf task NAME_OR_FILE`` is required; the other settings are those of ``services.settings.ServerSettings``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]):
        set_up_console()
        with starting():
            self._set_up(app_dir, studies, conf or {})

    def _set_up(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.settings = ServerSettings.of(conf)
        if studies.startswith(("http://", "https://")):
            raise UsageError(f"--studies {studies}: only folders are served; copy the images into one")
        self.task = resolve_study_task(self.settings.task or None, studies, (Path(app_dir) / "tasks", SHIPPED))
        self._retraining = threading.Lock()
        self._labels_tried = 0  # how many there were when a training was last started by itself
        self.presets = resolve_models(self.settings.models or live_models(Path(studies), self.task.dims), self.task.dims)
        self.study = Study(studies, self.task, self.settings.store, verify_s=0)  # ``pool_monitor`` looks at changed images
        for text in self.study.notices:
            log.log(NOTICE, text)
        self.pool_monitor = PoolMonitor(self.study, self._live, lambda: self.infer_task().assistant.inference_lock())
        self.leases = Leases(self.study.folder / ".landmarklabel" / "leases.json")
        self.jobs = Jobs(self.study.folder / ".landmarklabel" / "trainings.json", tuple(self.presets))
        super().__init__(
            app_dir,
            studies,
            conf,
            name=f"LandmarkLabel: {self.task.name}",
            description=f"{len(self.task)} landmarks in {self.task.dims}D images",
            version=__version__,
            labels=list(self.task.names),
        )
        self._auto_update_scoring = False

    def registry(self, model: str) -> ModelRegistry:
        """The versions of a model of this study."""
        return ModelRegistry(self.study.models_dir / model)

    def init_datastore(self) -> LandmarkDatastore:
        return LandmarkDatastore(self.study, self.settings.allow_outside)

    def init_infers(self) -> dict[str, LandmarkInfer]:
        return {name: LandmarkInfer(self.study, preset, self.registry(name)) for name, preset in self.presets.items()}

    def init_trainers(self) -> dict[str, LandmarkTrain]:
        return {name: LandmarkTrain(self.study, preset, self.registry(name)) for name, preset in self.presets.items()}

    def init_strategies(self) -> dict[str, LandmarkStrategy]:
        repeat = self.settings.repeat
        selections = {n: CaseSelection(n, self.study, self.pool_monitor, self.leases, repeat) for n in STRATEGIES}
        return {name: LandmarkStrategy(selection) for name, selection in selections.items()}

    def _live(self) -> tuple[Localizer | None, int]:
        """The newest model and its version, for looking over the pool."""
        infer_task = next(iter(self._infers.values()))
        return infer_task.assistant.model(), infer_task.registry.record()["version"]

    def _load_sessions(self, load: bool = False) -> SafeSessions | None:
        if not load:
            return None
        place = self.study.folder / ".landmarklabel" / "sessions"
        place.mkdir(parents=True, exist_ok=True)
        return SafeSessions(str(place))

    def cleanup_sessions(self) -> None:
        if self._sessions is not None:  # MONAI Label's own takes an empty cache for "no sessions"
            self._sessions.remove_expired()

    def on_init_complete(self) -> None:
        with starting():
            self._begin()

    def _begin(self) -> None:
        super().on_init_complete()
        if "monailabel.app" in sys.modules:  # only in the server, not in its training processes
            from landmarklabel.server.routes import install

            policy = self._policy()
            tokens = install(self, policy)
            self.pool_monitor.start()
            os.environ[SERVER_PID] = str(os.getpid())  # for its training processes
            self.jobs.go_on()
            if (server := this_server()) is not None:
                look_after(server, lambda port: self._greeting(server.config, port, policy, tokens))
        self._look_at_files()

    def _look_at_files(self) -> None:
        try:
            problems = len(self.study.sync())  # their names stay out of the log
        except Busy as error:  # hand edits are taken in when a case is saved, too
            log.log(NOTICE, str(error))
            return
        if problems:
            log.log(
                NOTICE,
                f"{problems} things in the study need a look: landmarklabel study status {self.study.folder.name} says which",
            )

    def _greeting(self, config: Config, port: int, policy: Policy, tokens: Tokens) -> str:
        """Where to open which study, and what answers there."""
        others = policy.insecure or (config.is_ssl and (policy.identity is not None or tokens.look().needed))
        images, labelled = self.study.images(), self.study.labelled()
        cases = f'study "{self.study.folder.name}", {len(labelled)} of {len(images)} cases labelled'
        answers = said_of_models(self.model_versions(), len(labelled))
        line = f"open {address(config, port, others)}/landmarks/ · {cases} · {answers}"
        return f"{line} · {fault}" if policy.identity is None and (fault := tokens.look().fault) else line

    def answers(self) -> dict[str, str]:
        """What answers under every served model's name, and why, in words."""
        return {name: what_answers(self.study, one.registry).text for name, one in self._infers.items()}

    def model_versions(self) -> dict[str, int]:
        """The live version of every served model; 0 for none trained yet."""
        return {name: one.registry.record()["version"] for name, one in self._infers.items()}

    def _policy(self) -> Policy:
        return Policy(self.settings.insecure, self.settings.max_upload_mb * 2**20, self.settings.origins, keycloak())

    def infer_task(self, model: object = None) -> LandmarkInfer:
        """A served model by name; the first one when no name is given. Raises NotFound."""
        name = next(iter(self._infers)) if model is None else model
        if not isinstance(name, str) or name not in self._infers:
            raise NotFound(f"there is no model {str(name)[:80]!r}; served are {', '.join(self._infers)}")
        return self._infers[name]

    def infer(self, request: dict, datastore=None) -> dict:
        """Landmarks of an image of the study (``image`` is its id) or, for our own routes, of an uploaded file."""
        model = request.get("model")
        infer_task = self.infer_task(model if model is not None else "")
        uploaded = request.get("uploaded_file")
        image_id = None if uploaded else request.get("image")
        path = uploaded or self._datastore.get_image_uri(image_id)
        keep = image_id and str(request.get("save_label", False)).lower() in ("1", "true")
        tag = request.get("label_tag") or ORIGINAL
        if keep and (tag := self._datastore.tag(tag)) == FINAL:
            raise UsageError("a prediction is not a final label; save it with another tag, or let a person submit it")
        file, result = infer_task({**request, "image": path})
        label = file
        if keep:
            try:
                label = self._datastore.save_label(image_id, file, tag, {"model": f"{model} v{result['model_version']}"})
            except BaseException:
                Path(file).unlink(missing_ok=True)
                raise
        return {"label": label, "tag": tag, "file": file, "params": result}

    def batch_infer(self, request: dict, datastore=None) -> dict:
        """MONAI Label's, which divides by the number of GPUs and ends at the first image that is refused."""

        def infer(one: dict, _) -> dict:
            try:
                return self.infer(one)
            except (LandmarkLabelError, OSError) as error:
                return {"error": str(error)}

        return self._batch_infer({**request, "multi_gpu": False}, self._datastore, infer)

    def next_sample(self, request: dict) -> dict:
        strategy = request.get("strategy") or "adaptive"
        if strategy not in self._strategies:
            raise NotFound(f"there is no strategy {str(strategy)[:80]!r}; there are {', '.join(self._strategies)}")
        chosen = self._strategies[strategy](request, self._datastore)
        return {**chosen, "path": self._datastore.get_image_uri(chosen["id"])} if chosen else {}

    def train(self, request: dict) -> dict:
        """Run in a process of its own, which ``jobs`` has started."""
        if request.get("model") not in self._trainers:
            raise NotFound(f"there is no model {str(request.get('model'))[:80]!r} to train")
        over = True
        try:
            done = self._trainers[request["model"]](dict(request), self._datastore)
            over = done["state"] != "stopped"  # because its server ended: the next one goes on
            return done
        finally:
            if over:
                self.jobs.end(request.get("job"))

    def on_save_label(self, image_id: str, label_id: str) -> dict:
        self.saved()
        return super().on_save_label(image_id, label_id) or {}

    def saved(self) -> None:
        """A case was submitted: perhaps it is time to train."""
        if not self.settings.retrain:
            return
        with self._retraining:
            name = next(iter(self._trainers))
            stats, labelled = self._trainers[name].stats(), self.study.labelled()
            trained_on = int(stats.get("train_cases", 0)) + int(stats.get("valid_cases", 0))
            new = len(labelled) - max(trained_on, self._labels_tried)
            if new <= 0 or stats.get("state") == "running":
                return
            recent = [
                float(np.nanmean(off)) for _, off in list(self.pool_monitor.observed().values())[-new:] if np.isfinite(off).any()
            ]
            reason = why_retrain(new, self.settings.retrain, recent, (stats.get("eval") or {}).get("mre_mm"))
            if reason and self._start_training(name):
                self._labels_tried = len(labelled)
                log.log(NOTICE, f"training {name}: {reason}")

    def _start_training(self, name: str) -> bool:
        return self.jobs.start(name, {"minutes": self.settings.retrain_minutes}) is not None

    def train_stats(self) -> dict[str, dict]:
        """The newest training's statistics by model."""
        return {name: trainer.stats() for name, trainer in self._trainers.items()}

    def info(self) -> dict:
        return {**super().info(), "task": self.task.to_json()}
