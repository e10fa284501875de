"""The rest of MONAI Label's REST contract, as its clients ask for it: ``/info``, ``/datastore``, ``/model``, status of tasks."""

from __future__ import annotations

import hashlib
import mimetypes
from enum import Enum
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from landmarklabel.server.application import Application


class Output(str, Enum):
    """What ``GET /datastore/`` lists."""

    train = "train"
    stats = "stats"
    all = "all"


def add_monailabel_routes(router: APIRouter, application: Application) -> None:
    """``access.ROUTES`` lists them with the role each needs."""

    @router.get("/info/", tags=["App"], summary="The task, its models, and how far everything is")
    def info() -> dict[str, Any]:
        return application.info()

    _add_datastore_routes(router, application)
    _add_label_routes(router, application)
    _add_model_routes(router, application)
    _add_task_routes(router, application)


def _add_datastore_routes(router: APIRouter, application: Application) -> None:
    store = application.store

    @router.get("/datastore/", tags=["Datastore"], summary="Images and labels: counts, all, or what is trained on")
    def listing(output: Output | None = None) -> Any:
        if output is Output.all:
            return store.json()
        return store.datalist() if output is Output.train else store.status()

    @router.delete("/datastore/", tags=["Datastore"], summary="Remove an image", include_in_schema=False)
    @router.delete("/datastore/image", tags=["Datastore"], summary="Remove an image; it goes to the study's trash")
    def remove_image(id: str) -> dict[str, Any]:
        store.remove_image(id)
        return {}

    @router.get("/datastore/image", tags=["Datastore"], summary="Download an image")
    def image(image: str) -> FileResponse:
        return _file(store.get_image_uri(image), "Image NOT Found")

    @router.get("/datastore/image/info", tags=["Datastore"], summary="What was noted of an image")
    def image_info(image: str) -> dict[str, Any]:
        return store.get_image_info(image)


def _add_label_routes(router: APIRouter, application: Application) -> None:
    store = application.store

    @router.get("/datastore/label", tags=["Datastore"], summary="Download a label")
    def label(label: str, tag: str) -> FileResponse:
        return _file(store.get_label_uri(label, tag), "Label NOT Found")

    @router.head("/datastore/label", tags=["Datastore"], summary="Whether there is a label")
    def check_label(image: str, tag: str) -> dict[str, Any]:
        if not Path(store.get_label_uri(image, tag)).is_file():
            raise HTTPException(404, "Label NOT Found")
        return {}

    @router.delete("/datastore/label", tags=["Datastore"], summary="Remove a label; its revisions stay")
    def remove_label(id: str, tag: str) -> dict[str, Any]:
        store.remove_label(id, tag)
        return {}

    @router.get("/datastore/label/info", tags=["Datastore"], summary="Of which revision a label is, and by whom")
    def label_info(label: str, tag: str) -> dict[str, Any]:
        return store.get_label_info(label, tag)


def _add_model_routes(router: APIRouter, application: Application) -> None:
    def weights(model: str) -> Path:
        served = application.models.get(model)
        path = served.weights_file if served is not None else None
        if path is None or not path.is_file():
            raise HTTPException(404, f"Model File NOT Found for {model[:80]}")
        return path

    @router.get("/model/{model}", tags=["Model"], summary="Download the weights of the live model")
    def download(model: str) -> FileResponse:
        path = weights(model)
        return FileResponse(path, media_type="application/octet-stream", filename=f"{model}{path.suffix}")

    @router.get("/model/info/{model}", tags=["Model"], summary="Checksum and statistics of the live model")
    def about(model: str) -> dict[str, Any]:
        path = weights(model)
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        found: dict[str, Any] = {"checksum": f"SHA256:{checksum}", "modified_time": int(path.stat().st_mtime)}
        stats = application.models[model].training.stats()
        return {**found, "train_stats": stats} if stats else found


def _add_task_routes(router: APIRouter, application: Application) -> None:
    trainings, batches = application.jobs.queue, application.batches

    @router.get("/train/", tags=["Train"], summary="The newest training, all, or the one that runs")
    def training(all: bool = False, check_if_running: bool = False) -> Any:
        return trainings.status(all, check_if_running)

    @router.get("/batch/infer", tags=["Infer"], summary="The newest batch, all, or the one that runs")
    def batch(all: bool = False, check_if_running: bool = False) -> Any:
        return batches.status(all, check_if_running)

    @router.delete("/batch/infer", tags=["Infer"], summary="Stop the batch that runs")
    def stop_batch() -> dict[str, Any] | None:
        return batches.stop()


def _file(path: str, missing: str) -> FileResponse:
    if not Path(path).is_file():
        raise HTTPException(404, missing)
    kind, _ = mimetypes.guess_type(path, strict=False)
    return FileResponse(path, media_type=kind or "application/octet-stream", filename=Path(path).name)
