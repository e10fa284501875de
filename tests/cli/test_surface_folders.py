"""Folders of surfaces of which one is damaged: the others are taken, the damaged one is named, and the command fails."""

from __future__ import annotations

import numpy as np
import pytest
from program import run
from tests.inference.saved_models import untrained

from landmarklabel.inference.model_folder import save_model
from landmarklabel.io.files import write_json
from landmarklabel.io.surfaces import Surface, write_surface
from landmarklabel.landmarks import LandmarkTask

vtk = pytest.importorskip("vtk", reason="surfaces of other programs need VTK: pip install vtk")

TETRAHEDRON = "v 0 0 0\nv 9 0 0\nv 0 9 0\nv 0 0 9\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n"
ASIDE = TETRAHEDRON.replace("0", "1").replace("9", "10")
POINTS = "image,a_x,a_y,a_z,b_x,b_y,b_z,c_x,c_y,c_z\ngood,10,1,1,1,10,1,1,1,10\n"
DAMAGED = "v 0 0 0\nv 9 0 0\n"


@pytest.fixture
def folder(tmp_path):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    (meshes / "good.obj").write_text(TETRAHEDRON, encoding="utf-8")
    (meshes / "bad.obj").write_text(DAMAGED, encoding="utf-8")
    write_json(tmp_path / "task.json", LandmarkTask("one", ("tip",), 3).to_json())
    return tmp_path


def imported(folder, *more: object):
    meshes = ("--images", folder / "meshes", "--mesh-unit", "mm")
    return run("import", folder / "study", "--task", folder / "task.json", *meshes, *more)


def test_import_takes_the_others_and_fails(folder):
    done = imported(folder)
    assert done.code == 2 and done.err.endswith("1 of 2 images were not imported, see above\n")
    assert "bad.obj: no surface in it" in done.err and "study: 1 image, 0 labelled" in done.out
    assert (folder / "study" / "good.nrrd").is_file() and not list((folder / "study").glob("bad*"))


@pytest.mark.parametrize("suffix", [".ply", ".vtk"])
def test_half_a_file_on_which_vtk_breaks_off_takes_no_other_with_it(folder, suffix):
    source, writer = vtk.vtkSphereSource(), {".ply": vtk.vtkPLYWriter, ".vtk": vtk.vtkPolyDataWriter}[suffix]()
    whole = folder / f"whole{suffix}"
    writer.SetFileName(str(whole))
    writer.SetInputConnection(source.GetOutputPort())
    writer.Write()
    (folder / "meshes" / f"half{suffix}").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = imported(folder)
    assert done.code == 2 and done.err.endswith("2 of 3 images were not imported, see above\n")
    assert f"half{suffix}: damaged: " in done.err and (folder / "study" / "good.nrrd").is_file()


def test_a_preview_names_it_too(folder):
    done = imported(folder, "--preview", folder / "sheet.html")
    assert done.code == 2 and done.err.endswith("1 of 2 images would not be imported, see above\n")
    assert "bad.obj: no surface in it" in done.err


def test_what_was_not_chosen_is_no_fault(folder):
    (folder / "ids.txt").write_text("good\n", encoding="utf-8")
    done = imported(folder, "--only", folder / "ids.txt")
    assert done.code == 0 and "bad.obj" not in done.err
    (folder / "ids.txt").write_text("bad\n", encoding="utf-8")
    assert "bad.obj: no surface in it" in (done := imported(folder, "--only", folder / "ids.txt")).err and done.code == 2


def test_predict_fails(folder):
    save_model(folder / "model", untrained(), {})
    done = run("predict", folder / "model", folder / "meshes", "--mesh-unit", "mm", "--out", folder / "found")
    assert done.code == 2 and done.err.endswith("2 of 2 images could not be predicted, see above\n")
    assert "bad.obj: no surface in it" in done.err and "this task needs a 2D image" in done.err
    (folder / "meshes" / "good.obj").unlink()
    done = run("predict", folder / "model", folder / "meshes", "--mesh-unit", "mm", "--out", folder / "found")
    assert done.code == 2 and "bad.obj: no surface in it" in done.err and "no images in" in done.err


