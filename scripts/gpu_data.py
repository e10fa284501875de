"""The images that the ``gpu`` experiment measures on, as arrays in one folder that another machine can be given.

One ``.npz`` a set, read with ``allow_pickle=False``: task, ids, positions, statuses, geometry, and pixels of every case.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from landmarklabel.data.cases import Case, shrink
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.image_array import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

MOST_BYTES = 56 * 2**20  # with the repository itself, below the 64 MiB that may travel
SETS = ("hand_xray", "mouse_ct", "phantom2d", "phantom3d")
PHANTOMS, HANDS = 32, 48


def prepare(folder: Path, data: Path, phantoms: int = PHANTOMS) -> None:
    """Write every set that can be made here: phantoms always, real images (at half their resolution) where ``data`` is."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "phantom2d.npz", _phantoms(2, phantoms))
    _write(folder / "phantom3d.npz", _phantoms(3, phantoms))
    if (data / "hand_xray").is_dir():
        _write(folder / "hand_xray.npz", _hands(data / "hand_xray"))
    if (data / "mouse_ct").is_dir():
        _write(folder / "mouse_ct.npz", _mice(data / "mouse_ct"))
    total = sum(p.stat().st_size for p in folder.iterdir())
    if total > MOST_BYTES:
        raise SystemExit(f"{folder} holds {total / 2**20:.0f} MiB; at most {MOST_BYTES / 2**20:.0f} may travel: empty it first")
    print(f"{folder}: {', '.join(sorted(p.stem for p in folder.glob('*.npz')))}, {total / 2**20:.1f} MiB")


def sets_in(folder: Path) -> dict[str, str]:
    """sha256 of each set in a folder, by name, in the order of SETS."""
    paths = {name: folder / f"{name}.npz" for name in SETS}
    return {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in paths.items() if p.is_file()}


def read_set(path: Path) -> tuple[LandmarkTask, list[Case], list[Case]]:
    """The task, three quarters of the cases to train on, and the others."""
    with np.load(path, allow_pickle=False) as content:
        task = LandmarkTask.from_json(json.loads(str(content["task"])), path.name)
        cases = [_case(task, content, k) for k in range(len(content["ids"]))]
    return task, [c for k, c in enumerate(cases) if k % 4 != 1], cases[1::4]


def _case(task: LandmarkTask, content, k: int) -> Case:
    pixels = content[f"pixels{k}"]
    where = (content[key][k] for key in ("spacing", "origin", "direction"))
    landmarks = LandmarkSet(task, content["positions"][k], tuple(Status(s) for s in content["status"][k].tolist()))
    return Case(str(content["ids"][k]), Image(ImageGeometry(pixels.shape[::-1], *where), pixels), landmarks)


def _write(path: Path, cases: Iterable[Case]) -> None:
    cases = list(cases)
    geometries = [c.image.geometry for c in cases]
    np.savez_compressed(
        path,
        task=np.array(json.dumps(cases[0].landmarks.task.to_json())),
        ids=np.array([c.image_id for c in cases]),
        positions=np.stack([c.landmarks.positions_mm for c in cases]),
        status=np.array([[s.value for s in c.landmarks.status] for c in cases]),
        **{key: np.stack([getattr(g, key) for g in geometries]) for key in ("spacing", "origin", "direction")},
        **{f"pixels{k}": c.image.pixels for k, c in enumerate(cases)},
    )


def _phantoms(dims: int, count: int) -> Iterable[Case]:
    task = phantom_task(dims)
    for seed in range(count):
        p = draw_phantom(task, seed)
        yield Case(str(seed), Image(p.geometry, p.pixels), p.landmarks)


def _hands(folder: Path) -> Iterable[Case]:
    from landmarklabel.io.images import read_image
    from landmarklabel.io.tables import read_table
    from landmarklabel.tasks import resolve_task

    sets = read_table(folder / "landmarks.csv", resolve_task("hand_xray"))
    with (folder / "landmarks.csv").open(encoding="utf-8") as file:
        ids = [row["id"] for row in csv.DictReader(file)][:HANDS]
    for i in ids:
        image, geometry = _halved(read_image(folder / "images" / f"{i}.jpg", 2))
        # an image without spacing has spacing 1: its landmarks move with it, into the smaller image's own pixels
        positions = geometry.world_to_index(sets[i].positions_mm)
        own = Image(ImageGeometry.identity(geometry.size), image)
        yield Case(i, own, LandmarkSet(sets[i].task, positions, sets[i].status))


def _mice(folder: Path) -> Iterable[Case]:
    from landmarklabel.io.images import read_image
    from landmarklabel.io.markups import read_markups
    from landmarklabel.tasks import resolve_task

    task = resolve_task("mouse_skull")
    for path in sorted((folder / "images").glob("*.nii.gz")):
        i = path.name.removesuffix(".nii.gz")
        pixels, geometry = _halved(read_image(path, 3))
        yield Case(i, Image(geometry, pixels), read_markups(folder / "landmarks" / f"{i}.mrk.json", task))


def _halved(image: Image) -> tuple[np.ndarray, ImageGeometry]:
    pixels, geometry = shrink(image.pixels, image.geometry, (2,) * image.geometry.dims)
    return np.rint(pixels).astype(image.pixels.dtype), geometry
