"""An image that is elsewhere in the scene than on the server: nothing is sent of it, and the panel says what to do."""

from __future__ import annotations

import numpy as np
import pytest
import qt_harness
import SimpleITK as sitk
from qt_harness import press

qt = qt_harness.install()

import slicer  # noqa: E402
import vtk  # noqa: E402
from LandmarkLabelLib.wire import ACCEPTED, PREDICTED  # noqa: E402


@pytest.mark.parametrize("how", ["hardened", "centred"])
def test_nothing_is_sent_of_an_image_that_was_put_elsewhere_until_it_is_loaded_again(example, tmp_path, how):
    path = tmp_path / "example.png"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((120, 90), 80, np.uint8)), str(path))
    example.logic.image = path
    example.refresh()
    node = example.volume.node
    assert example.logic.blocked() == ""
    if how == "centred":
        node.SetOrigin(45, -60, 0)
    else:
        moved, matrix = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration"), vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 30)
        moved.SetMatrixTransformToParent(matrix)
        node.SetAndObserveTransformNodeID(moved.GetID())
        node.HardenTransform()
    session = example.logic.session
    was = session.point("nasion")
    assert not example.logic.correct("nasion", (50.0, 50.0, 0.0)) and session.point("nasion") == was
    press(example, "submitButton")
    assert example.ui.message.text() == (
        "the image was moved, cropped or resampled, so points would be elsewhere on the server: "
        "delete it from the scene, and it is loaded again"
    )
    assert example.logic.outbox.waiting() == []
    slicer.mrmlScene.RemoveNode(node)
    example.tick()
    assert example.volume.node is not node and not example.volume.is_gone and example.logic.blocked() == ""


def test_nothing_is_sent_while_a_transform_moves_the_image(example):
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
    example.volume.node = volume
    volume.SetAndObserveTransformNodeID(moved.GetID())
    for key in ("predictButton", "submitButton"):
        press(example, key)
        assert example.ui.message.text() == (
            "the image is moved by registration, so points would be elsewhere on the server: remove the transform"
        )
    assert example.logic.outbox.waiting() == []
    example.ui.volumes.setCurrentNode(volume)
    press(example, "uploadButton")
    assert example.ui.message.text() == "ct is moved by a transform: harden or remove it first"
    volume.SetAndObserveTransformNodeID(None)
    press(example, "submitButton")
    assert len(example.logic.outbox.waiting()) == 1


def test_a_proposal_outside_of_the_image_is_neither_accepted_nor_sent(example):
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")
    image = vtk.vtkImageData()
    image.SetDimensions(40, 100, 100)  # of the left, only what is nearer than 40 mm
    image.AllocateScalars(vtk.VTK_SHORT, 1)
    volume.SetAndObserveImageData(image)
    volume.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
    example.volume.node = volume
    example.select("gonion_left")  # at x = 45
    press(example, "acceptButton")
    assert example.ui.message.text() == "outside of the image: gonion_left; drag them inside, or call them absent"
    assert example.logic.session.point("gonion_left").state == PREDICTED
    press(example, "acceptAllButton")
    said = "the others are accepted; contradicting the rest: menton; look at each (N); outside of the image: orbit_right"
    assert example.ui.message.text().startswith(said) and example.logic.session.point("menton").state == PREDICTED
    assert any(p.state == ACCEPTED for p in example.logic.session.points)
    example.logic.session.place("gonion_left", (45.0, 1.0, 1.0))
    press(example, "submitButton")
    if "Submit again" in example.ui.message.text():
        press(example, "submitButton")
    assert "gonion_left" in example.ui.message.text() and example.logic.outbox.waiting() == []
    slicer.mrmlScene.RemoveNode(volume)
