"""What our addresses take, in the words of OpenAPI: Python sees a plain object, clients and tests see its parts."""

from __future__ import annotations

from landmarklabel.landmarks import Status
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.request_values import DEVICES

_TEXT = {"type": "string", "maxLength": LIMITS.text_characters}
_KEY = {**_TEXT, "minLength": 1, "description": "the same again under one key adds nothing"}
_POSITION = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3, "description": "LPS mm"}
_BASE = {"type": "integer", "minimum": 0, "description": "revision the edit started from, 0 for none"}
_DEVICE = {"type": "string", "enum": list(DEVICES)}
_OF_ROW = {"name": _TEXT, "status": {"type": "string", "enum": [s.value for s in Status]}, "position": _POSITION}
_ROW = {
    "type": "object",
    "required": ["name", "status", "position"],  # the last one of those that have one
    "properties": _OF_ROW,
}
_POINTS = {
    "fixed": {"type": "object", "additionalProperties": _POSITION},
    "absent": {"type": "array", "items": _TEXT},
}


def _object(properties: dict, *required: str) -> dict:
    return {"type": "object", "properties": properties, "required": list(required)}


SAVE = _object(
    {
        "landmarks": {"type": "array", "items": _ROW},
        "base_revision": {**_BASE, "description": f"{_BASE['description']}; has to be given unless it is a second reading"},
        "author": _TEXT,
        "key": _KEY,
        "pixels": {**_TEXT, "description": "hash of the pixels the points were placed on: refused where the image has changed"},
        "repeat": {"type": "boolean", "description": "a second reading: it changes no label"},
        "checked": {"type": "array", "items": _TEXT, "description": "names of points that were looked at again and are right"},
        "unchecked": {"type": "array", "items": _TEXT, "description": "names of points of which that is taken back"},
    },
    "landmarks",
)
DRAFT = _object(
    {
        "landmarks": {"type": "array", "items": _ROW},
        "base_revision": _BASE,
        "edits": {"type": "integer", "minimum": 0, "description": "how often the person has changed something"},
        "author": _TEXT,
        "pixels": _TEXT,
        "repeat": {"type": "boolean"},
    },
    "landmarks",
    "base_revision",
)
UPDATE = _object({**_POINTS, "model": _TEXT})
_WITH_COVARIANCE = {**_ROW, "properties": {**_OF_ROW, "covariance": {"type": "array", "items": {"type": "array"}}}}
MEASURE = _object({"landmarks": {"type": "array", "items": _WITH_COVARIANCE}, "model": _TEXT}, "landmarks")
TRAIN = _object(
    {
        "minutes": {"type": "number", "minimum": 0},
        "max_epochs": {"type": "number", "minimum": 0},
        "seed": {"type": "integer", "minimum": 0},
        "device": _DEVICE,
        "pretrained": {"type": "boolean"},
        "key": _KEY,
    }
)
BATCH = _object(
    {
        "label_tag": _TEXT,
        "images": {"type": "array", "items": _TEXT},
        "device": _DEVICE,
        "max_workers": {"type": "integer", "minimum": 0, "maximum": 64},
        "max_batch_size": {"type": "integer", "minimum": 0},
    }
)
ASK = _object({"client_id": _TEXT})
INFER = _object({**_POINTS, "device": _DEVICE, "save_label": {"type": "boolean"}, "label_tag": _TEXT})
LABEL = _object({"user": _TEXT, "client_id": _TEXT, "base_revision": _BASE, "key": _KEY, "partial": {"type": "boolean"}})
NOTES = {"type": "object"}


def takes(schema: dict) -> dict:
    """``openapi_extra`` of a route whose body is such an object."""
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def written(schema: dict) -> dict:
    """``json_schema_extra`` of a form's field that holds such an object as text."""
    return {"contentMediaType": "application/json", "contentSchema": schema}
