"""The steps of SlicerMorph's ALPACA on the meshes of ``mouse_surfaces``, for comparison.

    python -m venv alpaca && alpaca/bin/pip install itk-fpfh itk-ransac tbb cpdalp vtk scipy
    LD_LIBRARY_PATH=alpaca/lib alpaca/bin/python scripts/alpaca.py RUNS/mouse_surfaces/meshes RUNS/alpaca.json

Its libraries need another numpy than LandmarkLabel, so nothing of it is imported here. One mesh with landmarks is the template;
of every other one: points of the surface on a grid, FPFH features, RANSAC over mutually nearest features (itk-fpfh, itk-ransac),
iterative closest points, coherent point drift (cpdalp) that takes the template's landmarks along, and the nearest place of the
mesh. The settings are ALPACA's defaults, in steps of the grid where its own are, except for fewer points (``GRID``), since
coherent point drift solves equations of as many unknowns, over and over, and fewer tries of RANSAC (20,000 of a million), which
bring the skulls over one another. RANSAC draws without a seed: runs differ a little.

``results/mouse_surfaces_alpaca.json`` is its summary with command and hardware, without the seconds,
which were taken beside other work.

Source: Porto, Rolfe and Maga 2021, Methods in Ecology and Evolution 12, p. 2129-2144.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import itk
import numpy as np
import vtk
from cpdalp import DeformableRegistration
from scipy.spatial import cKDTree
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

GRID = 40  # of the mesh's diagonal: about 2000 points a skull
NORMAL_SAMPLES, FEATURE_RADIUS, FEATURE_NEIGHBOURS = 30, 5.0, 100  # points; in grid steps; points
RANSAC_POINTS, RANSAC_TRIES, RANSAC_CERTAINTY, INLIER = 3, 20_000, 0.999, 1.5  # the last in grid steps
ALPHA, BETA, CPD_ROUNDS, CPD_TOLERANCE, CPD_SIZE = 2, 2, 100, 0.001, 25


def main(meshes: Path, out: Path) -> int:
    ids = sorted(p.stem for p in meshes.glob("*.ply"))
    surfaces = {i: read_mesh(meshes / f"{i}.ply") for i in ids}
    truth = {i: read_points(meshes / f"{i}.mrk.json") for i in ids}
    template = most_average(truth)
    errors, seconds = {}, {}
    for image_id in (i for i in ids if i != template):
        started = time.monotonic()
        found = transfer(surfaces[template], truth[template], surfaces[image_id])
        seconds[image_id] = time.monotonic() - started
        errors[image_id] = np.linalg.norm(found - truth[image_id], axis=1)
        print(f"{image_id}: {errors[image_id].mean():.3f} mm, {seconds[image_id]:.0f} s", flush=True)
    every, took = np.concatenate(list(errors.values())), float(np.median(list(seconds.values())))
    summary = {
        "template": template, "meshes": len(errors), "mre_mm": float(every.mean()), "median_mm": float(np.median(every)),
        "beyond_2_mm": int((every > 2).sum()), "points": int(every.size), "seconds_a_mesh": took,
        "by_mesh_mm": {i: float(e.mean()) for i, e in errors.items()},
    }  # fmt: skip
    out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return 0


def transfer(source: np.ndarray, landmarks: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Landmarks (n, 3) of a source (its vertices) on a target."""
    source, landmarks = source - source.mean(0), landmarks - source.mean(0)
    ratio = size_of(target) / size_of(source)
    source, landmarks = source * ratio, landmarks * ratio
    step = np.linalg.norm(np.ptp(target, axis=0)) / GRID
    few, goal = on_grid(source, step), on_grid(target, step)
    turn, shift = closest_points(few, goal, *ransac(few, goal, step))
    few, landmarks = few @ turn.T + shift, landmarks @ turn.T + shift
    middle, scale = goal.mean(0), CPD_SIZE / np.linalg.norm(np.ptp(goal, axis=0))
    drift = DeformableRegistration(
        X=(goal - middle) * scale,
        Y=(np.concatenate([landmarks, few]) - middle) * scale,
        alpha=ALPHA,
        beta=BETA,
        max_iterations=CPD_ROUNDS,
        tolerance=CPD_TOLERANCE,
    )
    moved, _ = drift.register()
    return target[cKDTree(target).query(moved[: len(landmarks)] / scale + middle)[1]]


