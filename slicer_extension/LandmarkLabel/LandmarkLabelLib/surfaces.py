"""Surfaces in Slicer: the model of a case that is one, the nearest place on it, and models that are sent to the server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtkIdTypeArray, vtk_to_numpy

from .markups import flipped
from .scene_nodes import HELPER, of_class, remove

IS_SURFACE = b"\nLandmarkLabelSurfaceBand:="  # in the header of a volume that the server made of a surface
HEAD_BYTES = 4096
ON_SURFACE = 128  # grey value of such a volume on the surface
GREY_PER_VOXEL = 127 / 4  # how it falls across the surface …
STEEPEST = 2  # … and more than so many times as steep it falls where an open surface ends: that is no surface
COLOUR = 0.95, 0.84, 0.57  # of bone, as Slicer has it


def is_surface_volume(path: Path) -> bool:
    """Whether a file is a volume of the distances from a surface, as a server keeps one."""
    if path.suffix.lower() != ".nrrd":
        return False
    with path.open("rb") as file:
        return IS_SURFACE in file.read(HEAD_BYTES).split(b"\n\n")[0]


class CaseSurface:
    """The surface of the open case as a model, which all views show.

    Args:
        scene: where it lives.
    """

    def __init__(self, scene):
        self.scene, self.node, self._places = scene, None, None
        self._as_made: tuple = ()

    def show(self, volume, name: str) -> None:
        """That of a volume of distances; a volume without a surface has none."""
        self.close()
        surface = _surface(volume)
        if not surface.GetNumberOfPolys():
            return
        self._places = vtk.vtkStaticCellLocator()
        self._places.SetDataSet(surface)
        self._places.BuildLocator()
        self.node = self.scene.AddNewNodeByClass("vtkMRMLModelNode", name)
        self.node.SetAttribute(HELPER, "surface")
        self.node.SetSaveWithScene(False)
        self.node.SetAndObservePolyData(surface)
        self.node.CreateDefaultDisplayNodes()
        self.node.GetDisplayNode().SetColor(*COLOUR)
        self.node.GetDisplayNode().SetVisibility2D(True)
        self._as_made = _triangles(self.node)

    @property
    def is_gone(self) -> bool:
        """Whether somebody has taken it out of the scene, or changed its triangles, as hardening a transform does."""
        if self.node is None:
            return False
        return self.node.GetScene() is None or _triangles(self.node) != self._as_made

    def nearest(self, position: tuple) -> tuple[float, float, float]:
        """The nearest place on it, LPS mm; the place itself where there is no surface."""
        if self._places is None:
            return position
        found, cell, sub, square = [0.0, 0.0, 0.0], vtk.reference(0), vtk.reference(0), vtk.reference(0.0)
        self._places.FindClosestPoint(flipped(position), found, vtk.vtkGenericCell(), cell, sub, square)
        return flipped(found)

    def close(self) -> None:
        """Take it out of the scene, if it is still there."""
        remove(self.scene, self.node)
        self.node, self._places = None, None


def _triangles(node) -> tuple:
    """A value that differs once its points are elsewhere, as after a transform was hardened."""
    surface = node.GetPolyData()
    return surface, surface.GetPoints().GetMTime() if surface is not None and surface.GetPoints() is not None else None


def _surface(volume):
    """Triangles, RAS mm, where a volume's grey values pass those of the surface."""
    contour, to_ras = vtk.vtkFlyingEdges3D(), vtk.vtkMatrix4x4()
    contour.SetInputData(volume.GetImageData())
    contour.SetValue(0, ON_SURFACE)
    contour.ComputeScalarsOff()
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOn()
    contour.Update()
    found = contour.GetOutput()
    if found.GetNumberOfPolys():
        corners = vtk_to_numpy(found.GetPolys().GetConnectivityArray()).reshape(-1, 3)
        steep = np.linalg.norm(vtk_to_numpy(found.GetPointData().GetArray("Gradients")), axis=1) > STEEPEST * GREY_PER_VOXEL
        kept, cells = corners[~steep[corners].any(axis=1)], vtk.vtkCellArray()
        ends = numpy_to_vtkIdTypeArray(np.arange(0, 3 * len(kept) + 1, 3), deep=True)
        cells.SetData(ends, numpy_to_vtkIdTypeArray(np.ascontiguousarray(kept.ravel(), np.int64), deep=True))
        found.SetPolys(cells)
        found.GetPointData().Initialize()
    volume.GetIJKToRASMatrix(to_ras)
    return _moved(found, to_ras)


def _moved(surface, matrix):
    move, transform = vtk.vtkTransformPolyDataFilter(), vtk.vtkTransform()
    transform.SetMatrix(matrix)
    move.SetTransform(transform)
    move.SetInputData(surface)
    move.Update()
    return move.GetOutput()


def open_models(scene) -> list:
    """The models of a scene that a person has opened."""
    models = of_class(scene, "vtkMRMLModelNode")
    return [node for node in models if not node.GetHideFromEditors() and not node.GetAttribute(HELPER)]


def write_model(node, path: Path) -> bool:
    """Write a model's triangles to a PLY file that states its unit, which in Slicer is mm, and its frame; False without any."""
    if node.GetPolyData() is None:
        return False
    triangles, to_lps = vtk.vtkTriangleFilter(), vtk.vtkMatrix4x4()
    triangles.PassLinesOff()
    triangles.PassVertsOff()
    triangles.SetInputData(node.GetPolyData())
    triangles.Update()
    if not triangles.GetOutput().GetNumberOfPolys():
        return False
    for axis in (0, 1):
        to_lps.SetElement(axis, axis, -1)
    writer = vtk.vtkPLYWriter()
    writer.SetInputData(_moved(triangles.GetOutput(), to_lps))
    writer.AddComment("SPACE=LPS")
    writer.AddComment("UNIT=mm")
    writer.SetFileName(str(path))
    return bool(writer.Write())
