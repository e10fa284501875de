"""Cases that are surfaces at the panel: the model that is drawn, points that stay on it, and models that become cases."""

from __future__ import annotations

import json
import tempfile

import numpy as np
import pytest
import qt_harness
from cases_at_panel import opened, predicted
from eggs import CENTRES, POLES, RADII, SAMPLE_MM, SCALES, TASK, egg, serving_eggs
from qt_harness import idle, press

qt = qt_harness.install()

import slicer  # noqa: E402
import vtk  # noqa: E402
from LandmarkLabelLib.markups import flipped  # noqa: E402
from LandmarkLabelLib.scene_nodes import of_class  # noqa: E402
from LandmarkLabelLib.surfaces import COLOUR, CaseSurface  # noqa: E402
from LandmarkLabelLib.wire import PLACED  # noqa: E402
from views import SliceView, offscreen_window  # noqa: E402
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy  # noqa: E402

from landmarklabel.io.images import read_image, write_image  # noqa: E402
from landmarklabel.io.surface_volumes import write_surface_volume  # noqa: E402
from landmarklabel.io.surfaces import Surface, distance_volume  # noqa: E402

EGGS = [egg(scale, centre) for scale, centre in zip(SCALES, CENTRES, strict=True)]
LAST, LAST_EGG = "egg3", EGGS[3]  # nobody has labelled it
CLOSE_MM = 0.3 * SAMPLE_MM


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Of surfaces, in place of the pictures that the panel is connected to elsewhere."""
    with serving_eggs(tmp_path_factory.mktemp("eggs")) as server:
        yield server


@pytest.fixture()
def panel(panel_at_server):
    return panel_at_server


def vertices(node) -> np.ndarray:
    """LPS mm."""
    return vtk_to_numpy(node.GetPolyData().GetPoints().GetData()).astype(float) * (-1, -1, 1)


def placed(panel, name: str, place: np.ndarray) -> None:
    """Dragged there, and let go."""
    node = panel.node.node
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPositionWorld(panel.node.index(name), *flipped(place))
    node.InvokeEvent(node.PointEndInteractionEvent)
    idle(panel)


def off(surface: Surface, place) -> float:
    return float(surface.nearest([place])[1][0])


def model_of(surface: Surface, name: str):
    """A model as a person opens one in Slicer."""
    data, points, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(surface.vertices * (-1, -1, 1)), deep=True))
    for face in surface.faces:
        cells.InsertNextCell(3, face.tolist())
    data.SetPoints(points)
    data.SetPolys(cells)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", name)
    node.SetAndObservePolyData(data)
    return node


def test_the_surface_of_a_case_is_a_model_that_goes_with_the_case(panel):
    opened(panel, LAST)
    node = panel.volume.surface.node
    assert node.GetName() == "egg3 surface" and node.GetDisplayNode().GetVisibility()
    assert node.GetDisplayNode().GetVisibility2D()  # its outline in the slices
    found = vertices(node)
    assert len(found) > 10_000 and LAST_EGG.nearest(found[::97])[1].max() < CLOSE_MM
    assert np.abs(found.min(0) - LAST_EGG.vertices.min(0)).max() < SAMPLE_MM
    opened(panel, "egg1")
    assert node.GetScene() is None and panel.volume.surface.node.GetName() == "egg1 surface"
    assert len(of_class(slicer.mrmlScene, "vtkMRMLModelNode")) == 1


def test_its_outline_is_drawn_in_the_slices_where_the_surface_is(panel):
    opened(panel, LAST)
    view = SliceView(slicer.applicationLogic, panel.volume.node, "Axial", size=(400, 400))
    view.logic.SetSliceOffset(CENTRES[3][2] + 0.1)  # between samples
    picture = view.render().astype(float)
    rows, columns = np.nonzero((np.abs(picture - 255 * np.array(COLOUR)) < 30).all(axis=2))
    assert len(rows) > 300
    ras = np.array([view.ras_at(x, 399 - y) for x, y in zip(columns, rows, strict=True)])
    pixel_mm = np.linalg.norm(view.ras_at(1, 0) - view.ras_at(0, 0))
    around = (ras[:, :2] * -1 - CENTRES[3][:2]) / (0.95 * RADII[:2])
    assert np.abs(np.linalg.norm(around, axis=1) - 1).max() * 0.95 * RADII[1] < 2.5 * pixel_mm
    assert len({round(a, 1) for a in np.arctan2(around[:, 1], around[:, 0])}) > 55  # all around
    view.close()


def test_a_click_in_a_3d_view_is_where_the_surface_is_seen(panel):
    scene = slicer.mrmlScene
    window, renderer = offscreen_window(400, 400), vtk.vtkRenderer()
    window.AddRenderer(renderer)
    interactor, view = vtk.vtkGenericRenderWindowInteractor(), scene.AddNewNodeByClass("vtkMRMLViewNode")
    interactor.SetRenderWindow(window)
    interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())  # VTK's own would move the camera
    interactor.Initialize()
    managers = slicer.vtkMRMLDisplayableManagerGroup()
    managers.SetRenderer(renderer)
    for kind in ("vtkMRMLCameraDisplayableManager", "vtkMRMLModelDisplayableManager", "vtkMRMLMarkupsDisplayableManager"):
        manager = getattr(slicer, kind)()
        manager.SetMRMLApplicationLogic(slicer.applicationLogic)
        managers.AddDisplayableManager(manager)
    managers.SetMRMLDisplayableNode(view)
    style = slicer.vtkMRMLThreeDViewInteractorStyle()
    style.SetDisplayableManagers(managers)
    style.SetInteractor(interactor)
    opened(panel, LAST)
    centre, camera = np.array(flipped(CENTRES[3])), renderer.GetActiveCamera()
    camera.SetFocalPoint(*centre)
    camera.SetPosition(*(centre - (0, 150, 0)))
    camera.SetViewUp(0, 0, 1)
    renderer.ResetCameraClippingRange()
    window.Render()
    for kind in ("vtkMRMLSelectionNode", "vtkMRMLInteractionNode"):  # Slicer's own start makes them
        if scene.GetFirstNodeByClass(kind) is None:
            scene.AddNewNodeByClass(kind)
    panel.select("top")
    press(panel, "replaceButton")
    window.Render()
    for event in ("EnterEvent", "MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
        interactor.SetEventInformation(230, 240, 0, 0)
        interactor.InvokeEvent(event)
    idle(panel)
    hit = vtk.vtkCellPicker()
    hit.SetTolerance(0.001)
    assert hit.Pick(230, 240, 0, renderer)
    seen = flipped(hit.GetPickPosition())
    assert off(LAST_EGG, seen) < SAMPLE_MM and seen[1] > CENTRES[3][1] + 15  # on the side that is seen
    assert np.linalg.norm(np.subtract(panel.node.position("top"), seen)) < 0.5
    style.SetInteractor(None)
    managers.SetMRMLDisplayableNode(None)
    window.Finalize()


def test_a_surface_that_is_deleted_comes_back_and_one_that_is_moved_stops_everything(panel):
    opened(panel, LAST)
    slicer.mrmlScene.RemoveNode(panel.volume.surface.node)
    panel.refresh()
    idle(panel)
    assert panel.volume.surface.node.GetScene() is not None and len(of_class(slicer.mrmlScene, "vtkMRMLModelNode")) == 1
    before = panel.volume.surface.node
    panel.tick()
    assert panel.volume.surface.node is before  # it is made again only where it was changed
    before.GetPolyData().GetPoints().SetPoint(0, 1, 2, 3)
    before.GetPolyData().GetPoints().Modified()
    panel.refresh()
    idle(panel)
    assert panel.volume.surface.node is not before and LAST_EGG.nearest(vertices(panel.volume.surface.node)[:1])[1][0] < CLOSE_MM
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
    panel.volume.surface.node.SetAndObserveTransformNodeID(transform.GetID())
    press(panel, "predictButton")
    assert "the image is moved by shift" in panel.ui.message.text()


def test_what_is_no_model_of_a_persons_own_is_not_sent_and_leaves_nothing_behind(panel, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened(panel, LAST)
    own, empty = panel.volume.surface.node, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "empty")
    for node, said in ((own, "egg3 surface is made of the open case: choose another model"), (empty, "empty cannot be written")):
        panel.ui.volumes.setCurrentNode(node)
        press(panel, "uploadButton")
        assert said in panel.ui.message.text(), panel.ui.message.text()
    assert not list(tmp_path.glob("landmarklabel-*"))


def test_what_is_placed_beside_the_surface_goes_onto_it_and_the_server_has_it_there(panel, server):
    predicted(panel, LAST)
    assert max(off(LAST_EGG, panel.node.position(name)) for name in TASK.names) < CLOSE_MM
    beside = CENTRES[3] + 0.95 * POLES[4] + (0.5, 0.5, 1.5)
    placed(panel, "top", beside)
    place = panel.node.position("top")
    assert off(LAST_EGG, place) < CLOSE_MM and 1.3 < np.linalg.norm(place - beside) < 1.7
    assert panel.logic.session.point("top").state == PLACED
    press(panel, "acceptAllButton")
    press(panel, "submitButton")
    idle(panel)
    press(panel, "submitButton")  # where it asks once
    idle(panel)
    rows = {row["name"]: row["position"] for row in server.get(f"/landmarks/images/{LAST}")["landmarks"]}
    np.testing.assert_allclose(rows["top"], place, rtol=0, atol=1e-6)


def test_it_is_said_how_far_and_whoever_wants_it_elsewhere_can_have_it(panel):
    predicted(panel, "egg1")
    beside = CENTRES[1] + 1.1 * POLES[4] + (0, 0, 2)
    said = []
    panel.logic._say = (lambda old: lambda text: (said.append(text), old(text)))(panel.logic._say)
    placed(panel, "top", beside)
    assert "top placed on the surface, 2.0 mm from where it was put" in said
    press(panel, "undoButton")
    panel.ui.keepOnSurface.setChecked(False)
    placed(panel, "top", beside)
    assert panel.node.position("top") == pytest.approx(beside) and said[-1] != said[0]
    panel.ui.keepOnSurface.setChecked(True)


def test_a_case_that_is_no_surface_has_no_model(tmp_path):
    slicer.mrmlScene.Clear(False)
    from LandmarkLabelLib.volumes import CaseVolume

    write_surface_volume(tmp_path / "one.nrrd", distance_volume(LAST_EGG))
    write_image(tmp_path / "other.nrrd", read_image(tmp_path / "one.nrrd"))
    shown = CaseVolume(slicer.mrmlScene)
    assert shown.show(tmp_path / "other.nrrd", "other") and shown.surface.node is None
    assert shown.surface.nearest((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    assert shown.show(tmp_path / "one.nrrd", "one") and shown.surface.node is not None
    shown.close()
    assert not of_class(slicer.mrmlScene, "vtkMRMLModelNode") and shown.surface.nearest((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)


def test_where_an_open_surface_ends_there_is_no_wall(tmp_path):
    bowl = Surface(LAST_EGG.vertices, LAST_EGG.faces[LAST_EGG.vertices[LAST_EGG.faces].mean(1)[:, 2] < CENTRES[3][2]])
    write_surface_volume(tmp_path / "bowl.nrrd", distance_volume(bowl))
    slicer.mrmlScene.Clear(False)
    volume, surface = slicer.modules.volumes.logic().AddArchetypeVolume(str(tmp_path / "bowl.nrrd"), "bowl"), None
    surface = CaseSurface(slicer.mrmlScene)
    surface.show(volume, "bowl surface")
    found, corners = vertices(surface.node), vtk_to_numpy(surface.node.GetPolyData().GetPolys().GetConnectivityArray())
    middles = found[corners.reshape(-1, 3)].mean(1)
    assert len(middles) > 5000 and bowl.nearest(middles[::23])[1].max() < 1.5 * SAMPLE_MM
    surface.close()


def test_an_open_model_becomes_a_case(panel, server):
    added = egg(1.02, np.array([3.0, 4.0, 5.0]))
    model = model_of(added, "new egg")
    panel.ui.volumes.setCurrentNode(model)
    press(panel, "uploadButton")
    idle(panel)
    assert panel.logic.session.image_id == "new_egg" and panel.volume.surface.node.GetName() == "new_egg surface"
    assert added.nearest(vertices(panel.volume.surface.node)[::97])[1].max() < CLOSE_MM
    press(panel, "predictButton")
    idle(panel)
    assert max(off(added, panel.node.position(name)) for name in TASK.names) < CLOSE_MM
    assert server.http("DELETE", "/datastore/?id=new_egg").status_code == 200


def test_open_models_are_predicted_at_once_on_their_own_triangles(panel, tmp_path):
    opened(panel, LAST)  # its own surface is no image of its own
    other = egg(1.05, np.array([0.0, 40, 0]))
    model_of(other, "other egg")
    panel.ui.batchVolumes.setChecked(True)
    panel.ui.batchOut.setText(str(tmp_path / "results"))
    press(panel, "batchButton")
    idle(panel)
    panel.refresh()
    assert panel.ui.batchText.text().startswith("2 predicted, 0 there before, 0 failed"), panel.ui.batchText.text()
    content = json.loads((tmp_path / "results" / "other egg.mrk.json").read_text(encoding="utf-8"))
    points = content["markups"][0]["controlPoints"]
    assert [p["label"] for p in points] == list(TASK.names) and content["markups"][0]["coordinateSystem"] == "LPS"
    assert max(off(other, p["position"]) for p in points) < 1e-4  # single precision of the file that was sent
    assert sorted(p.name for p in (tmp_path / "results").glob("*.mrk.json")) == ["egg3.mrk.json", "other egg.mrk.json"]
