"""Points in real MRML: states, frames, events, and what must never happen to a person's points."""

from __future__ import annotations

import gc
import json
import types
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import qt_harness
import SimpleITK as sitk
import slicer
import vtk
from head_case import NAMES, POINTS, TASK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LandmarkLabelLib.markups import DEFINED, MISSING, UNDEFINED, LandmarkNode, flipped
from LandmarkLabelLib.session import Session
from LandmarkLabelLib.volumes import CaseVolume
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, BY_PERSON, PREDICTED, STATES, UNSET, WITH_POSITION, Point, Task
from tests.thoroughness import times
from vtk.util.numpy_support import vtk_to_numpy

from landmarklabel.data.augment import random_rotation
from landmarklabel.io.images import read_image
from landmarklabel.io.markups import read_markups, write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

qt_harness.install()  # the volumes module's logic
GRIDS = times(100, in_full=1000)  # in which all readers must agree


def test_states_are_shown_as_slicer_has_them(scene):
    node = LandmarkNode(scene, TASK)
    node.show(POINTS)
    status = [node.node.GetNthControlPointPositionStatus(i) for i in range(5)]
    assert status == [DEFINED, DEFINED, DEFINED, MISSING, UNDEFINED]
    assert [node.node.GetNthControlPointLocked(i) for i in range(5)] == [0, 0, 1, 0, 0]
    assert [node.node.GetNthControlPointLabel(i) for i in range(5)] == list(NAMES)


def test_positions_are_lps_here_and_ras_in_the_scene(scene):
    node = LandmarkNode(scene, TASK)
    node.show(POINTS)
    ras = [0.0, 0.0, 0.0]
    node.node.GetNthControlPointPositionWorld(2, ras)
    assert ras == [-25.0, 7.0, 8.0]
    assert node.positions() == [(1.0, 2.0, 3.0), (-4.0, 5.0, 6.5), (25.0, -7.0, 8.0), None, None]


def test_a_point_that_lost_its_position_gives_none_whatever_mrml_remembers(scene):
    node = LandmarkNode(scene, TASK)
    node.show(POINTS)
    node.show([Point("nasion"), Point("sella", ABSENT), *POINTS[2:]])
    old = [0.0, 0.0, 0.0]
    node.node.GetNthControlPointPositionWorld(0, old)
    assert old != [0.0, 0.0, 0.0]  # the trap: stale coordinates are still there
    assert node.positions()[:2] == [None, None]


def test_the_scene_saves_what_the_server_reads(scene, tmp_path):
    node = LandmarkNode(scene, TASK)
    node.show(POINTS)
    import slicer

    storage = scene.AddNode(slicer.vtkMRMLMarkupsJsonStorageNode())
    storage.SetFileName(str(tmp_path / "case.mrk.json"))
    assert storage.WriteData(node.node) == 1
    back = read_markups(tmp_path / "case.mrk.json", LandmarkTask("head", NAMES, 3))
    assert [s.value for s in back.status] == [p.state for p in POINTS]
    expected = [p.position or (np.nan,) * 3 for p in POINTS]
    np.testing.assert_allclose(back.positions_mm, expected, atol=1e-9)
    assert back.expected_error_mm[0] == 1.5 and np.isnan(back.expected_error_mm[1:]).all()
    written = json.loads((tmp_path / "case.mrk.json").read_text(encoding="utf-8"))["markups"][0]
    assert written["coordinateSystem"] == "LPS" and written["fixedNumberOfControlPoints"]


