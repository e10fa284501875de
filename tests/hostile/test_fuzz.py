"""Whatever is done to a file, reading it gives a result or one of the project's own errors, soon and in little memory.

LANDMARKLABEL_FUZZ multiplies the 10 000 mutants. The same number gives the same mutant; the file of one that fails is kept in
the test's folder.
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import random
import shutil
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.hostile.corpus import hostile_files
from tests.hostile.mutate import Watch, mutant
from tests.io.image_corpus import PIXELS, nifti, nrrd, raster, valid_files, write_series
from tests.io.landmark_corpus import FLAT_TASK, TASK, VALID, VALID_FCSV

from landmarklabel.data.crops import CropPlan
from landmarklabel.data.grids import GridPlan
from landmarklabel.data.mean_shape import MeanShape
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference import model_folder
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_record import HASH, RECORD, record_hash
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.shape_prior import PoseDistribution, ShapePrior
from landmarklabel.io.checkpoints import load_tensors, save_tensors
from landmarklabel.io.images import read_geometry, read_image
from landmarklabel.io.index_points import read_isbi, read_voxels, text_files
from landmarklabel.io.markups import read_markups
from landmarklabel.io.masks import read_masks
from landmarklabel.io.tables import read_ids, read_table
from landmarklabel.landmarks import LandmarkTask, ScaleRule
from landmarklabel.networks.presets import find_preset

TIMES = float(os.environ.get("LANDMARKLABEL_FUZZ", "1"))
GRID = ImageGeometry.identity((40, 40, 40))


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Args:
        suffix: of the files' names.
        count: mutants.
        read: gets the path of a mutant.
        seeds: gets the mutants' folder and returns what to damage; it may put further files there.
        pack: what is done to the damaged content, so that damage reaches what lies behind a checksum.
    """

    suffix: str
    count: int
    read: Callable[[Path], object]
    seeds: Callable[[Path], list[bytes]]
    pack: Callable[[bytes], bytes] = bytes


def both(*reads: Callable[[], object]) -> None:
    """Read in several ways; the last one's error counts, no other kind of error passes."""
    for read in reads[:-1]:
        with suppress(LandmarkLabelError):
            read()
    reads[-1]()


def hostile(kind: str, suffix: str) -> list[bytes]:
    return [file.path.read_bytes() for name, file in hostile_files(kind).items() if name.endswith(suffix)]


# --- landmarks -----------------------------------------------------------------------------------------------------

MEASURED = VALID.replace(
    '"controlPoints"', '"measurements": [{"name": "expected_error_mm", "controlPointValues": [1, 2, -1]}], "controlPoints"'
)
TABLES = (
    "a,1,2,3,4,5,6,7,8,9\n",
    "id,x0,y0,z0,x1,y1,z1,x2,y2,z2\na,1,2,3,4,5,6,7,8,9\nb.nii.gz,,,,absent,absent,absent,7,8,9\n",
    'image;nasion_x;nasion_y;bregma_x;bregma_y;lambda_x;lambda_y;note\n"a b";1;2;3.5;-4e1;nan;NA;x\n',
    "# the first ones\na\nb.png # again\n\n",
)
FULL_TASK = LandmarkTask(
    "hand", TASK.names, 2, {"nasion": "The tip."}, (("nasion", "bregma"),), ScaleRule("nasion", "lambda", 50.0)
)
ISBI, VOXELS = ("10,20\n30.5,30\n0,39\n1\n2\n", "10 20\n30.5\t30\r\n0 39"), ("1 2 3\n4,5,6\n7 8 9\n", "1\t2\t3.5\n4 5 6\n7 8 9")


def texts(*contents: str) -> Callable[[Path], list[bytes]]:
    return lambda _: [content.encode() for content in contents]


def read_points(path: Path) -> None:
    both(lambda: read_markups(path), lambda: read_markups(path, FLAT_TASK), lambda: read_markups(path, TASK))


def read_tables(path: Path) -> None:
    both(lambda: read_ids(path), lambda: read_table(path, FLAT_TASK), lambda: read_table(path, TASK))


def read_isbi_rows(path: Path) -> None:
    read_isbi(path.parent, FLAT_TASK)["mutant"].on(ImageGeometry.identity((40, 40)))


def read_voxel_rows(path: Path) -> None:
    read_voxels(path.parent, text_files(path.parent), TASK)["mutant"].on(GRID)


# --- images --------------------------------------------------------------------------------------------------------


