"""How exact measurements are: angles of cephalograms against the two readers, and landmarks on surfaces of mouse skulls."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cephalograms
import numpy as np
from experiment import cross_validate, evaluate, landmarklabel, train_once

MINUTES = 60.0  # of training on cephalograms, on one core
FOLD_MINUTES = 8.0  # of training on surfaces
LEVEL = 0.95
HALVES = 200  # random halves of the test cases: one gives the factor by which intervals are widened, the other is measured


def cephalogram_angles(data: Path, runs: Path) -> dict:
    """ISBI 2015 (150 to train, test1): errors of points and of angles, readers' disagreement, and whether intervals hold."""
    from landmarklabel.agreement import agreements
    from landmarklabel.tasks import resolve_task

    task = resolve_task("cephalogram")
    read = {part: cephalograms.readings(data, part, len(task)) for part in ("train", "test1")}
    for part, of in read.items():
        if not (runs / part).is_dir():
            cephalograms.study_of(task, data, of, runs / part)
    predictions = runs / "predictions"
    model = train_once(
        runs / "train", "cephalogram", "scn", MINUTES, runs / f"model_{MINUTES:g}_minutes", core=max(os.sched_getaffinity(0))
    )
    landmarklabel("predict", model, runs / "test1" / "images", "--out", predictions)
    found = _measured(task, predictions, runs / "test1")
    by_reader = {who: {i: _set(task, p[who]) for i, p in read["test1"].items()} for who in cephalograms.READERS}
    for a in agreements(task, by_reader):
        found[a.measurement] |= {
            "readers_mean_absolute_difference": float(np.abs(a.differences).mean()),
            "readers_bias": a.bias,
            "readers_icc": a.icc,
        }
    return {
        "minutes": MINUTES,
        "cores": 1,
        "points_mm": {
            "model": cephalograms.errors_mm(task, predictions, runs / "test1"),
            "readers_mean_distance": cephalograms.readers_distance_mm(read["test1"]),
        },
        "cases": len(read["test1"]),
        "measurements": found,
        "mean_offset_px": {
            "test1": _mean_offsets(predictions, runs / "test1", task),
            "validation": _mean_offsets(_validation(model, runs), runs / "train", task),
        },
    }


def _validation(model: Path, runs: Path) -> Path:
    """Predictions of the cases that the training kept for validation."""
    ids = set(json.loads((model / "model.json").read_text(encoding="utf-8"))["valid_ids"])
    images = [path for path in sorted((runs / "train" / "images").iterdir()) if path.stem in ids]
    landmarklabel("predict", model, *images, "--out", runs / "validation")
    return runs / "validation"


def _mean_offsets(predictions: Path, study: Path, task) -> dict[str, list[float]]:
    """By landmark: where it is predicted less where it is, x and y, on the average: what one labelling does by habit."""
    from landmarklabel.services.label_folders import read_label_folder, read_many

    truth, _ = read_many(study, task, {})
    predicted = read_label_folder(predictions, task, {})
    off = np.nanmean([x.positions_mm - truth[i].positions_mm for i, x in predicted.items() if i in truth], axis=0)
    return dict(zip(task.names, off.round(2).tolist(), strict=True))


def _set(task, points):
    from landmarklabel.landmarks import LandmarkSet

    return LandmarkSet.of_positions(task, points)


