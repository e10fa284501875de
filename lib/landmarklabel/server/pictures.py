"""What a browser shows of an image: where it lies, and its grey values."""

from __future__ import annotations

import functools
import re
from typing import Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from landmarklabel.errors import NotFound, UsageError
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import read_image
from landmarklabel.server.application import Application
from landmarklabel.server.threads import in_threads_of_its_own
from landmarklabel.services.descriptions import describe, image_unit
from landmarklabel.services.screen_images import frame_of, png_of
from landmarklabel.services.screen_pictures import ScreenPictures
from landmarklabel.services.screen_volumes import ScreenVolumes
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study


def add_picture_routes(router: APIRouter, application: Application) -> None:
    """``frame``, ``picture`` and ``voxels`` of an image."""
    study, dims = application.study, application.task.dims
    volumes, pictures = ScreenVolumes(study.cache_dir / "volumes"), ScreenPictures(study.cache_dir / "pictures")
    _add_voxels_route(router, study, volumes)
    _add_picture_route(router, study, pictures)

    @router.get(
        "/landmarks/images/{image_id}/frame", tags=["Landmarks"], summary="Where an image lies, and its grey values' range"
    )
    @in_threads_of_its_own
    def frame(image_id: str) -> dict[str, Any]:
        """``to_mm``: rows from sample numbers and 1 to LPS mm; ``to_index``: the way back. ``pixels``: as of ``…/pixels``."""
        path, read = study.image_path(image_id), functools.partial(_read, study, image_id)
        if dims == 3:
            volume = volumes.of(path, read)
            grey: dict[str, Any] = {"window": volume.window, "range": volume.range, "voxels": [volume.slope, volume.intercept]}
        else:
            shown = pictures.of(path, read)
            grey = {"window": shown.window, "range": shown.range}
        about = describe(path, dims)
        found = frame_of(about.geometry, about.plane)
        return {
            "image": image_id,
            "size": list(found.size),
            "to_mm": found.to_mm.tolist(),
            "to_index": found.to_index.tolist(),
            "unit": image_unit(path),
            **grey,
            "pixels": study.pixels_of(image_id),
            "changed": image_id in study.verify([image_id]),
        }


def _read(study: Study, image_id: str) -> Image:
    path = study.image_path(image_id)
    before, image = stamp(path), read_image(path, study.task.dims)
    study.note_pixels(image_id, image, before)
    return image


def _add_picture_route(router: APIRouter, study: Study, pictures: ScreenPictures) -> None:
    @router.get("/landmarks/images/{image_id}/picture", tags=["Landmarks"], summary="A 2D image, or part of one, as PNG")
    @in_threads_of_its_own
    def picture(
        image_id: str,
        low: float | None = Query(None, description="Value that is shown black"),
        high: float | None = Query(None, description="Value that is shown white"),
        first: str = Query("0,0", description="x,y of the first sample"),
        size: str = Query("", description="Samples along x,y before averaging; all without it"),
        step: str = Query("", description="Of so many samples along x and y the mean is sent; without it as few as can be sent"),
    ) -> Response:
        """The header ``landmarklabel-step`` says with which step it was made."""
        if study.task.dims != 2:
            raise NotFound("a volume has no picture: ask for its voxels")
        shown = pictures.of(study.image_path(image_id), functools.partial(_read, study, image_id))
        black, white = shown.window
        window = black if low is None else low, white if high is None else high
        by = _numbers(step, "step", 1)[0] if step else None
        greys, made = shown.part(window, _numbers(first, "first", 2), _numbers(size, "size", 2) if size else None, by)
        return Response(png_of(greys), media_type="image/png", headers={"landmarklabel-step": str(made)})


def _add_voxels_route(router: APIRouter, study: Study, volumes: ScreenVolumes) -> None:
    @router.get(
        "/landmarks/images/{image_id}/voxels", tags=["Landmarks"], summary="A volume, or part of one, at full or less resolution"
    )
    @in_threads_of_its_own
    def voxels(
        image_id: str,
        first: str = Query("0,0,0", description="x,y,z of the first sample"),
        size: str = Query("", description="Samples along x,y,z before averaging; all without it"),
        step: str = Query("1,1,1", description="Of so many samples along x,y,z the mean is sent"),
    ) -> Response:
        """Little-endian int16, x fastest; a value is ``voxels[0] * sample + voxels[1]``, as of ``…/frame``."""
        if study.task.dims != 3:
            raise NotFound("a 2D image has no voxels: ask for its picture")
        volume = volumes.of(study.image_path(image_id), functools.partial(_read, study, image_id))
        whole = volume.samples.shape[::-1]
        piece = volume.piece(_numbers(first, "first", 3), _numbers(size, "size", 3) if size else whole, _numbers(step, "step", 3))
        shape = ",".join(str(n) for n in piece.shape[::-1])
        return Response(piece.tobytes(), media_type="application/octet-stream", headers={"landmarklabel-size": shape})


def _numbers(text: str, what: str, count: int) -> tuple[int, ...]:
    """So many whole numbers, as in ``x,y,z``. Raises UsageError."""
    if re.fullmatch(r"\d{1,6}" + r",\d{1,6}" * (count - 1), text, re.ASCII) is None:
        wanted = {1: "a whole number", 2: "two whole numbers, as in 0,0", 3: "three whole numbers, as in 0,0,0"}[count]
        raise UsageError(f"{what} {text[:40]!r} must be {wanted}")
    return tuple(int(n) for n in text.split(","))