def images(suffix: str, also: Sequence[bytes] = ()) -> Callable[[Path], list[bytes]]:
    """Valid and hostile files of a format, the valid ones about as often as the others."""
    valid = [content for name, content in valid_files().items() if name.endswith(suffix)] + list(also)
    bad = hostile("images", suffix)
    return lambda _: valid * max(len(bad) // len(valid), 1) + bad


def read_pixels(path: Path) -> None:
    def whole() -> None:
        image = read_image(path)
        assert image.pixels.shape == image.geometry.size[::-1] and np.isfinite(image.pixels).all()

    both(lambda: read_geometry(path), lambda: read_geometry(path, dims=2), whole)


def unpacked(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return content


def with_checksums(content: bytes) -> bytes:
    """A PNG file whose chunks have the right checksums; every fourth stays as it is."""
    out, at = bytearray(content), 8
    while at + 12 <= len(out) and zlib.crc32(content) % 4:
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 <= len(out):
            out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


def dicom_seeds(folder: Path) -> list[bytes]:
    write_series(folder / "series", z=(0, 3, 6), series="1.2.826.0.1.3680043.8.498.7")
    (folder / "alone").mkdir()
    bad = hostile("images", ".dcm")
    return [(folder / "series" / "1.dcm").read_bytes()] * len(bad) + bad


def read_dicom(path: Path) -> None:
    """The file alone, and as the middle slice of a series."""
    shutil.copyfile(path, path.parent / "alone" / "1.dcm")
    shutil.copyfile(path, path.parent / "series" / "1.dcm")
    both(lambda: read_pixels(path.parent / "alone"), lambda: read_pixels(path.parent / "series"))


LABELS = np.repeat(np.arange(4, dtype=np.int16), 30).reshape(PIXELS.shape)
MASKS = (
    nrrd(LABELS.tobytes()),
    nrrd(gzip.compress(LABELS.tobytes()), encoding="gzip"),
    nrrd(LABELS.astype("f4").tobytes(), type="float"),
)
SIDES = LandmarkTask("sides", tuple(f"p{i}" for i in range(18)), 3)


def read_mask(path: Path) -> None:
    def of(task: LandmarkTask, rule: str) -> Callable[[], object]:
        return lambda: read_masks("masks", [("a", path)], task, rule)["a"].on(GRID)

    both(of(TASK, "centroid"), of(SIDES, "extremes"), of(TASK, "centroid"))


# --- models --------------------------------------------------------------------------------------------------------


def checkpoint_seeds(folder: Path) -> list[bytes]:
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)}
    save_tensors(folder / "valid", tensors, {"task_hash": "0123456789abcdef", "step": 3, "seconds": 0.5})
    bad = hostile("checkpoints", ".safetensors")
    return [(folder / "valid").read_bytes()] * len(bad) + bad


def record_seeds(folder: Path) -> list[bytes]:
    """Records of a model with and without all that is optional; the weights are beside them."""
    preset, grid, mean = find_preset("scn:default"), GridPlan((64, 96), None, 32), np.array([[1.0, 2], [np.nan] * 2, [3, 4]])
    networks = NetworkRunner(preset, grid, torch.nn.Identity(), CropPlan(32, 1.5), torch.nn.Identity())
    full = Localizer(FULL_TASK, networks, alignment_shape=MeanShape(mean, True, 0.05), reference=np.ones((2, 3), np.float32))
    full.calibrate(Calibration(0.3, 0.5, (0.1, -0.2, 0.1), 0.2, 7, (1.0, 2.0, 0.0), 1.5))
    poses = PoseDistribution(np.array([0.5, 0.5]), 0.1, True, (0.1, 0.2, 0.3))
    full.prior = ShapePrior(full.alignment_shape, np.eye(6), poses, 9)
    model_folder.save_model(folder, full, {"seed": 1, "metrics": {}})
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    optional = {"crops": None, "pose": None, "prior": None, "calibration": {}}
    first = {k: v for k, v in record.items() if k not in ("configuration", "program", HASH)} | {"version": 1}
    return [json.dumps(content).encode() for content in (record, {**record, **optional}, first, {**first, **optional})]


def read_model(path: Path) -> None:
    """With a hash that fits, where a record has one: what it guards against is not what is tried here."""
    content = path.read_bytes()
    try:
        record = json.loads(content)
        if isinstance(record, dict) and HASH in record:
            content = json.dumps({**record, HASH: record_hash(record)}).encode()
    except (ValueError, RecursionError):
        pass
    (path.parent / RECORD).write_bytes(content)
    model_folder.load_model(path.parent)