def test_slicer_keeps_how_far_off_points_and_measurements_may_be(scene, tmp_path):
    task = LandmarkTask("head", ("a", "b"), 3)
    spread = np.array([np.diag([1.0, 2.0, 3.0]), np.full((3, 3), np.nan)])
    made = LandmarkSet(task, [[1, 2, 3], [4, 5, 6]], (Status.PREDICTED,) * 2, covariance_mm2=spread)
    factors = {"SNA": 0.625, "a length": 1.5}
    write_markups(tmp_path / "case.mrk.json", replace(made, interval_factors=factors), "a model")
    storage, node = (scene.AddNode(of()) for of in (slicer.vtkMRMLMarkupsJsonStorageNode, slicer.vtkMRMLMarkupsFiducialNode))
    for name in ("case", "again"):
        storage.SetFileName(str(tmp_path / f"{name}.mrk.json"))
        assert (storage.ReadData(node) if name == "case" else storage.WriteData(node)) == 1
    back = read_markups(tmp_path / "again.mrk.json", task)
    np.testing.assert_allclose(back.covariance_mm2, spread)
    assert back.interval_factors == factors


def test_a_transformed_list_still_gives_world_positions(scene):
    import vtk

    node = LandmarkNode(scene, TASK)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 11.0)
    transform.SetMatrixTransformToParent(matrix)
    node.node.SetAndObserveTransformNodeID(transform.GetID())
    node.show(POINTS)
    assert node.positions()[1] == pytest.approx((-4.0, 5.0, 6.5))


def test_moving_a_point_tells_its_name_while_dragging_and_at_the_end(scene):
    told = []
    node = LandmarkNode(scene, TASK, lambda *what: told.append(what))
    node.show(POINTS)
    assert told == []  # showing is nobody's correction
    node.node.InvokeEvent(node.node.PointStartInteractionEvent)
    for x in (2.0, 3.0):
        node.node.SetNthControlPointPositionWorld(1, *flipped((x, 5.0, 6.5)))
    node.node.InvokeEvent(node.node.PointEndInteractionEvent)
    assert told == [("sella", (2.0, 5.0, 6.5), False), ("sella", (3.0, 5.0, 6.5), False), ("sella", (3.0, 5.0, 6.5), True)]


def test_a_batch_of_changes_without_an_index_is_told_point_by_point(scene):
    told = []
    node = LandmarkNode(scene, TASK, lambda *what: told.append(what[0]))
    node.show(POINTS)
    was = node.node.StartModify()
    node.node.SetNthControlPointPositionWorld(0, 9, 9, 9)
    node.node.SetNthControlPointPositionWorld(1, 8, 8, 8)
    node.node.EndModify(was)
    assert sorted(set(told)) == ["nasion", "sella"]


def test_placing_again_keeps_number_and_order_and_tells_the_new_position(scene):
    told = []
    node = LandmarkNode(scene, TASK, lambda *what: told.append(what))
    node.show(POINTS)
    node.start_placing("orbit_L")
    interaction = scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    assert interaction.GetCurrentInteractionMode() == interaction.Place and told == []
    node.node.SetNthControlPointPositionWorld(2, *flipped((20.0, -6.0, 7.0)))
    assert node.node.GetNumberOfControlPoints() == 5 and node.node.GetNthControlPointLabel(2) == "orbit_L"
    assert ("orbit_L", (20.0, -6.0, 7.0)) in [(name, position) for name, position, _ in told]
    node.stop_placing()
    assert interaction.GetCurrentInteractionMode() != interaction.Place


def test_after_closing_nothing_is_told(scene):
    told = []
    node = LandmarkNode(scene, TASK, lambda *what: told.append(what))
    node.show(POINTS)
    before = node.node.HasObserver(node.node.PointModifiedEvent)
    node.close()
    node.node.SetNthControlPointPositionWorld(0, 9, 9, 9)
    assert before and told == [] and not node.node.HasObserver(node.node.PointEndInteractionEvent)


def test_jumping_moves_the_slices_without_recentring_them(scene):
    node = LandmarkNode(scene, TASK)
    node.show(POINTS)
    view = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetOrientationToAxial()
    assert node.jump_to("sella") and not node.jump_to("menton")
    assert view.GetSliceOffset() == pytest.approx(6.5)
    assert [view.GetXYZOrigin()[i] for i in range(2)] == [0.0, 0.0]


coordinate = st.floats(-500, 500)
position = st.tuples(coordinate, coordinate, coordinate)


