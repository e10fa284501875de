"""Imported points lie on the samples they were placed on, as nibabel, pydicom and SimpleITK see the image.

Each image has some samples that no other sample equals. Its points are written in the layouts that people have, by other programs
than ours where there are any, from the image's own matrix; after the import another program reads the value at each point.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image as Picture
from tests.cli.program import run
from tests.io.image_corpus import write_series
from tests.thoroughness import times

from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkTask

NAMES = ("one", "two", "three")
MARK = 1001  # value of the first marked sample; in 8 bits 251
SOLID, FLAT = LandmarkTask("solid", NAMES, 3), LandmarkTask("flat", NAMES, 2)
COUNT = times(2, 50)  # geometries for each format and layout: 262 in every run, 6550 in full


class Volume:
    """A random geometry with marked samples: ``index`` (k, d) x, y[, z], ``lps`` (k, 3) where its own matrix puts them."""

    def __init__(self, rng: np.random.Generator, dims: int):
        self.size = tuple(int(n) for n in rng.integers(5, 12, dims))
        self.spacing = np.round(rng.uniform(0.1, 4, dims), 3)
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        self.direction = turn if rng.random() < 0.7 else np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
        self.origin = np.round(rng.uniform(-300, 300, 3), 2)
        flat = rng.choice(int(np.prod(self.size)), len(NAMES), replace=False)
        self.index = np.stack(np.unravel_index(flat, self.size), axis=1)
        self.pixels = rng.integers(0, 200, self.size[::-1]).astype(np.int16)  # [z, ]y, x
        self.values = np.arange(len(NAMES)) + (MARK if dims == 3 else 251)
        self.pixels[tuple(self.index[:, ::-1].T)] = self.values
        if dims == 3:
            self.lps = self.origin + (self.index * self.spacing) @ self.direction.T

    def right_handed(self) -> Volume:
        """As a DICOM series can say it: the third axis is the normal of the first two."""
        self.direction[:, 2] = np.cross(self.direction[:, 0], self.direction[:, 1])
        self.lps = self.origin + (self.index * self.spacing) @ self.direction.T
        return self


# --- images, each written by another program -------------------------------------------------------------------------


def by_simpleitk(volume: Volume, path: Path) -> Path:
    image = sitk.GetImageFromArray(volume.pixels)
    image.SetSpacing(volume.spacing.tolist())
    image.SetOrigin(volume.origin.tolist())
    image.SetDirection(volume.direction.ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def by_nibabel(volume: Volume, path: Path, kind=nibabel.Nifti1Image, codes=(1, 1)) -> Path:
    affine = np.eye(4)
    affine[:3, :3] = volume.direction * volume.spacing
    affine[:3, 3] = volume.origin
    affine = np.diag([-1, -1, 1, 1]) @ affine
    image = kind(volume.pixels.T, affine)
    image.set_qform(affine, codes[1])
    image.set_sform(affine if codes[0] else None, codes[0])
    nibabel.save(image, path)
    return path


def by_pydicom(volume: Volume, path: Path) -> Path:
    volume.right_handed()
    x, y, _ = volume.direction.T
    steps = volume.spacing[2] * np.arange(volume.size[2])
    names = [f"{k}.dcm" for k in np.random.default_rng(0).permutation(len(steps))]  # their names say nothing of their order
    spacing = volume.spacing[1], volume.spacing[0]
    shapes = [volume.pixels.shape[1:]] * len(steps)
    write_series(
        path, z=steps, names=names, axes=(x, y), origin=volume.origin, spacing=spacing, shapes=shapes, pixels=volume.pixels
    )
    return path


VOLUMES: dict[str, Callable[[Volume, Path], Path]] = {
    ".nii": by_nibabel,
    ".nii.gz": lambda v, p: by_nibabel(v, p, codes=(2, 2)),
    "_qform.nii": lambda v, p: by_nibabel(v, p, codes=(0, 1)),
    "_sform.nii": lambda v, p: by_nibabel(v, p, codes=(4, 0)),
    "_2.nii.gz": lambda v, p: by_nibabel(v, p, nibabel.Nifti2Image),
    ".nrrd": by_simpleitk,
    ".nhdr": by_simpleitk,
    ".mha": by_simpleitk,
    ".mhd": by_simpleitk,
    "_series": by_pydicom,
}


def picture(volume: Volume, path: Path) -> Path:
    Picture.fromarray(volume.pixels.astype(np.uint8)).save(path)
    return path


PICTURES = dict.fromkeys((".png", ".bmp", ".tif"), picture)


def value_at(path: Path, lps: np.ndarray) -> float:
    """The value of the sample at a point, by a program that is not ours."""
    if path.is_dir():
        return _in_series(path, lps)
    if path.name.endswith((".nii", ".nii.gz")):
        image = nibabel.load(path)
        index = np.linalg.solve(image.affine, [-lps[0], -lps[1], *lps[2:], 1])[:3]
        assert np.abs(index - np.rint(index)).max() < 0.02
        return float(np.asanyarray(image.dataobj)[tuple(np.rint(index).astype(int))])
    image = sitk.ReadImage(str(path))
    index = image.TransformPhysicalPointToContinuousIndex([float(x) for x in lps[: image.GetDimension()]])
    assert np.abs(np.array(index) - np.rint(index)).max() < 0.02
    value = image[[round(x) for x in index]]
    return float(value[0] if isinstance(value, tuple) else value)  # ITK shows a bitmap of greys as colours


def _in_series(folder: Path, lps: np.ndarray) -> float:
    for file in folder.iterdir():
        slice_ = pydicom.dcmread(file)
        axes = np.array(slice_.ImageOrientationPatient, float).reshape(2, 3)
        off = lps - np.array(slice_.ImagePositionPatient, float)
        if abs(off @ np.cross(*axes)) < 0.02:
            column, row = axes @ off / np.array(slice_.PixelSpacing, float)[::-1]
            return float(slice_.pixel_array[round(row), round(column)])
    raise AssertionError(f"no slice of {folder} holds {lps}")


# --- points, as people have them ---------------------------------------------------------------------------------------


def wide(folder: Path, volumes: dict[str, Volume], places: dict[str, np.ndarray]) -> list[object]:
    lines = [",".join(["id", *(f"{n}_{a}" for n in NAMES for a in "xyz"[: next(iter(places.values())).shape[1]])])]
    lines += [",".join([i, *(repr(float(x)) for x in p.ravel())]) for i, p in places.items()]
    (folder / "points.csv").write_text("\n".join(lines), encoding="utf-8")
    return ["--table", folder / "points.csv"]


def long(folder: Path, volumes: dict[str, Volume], places: dict[str, np.ndarray]) -> list[object]:
    rows = [
        (i, n, *(f"{float(x)!r}".replace(".", ",") for x in q)) for i, p in places.items() for n, q in zip(NAMES, p, strict=True)
    ]
    head = ["id", "label", *"xyz"[: len(rows[0]) - 2]]
    (folder / "points.csv").write_text("\n".join(";".join(row) for row in [head, *rows[::-1]]), encoding="utf-8")
    return ["--table", folder / "points.csv"]


def markups(folder: Path, volumes, places, frame: str = "LPS") -> list[object]:
    (folder / "labels").mkdir()
    flip = np.array([-1, -1, 1]) if frame == "RAS" else 1
    for i, p in places.items():
        p = np.hstack([p, np.zeros((len(p), 3 - p.shape[1]))]) * flip
        points = [{"label": n, "position": q.tolist(), "positionStatus": "defined"} for n, q in zip(NAMES, p, strict=True)]
        content = {"markups": [{"type": "Fiducial", "coordinateSystem": frame, "controlPoints": points}]}
        (folder / "labels" / f"{i}.mrk.json").write_text(json.dumps(content), encoding="utf-8")
    return ["--markups", folder / "labels"]


def fcsv(folder: Path, volumes, places) -> list[object]:
    (folder / "labels").mkdir()
    for i, p in places.items():
        p = np.hstack([p, np.zeros((len(p), 3 - p.shape[1]))])
        rows = [f"{k},{-q[0]},{-q[1]},{q[2]},0,0,0,1,1,1,0,{n},," for k, (n, q) in enumerate(zip(NAMES, p, strict=True))]
        head = ["# Markups fiducial file version = 4.11", "# CoordinateSystem = RAS"]
        head += ["# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"]
        (folder / "labels" / f"{i}.fcsv").write_text("\n".join([*head, *rows]), encoding="utf-8")
    return ["--markups", folder / "labels"]


def voxels(folder: Path, volumes: dict[str, Volume], places) -> list[object]:
    (folder / "labels").mkdir()
    for i, v in volumes.items():
        order = slice(None, None, -1) if v.pixels.ndim == 3 else slice(None)
        text = "\n".join(" ".join(map(str, row[order])) for row in v.index.tolist())
        (folder / "labels" / f"{i}.txt").write_text(text, encoding="utf-8")
    return ["--voxels", folder / "labels"]


def masks(folder: Path, volumes: dict[str, Volume], places) -> list[object]:
    (folder / "labels").mkdir()
    for i, v in volumes.items():
        labels = np.zeros_like(v.pixels)
        labels[tuple(v.index[:, ::-1].T)] = np.arange(1, len(NAMES) + 1)
        mask = object.__new__(Volume)
        mask.__dict__ |= v.__dict__ | {"pixels": labels}
        by_simpleitk(mask, folder / "labels" / f"{i}.nrrd") if labels.ndim == 3 else picture(mask, folder / "labels" / f"{i}.png")
    return ["--masks", folder / "labels", "--rule", "centroid"]


VERBS = {
    "wide table": wide,
    "long table": long,
    "markups": markups,
    "markups in RAS": lambda f, v, p: markups(f, v, p, "RAS"),
    "fcsv": fcsv,
    "voxels": voxels,
    "masks": masks,
}


# --- the property ------------------------------------------------------------------------------------------------------


def imported(study: Path) -> dict[str, tuple[Path, np.ndarray]]:
    """Image id to its file in the study and (k, 3) LPS mm in its label file, as another program finds them."""
    out = {}
    for file in (study / "labels" / "final").iterdir():
        (markup,) = json.loads(file.read_text(encoding="utf-8"))["markups"]
        assert markup["coordinateSystem"] == "LPS"
        by_name = {p["label"]: p["position"] for p in markup["controlPoints"]}
        image_id = file.name.removesuffix(".mrk.json")
        (path,) = (p for p in study.iterdir() if p.name == image_id or p.name.startswith(image_id + "."))
        out[image_id] = path, np.array([by_name[n] for n in NAMES], float)
    return out


def check(folder: Path, task: LandmarkTask, verb, volumes: dict[str, Volume], places: dict[str, np.ndarray]) -> None:
    write_json(folder / "task.json", task.to_json())
    words = verb(folder, volumes, places)
    done = run("import", folder / "study", "--task", folder / "task.json", "--images", folder / "images", *words)
    found = imported(folder / "study")
    for image_id, (path, lps) in found.items():
        values = [value_at(path, p) for p in lps]
        assert values == volumes[image_id].values.tolist(), (image_id, values, lps)
    assert sorted(found) == sorted(volumes), done  # all of these are plain: none may be refused
    with closing(sqlite3.connect(folder / "study" / ".landmarklabel" / "revisions.sqlite")) as database:
        assert database.execute("select count(*) from revisions").fetchone() == (len(volumes),)


def _image_id(kind: str, number: int, suffix: str) -> str:
    """One for each geometry and format."""
    return f"{kind}{number}_" + suffix.replace(".", "").replace("_", "")


def _ending(suffix: str) -> str:
    return suffix[suffix.index(".") :] if "." in suffix else ""


@pytest.mark.parametrize("verb", VERBS)
def test_points_of_volumes_lie_on_their_samples(verb, tmp_path):
    rng = np.random.default_rng(sorted(VERBS).index(verb))
    (tmp_path / "images").mkdir()
    volumes, places = {}, {}
    for number in range(COUNT):
        for suffix, write in VOLUMES.items():
            image_id = _image_id("v", number, suffix)
            volumes[image_id] = volume = Volume(rng, 3)
            write(volume, tmp_path / "images" / (image_id + _ending(suffix)))
            places[image_id] = volume.lps
    check(tmp_path, SOLID, VERBS[verb], volumes, places)


@pytest.mark.parametrize("verb", VERBS)
def test_points_of_pictures_lie_on_their_pixels(verb, tmp_path):
    rng = np.random.default_rng(100 + sorted(VERBS).index(verb))
    (tmp_path / "images").mkdir()
    volumes = {}
    for number in range(COUNT):
        for suffix, write in PICTURES.items():
            image_id = f"p{number}_{suffix[1:]}"
            volumes[image_id] = volume = Volume(rng, 2)
            write(volume, tmp_path / "images" / f"{image_id}{suffix}")
    check(tmp_path, FLAT, VERBS[verb], volumes, {i: v.index.astype(float) for i, v in volumes.items()})


@pytest.mark.parametrize("verb", ["markups", "markups in RAS", "fcsv", "voxels"])
def test_points_of_single_slices_lie_on_the_slice(verb, tmp_path):
    """A 2D task whose images are slices of volumes in any orientation: its label files lie where Slicer shows the slice."""
    rng = np.random.default_rng(200)
    (tmp_path / "images").mkdir()
    volumes, places = {}, {}
    for number in range(COUNT):
        for suffix, write in VOLUMES.items():
            volume = Volume(rng, 2)
            volume.size, volume.spacing = (*volume.size, 1), np.append(volume.spacing, 1.5)
            volume.pixels, volume.index = volume.pixels[None], np.hstack([volume.index, np.zeros((len(NAMES), 1), int)])
            volume.lps = volume.origin + (volume.index * volume.spacing) @ volume.direction.T
            image_id = _image_id("s", number, suffix)
            write(volume, tmp_path / "images" / (image_id + _ending(suffix)))
            volumes[image_id], places[image_id] = volume, volume.lps
    if verb == "voxels":
        for volume in volumes.values():
            volume.index = volume.index[:, :2]
            volume.pixels = volume.pixels[0]
    check(tmp_path, FLAT, VERBS[verb], volumes, places)
