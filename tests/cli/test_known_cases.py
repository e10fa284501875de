"""The small inputs of ``shared/cases``, which fooled earlier versions: each gives what its README says is right."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from program import ok, run

from landmarklabel.io.files import write_json
from landmarklabel.io.images import describe_image, read_image
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_task

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.fixture
def case(request, tmp_path) -> Path:
    """A copy of the case that the test is named after."""
    name = request.node.name.removeprefix("test_").partition("[")[0]
    source = CASES / name
    if not source.is_dir():
        pytest.skip(f"no folder {source}: these inputs are not part of the repository")
    return Path(shutil.copytree(source, tmp_path / name))


def task_file(folder: Path, dims: int, *names: str) -> Path:
    write_json(folder / "task.json", LandmarkTask("case", names, dims).to_json())
    return folder / "task.json"


def study(case: Path, task: Path) -> closing[Study]:
    return closing(Study(case / "study", resolve_task(str(task))))


def importing(case: Path, task: Path, *words: object, images: str = "img"):
    return run("import", case / "study", "--task", task, "--images", case / images, *words)


def test_both_fcsv_and_mrkjson(case):
    done = importing(case, case / "t.json", "--markups", case / "markups")
    assert "c1.fcsv and c1.mrk.json are both labels of image 'c1'" in done.error_line
    assert not (case / "study").exists()


def test_dicom_one_file_per_patient(case):
    done = importing(case, task_file(case, 2, "A"))
    assert done.code == 0 and "4 images, 0 labelled" in done.out
    with study(case, case / "task.json") as found:
        assert list(found.images()) == ["pat0", "pat1", "pat2", "pat3"]
        for image_id, path in found.images().items():
            there = sitk.GetArrayFromImage(sitk.ReadImage(str(next(path.iterdir()))))
            kept = pydicom.dcmread(case / "img" / f"{image_id}.dcm").pixel_array
            np.testing.assert_array_equal(there.squeeze(), kept)


def test_dx_pixelspacing_only(case):
    np.testing.assert_allclose(describe_image(case / "po_dx").geometry.spacing[:2], (0.30, 0.15))
    both = describe_image(case / "both")
    np.testing.assert_allclose(both.geometry.spacing[:2], (0.15, 0.15))
    assert both.remarks == (
        "spacing 0.15 mm is PixelSpacing (calibrated), not the 0.2 mm at the detector, which SimpleITK takes: points that were "
        "placed with it lie elsewhere",
    )


def test_exif_orientation(case):
    assert importing(case, task_file(case, 2, "A", "B"), "--table", case / "t.csv").code == 0
    with study(case, case / "task.json") as found:
        kept = sitk.ReadImage(str(found.image_path("photo")))
        assert kept.GetSize() == (30, 40)
        assert found.labelled()["photo"].positions_mm[0].tolist() == [22.5, 31.5]


def test_isbi_bmp(case):
    done = importing(case, task_file(case, 2, "A", "B"), "--isbi", case / "isbi")
    assert done.code == 0 and "2 images, 2 labelled" in done.out, done


def test_label_names_ignored(case):
    (case / "img").mkdir()
    for name in ("c0", "c1", "c2", "c3", "c4"):
        sitk.WriteImage(sitk.Image(200, 200, sitk.sitkUInt8), str(case / "img" / f"{name}.png"))
    any_label = json.loads((case / "markups" / "c4.png.mrk.json").read_text(encoding="utf-8"))
    names = [p["label"] for p in any_label["markups"][0]["controlPoints"]]
    done = importing(case, task_file(case, 2, *names), "--markups", case / "markups", "--allow-outside", 1000)
    assert "c1.json (label files are called <image>.mrk.json)" in done.err
    assert "c3.MRK.JSON (its ending must be written .mrk.json" in done.err
    assert "c0_landmarks" in done.err and "no image" in done.err
    with study(case, case / "task.json") as found:
        assert "c4" in found.labelled()


def test_mixed_folder_skips(case):
    done = importing(case, task_file(case, 2, "A"))
    assert done.code == 0 and "4 images" in done.out, done  # all of them are read now
    done = run("import", case / "volumes", "--task", task_file(case, 3, "A"), "--images", case / "img_dcm_nii")
    assert done.code == 0 and "2 images" in done.out, done


def test_never_labelled(case):
    assert importing(case, case / "t.json", "--table", case / "t.csv").code == 0
    done = ok("train", case / "study", "--model", "scn", "--steps", 3, "--device", "cpu", "--out", case / "model")
    assert "1 of 3 landmarks have no label in any training case and will be answered unset: C" in done.err
    assert "hardly trained" in done.out + done.err
    ok("predict", case / "model", case / "img", "--out", case / "out")
    rows = (case / "out" / "predictions_long.csv").read_text(encoding="utf-8").splitlines()
    assert {row.split(",")[5] for row in rows if row.split(",")[1] == "C"} == {"unset"}


def test_nfd_names(case):
    done = importing(case, task_file(case, 2, "N", "S"), "--table", case / "t.csv")
    assert done.code == 0 and "2 images, 2 labelled" in done.out, done


def test_per_slice_slope(case):
    for folder in ("slopes", "over"):
        slices = [pydicom.dcmread(p) for p in sorted((case / folder).glob("*.dcm"))]
        slices.sort(key=lambda s: float(s.ImagePositionPatient[2]))
        right = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices])
        np.testing.assert_allclose(read_image(case / folder).pixels, right, rtol=1e-6)


def test_points_outside_image(case):
    done = importing(case, case / "t.json", "--table", case / "t.csv")
    assert done.code == 2 and "outside of the image" in done.err and "read as RAS they would be inside" in done.err
    assert "0 labelled" in done.out


def test_preview_status(case):
    assert importing(case, case / "t.json", "--markups", case / "markups").code == 0
    with study(case, case / "t.json") as found:
        points = found.labelled()["c1"]
        assert points.positions_mm.tolist() == [[1, 2, 3], [4, 5, 6]] and points.by_person.all()


def test_renamed_landmark(case):
    assert importing(case, case / "t_old.json", "--table", case / "t.csv").code == 0
    before = {p.name: p.read_bytes() for p in (case / "study" / "labels" / "final").iterdir()}
    assert before
    done = run("train", case / "study", "--task", case / "t_new.json", "--model", "scn", "--steps", 2)
    assert "rename-landmark" in done.error_line and "B" in done.error_line
    assert {p.name: p.read_bytes() for p in (case / "study" / "labels" / "final").iterdir()} == before


def test_sform_ne_qform(case):
    done = importing(case, case / "t.json", "--masks", case / "masks", "--rule", "centroid")
    assert done.code == 2 and "sform and qform put the image in different places, up to [-4, 3, -2] mm apart" in done.err


def test_single_slice_z(case):
    assert importing(case, case / "t.json", "--markups", case / "markups").code == 0
    ok("import", case / "other", "--task", case / "t.json", "--images", case / "img", "--table", case / "t.csv")
    for place in ("study", "other"):
        kept = json.loads((case / place / "labels" / "final" / "c0.mrk.json").read_text(encoding="utf-8"))
        assert [p["position"][2] for p in kept["markups"][0]["controlPoints"]] == [37.5, 37.5]


def test_slices_rounded(case):
    for folder in ("third_mm", "0.625mm"):
        image = read_image(case / folder)
        files = sorted((case / folder).glob("*.dcm"))
        assert image.geometry.size[2] == len(files)
        steps = [float(pydicom.dcmread(f).ImagePositionPatient[2]) for f in files]
        assert image.geometry.spacing[2] == pytest.approx((max(steps) - min(steps)) / (len(files) - 1))


def test_table_minus1(case):
    (case / "img").mkdir()
    sitk.WriteImage(sitk.Image(20, 20, sitk.sitkUInt8), str(case / "img" / "a.png"))
    task = task_file(case, 2, "N", "S")
    done = importing(case, task, "--table", case / "minus1.csv")
    assert done.code == 2 and "a usual mark of a missing point" in done.err
    assert run("import", case / "zero", "--task", task, "--images", case / "img", "--table", case / "zero.csv").code == 0
