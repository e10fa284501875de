"""MONAI Label's interfaces over the same application: plain ``monailabel start_server --app apps/landmarks``.

MONAI Label makes the app, its tasks and its datastore; every HTTP request is answered by ``app.create_app``, as under
``landmarklabel serve``. The only module that imports monailabel.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from landmarklabel import __version__
from landmarklabel.errors import LandmarkLabelError, NotFound
from landmarklabel.server.app import create_app, policy_of
from landmarklabel.server.application import Application
from landmarklabel.server.running import greeting, look_after, starting, this_server
from landmarklabel.services.case_selection import CaseSelection
from landmarklabel.services.configuration import TRAINING
from landmarklabel.services.console import set_up_console
from landmarklabel.services.datastore import StudyDatastore
from landmarklabel.services.inference import ServedModel, train_config
from landmarklabel.services.settings import ServerSettings


class LandmarkDatastore(StudyDatastore, Datastore):
    """MONAI Label's 26 methods, which ``StudyDatastore`` has under the same names."""


class LandmarkInfer(InferTask):
    """A served model as an inference task: image path in, .mrk.json and JSON out."""

    def __init__(self, application: Application, name: str):
        task, model = application.task, application.models[name]
        super().__init__("landmarks", {n: i for i, n in enumerate(task.names)}, task.dims, model.description)
        self.application, self.name = application, name

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        return self.application.models[self.name].info()

    def get_path(self, validate: bool = True) -> str | None:
        path = self.application.models[self.name].weights_file
        return str(path) if path else None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        result = self.application.infer({**request, "model": self.name, "uploaded_file": request["image"]})
        return result["file"], result["params"]


class LandmarkTrain(TrainTask):
    """The training of a served model."""

    def __init__(self, application: Application, name: str):
        self.model: ServedModel = application.models[name]
        super().__init__(self.model.description)

    def config(self) -> dict[str, Any]:
        return dict(train_config(TRAINING.default_minutes))

    def stats(self) -> dict[str, Any]:
        return self.model.training.stats()

    def __call__(self, request: dict[str, Any] | None, datastore: object) -> dict[str, Any]:
        from landmarklabel.services.training_run import TrainingRun  # it brings PyTorch

        model = self.model
        return TrainingRun(model.study, model.preset, model.registry, model.assistant.device).run(request or {})


class LandmarkStrategy(Strategy):
    """A way of choosing the next case."""

    def __init__(self, selection: CaseSelection):
        super().__init__(selection.description)
        self.selection = selection

    def __call__(self, request: dict[str, Any] | None, datastore: object) -> dict[str, Any] | None:
        return self.selection.next_case(request or {})


class LandmarkApp(MONAILabelApp):
    """Landmark models of one task over one study, as MONAI Label makes and asks them.

    ``--conf task NAME_OR_FILE`` is required where the study knows none; the other settings are those of
    ``services.settings.ServerSettings``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]):
        set_up_console()
        for name in ("monailabel", "uvicorn.access"):  # they log requests and paths, which hold names of patients
            logging.getLogger(name).setLevel(logging.WARNING)
        with starting():
            self.application = Application(studies, ServerSettings.of(conf or {}), (Path(app_dir) / "tasks",))
            task = self.application.task
            super().__init__(
                app_dir,
                studies,
                conf or {},
                name=f"LandmarkLabel: {task.name}",
                description=f"{len(task)} landmarks in {task.dims}D images",
                version=__version__,
                labels=list(task.names),
            )
            self._auto_update_scoring = False

    def init_datastore(self) -> LandmarkDatastore:
        return LandmarkDatastore(self.application.study, self.application.settings.allow_outside)

    def init_infers(self) -> dict[str, LandmarkInfer]:
        return {name: LandmarkInfer(self.application, name) for name in self.application.models}

    def init_trainers(self) -> dict[str, LandmarkTrain]:
        return {name: LandmarkTrain(self.application, name) for name in self.application.models}

    def init_strategies(self) -> dict[str, LandmarkStrategy]:
        return {name: LandmarkStrategy(selection) for name, selection in self.application.selections.items()}

    def _load_sessions(self, load: bool = False) -> None:
        """Uploaded images are the application's; MONAI Label's own sessions are never asked for."""

    def cleanup_sessions(self) -> None:
        """The application does that."""

    def on_init_complete(self) -> None:
        with starting():
            if "monailabel.app" in sys.modules:  # only in a server
                from monailabel.app import app

                guarded, tokens = create_app(self.application, policy := policy_of(self.application))
                app.middleware_stack = guarded  # MONAI Label's own routes are never reached
                self.application.begin()
                if (server := this_server()) is not None:
                    line = lambda port: greeting(server.config, port, self.application, "", policy, tokens)  # noqa: E731
                    look_after(server, line, [self.application.leave])

    def info(self) -> dict[str, Any]:
        return self.application.info()

    def infer(self, request: dict[str, Any], datastore: object = None) -> dict[str, Any]:
        """Landmarks of an image of the study."""
        return self.application.infer(request)

    def batch_infer(self, request: dict[str, Any], datastore: object = None) -> dict[str, Any]:
        """MONAI Label's, which divides by the number of GPUs and ends at the first image that is refused."""

        def infer(one: dict[str, Any], _: object) -> dict[str, Any]:
            try:
                return self.infer(one)
            except (LandmarkLabelError, OSError) as error:
                return {"error": str(error)}

        return self._batch_infer({**request, "multi_gpu": False}, self._datastore, infer)

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.application.next_sample(request)

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Train in this process, to the end. Raises NotFound."""
        if request.get("model") not in self._trainers:
            raise NotFound(f"there is no model {str(request.get('model'))[:80]!r} to train")
        return self._trainers[request["model"]](dict(request), self._datastore)

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        self.application.retrain_if_due()
        return {}
