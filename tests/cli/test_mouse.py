"""Mouse skulls in 3D from import to prediction, and one volume stored in two orientations."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from landmarklabel.cli import main
from landmarklabel.io.markups import read_markups
from landmarklabel.landmarks import Status
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_task

pytestmark = pytest.mark.real_data
IDS = ("AKRJ", "CASTEIJ", "C3HHEJ", "DBA2J")


def run(*words: object) -> None:
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main([str(w) for w in words]) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture(scope="module")
def folder(data_dir, tmp_path_factory):
    """A study of four scans."""
    folder, source = tmp_path_factory.mktemp("mouse"), data_dir / "mouse_ct"
    (folder / "ids.txt").write_text("\n".join(IDS), encoding="utf-8")
    what = ("--images", source / "images", "--markups", source / "landmarks", "--only", folder / "ids.txt")
    run("import", folder / "study", "--task", "mouse_skull", *what)
    return folder


def train(folder: Path, model: str) -> Path:
    """A model of six steps."""
    out = folder / model.replace(":", "_")
    words = ("--task", "mouse_skull", "--model", model, "--steps", 6, "--device", "cpu", "--out", out)
    run("train", folder / "study", *words)
    return out


def test_import(folder, data_dir):
    study = Study(folder / "study", resolve_task("mouse_skull"))
    labels = study.labelled()
    study.close()
    assert sorted(labels) == sorted(IDS)
    for image_id, landmarks in labels.items():
        document = json.loads((data_dir / "mouse_ct" / "landmarks" / f"{image_id}.mrk.json").read_text(encoding="utf-8"))
        stated = [p["position"] for p in document["markups"][0]["controlPoints"]]
        np.testing.assert_allclose(landmarks.positions_mm, stated, atol=1e-9)


def test_train_and_predict(folder, tmp_path):
    task, model = resolve_task("mouse_skull"), train(folder, "scn")
    run("predict", model, folder / "study" / "AKRJ.nii.gz", "--out", tmp_path, "--device", "cpu")
    points = json.loads((tmp_path / "AKRJ.mrk.json").read_text(encoding="utf-8"))["markups"][0]["controlPoints"]
    assert [p["label"] for p in points] == list(task.names) and len(points) == 45
    assert set(read_markups(tmp_path / "AKRJ.mrk.json", task).status) <= {Status.PREDICTED, Status.ABSENT}


def test_predictions_lie_in_the_volume_and_do_not_depend_on_how_it_is_stored(folder, tmp_path, monkeypatch):
    # After six steps the maps are nearly flat: rounding to bf16, or a second stage that starts where the first one
    # found its peak, would turn differences of 1e-6 into millimetres.
    monkeypatch.setattr("landmarklabel.networks.precision.bf16_pays", lambda device: False)
    task, scan, model = resolve_task("mouse_skull"), folder / "study" / "AKRJ.nii.gz", train(folder, "scn:single")
    image = sitk.ReadImage(str(scan))
    turned = sitk.Flip(sitk.PermuteAxes(image, (2, 0, 1)), (True, False, True))
    sitk.WriteImage(turned, str(tmp_path / "turned.nrrd"))
    assert not np.allclose(turned.GetDirection(), image.GetDirection()) and turned.GetSize() != image.GetSize()
    run("predict", model, scan, tmp_path / "turned.nrrd", "--out", tmp_path, "--device", "cpu")

    one, other = (read_markups(tmp_path / f"{name}.mrk.json", task) for name in ("AKRJ", "turned"))
    assert one.defined.sum() > 30 and one.status == other.status
    found = one.positions_mm[one.defined]
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    edges = [image.TransformContinuousIndexToPhysicalPoint(corner) for corner in ((-0.5,) * 3, (size - 0.5).tolist())]
    low, high = np.min(edges, axis=0), np.max(edges, axis=0)
    assert (found >= low).all() and (found <= high).all(), (found.min(axis=0), found.max(axis=0), low, high)
    apart = np.linalg.norm(found - other.positions_mm[one.defined], axis=1)
    assert apart.max() < 0.5 * spacing.min(), np.sort(apart)[-5:]
