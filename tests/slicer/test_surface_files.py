"""Surfaces and points that Slicer itself has written, in both of its frames: read to a millionth of a millimetre."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from landmarklabel.cli import main
from landmarklabel.io.files import write_json
from landmarklabel.io.markups import read_markups
from landmarklabel.io.surface_formats import convert
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.store.study import Study

TASK = LandmarkTask("skull", ("nose", "chin", "ear"), 3)
FRAMES = {"RAS": 0, "LPS": 1}  # numbers of ``vtkMRMLStorageNode``
SINGLE_MM = 1e-5  # what single precision keeps of coordinates of 100 mm


def ball() -> vtk.vtkPolyData:
    source = vtk.vtkSphereSource()
    source.SetRadius(40)
    source.SetCenter(11, -23, 57)
    source.SetThetaResolution(60)
    source.SetPhiResolution(60)
    source.Update()
    return source.GetOutput()


def stored(scene, kind: str, node, path, frame: str) -> None:
    storage = scene.AddNode(getattr(slicer, kind)())
    storage.SetCoordinateSystem(FRAMES[frame])
    storage.SetFileName(str(path))
    assert storage.WriteData(node) == 1


CASES = [(s, f, ".mrk.json") for s, f in zip((".ply", ".stl", ".obj", ".vtp", ".vtk"), ("RAS", "LPS") * 3, strict=False)]


@pytest.mark.parametrize(("surface", "frame", "points"), [*CASES, (".ply", "LPS", ".fcsv")])
def test_a_model_and_its_points_go_into_a_study_and_back(scene, tmp_path, surface, frame, points):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    model = scene.AddNewNodeByClass("vtkMRMLModelNode", "skull")
    model.SetAndObservePolyData(ball())
    stored(scene, "vtkMRMLModelStorageNode", model, meshes / f"one{surface}", frame)
    on_it = vtk_to_numpy(ball().GetPoints().GetData())[[100, 700, 2000]].astype(float)  # RAS, as everything in a scene
    placed = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    for name, place in zip(TASK.names, on_it, strict=True):
        placed.AddControlPoint(vtk.vtkVector3d(*place), name)
    kinds = {".mrk.json": "vtkMRMLMarkupsJsonStorageNode", ".fcsv": "vtkMRMLMarkupsFiducialStorageNode"}
    stored(scene, kinds[points], placed, meshes / f"one{points}", frame)
    truth = on_it * [-1, -1, 1]
    write_json(tmp_path / "task.json", TASK.to_json())
    words = ("import", tmp_path / "study", "--task", tmp_path / "task.json", "--images", meshes, "--markups", meshes)
    assert main([*map(str, words), "--mesh-unit", "mm"]) == 0
    study = Study(tmp_path / "study", TASK)
    kept = study.labelled()["one"].positions_mm
    study.close()
    np.testing.assert_allclose(kept, truth, rtol=0, atol=1e-6)
    np.testing.assert_allclose(read_markups(tmp_path / "study" / "labels" / "final" / "one.mrk.json", TASK).positions_mm, kept)
    _, off = convert(meshes / f"one{surface}", "mm").surface.nearest(truth)
    assert off.max() < SINGLE_MM  # on the surface, so its frame was understood
    again = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    storage = scene.AddNode(slicer.vtkMRMLMarkupsJsonStorageNode())
    storage.SetFileName(str(tmp_path / "study" / "labels" / "final" / "one.mrk.json"))
    assert storage.ReadData(again) == 1
    back = [again.GetNthControlPointPositionVector(i) for i in range(3)]
    np.testing.assert_allclose([[p[0], p[1], p[2]] for p in back], on_it, rtol=0, atol=1e-6)