TARGETS = {
    "markups": Target(
        ".mrk.json", 1500, read_points, lambda _: [VALID.encode(), MEASURED.encode()] * 40 + hostile("landmarks", ".mrk.json")
    ),
    "fcsv": Target(".fcsv", 1000, read_points, lambda _: [VALID_FCSV.encode()] * 30 + hostile("landmarks", ".fcsv")),
    "tables": Target(".csv", 1000, read_tables, texts(*TABLES)),
    "isbi": Target(".txt", 400, read_isbi_rows, texts(*ISBI)),
    "voxels": Target(".txt", 400, read_voxel_rows, texts(*VOXELS)),
    "tasks": Target(".json", 1000, LandmarkTask.load, texts(json.dumps(FULL_TASK.to_json()))),
    "nii": Target(".nii", 600, read_pixels, images(".nii", also=[nifti(("2h", 70, 16, 32), data=bytes(480)), nifti(order=">")])),
    "nii.gz": Target(".nii.gz", 200, read_pixels, images(".nii.gz")),
    "nii.gz inside": Target(
        ".nii.gz", 400, read_pixels, lambda folder: [*map(unpacked, images(".nii.gz")(folder))], gzip.compress
    ),
    "nrrd": Target(".nrrd", 600, read_pixels, images(".nrrd")),
    "mha": Target(".mha", 600, read_pixels, images(".mha")),
    "png": Target(".png", 400, read_pixels, images(".png", also=[raster("PNG", np.zeros((9, 9, 4), np.uint8))]), with_checksums),
    "jpg": Target(".jpg", 300, read_pixels, images(".jpg")),
    "dicom": Target(".dcm", 200, read_dicom, dicom_seeds),
    "masks": Target(".nrrd", 300, read_mask, images(".nrrd", also=MASKS * 3)),
    "checkpoints": Target(".safetensors", 700, load_tensors, checkpoint_seeds),
    "records": Target(".json", 400, read_model, record_seeds),
}


@pytest.fixture(autouse=True)
def nothing_of_other_tests():
    """What they have left is not looked through at a mutant's cost: with gigabytes of it that takes seconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_networks(monkeypatch):
    """Records are read without building the networks they name."""
    for name in ("build_coarse_net", "build_fine_net"):
        monkeypatch.setattr(model_folder, name, lambda *_: torch.nn.Identity())


@pytest.mark.timeout(600 * max(TIMES, 1))
@pytest.mark.parametrize("name", TARGETS)
def test_mutants_are_read_or_refused(name, tmp_path, no_networks):
    target, outcomes, faults = TARGETS[name], Counter(), []
    seeds = target.seeds(tmp_path)
    path = tmp_path / f"mutant{target.suffix}"
    for number in range(round(target.count * TIMES)):
        path.write_bytes(target.pack(mutant(seeds, random.Random(f"{name} {number}"))))
        fault = None
        with Watch() as cost:
            try:
                target.read(path)
                outcomes["read"] += 1
            except LandmarkLabelError as error:
                outcomes["refused"] += 1
                fault = "an error of several lines" if "\n" in str(error) else None
            except Exception as error:  # what the test is about
                frame = traceback.extract_tb(error.__traceback__)[-1]
                fault = f"{error!r:.200} in {Path(frame.filename).name}:{frame.lineno}"
        if cost.seconds > 2 or cost.grown_mb > 256:
            fault = f"{fault}, {cost.seconds:.1f} s, {cost.grown_mb:.0f} MB"
        if fault:
            faults.append(f"mutant {number}: {fault}")
            shutil.copyfile(path, tmp_path / f"{number}{target.suffix}")
    assert not faults, "\n".join(faults)
    assert outcomes["read"] and outcomes["refused"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_the_watch_sees_time_and_memory():
    with Watch() as little:
        pass
    with Watch() as much:
        held = np.ones(40_000_000)
        while time.process_time() - much.start < 0.2:
            held += 1
    with Watch() as after:
        pass
    assert much.grown_mb > 256 and much.seconds > 0.1
    assert max(little.grown_mb, after.grown_mb) < 50 and max(little.seconds, after.seconds) < 0.1


def test_there_are_ten_thousand_mutants():
    assert sum(target.count for target in TARGETS.values()) == 10_000
