"""A study to save labels in, and labels as clients send them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image as Picture
from serving import Material, phantoms

from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkSet, LandmarkTask


def pictured_study(folder: Path) -> Material:
    """A study of eight phantoms whose task has a picture of a landmark."""
    made = phantoms(folder, 8)
    Picture.new("L", (20, 10)).save(made.task_file.with_name("where.png"))
    content = made.task.to_json()
    content["landmarks"][1]["image"] = "where.png"
    write_json(made.task_file, content)
    return replace(made, task=LandmarkTask.load(made.task_file))


def wire(landmarks: LandmarkSet) -> list[dict]:
    """Placed points as a client sends them."""
    rows = zip(landmarks.task.names, landmarks.positions_mm.tolist(), strict=True)
    return [{"name": name, "position": position, "status": "placed"} for name, position in rows]


def put_label(server, image_id: str, content: str | bytes, name: str = "x.mrk.json", **query):
    query = {"image": image_id, **query}
    return server.http("PUT", "/datastore/label", params=query, files={"label": (name, content)}, data={"params": "{}"})