def _measured(task, predictions: Path, study: Path) -> dict[str, dict]:
    """By measurement: errors, coverage of the intervals as they are, and after widening by what other cases ask for."""
    from landmarklabel.services.label_folders import read_label_folder, read_many
    from landmarklabel.services.measuring import measured_cases, measurement_errors

    truth, _ = read_many(study, task, {})
    predicted = read_label_folder(predictions, task, {})
    pairs = {i: (predicted[i], truth[i]) for i in sorted(predicted) if i in truth}
    out = measurement_errors(pairs, lambda _: "px")
    cases = measured_cases({i: p for i, (p, _) in pairs.items()}, lambda _: "px")
    true = measured_cases({i: t for i, (_, t) in pairs.items()}, lambda _: "px")
    rng = np.random.default_rng(0)
    for k, m in enumerate(task.measurements):
        sd = np.array([cases[i][k].sd for i in pairs])
        off = np.array([cases[i][k].value - true[i][k].value for i in pairs])
        z = np.abs(off / sd)[np.isfinite(off / sd)]
        held, factors = [], []
        for _ in range(HALVES):
            order = rng.permutation(len(z))
            one, other = z[order[: len(z) // 2]], z[order[len(z) // 2 :]]
            factor = np.quantile(one, min(1.0, LEVEL * (1 + 1 / len(one))), method="higher")
            held.append((other <= factor).mean())
            factors.append(factor)
        out[m.name] |= {"coverage_after_halves": float(100 * np.mean(held)), "half_width_in_sd": float(np.median(factors))}
    return out


def mouse_surfaces(data: Path, runs: Path) -> dict:
    """Isosurfaces of the 20 mouse skulls, turned at random: 5-fold error of the landmarks.

    Against the points of the CTs, which do not lie wholly on the surface, and against their nearest places on it, where all
    that is predicted lies.
    """
    from landmarklabel.io.markups import read_markups
    from landmarklabel.io.surfaces import write_surface
    from landmarklabel.tasks import resolve_task

    task, source, meshes = resolve_task("mouse_skull"), data / "mouse_ct", runs / "meshes"
    meshes.mkdir(exist_ok=True)
    for number, path in enumerate(sorted((source / "images").iterdir())):
        image_id = path.name.split(".")[0]
        if (meshes / f"{image_id}.ply").exists():
            continue
        surface, turn = _isosurface(path, number)
        points = read_markups(source / "landmarks" / f"{image_id}.mrk.json", task)
        _write_turned(task, points, turn, meshes / f"{image_id}.mrk.json")
        write_surface(meshes / f"{image_id}.ply", surface)
    if not (runs / "study" / "labels").is_dir():
        landmarklabel("import", runs / "study", "--task", "mouse_skull", "--images", meshes, "--markups", meshes)
    images = {p.stem: p for p in sorted(meshes.glob("*.ply"))}
    found = cross_validate(runs / "study", "mouse_skull", images, ("scn",), FOLD_MINUTES, runs)
    off = [
        _put_onto_surface(task, meshes / f"{image_id}.mrk.json", path, runs / "on_surface") for image_id, path in images.items()
    ]
    on_surface = evaluate(runs / "scn" / "predictions", runs / "on_surface", "mouse_skull", runs / "on_surface.html")
    about = {"minutes_a_fold": FOLD_MINUTES, "truth_off_surface_mm": float(np.mean(off))}
    return {**about, **found, "scn_against_points_on_surface": on_surface}


def _put_onto_surface(task, labels: Path, mesh: Path, folder: Path) -> np.ndarray:
    """Write a label file whose points are put onto the surface; (n,) mm that they moved."""
    from dataclasses import replace

    from landmarklabel.io.markups import read_markups, write_markups
    from landmarklabel.io.surfaces import read_surface

    folder.mkdir(exist_ok=True)
    points = read_markups(labels, task)
    places, moved = read_surface(mesh).nearest(points.positions_mm)
    write_markups(folder / labels.name, replace(points, positions_mm=places))
    return moved


def _isosurface(path: Path, seed: int):
    """The bone's surface at Otsu's threshold, turned at random: a surface and (3, 3) the turn."""
    import SimpleITK as sitk
    import vtk
    from scipy.spatial.transform import Rotation
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    from landmarklabel.io.surfaces import Surface

    image = sitk.ReadImage(str(path))
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(image)
    smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(image, sitk.sitkFloat32), 0.1)
    grid = vtk.vtkImageData()
    grid.SetDimensions(image.GetSize())
    grid.SetSpacing(image.GetSpacing())
    grid.SetOrigin(image.GetOrigin())
    grid.GetPointData().SetScalars(numpy_to_vtk(sitk.GetArrayFromImage(smooth).ravel()))
    contour = vtk.vtkFlyingEdges3D()
    contour.SetInputData(grid)
    contour.SetValue(0, otsu.GetThreshold())
    contour.ComputeScalarsOff()
    contour.Update()
    found = contour.GetOutput()
    turn = Rotation.random(random_state=seed).as_matrix()
    vertices = vtk_to_numpy(found.GetPoints().GetData()).astype(np.float64) @ turn.T
    return Surface(vertices, vtk_to_numpy(found.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)), turn


def _write_turned(task, points, turn: np.ndarray, path: Path) -> None:
    from dataclasses import replace

    from landmarklabel.io.markups import write_markups

    write_markups(path, replace(points, positions_mm=points.positions_mm @ turn.T))


EXPERIMENTS = (cephalogram_angles, mouse_surfaces)
