"""Images that memory has no room for are read from temporary files: the same values, no name left, few open files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest

from landmarklabel.data.augment import AugmentRange
from landmarklabel.data.batches import crop_batch, whole_image_batch
from landmarklabel.data.crops import CropPlan
from landmarklabel.data.grids import plan_grid
from landmarklabel.data.mapped_pixels import MappedPixels, PixelFiles
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.io.images import Image, write_image
from landmarklabel.services import cases as services_cases
from landmarklabel.services.cases import load_cases
from landmarklabel.store.study import Study


@pytest.mark.parametrize("kind", [np.uint8, np.int16, ">f4", np.float64])
def test_values_are_the_same_and_cannot_be_written_to(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what Python remembers
    files, rng = PixelFiles(file_bytes=1000), np.random.default_rng(0)
    arrays = [rng.integers(0, 200, (5, 7, n)).astype(kind)[:, ::-1] for n in (1, 3, 40, 2)]  # the third is larger than a file
    kept = [files.keep(array) for array in arrays]
    for array, copy in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(copy, array)
        assert isinstance(copy, MappedPixels) and copy.dtype == array.dtype
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0] = 1
    assert not list(tmp_path.iterdir()), "a killed process would leave what has a name"


def test_many_images_take_few_open_files():
    files, before = PixelFiles(), psutil.Process().num_fds()
    kept = [files.keep(np.full((10, 10), n)) for n in range(500)]
    assert psutil.Process().num_fds() - before <= 2
    assert [int(array[3, 3]) for array in kept] == list(range(500))


@pytest.fixture()
def study(tmp_path):
    task = phantom_task(3, 5)
    study = Study(tmp_path / "study", task)
    study.labels = {}
    for seed in range(4):
        phantom = draw_phantom(phantom_task(3, 5), seed, size=(40, 36, 32))
        write_image(study.folder / f"c{seed}.nii.gz", Image(phantom.geometry, phantom.pixels))
        study.labels[f"c{seed}"] = phantom.landmarks
    yield study
    study.close()


def _with_room_for(images: float, study: Study, monkeypatch, processes: int = 1):
    taken = 1.4 * load_cases(study, {"c0": study.labels["c0"]})[0].image.pixels.nbytes  # with its coarser copies
    monkeypatch.setattr(services_cases, "free_bytes", lambda: images * taken / services_cases.TRAINING.memory_share)
    return load_cases(study, study.labels, processes)


def test_images_are_in_memory_while_there_is_room(study, monkeypatch):
    def mapped(*args):
        return [isinstance(case.image.pixels, MappedPixels) for case in _with_room_for(*args)]

    assert mapped(2.5, study, monkeypatch) == [False, False, True, True]
    assert mapped(5, study, monkeypatch) == [False] * 4
    assert mapped(5, study, monkeypatch, 4) == [False, True, True, True], "four processes share the memory"


def test_networks_are_shown_the_same_of_an_image_in_a_file(study, monkeypatch):
    ranges = AugmentRange()
    in_memory, in_files = _with_room_for(9, study, monkeypatch), _with_room_for(0, study, monkeypatch)
    grid = plan_grid([case.image.geometry for case in in_memory], 12**3, 4, False)
    crops = CropPlan(8, 4.0)
    for batch in (
        lambda cases: whole_image_batch(cases, grid, ranges, [0]),
        lambda cases: crop_batch(cases, grid, crops, ranges, 6, [0], 0.0),
    ):
        one, other = batch(in_memory), batch(in_files)
        np.testing.assert_array_equal(one.images, other.images)
        assert one.images.std() > 0.01
    copies = [pixels for case in in_files for pixels, _ in case._pyramid.values()]
    assert len(copies) >= len(in_files) and all(isinstance(pixels, MappedPixels) for pixels in copies)


FULL = """
import resource
import numpy as np
from landmarklabel.data.mapped_pixels import PixelFiles
from landmarklabel.errors import NoRoom
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as on a full disk, writing fails
files = PixelFiles(file_bytes=900)
assert files.keep(np.arange(100, dtype=np.uint8))[7] == 7
try:
    files.keep(np.zeros(2000, np.uint8))
except NoRoom as error:
    print(error)
assert files.keep(np.arange(100, dtype=np.uint8))[7] == 7  # what is small enough is kept again
"""


def test_a_disk_without_room_is_told_in_one_line(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", FULL], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == "" and done.stdout == (
        f"memory has no room for all images, nor has {tmp_path} for temporary files of them (File too large): "
        "free space there, or name another folder with TMPDIR\n"
    )


def test_large_files_are_not_kept_where_memory_is(monkeypatch):
    from landmarklabel.data.mapped_pixels import folder

    monkeypatch.delenv("TMPDIR", raising=False)
    assert folder() == ("/var/tmp" if Path("/var/tmp").is_dir() else None)
    monkeypatch.setenv("TMPDIR", "/somewhere")
    assert folder() is None