def ransac(source: np.ndarray, target: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and shift (3,) that bring the source onto the target, from features that are each other's nearest."""
    ours, theirs = features(source, step), features(target, step)
    to, back = cKDTree(theirs).query(ours)[1], cKDTree(ours).query(theirs)[1]
    mutual = np.flatnonzero(back[to] == np.arange(len(ours)))
    pairs = np.concatenate([source[mutual], target[to[mutual]]], axis=1)
    everywhere = np.concatenate([source, target[cKDTree(theirs).query(ours)[1]]], axis=1)
    data, agree = (as_points(x) for x in (pairs, everywhere))
    estimator = itk.Ransac.LandmarkRegistrationEstimator[6, itk.VersorRigid3DTransform[itk.D]].New()
    estimator.SetMinimalForEstimate(RANSAC_POINTS)
    estimator.SetAgreeData(agree)
    estimator.SetDelta(INLIER * step)
    search = itk.RANSAC[itk.Point[itk.D, 6], itk.D, itk.VersorRigid3DTransform[itk.D]].New()
    search.SetData(data)
    search.SetAgreeData(agree)
    search.SetCheckCorresspondenceDistance(True)
    search.SetMaxIteration(RANSAC_TRIES)
    search.SetNumberOfThreads(min(2, len(os.sched_getaffinity(0))))
    search.SetParametersEstimator(estimator)
    parameters = itk.vector.D()
    search.Compute(parameters, RANSAC_CERTAINTY)
    transform = itk.VersorRigid3DTransform[itk.D].New()
    given, fixed = transform.GetParameters(), transform.GetFixedParameters()
    found = list(parameters)
    for k in range(given.GetNumberOfElements()):
        given.SetElement(k, found[k])
    for k in range(3):
        fixed.SetElement(k, found[given.GetNumberOfElements() + k])
    transform.SetFixedParameters(fixed)
    transform.SetParameters(given)
    turn = itk.array_from_matrix(transform.GetMatrix())
    return turn, np.array(transform.GetOffset())


def closest_points(source: np.ndarray, target: np.ndarray, turn: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A rotation and shift made better by iterative closest points."""
    tree = cKDTree(target)
    for _ in range(100):
        near = target[tree.query(source @ turn.T + shift)[1]]
        a, b = source - source.mean(0), near - near.mean(0)
        left, _, right = np.linalg.svd(b.T @ a)
        new = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
        done = np.abs(new - turn).max() < 1e-6
        turn, shift = new, near.mean(0) - new @ source.mean(0)
        if done:
            break
    return turn, shift


def features(points: np.ndarray, step: float) -> np.ndarray:
    """(n, 33) fast point feature histograms."""
    cloud, normals = itk.PointSet[itk.F, 3].New(), itk.PointSet[itk.F, 3].New()
    cloud.SetPoints(itk.vector_container_from_array(points.astype(np.float32).ravel()))
    normals.SetPoints(itk.vector_container_from_array(normals_of(points).astype(np.float32).ravel()))
    made = itk.Fpfh.PointFeature.MF3MF3.New()
    made.ComputeFPFHFeature(cloud, normals, FEATURE_RADIUS * step, FEATURE_NEIGHBOURS)
    return itk.array_from_vector_container(made.GetFpfhFeature()).reshape(33, len(points)).T


def normals_of(points: np.ndarray) -> np.ndarray:
    places, cells = vtk.vtkPoints(), vtk.vtkCellArray()
    places.SetData(numpy_to_vtk(np.ascontiguousarray(points), deep=True))
    for k in range(len(points)):
        cells.InsertNextCell(1, [k])
    cloud, estimate = vtk.vtkPolyData(), vtk.vtkPCANormalEstimation()
    cloud.SetPoints(places)
    cloud.SetVerts(cells)
    estimate.SetSampleSize(NORMAL_SAMPLES)
    estimate.SetFlipNormals(True)
    estimate.SetNormalOrientationToGraphTraversal()
    estimate.SetInputData(cloud)
    estimate.Update()
    return vtk_to_numpy(estimate.GetOutput().GetPointData().GetArray(0))


def as_points(rows: np.ndarray):
    kind = itk.Point[itk.D, 6]
    out = itk.vector[kind]()
    for row in rows:
        point = kind()
        for k in range(6):
            point.SetElement(k, float(row[k]))
        out.push_back(point)
    return out


def on_grid(points: np.ndarray, step: float) -> np.ndarray:
    """The mean of the points in every cell of a grid."""
    cells = np.floor((points - points.min(0)) / step).astype(int)
    _, number = np.unique(cells, axis=0, return_inverse=True)
    number = number.ravel()
    counts = np.bincount(number)
    return np.stack([np.bincount(number, points[:, k]) / counts for k in range(3)], axis=1)


def size_of(points: np.ndarray) -> float:
    return float(np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean()))


def most_average(truth: dict[str, np.ndarray]) -> str:
    """Whose distances between landmarks are nearest to the mean ones: the best that a single template can be."""
    between = {i: np.linalg.norm(p[:, None] - p[None], axis=2) for i, p in truth.items()}
    shapes = {i: d / d.mean() for i, d in between.items()}
    mean = np.mean(list(shapes.values()), axis=0)
    return min(shapes, key=lambda i: float(np.abs(shapes[i] - mean).sum()))


def read_mesh(path: Path) -> np.ndarray:
    reader = vtk.vtkPLYReader()
    reader.SetFileName(str(path))
    reader.Update()
    return vtk_to_numpy(reader.GetOutput().GetPoints().GetData()).astype(np.float64)


def read_points(path: Path) -> np.ndarray:
    """(n, 3) LPS mm in the file's order, as LandmarkLabel writes them."""
    rows = json.loads(path.read_text(encoding="utf-8"))["markups"][0]
    assert rows["coordinateSystem"] == "LPS"
    return np.array([point["position"] for point in rows["controlPoints"]], float)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
