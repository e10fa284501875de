"""Eggs: closed surfaces of known size with five landmarks at their poles, as bodies for tests of surfaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from serving import Material, Server, serving

from landmarklabel.io.files import write_json
from landmarklabel.io.surfaces import Surface, write_surface
from landmarklabel.landmarks import LandmarkTask

TASK = LandmarkTask("egg", ("left", "right", "front", "back", "top"), 3)
RADII = np.array([20.0, 26.0, 15.0])
SAMPLE_MM = 2 * 26 / 160  # of the volume that a surface becomes
POLES = np.array([[1, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, 1]]) * RADII  # LPS mm

CENTRES = np.array([[5.0, -8, 12], [-20, 3, 7], [0, 0, -30], [10, 10, 10]])  # of the study's eggs
SCALES = (0.9, 1.1, 1.0, 0.95)


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


@contextmanager
def serving_eggs(folder: Path) -> Iterator[Server]:
    """A server of a study of four eggs, ``egg0`` to ``egg3``, all but the last of which are labelled at their poles."""
    (folder / "study").mkdir()
    write_json(folder / "task.json", TASK.to_json())
    with serving(Material(folder / "study", folder / "task.json", TASK, {})) as server:
        for number, (scale, centre) in enumerate(zip(SCALES, CENTRES, strict=True)):
            write_surface(path := folder / f"egg{number}.ply", egg(scale, centre))
            with path.open("rb") as file:
                assert server.http("PUT", f"/datastore/image?image=egg{number}", files={"file": file}).status_code == 200
            if number < len(SCALES) - 1:
                points = zip(TASK.names, (centre + scale * POLES).tolist(), strict=True)
                rows = [{"name": name, "status": "placed", "position": place} for name, place in points]
                body = {"landmarks": rows, "base_revision": 0, "author": "ann"}
                assert server.http("PUT", f"/landmarks/images/egg{number}", json=body).status_code == 200
        yield server
