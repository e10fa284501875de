"""What the tests of batches have in common: a head, servers that say what a test wants, and files as Slicer reads them."""

from __future__ import annotations

from pathlib import Path

import slicer
from LandmarkLabelLib.client import Client
from LandmarkLabelLib.wire import ABSENT, PREDICTED, UNSET, Point, Task

NAMES = ("nasion", "sella", "menton", "=cmd|' /C calc'!A1")
TASK = Task("head", NAMES, 3, {}, ())
POINTS = [
    Point("nasion", PREDICTED, (1.25, -2.5, 3.0), 0.75, flagged=True),
    Point("sella", ABSENT),
    Point("menton", UNSET),
    Point(NAMES[3], PREDICTED, (-4.0, 5.0, 6.5)),
]


class Counting(Client):
    """Writes down the files it asks for."""

    def __init__(self, url: str):
        super().__init__(url)
        self.asked: list[str] = []

    def predict_file(self, model, path, task):
        self.asked.append(path.name)
        return super().predict_file(model, path, task)


class Fake:
    """A server that says what a test wants: ``answers`` by file name; exceptions are raised, those of a list one by one."""

    def __init__(self, version: int = 3, **answers):
        self.version, self.answers, self.asked, self.down = version, answers, [], None

    def info(self) -> dict:
        if self.down is not None:
            raise self.down
        return {"models": {"scn": {"version": self.version}}}

    def predict_file(self, model: str, path: Path, task: Task) -> dict:
        self.asked.append(path)
        path.read_bytes()
        answer = self.answers.get(path.stem, POINTS)
        if isinstance(answer, list) and answer and not isinstance(answer[0], Point):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"points": answer, "origin": "model", "version": self.version}


def put(folder: Path, *names: str) -> list[tuple[str, Path]]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.nrrd").write_bytes(name.encode())
    return [(name, folder / f"{name}.nrrd") for name in names]


def in_slicer(scene, path: Path):
    """The list that Slicer reads from a file."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    storage = scene.AddNode(slicer.vtkMRMLMarkupsJsonStorageNode())
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    return node


def ras(node, index: int) -> list[float]:
    position = [0.0] * 3
    node.GetNthControlPointPositionWorld(index, position)
    return position


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