def test_a_unit_that_landmarks_contradict_is_refused_with_the_one_that_fits(folder):
    """In a preview, too; nothing of such a surface is kept."""
    words = corners(folder)
    for more in ((), ("--preview", folder / "sheet.html")):
        done = run(*words, "--mesh-unit", "m", *more)
        assert done.code == 2 and "--mesh-unit mm" in done.err and "in mm instead of m" in done.err
    assert not list((folder / "study").glob("good*"))
    done = run(*words, "--mesh-unit", "mm")
    assert done.code == 0 and "1 image, 1 labelled" in done.out


def corners(folder) -> tuple:
    """A study of one tetrahedron whose landmarks say that it is in mm; the words that import them."""
    (folder / "meshes" / "bad.obj").unlink(missing_ok=True)
    (folder / "meshes" / "good.obj").write_text(ASIDE, encoding="utf-8")
    write_json(folder / "task.json", LandmarkTask("corners", ("a", "b", "c"), 3).to_json())
    (folder / "points.csv").write_text(POINTS, encoding="utf-8")
    words = ("--task", folder / "task.json", "--images", folder / "meshes", "--table", folder / "points.csv")
    return ("import", folder / "study", *words)


def test_points_that_may_lie_outside_are_taken_but_the_unit_that_fits_is_said(folder):
    done = run(*corners(folder), "--mesh-unit", "cm", "--allow-outside", 20)
    assert done.code == 0 and "1 image, 1 labelled" in done.out
    assert "in mm instead of cm: say --mesh-unit mm" in done.err
    done = run(*corners(folder), "--mesh-unit", "m", "--allow-outside", 1)  # too little: why is said all the same
    assert done.code == 2 and "in mm instead of m: say --mesh-unit mm" in done.err


def test_a_unit_that_the_file_states_counts_and_that_is_said(folder):
    words = corners(folder)
    (folder / "meshes" / "good.obj").write_text("# UNIT=mm\n" + ASIDE, encoding="utf-8")
    done = run(*words, "--mesh-unit", "m")
    assert done.code == 0 and "good: its file states the unit mm, which counts, and not m" in done.err
    assert run(*words, "--replace").code == 0  # and nothing needs to be said of it
    (folder / "meshes" / "good.obj").write_text("# UNIT=furlong\n" + ASIDE, encoding="utf-8")
    assert "good.obj is a surface, and its file states the unit furlong, which is not known here" in run(*words).error_line
    done = run(*words, "--mesh-unit", "mm")
    assert "good: its file states the unit furlong, which is not known here; read as mm, as was said" in done.err


def test_a_report_says_that_the_unit_of_its_pictures_is_wrong(folder):
    assert run(*corners(folder), "--mesh-unit", "mm").code == 0
    words = ("evaluate", folder / "study" / "labels" / "final", folder / "points.csv", "--task", folder / "task.json")
    report = ("--images", folder / "meshes", "--report", folder / "report.html")
    done = run(*words, *report, "--mesh-unit", "cm")
    assert done.code == 0 and "they would lie on it were its file in mm instead of cm" in done.err
    assert "would lie on it" not in run(*words, *report, "--mesh-unit", "mm").err


def test_a_unit_that_the_file_states_wrongly_is_to_be_corrected_there(folder):
    words = corners(folder)
    (folder / "meshes" / "good.obj").write_text("# UNIT=cm\n" + ASIDE, encoding="utf-8")
    assert (
        "were its file in mm instead of cm: which the file itself states, and should not" in (done := run(*words)).err
        and done.code == 2
    )


def test_a_damaged_surface_ends_no_evaluation(folder):
    words = corners(folder)
    assert run(*words, "--mesh-unit", "mm").code == 0
    write_surface(folder / "meshes" / "good.ply", Surface(np.eye(3) * 9, np.array([[0, 1, 2]])))
    (folder / "meshes" / "good.obj").unlink()
    half = (folder / "meshes" / "good.ply").read_bytes()[:-4]
    (folder / "meshes" / "good.ply").write_bytes(half)
    labels = folder / "study" / "labels" / "final"
    more = ("--images", folder / "meshes", "--report", folder / "report.html")
    done = run("evaluate", labels, folder / "points.csv", "--task", folder / "task.json", *more)
    assert done.code == 0 and "1 images: MRE 0.000" in done.out and "good.ply: " in done.err
