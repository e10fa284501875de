"""Nodes of a scene."""

from __future__ import annotations

HELPER = "LandmarkLabel.helper"  # attribute of a list or model that only shows something


def of_class(scene, name: str) -> list:
    """All nodes of a class."""
    nodes = scene.GetNodesByClass(name)
    nodes.UnRegister(None)
    return [nodes.GetItemAsObject(i) for i in range(nodes.GetNumberOfItems())]


def point_lists(scene) -> list:
    """All lists of points but those that only show something."""
    return [node for node in of_class(scene, "vtkMRMLMarkupsFiducialNode") if not node.GetAttribute(HELPER)]


def remove(scene, node) -> None:
    """Take a node out of a scene with what shows and stores it, which would stay; nothing where it is gone already."""
    if node is None or node.GetScene() is None:
        return
    own = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
    own += [node.GetNthStorageNode(i) for i in range(node.GetNumberOfStorageNodes())]
    scene.RemoveNode(node)
    for one in own:
        if one is not None and one.GetScene() is not None:
            scene.RemoveNode(one)


def labels_of(node) -> list[str]:
    """The labels of a list's points."""
    return [node.GetNthControlPointLabel(i) for i in range(node.GetNumberOfControlPoints())]


def take_off_transform(node) -> str:
    """No transform may move points away from where the server has them. Name of the one that did, empty for none."""
    transform = node.GetParentTransformNode()
    if transform is None:
        return ""
    node.SetAndObserveTransformNodeID(None)
    return transform.GetName()