@st.composite
def points(draw, states=STATES):
    out = []
    for name in NAMES:
        state = draw(st.sampled_from(states))
        out.append(Point(name, state, draw(position) if state in WITH_POSITION else None))
    return out


@given(before=points(), proposed=points((UNSET, PREDICTED, ABSENT)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_prediction_changes_what_a_person_said(scene, before, proposed):
    node, session = LandmarkNode(scene, TASK), Session(TASK, "case", list(before))
    node.show(session.points)
    shown = node.positions()
    session.propose(proposed)
    node.show(session.points)
    for i, old in enumerate(before):
        if old.state in BY_PERSON:
            assert session.points[i] == old and node.positions()[i] == shown[i]
            assert node.node.GetNthControlPointLocked(i) == (old.state == ACCEPTED)
            assert (node.node.GetNthControlPointPositionStatus(i) == MISSING) == (old.state == ABSENT)
    node.close()
    scene.RemoveNode(node.node)


@pytest.mark.timed
def test_150_rows_are_shown_quickly(scene, record_property):
    import time

    names = tuple(f"p{i}" for i in range(150))
    node = LandmarkNode(scene, Task("many", names, 3, {}, ()))
    spent = []
    for shift in range(20):
        rows = [Point(n, PREDICTED, (float(i), float(shift), 0.0), 1.0) for i, n in enumerate(names)]
        started = time.perf_counter()
        node.show(rows)
        spent.append(time.perf_counter() - started)
    record_property("show_150_ms", round(1000 * float(np.median(spent)), 2))
    assert np.median(spent) < 0.1


@pytest.fixture(autouse=True)
def views_without_qt(monkeypatch):
    """Slicer's own shows a volume through the layout manager, which is Qt."""
    shown = []
    layers = lambda background, fit: shown.append(background)  # noqa: E731
    monkeypatch.setattr(slicer, "util", types.SimpleNamespace(setSliceViewerLayers=layers), raising=False)
    return shown


def oblique(size=(7, 6, 5)) -> sitk.Image:
    """Anisotropic and oblique, every voxel of another value."""
    image = sitk.GetImageFromArray(np.arange(np.prod(size), dtype=np.int16).reshape(size[::-1]))
    image.SetSpacing((0.7, 1.3, 2.9))
    image.SetOrigin((-31.0, 12.5, 440.25))
    turn = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.5, 0.8)
    image.SetDirection(turn.GetMatrix())
    return image


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_volume_lies_where_simpleitk_and_nibabel_have_it(scene, tmp_path, suffix):
    image, path = oblique(), tmp_path / f"ct{suffix}"
    sitk.WriteImage(image, str(path))
    volume = CaseVolume(scene)
    assert volume.show(path, "ct")
    to_ras = vtk.vtkMatrix4x4()
    volume.node.GetIJKToRASMatrix(to_ras)
    for index in ((0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4), (3, 2, 1)):
        found = np.array(to_ras.MultiplyPoint((*index, 1))[:3]) * (-1, -1, 1)
        assert np.allclose(found, image.TransformIndexToPhysicalPoint(index), atol=1e-3)
        if suffix.startswith(".nii"):
            ras = nib.load(path).affine @ (*index, 1)
            assert np.allclose(found * (-1, -1, 1), ras[:3], atol=1e-3)
        assert volume.node.GetImageData().GetScalarComponentAsDouble(*index, 0) == image.GetPixel(index)
    volume.close()
    assert volume.node is None and scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode") is None


def test_in_oblique_and_flipped_grids_all_readers_mean_the_same_places(scene, tmp_path):
    """Slicer stores left-handed grids in another order, so a voxel is known by its value; NIfTI headers hold single precision."""
    rng, size, to_ras = np.random.default_rng(0), (4, 3, 2), vtk.vtkMatrix4x4()
    pixels = np.arange(24, dtype=np.int16).reshape(size[::-1])
    indices = np.argwhere(pixels >= 0)[:, ::-1]
    volume, paths = CaseVolume(scene), [tmp_path / f"a{suffix}" for suffix in (".nrrd", ".mha", ".nii")]
    for k in range(GRIDS):
        image, path = sitk.GetImageFromArray(pixels), paths[k % 3]
        image.SetSpacing(rng.uniform(0.2, 3, 3).tolist())
        image.SetOrigin(rng.uniform(-500, 500, 3).tolist())
        image.SetDirection((random_rotation(rng, 3, None)[:, rng.permutation(3)] * rng.choice([-1, 1], 3)).ravel().tolist())
        sitk.WriteImage(image, str(path))
        read = sitk.ReadImage(str(path))
        expected = np.array([read.TransformIndexToPhysicalPoint(i.tolist()) for i in indices])
        assert np.abs(read_image(path, 3).geometry.index_to_world(indices) - expected).max() <= 1e-6
        assert volume.show(path, "grid")
        volume.node.GetIJKToRASMatrix(to_ras)
        stored = vtk_to_numpy(volume.node.GetImageData().GetPointData().GetScalars()).reshape(size[::-1])
        ijk = np.argwhere(stored >= 0)[np.argsort(stored.ravel())][:, ::-1]
        shown = np.array([to_ras.MultiplyPoint((*i, 1))[:3] for i in ijk]) * (-1, -1, 1)
        assert np.abs(shown - expected).max() <= 1e-6
        if path.suffix == ".nii":
            nibabel = indices @ (affine := nib.load(path).affine)[:3, :3].T + affine[:3, 3]
            assert np.abs(nibabel * (-1, -1, 1) - expected).max() <= 1e-5
    volume.close()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_a_picture_lies_with_its_first_pixel_at_the_origin_and_its_first_row_at_the_top(scene, tmp_path, suffix):
    pixels = np.full((20, 30), 40, np.uint8)
    pixels[2:6, 20:26] = 220  # x 20..25, y 2..5
    path = tmp_path / f"hand{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
    volume = CaseVolume(scene)
    assert volume.show(path, "hand")
    to_ijk = vtk.vtkMatrix4x4()
    volume.node.GetRASToIJKMatrix(to_ijk)
    at = lambda x, y: [round(v) for v in to_ijk.MultiplyPoint((-x, -y, 0, 1))[:3]]  # noqa: E731
    grey = lambda x, y: volume.node.GetImageData().GetScalarComponentAsDouble(*at(x, y), 0)  # noqa: E731
    assert volume.node.GetImageData().GetDimensions() == (30, 20, 1) and at(0, 0) == [0, 0, 0]
    assert abs(grey(23, 4) - 220) < 12 and abs(grey(23, 15) - 40) < 12 and abs(grey(6, 4) - 40) < 12


def test_a_file_that_is_no_image_is_said_to_be_none(scene, tmp_path):
    path = tmp_path / "hand.png"
    path.write_text("no picture", encoding="utf-8")
    volume = CaseVolume(scene)
    assert not volume.show(path, "hand") and volume.node is None


def test_a_list_that_nobody_closed_and_nobody_needs_is_not_called_any_more(scene):
    """VTK does not tell Python's garbage collector that it still means to call something: Slicer would crash."""

    def is_observed() -> int:
        interaction = scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        return interaction.HasObserver(interaction.InteractionModeChangedEvent)

    before = is_observed()
    node = LandmarkNode(scene, TASK)
    assert is_observed() and not before
    del node
    gc.collect()
    assert not is_observed()


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_files_whose_names_count_on_are_not_taken_for_slices_of_one_volume(scene, tmp_path, suffix):
    paths = [tmp_path / f"case_00{n}{suffix}" for n in (1, 2, 3)]
    for n, path in enumerate(paths):
        sitk.WriteImage(sitk.GetImageFromArray(np.full((1, 7, 9), 10 * n + 1, np.int16)), str(path))
    volume = CaseVolume(scene)
    assert volume.show(paths[1], "case_002")
    assert volume.node.GetImageData().GetDimensions() == (9, 7, 1)
    assert set(vtk_to_numpy(volume.node.GetImageData().GetPointData().GetScalars())) == {11}
    assert not volume.has((0.0, 0.0, 1.0))
