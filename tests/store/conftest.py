"""A small 2D task, and a study of real image files."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from landmarklabel.landmarks import LandmarkTask
from landmarklabel.store.study import Study


@pytest.fixture
def task():
    return LandmarkTask("hand", ("thumb", "index", "wrist"), dims=2)


@pytest.fixture
def write_image(tmp_path):
    """Writes a small image whose content depends on ``seed``; returns its path."""

    def write(path, seed=0, size=(12, 10)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, size[::-1], dtype=np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
        return path

    return write


@pytest.fixture
def study(tmp_path, task, write_image):
    folder = tmp_path / "study"
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        write_image(folder / name, seed)
    study = Study(folder, task)
    yield study
    study.close()
