"""What a person can do to the list in Slicer's Markups module: it is put right, and no landmark becomes another one."""

from __future__ import annotations

import pytest
import vtk
from head_case import POINTS, TASK
from LandmarkLabelLib.markups import DEFINED, MISSING, UNDEFINED, LandmarkNode, flipped
from LandmarkLabelLib.wire import ABSENT, PREDICTED, UNSET, Point

BACK = "is back where it was: to say that it is not in the image, use Absent"
STRANGE = "a point that is no landmark was removed: use Re-place to place one"


@pytest.fixture()
def told() -> list:
    return []


@pytest.fixture()
def landmarks(scene, told):
    made = LandmarkNode(scene, TASK, lambda *what: told.append(what) or True)
    made.show(POINTS)
    made.node.SetFixedNumberOfControlPoints(False)  # as the lock in the Markups module does
    yield made
    made.close()


def shown(landmarks) -> list[tuple]:
    """Every point of the list, as another program would read it: label, status, LPS position of a defined one."""
    node, out = landmarks.node, []
    for i in range(node.GetNumberOfControlPoints()):
        world, status = [0.0, 0.0, 0.0], node.GetNthControlPointPositionStatus(i)
        node.GetNthControlPointPositionWorld(i, world)
        out.append((node.GetNthControlPointLabel(i), status, flipped(world) if status == DEFINED else None))
    return out


WHOLE = [
    (p.name, {UNSET: UNDEFINED, ABSENT: MISSING}.get(p.state, DEFINED), p.position)  # as POINTS say
    for p in POINTS
]


def remove(node, *indices):
    for i in sorted(indices, reverse=True):
        node.RemoveNthControlPoint(i)


DAMAGE = {
    "one deleted": (lambda node: remove(node, 1), f"sella {BACK}"),
    "the first deleted": (lambda node: remove(node, 0), f"nasion {BACK}"),
    "two deleted": (lambda node: remove(node, 0, 2), f"nasion, orbit_L {BACK}"),
    "emptied": (lambda node: node.RemoveAllControlPoints(), f"nasion, sella, orbit_L … {BACK}"),
    "one added": (lambda node: node.AddControlPoint(vtk.vtkVector3d(9, 9, 9), "F-1"), STRANGE),
    "one inserted": (lambda node: node.InsertControlPoint(1, vtk.vtkVector3d(9, 9, 9), "nasion"), STRANGE),
    "renamed": (lambda node: node.SetNthControlPointLabel(1, "S"), "sella has its name back"),
    "two names exchanged": (
        lambda node: (node.SetNthControlPointLabel(0, "sella"), node.SetNthControlPointLabel(1, "nasion")),
        "sella has its name back; nasion has its name back",
    ),
    "exchanged in the list": (lambda node: node.SwapControlPoints(0, 2), ""),
    "position taken away": (lambda node: node.UnsetNthControlPointPosition(1), f"sella {BACK}"),
    "called missing": (lambda node: node.SetNthControlPointPositionMissing(0), f"nasion {BACK}"),
    "deleted and another added": (
        lambda node: (remove(node, 1), node.AddControlPoint(vtk.vtkVector3d(9, 9, 9), "sella")),
        f"{STRANGE}; sella {BACK}",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=list(DAMAGE))
def test_whatever_happens_to_the_list_it_is_put_right_and_said(landmarks, told, damage, said):
    damage(landmarks.node)
    words = landmarks.mend()
    assert shown(landmarks) == WHOLE
    assert words == said
    assert landmarks.node.GetFixedNumberOfControlPoints() and landmarks.mend() == ""
    assert [what for what in told if what[1] == (-9.0, -9.0, 9.0)] == []


@pytest.mark.parametrize("gone", [0, 1, 3, 4])
def test_a_point_that_is_dragged_after_another_was_deleted_keeps_its_name(landmarks, told, gone):
    """Before the list was put right: the server stored ``hamate`` where ``capitate`` had been dragged."""
    node = landmarks.node
    remove(node, gone)
    index = next(i for i in range(node.GetNumberOfControlPoints()) if node.GetNthControlPointLabel(i) == "orbit_L")
    node.SetNthControlPointPositionWorld(index, *flipped((30.0, 31.0, 32.0)))
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert {what[0] for what in told} == {"orbit_L"} and told[-1] == ("orbit_L", (30.0, 31.0, 32.0), True)


def test_of_a_doubled_list_the_own_one_counts(scene, landmarks, told):
    copy = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "copy")
    copy.Copy(landmarks.node)
    copy.SetNthControlPointPositionWorld(1, 50, 50, 50)
    copy.InvokeEvent(copy.PointEndInteractionEvent)
    assert told == [] and landmarks.position("sella") == POINTS[1].position
    remove(landmarks.node, *range(5))
    assert landmarks.mend() and shown(landmarks) == WHOLE


