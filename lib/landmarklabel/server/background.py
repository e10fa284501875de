"""Trainings and batches: what a request begins and does not wait for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import Any

from fastapi import APIRouter, HTTPException

from landmarklabel.errors import LandmarkLabelError, Unusable, UsageError
from landmarklabel.server.application import Application
from landmarklabel.server.bodies import Body
from landmarklabel.server.description import BATCH, TRAIN, takes
from landmarklabel.services.console import NOTICE
from landmarklabel.services.datastore import ORIGINAL
from landmarklabel.services.inference import prediction_tag
from landmarklabel.services.request_values import check_training_request, device_of, flag_of, key_of, number_of, text_of

log = logging.getLogger(__name__)


class Images(str, Enum):
    """Which images a batch looks at."""

    all = "all"
    labeled = "labeled"
    unlabeled = "unlabeled"


def afterwards(work: Callable, *given) -> None:
    """Do what waits until the answer is out: nobody hears of a fault any more, for example of an image that is gone by now."""
    try:
        work(*given)
    except (LandmarkLabelError, OSError) as error:
        log.log(NOTICE, f"not done after an answer: {type(error).__name__}")  # its text may hold a name


def add_background_routes(router: APIRouter, application: Application) -> None:
    """``/train/`` and ``/batch/infer/`` as MONAI Label's clients ask for them, every parameter checked before anything starts."""
    _add_batch_route(router, application)

    @router.post("/train/{model}", tags=["Train"], summary="Train a model in the background", openapi_extra=takes(TRAIN))
    def train(model: str, params: Body | None = None, run_sync: bool = False, enqueue: bool = False) -> dict:
        if run_sync:
            raise UsageError("training runs in a process of its own: leave out run_sync and ask GET /train/ how far it is")
        _check_training(params or {})
        task = application.jobs.start(model, params or {}, enqueue)
        if task is None:
            raise HTTPException(429, "a training runs or waits for its turn; stop it, wait for its end, or give enqueue=true")
        return task

    @router.post("/train/", tags=["Train"], summary="Train all models, one after the other")
    def train_all(params: Body | None = None) -> dict:
        given = {name: (params or {}).get(name) for name in application.jobs.models}
        for name, one in given.items():
            if one is not None and not isinstance(one, dict):
                raise Unusable(f"the parameters of {name} must be a JSON object")
            _check_training(one or {})
        return {name: {"result": application.jobs.start(name, one or {}, True), "detail": None} for name, one in given.items()}

    @router.delete("/train/", tags=["Train"], summary="Stop the training that runs")
    def stop() -> dict | None:
        return application.jobs.stop()


def _check_training(params: dict) -> None:
    """Raise UsageError, Unusable for what no training can use, before one is started."""
    check_training_request(params)
    key_of(params), flag_of(params, "pretrained"), device_of(params)


def _add_batch_route(router: APIRouter, application: Application) -> None:
    summary = "Landmarks of many images, in the background"
    about: dict[str, Any] = {"tags": ["Infer"], "summary": summary, "openapi_extra": takes(BATCH)}

    @router.post("/batch/infer/{model}", **about)
    def batch(model: str, images: Images = Images.all, params: Body | None = None, run_sync: bool = False) -> dict:
        """Kept under ``label_tag``; ``images`` may also be a list of ids in the body."""
        given = params or {}
        if run_sync:
            raise UsageError("many images are looked at in the background: leave out run_sync and ask GET /batch/infer")
        wanted = given.get("images", images.value)
        if wanted not in list(Images) and not (isinstance(wanted, list) and all(isinstance(i, str) for i in wanted)):
            raise Unusable("images must be all, labeled or unlabeled, or a list of ids")
        application.study.check_there()  # raises Gone
        tag = prediction_tag(application.store, text_of(given, "label_tag") or ORIGINAL)
        request = {
            "model": model,
            "images": wanted,
            "label_tag": tag,
            "device": "cpu" if device_of(given) == "cpu" else "cuda",
            "max_workers": number_of(given, "max_workers", 1, 64),
            "max_batch_size": number_of(given, "max_batch_size", 0, 10**6),
        }
        application.model(model)  # raises NotFound
        task = application.batches.run(request)
        if task is None:
            raise HTTPException(429, "a batch runs or is about to; stop it or wait for its end")
        return task
