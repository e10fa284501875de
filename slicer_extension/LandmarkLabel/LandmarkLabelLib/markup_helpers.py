"""Markups that only show something: somebody else's version of a case, a ring around the selected landmark, a measurement."""

from __future__ import annotations

from collections.abc import Sequence

import vtk

from .markups import flipped
from .scene_nodes import HELPER, remove
from .wire import Point

# Red, green, blue.
THEIRS_COLOUR, RING_COLOUR, MEASURED_COLOUR = (0.85, 0.2, 0.85), (1.0, 0.95, 0.2), (0.1, 0.8, 0.9)


class OtherVersion:
    """The points of somebody else's version beside one's own: only to look at."""

    def __init__(self, scene):
        self.scene, self._node = scene, None

    def show(self, points: Sequence[Point], who: str) -> None:
        """Draw them; none takes them away."""
        places = [p for p in points if p.position is not None]
        if not places:
            remove(self.scene, self._node)
            self._node = None
            return
        if self._node is None or self._node.GetScene() is None:
            self._node = _helper(self.scene, "other version", THEIRS_COLOUR, "Diamond2D")
        self._node.SetName(who)
        wanted = [(p.name, flipped(p.position)) for p in places]
        if wanted != self._shown():
            self._node.RemoveAllControlPoints()
            for name, ras in wanted:
                self._node.AddControlPoint(vtk.vtkVector3d(*ras), name)
            self._node.SetLocked(True)

    def _shown(self) -> list[tuple[str, tuple]]:
        node, found = self._node, []
        for i in range(node.GetNumberOfControlPoints()):
            world = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(i, world)
            found.append((node.GetNthControlPointLabel(i), tuple(world)))
        return found


class Ring:
    """A ring around the selected landmark."""

    def __init__(self, scene):
        self.scene, self._node = scene, None

    def show(self, position: tuple | None) -> None:
        """Around a place in LPS mm; None takes it away."""
        if position is None:
            remove(self.scene, self._node)
            self._node = None
            return
        if self._node is None or self._node.GetScene() is None:
            self._node = _helper(self.scene, "selected landmark", RING_COLOUR, "Circle2D")
            self._node.GetDisplayNode().SetPointLabelsVisibility(False)
            self._node.GetDisplayNode().SetGlyphScale(2 * self._node.GetDisplayNode().GetGlyphScale())
            self._node.AddControlPoint(vtk.vtkVector3d(*flipped(position)), "")
            self._node.SetLocked(True)
        world = [0.0, 0.0, 0.0]
        self._node.GetNthControlPointPositionWorld(0, world)
        if tuple(world) != flipped(position):
            self._node.SetNthControlPointPositionWorld(0, *flipped(position))


class Drawn:
    """The selected measurement: a line between two points, or an angle at the second of three."""

    def __init__(self, scene):
        self.scene, self._node = scene, None

    def show(self, name: str, places: Sequence[tuple]) -> None:
        """Between these places in LPS mm; none take it away. Slicer's own label is not: the task may measure otherwise."""
        kind = {2: "vtkMRMLMarkupsLineNode", 3: "vtkMRMLMarkupsAngleNode"}.get(len(places), "")
        if self._node is not None and (self._node.GetScene() is None or self._node.GetClassName() != kind):
            remove(self.scene, self._node)
            self._node = None
        if not kind:
            return
        if self._node is None:
            self._node = _helper(self.scene, name, MEASURED_COLOUR, "Cross2D", kind)
            self._node.GetDisplayNode().SetPointLabelsVisibility(False)
            self._node.GetDisplayNode().SetPropertiesLabelVisibility(False)
            for place in places:
                self._node.AddControlPoint(vtk.vtkVector3d(*flipped(place)), "")
            self._node.SetLocked(True)
        self._node.SetName(name)
        for i, place in enumerate(places):
            world = [0.0, 0.0, 0.0]
            self._node.GetNthControlPointPositionWorld(i, world)
            if tuple(world) != flipped(place):
                self._node.SetNthControlPointPositionWorld(i, *flipped(place))


def _helper(scene, name: str, colour: tuple, glyph: str, kind: str = "vtkMRMLMarkupsFiducialNode"):
    """Markups that show something, are not saved with the scene and stay out of lists to edit."""
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    places = (selection.GetActivePlaceNodeClassName(), selection.GetActivePlaceNodeID()) if selection is not None else None
    node = scene.AddNewNodeByClass(kind, name)
    node.SetAttribute(HELPER, "1")
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    for paint in (display.SetColor, display.SetSelectedColor, display.SetActiveColor):
        paint(*colour)
    display.SetGlyphTypeFromString(glyph)
    if places is not None:  # Slicer makes every new list the one that a click adds to
        selection.SetReferenceActivePlaceNodeClassName(places[0])
        selection.SetActivePlaceNodeID(places[1])
    return node
