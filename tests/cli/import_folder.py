"""What the tests of ``import`` share: a folder of small pictures with a task, and what is imported of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from program import Done, run

from landmarklabel.io.files import write_json
from landmarklabel.io.markups import write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store.study import Study

TASK = LandmarkTask("two", ("N", "S"), 2)
POINTS = np.array([[5.0, 6.0], [20.0, 10.0]])


class Folder:
    """Pictures of 40 x 30 pixels and a task, and what is imported of them."""

    def __init__(self, folder: Path, *ids: str):
        self.folder, self.images, self.labels = folder, folder / "images", folder / "labels"
        for place in (self.images, self.labels):
            place.mkdir()
        write_json(folder / "task.json", TASK.to_json())
        for image_id in ids:
            Picture.fromarray(np.random.default_rng(sum(image_id.encode())).integers(0, 255, (30, 40)).astype(np.uint8)).save(
                self.images / f"{image_id}.png"
            )

    def run(self, *words: object) -> Done:
        return run("import", self.folder / "study", "--task", self.folder / "task.json", "--images", self.images, *words)

    def table(self, text: str) -> tuple[str, Path]:
        (self.folder / "t.csv").write_text(text, encoding="utf-8")
        return "--table", self.folder / "t.csv"

    def label(self, name: str, points: np.ndarray = POINTS, task: LandmarkTask = TASK) -> Path:
        write_markups(self.labels / "x.mrk.json", LandmarkSet.of_positions(task, points))
        return (self.labels / "x.mrk.json").rename(self.labels / name)

    def saved(self) -> dict[str, list[tuple[str, list]]]:
        """(author, positions) of every revision of every image."""
        with closing(Study(self.folder / "study", TASK)) as study:
            return {
                i: [(r.author, study.read(r).positions_mm.tolist()) for r in study.history(i)]
                for i in study.images()
                if study.history(i)
            }
