"""Eggs: closed surfaces of known size with five landmarks at their poles, as bodies for tests of surfaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from landmarklabel.io.surfaces import Surface
from landmarklabel.landmarks import LandmarkTask

TASK = LandmarkTask("egg", ("left", "right", "front", "back", "top"), 3)
RADII = np.array([20.0, 26.0, 15.0])
SAMPLE_MM = 2 * 26 / 160  # of the volume that a surface becomes
POLES = np.array([[1, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, 1]]) * RADII  # LPS mm


def egg(scale: float, centre: np.ndarray) -> Surface:
    """Its triangles face outwards."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    source = vtk.vtkSphereSource()
    source.SetRadius(1)
    source.SetThetaResolution(60)
    source.SetPhiResolution(60)
    source.Update()
    data = source.GetOutput()
    points = vtk_to_numpy(data.GetPoints().GetData()).astype(float) * RADII * scale + centre
    return Surface(points, vtk_to_numpy(data.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64))


def write_stl(surface: Surface, path: Path, unit_mm: float = 1.0) -> Path:
    """As another program writes it: without a unit."""
    facets = []
    for corners in surface.vertices[surface.faces] / unit_mm:
        vertices = "".join(f"vertex {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in corners)
        facets.append(f"facet normal 0 0 0\nouter loop\n{vertices}endloop\nendfacet\n")
    path.write_text(f"solid x\n{''.join(facets)}endsolid x\n", encoding="ascii")
    return path
