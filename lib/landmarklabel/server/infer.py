"""What ``/infer`` and ``update`` answer, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from landmarklabel.server.wire import suggestion_to_wire
from landmarklabel.services.assistant import Answer
from landmarklabel.services.descriptions import image_plane, image_unit
from landmarklabel.services.inference import ServedModel


def answer_to_wire(model: ServedModel, answer: Answer, path: Path) -> dict[str, Any]:
    """What both have in common, of the image at ``path``."""
    calibration = model.calibration(answer)
    more = {"moved_onto_surface_mm": dict(answer.moved_mm)} if answer.moved_mm else {}
    return {
        "landmarks": suggestion_to_wire(answer.suggestion, image_plane(path, model.study.task.dims)),
        "unit": image_unit(path),
        "next": answer.suggestion.next,
        "origin": answer.origin,
        "model_version": model.version,
        "second_pass": answer.second_pass,
        "regions": {"level": calibration.level, "cases": calibration.cases, "case_factor": calibration.case_factor},
        **more,
    }