def test_a_scene_that_was_saved_with_a_damaged_list_gets_a_whole_one(scene, tmp_path):
    first = LandmarkNode(scene, TASK)
    first.show(POINTS)
    first.close()
    first.node.SetFixedNumberOfControlPoints(False)
    remove(first.node, 1)
    first.node.AddControlPoint(vtk.vtkVector3d(9, 9, 9), "F-1")
    again = LandmarkNode(scene, TASK, node=LandmarkNode.find(scene, TASK))
    again.show(POINTS)
    assert again.node is first.node and shown(again) == WHOLE
    again.close()


def test_a_point_that_may_not_be_there_goes_back_in_the_scene(scene):
    landmarks = LandmarkNode(scene, TASK, lambda name, position, final: position[0] < 100)
    landmarks.show(POINTS)
    node = landmarks.node
    node.InvokeEvent(node.PointStartInteractionEvent)
    for x in (50.0, 5000.0):
        node.SetNthControlPointPositionWorld(1, *flipped((x, 5.0, 6.5)))
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert landmarks.position("sella") == POINTS[1].position
    landmarks.close()


def test_a_drag_that_goes_on_while_another_case_opens_moves_nothing(scene):
    told = []
    landmarks = LandmarkNode(scene, TASK, lambda *what: told.append(what) or True)
    landmarks.show(POINTS)
    node = landmarks.node
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPositionWorld(1, *flipped((2.0, 2.0, 2.0)))
    told.clear()
    landmarks.forget()  # the next case
    other = [Point("nasion"), Point("sella", PREDICTED, (70.0, 71.0, 72.0)), *POINTS[2:]]
    landmarks.show(other)
    node.SetNthControlPointPositionWorld(1, *flipped((3.0, 3.0, 3.0)))
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert told == [] and landmarks.position("sella") == (70.0, 71.0, 72.0)
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPositionWorld(1, *flipped((4.0, 4.0, 4.0)))
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert told[-1] == ("sella", (4.0, 4.0, 4.0), True)
    landmarks.close()


def test_a_transform_on_the_list_moves_no_point(scene, landmarks, told):
    moved, matrix = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration"), vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 30)
    landmarks.node.SetAndObserveTransformNodeID(moved.GetID())
    moved.SetMatrixTransformToParent(matrix)
    landmarks.node.SetNthControlPointPosition(1, 1, 1, 1)
    landmarks.node.InvokeEvent(landmarks.node.PointEndInteractionEvent)  # before anybody has mended anything
    said = landmarks.mend()
    assert told == [] and shown(landmarks) == WHOLE
    assert said.startswith("the points are no longer moved by registration: they belong where the image is")
    moved.SetMatrixTransformToParent(vtk.vtkMatrix4x4())
    assert landmarks.mend() == "" and told == []


@pytest.mark.parametrize("gone", [0, 1, 3, 4])
def test_a_list_is_put_right_after_the_drag_and_not_under_the_hand(landmarks, told, gone):
    """Slicer knows the point that is dragged by its place in the list; mending it meanwhile would give the hand another one."""
    node = landmarks.node
    index = landmarks.index("orbit_L") - (gone < landmarks.index("orbit_L"))
    node.InvokeEvent(node.PointStartInteractionEvent)
    remove(node, gone)
    for step in (1.0, 2.0, 3.0):
        assert landmarks.mend() == ""
        landmarks.show(POINTS)  # as the panel does at every tick
        node.SetNthControlPointPositionWorld(index, *flipped((30.0, 31.0, 30.0 + step)))
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert {what[0] for what in told} == {"orbit_L"} and told[-1] == ("orbit_L", (30.0, 31.0, 33.0), True)
    assert "is back where it was" in landmarks.mend()
    assert [label for label, *_ in shown(landmarks)] == [p.name for p in POINTS]
