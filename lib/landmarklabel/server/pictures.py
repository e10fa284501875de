"""What a browser shows of an image: where it lies, and its grey values."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from landmarklabel.errors import NotFound, UsageError
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import read_image
from landmarklabel.server.application import Application
from landmarklabel.server.threads import in_threads_of_its_own
from landmarklabel.services.descriptions import describe, image_unit
from landmarklabel.services.screen_images import frame_of, png_of, window_of
from landmarklabel.store.pixels import stamp


def add_picture_routes(router: APIRouter, application: Application) -> None:
    """``frame`` and ``picture`` of an image."""
    study, dims = application.study, application.task.dims

    def read(image_id: str) -> Image:
        path = study.image_path(image_id)
        before, image = stamp(path), read_image(path, dims)
        study.note_pixels(image_id, image, before)
        return image

    @router.get(
        "/landmarks/images/{image_id}/frame", tags=["Landmarks"], summary="Where an image lies, and its grey values' range"
    )
    @in_threads_of_its_own
    def frame(image_id: str) -> dict[str, Any]:
        """``to_mm``: rows from sample numbers and 1 to LPS mm; ``to_index``: the way back. ``pixels``: as of ``…/pixels``."""
        path = study.image_path(image_id)
        image = read(image_id)
        found = frame_of(image.geometry, describe(path, dims).plane)
        low, high = window_of(image.pixels)
        return {
            "image": image_id,
            "size": list(found.size),
            "to_mm": found.to_mm.tolist(),
            "to_index": found.to_index.tolist(),
            "unit": image_unit(path),
            "window": [low, high],
            "range": [float(image.pixels.min()), float(image.pixels.max())],
            "pixels": study.pixels_of(image_id),
            "changed": image_id in study.verify([image_id]),
        }

    @router.get("/landmarks/images/{image_id}/picture", tags=["Landmarks"], summary="A 2D image as PNG")
    @in_threads_of_its_own
    def picture(
        image_id: str,
        low: float | None = Query(None, description="Value that is shown black"),
        high: float | None = Query(None, description="Value that is shown white"),
    ) -> Response:
        if dims != 2:
            raise NotFound("a volume has no picture: ask for its slices")
        image = read(image_id)
        first, last = window_of(image.pixels)
        first, last = first if low is None else low, last if high is None else high
        if not (math.isfinite(first) and math.isfinite(last) and first < last):
            raise UsageError(f"low {first:g} must be below high {last:g}, and both numbers")
        return Response(png_of(image.pixels, first, last), media_type="image/png")
