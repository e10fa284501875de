"""What is drawn in the views is the image's own: grey values in the right places, of volumes and of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import qt_harness
import SimpleITK as sitk

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.volumes import CaseVolume  # noqa: E402
from views import SliceView, application_logic  # noqa: E402

PIXELS = 400  # looked at in a view


def agreement(view: SliceView, image: sitk.Image, rng: np.random.Generator) -> float:
    """Correlation of what is drawn with the image's own values, read by SimpleITK at the places that the pixels show."""
    drawn, expected, picture = [], [], view.render()
    height, width, _ = picture.shape
    for x, y in zip(rng.integers(0, width, 10 * PIXELS), rng.integers(0, height, 10 * PIXELS), strict=True):
        place = (view.ras_at(x, y) * (-1, -1, 1))[: image.GetDimension()]
        index = image.TransformPhysicalPointToContinuousIndex(place.tolist())
        if all(0 <= i <= n - 1 for i, n in zip(index, image.GetSize(), strict=True)):
            drawn.append(int(picture[height - 1 - y, x, 0]))
            value = image[tuple(round(i) for i in index)]
            expected.append(float(np.mean(value)) if isinstance(value, tuple) else float(value))
    assert len(drawn) >= PIXELS and np.ptp(drawn) > 60  # neither black nor grey all over
    low, high = np.percentile(expected, [2, 98])
    return float(np.corrcoef(drawn, np.clip(expected, low, high))[0, 1])


@pytest.fixture()
def shown(monkeypatch):
    """A function that loads a file as the panel does, in a scene of its own, and gives the three views."""
    monkeypatch.setattr(slicer, "mrmlScene", slicer.vtkMRMLScene())
    monkeypatch.setattr(slicer, "applicationLogic", application_logic(slicer.mrmlScene))
    volume, views = CaseVolume(slicer.mrmlScene), []

    def show(path: Path) -> list[SliceView]:
        views.extend(SliceView(slicer.applicationLogic, None, name) for name in ("Axial", "Coronal", "Sagittal"))
        assert volume.show(path, "case")
        for view in views:
            assert view.logic.GetSliceCompositeNode().GetBackgroundVolumeID() == volume.node.GetID()
            view.logic.FitSliceToAll()
        return views

    yield show
    for view in views:
        view.close()
    volume.close()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["AJ", "NUJ"])
def test_a_ct_is_drawn_in_all_views(data_dir, shown, name):
    path = data_dir / "mouse_ct" / "images" / f"{name}.nii.gz"
    image = sitk.ReadImage(str(path))
    for view in shown(path):
        assert agreement(view, image, np.random.default_rng(0)) > 0.9


@pytest.mark.real_data
def test_a_radiograph_is_drawn(data_dir, shown):
    path = sorted((data_dir / "hand_xray" / "images").iterdir())[3]
    image = sitk.ReadImage(str(path))
    image.SetSpacing((1, 1))
    image.SetOrigin((0, 0))
    assert agreement(shown(path)[0], image, np.random.default_rng(0)) > 0.97


def test_a_volume_of_16_bits_is_drawn_and_not_black(shown, tmp_path):
    k, j, i = np.indices((30, 40, 50))
    image = sitk.GetImageFromArray((1000 * np.sin(i / 9) + 20 * j + 15 * k - 1024).astype(np.int16))
    image.SetSpacing((0.7, 0.9, 1.3))
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    for view in shown(tmp_path / "ct.nrrd"):
        assert agreement(view, image, np.random.default_rng(0)) > 0.95
