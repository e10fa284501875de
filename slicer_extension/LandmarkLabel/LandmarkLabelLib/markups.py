"""Points in Slicer: with ``volumes`` the only files that touch MRML, and the only one that knows RAS.

A landmark is a control point of one fixed list. Unset: undefined; predicted: defined; placed: defined and selected; accepted:
defined, selected and locked; absent: missing. Selected points, those a person has put there, have another colour.
Undefined and missing points keep old coordinates inside MRML, so positions are only read of defined ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import vtk

from .wire import ABSENT, ACCEPTED, PLACED, UNSET, WITH_POSITION, Point, Task

UNDEFINED, PREVIEW, DEFINED, MISSING = range(4)  # of vtkMRMLMarkupsNode
EXPECTED_ERROR, UNKNOWN_ERROR = "expected_error_mm", -1.0
PROPOSED_COLOUR, PERSON_COLOUR, ACTIVE_COLOUR = (0.91, 0.44, 0.04), (0.08, 0.7, 0.3), (0.2, 0.6, 1.0)  # red, green, blue
OF_TASK = "LandmarkLabel.task"  # attribute of a list, by which it is found again in a scene that was saved


class LandmarkNode:
    """The control points of a case.

    Args:
        scene: where the list lives.
        task: names and order.
        on_change: called with (name, LPS position, is_final) when a person moves or places a point; not final while dragging.
        on_cancel: called with the name when a person leaves place mode without placing.
        node: an existing list with the task's points; made when None.
    """

    def __init__(
        self,
        scene,
        task: Task,
        on_change: Callable[[str, tuple, bool], None] = lambda *_: None,
        on_cancel: Callable[[str], None] = lambda *_: None,
        node=None,
    ):
        self.scene, self.task, self.on_change, self.on_cancel = scene, task, on_change, on_cancel
        self.node = node or scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", f"{task.name} landmarks")
        self._showing = False
        self._seen: list[tuple | None] = [None] * len(task.names)
        self._dragged: int | None = None
        self._placing: int | None = None
        self.is_dragging = False
        if self.node.GetNumberOfControlPoints() == 0:
            for name in task.names:
                index = self.node.AddControlPoint(vtk.vtkVector3d(0, 0, 0), name)
                self.node.UnsetNthControlPointPosition(index)
        self.node.SetFixedNumberOfControlPoints(True)
        self.node.SetAttribute(OF_TASK, task.name)
        self._style()
        node, self._tags = self.node, []
        self._listen(node, node.PointStartInteractionEvent, lambda *_: self._grab())
        self._listen(node, node.PointModifiedEvent, lambda *_: self._changed(False))
        self._listen(node, node.PointEndInteractionEvent, lambda *_: self._changed(True))
        self._listen(node, node.PointPositionDefinedEvent, lambda *_: self._changed(True))
        if (interaction := self._interaction()) is not None:
            self._listen(interaction, interaction.InteractionModeChangedEvent, lambda *_: self._mode_changed())

    def _listen(self, subject, event: int, callback: Callable) -> None:
        self._tags.append((subject, subject.AddObserver(event, callback)))

    def _style(self) -> None:
        """Colours by who put a point there."""
        if self.node.GetDisplayNode() is None:
            self.node.CreateDefaultDisplayNodes()
        if (display := self.node.GetDisplayNode()) is not None:
            display.SetColor(*PROPOSED_COLOUR)
            display.SetSelectedColor(*PERSON_COLOUR)
            display.SetActiveColor(*ACTIVE_COLOUR)

    def close(self) -> None:
        """Stop listening; the points stay."""
        for subject, tag in self._tags:
            subject.RemoveObserver(tag)
        self._tags = []

    @property
    def is_in_scene(self) -> bool:
        """False once the scene was closed or the list deleted."""
        return self.node.GetScene() is not None

    @staticmethod
    def find(scene, task: Task):
        """The list of this task in a scene that was loaded, or None."""
        nodes = scene.GetNodesByClass("vtkMRMLMarkupsFiducialNode")
        nodes.UnRegister(None)
        for node in (nodes.GetItemAsObject(i) for i in range(nodes.GetNumberOfItems())):
            labels = tuple(node.GetNthControlPointLabel(i) for i in range(node.GetNumberOfControlPoints()))
            if node.GetAttribute(OF_TASK) == task.name and labels == task.names:
                return node
        return None

    def show(self, points: Sequence[Point]) -> None:
        """Bring the control points to these states. Only what differs is written, point by point: writing all at once would
        turn missing points into defined ones."""
        self._showing, was = True, self.node.StartModify()  # one event for all: views draw once
        try:
            for index, point in enumerate(points):
                if index != self._placing:  # which waits for a click
                    self._show(index, point)
            self._show_errors(points)
        finally:
            self.node.EndModify(was)
            self._showing = False
        self._seen = self.positions()

    def _show(self, index: int, point: Point) -> None:
        node, status = self.node, self.node.GetNthControlPointPositionStatus(index)
        if node.GetNthControlPointLocked(index):
            node.SetNthControlPointLocked(index, False)
        if point.state == UNSET and status != UNDEFINED:
            node.UnsetNthControlPointPosition(index)
        elif point.state == ABSENT and status != MISSING:
            node.SetNthControlPointPositionMissing(index)
        elif point.state in WITH_POSITION and (status != DEFINED or self.position(index) != point.position):
            node.SetNthControlPointPositionWorld(index, *flipped(point.position))
        node.SetNthControlPointSelected(index, point.state in (PLACED, ACCEPTED))
        node.SetNthControlPointDescription(index, "" if point.state == UNSET else point.state)
        node.SetNthControlPointLocked(index, point.state == ACCEPTED)

    def _show_errors(self, points: Sequence[Point]) -> None:
        import slicer

        values = vtk.vtkDoubleArray()
        values.SetName(EXPECTED_ERROR)
        for point in points:
            values.InsertNextValue(UNKNOWN_ERROR if point.expected_error_mm is None else point.expected_error_mm)
        found = [self.node.GetNthMeasurement(i) for i in range(self.node.GetNumberOfMeasurements())]
        measurement = next((m for m in found if m.GetName() == EXPECTED_ERROR), None)
        if measurement is None:
            measurement = slicer.vtkMRMLStaticMeasurement()
            measurement.SetName(EXPECTED_ERROR)
            measurement.SetUnits("mm")
            self.node.AddMeasurement(measurement)
        measurement.SetControlPointValues(values)

    def position(self, index: int) -> tuple[float, float, float] | None:
        """LPS mm of a defined point, None of any other, whatever coordinates MRML still has for it."""
        if self.node.GetNthControlPointPositionStatus(index) != DEFINED:
            return None
        world = [0.0, 0.0, 0.0]
        self.node.GetNthControlPointPositionWorld(index, world)
        return flipped(world)

    def positions(self) -> list[tuple[float, float, float] | None]:
        """Of all points, in the task's order."""
        return [self.position(i) for i in range(len(self.task.names))]

    def start_placing(self, name: str) -> None:
        """The next click in a view places this landmark; order and number of points stay."""
        index = self.task.names.index(name)
        self._showing = True  # unsetting is not a person's change
        try:
            self.node.SetNthControlPointLocked(index, False)
            self.node.UnsetNthControlPointPosition(index)
        finally:
            self._showing = False
        self._seen[index] = None
        self.node.SetControlPointPlacementStartIndex(index)
        self._placing = index
        selection, interaction = self.scene.GetFirstNodeByClass("vtkMRMLSelectionNode"), self._interaction()
        if selection is not None and interaction is not None:
            selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
            selection.SetActivePlaceNodeID(self.node.GetID())
            interaction.SetPlaceModePersistence(0)
            interaction.SetCurrentInteractionMode(interaction.Place)

    def stop_placing(self) -> None:
        """Leave place mode without placing."""
        if (interaction := self._interaction()) is not None:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)

    def _interaction(self):
        return self.scene.GetFirstNodeByClass("vtkMRMLInteractionNode")

    def _mode_changed(self) -> None:
        interaction, index = self._interaction(), self._placing
        if index is None or interaction is None or interaction.GetCurrentInteractionMode() == interaction.Place:
            return
        self._placing = None
        if self.position(index) is None:
            self.on_cancel(self.task.names[index])

    def jump_to(self, name: str) -> bool:
        """Move the slice views to a landmark without recentring them; False when it has no position."""
        import slicer

        position = self.position(self.task.names.index(name))
        if position is None:
            return False
        slicer.vtkMRMLSliceNode.JumpAllSlices(self.scene, *flipped(position), slicer.vtkMRMLSliceNode.OffsetJumpSlice)
        return True

    def _grab(self) -> None:
        self.is_dragging, self._dragged = not self._showing, None

    def _put_back(self, indices: Sequence[int]) -> None:
        """A drag with the middle button moves all unlocked points at once: nobody means that."""
        self._showing, was = True, self.node.StartModify()
        try:
            for index in indices:
                self.node.SetNthControlPointPositionWorld(index, *flipped(self._seen[index]))
        finally:
            self.node.EndModify(was)
            self._showing = False

    def _changed(self, final: bool) -> None:
        """Some events say which point and some do not: compare with what was there."""
        if self._showing:
            return
        now = self.positions()
        changed = [i for i, (a, b) in enumerate(zip(self._seen, now, strict=True)) if b is not None and a != b]
        if self.is_dragging and len([i for i in changed if self._seen[i] is not None]) > 1:
            self._put_back(changed)
            return
        self._seen = now
        self.is_dragging = self.is_dragging and not final
        self._placing = None if self._placing in changed else self._placing
        if final and not changed and self._dragged is not None:
            changed = [self._dragged]  # the last move was told while it went on
        self._dragged = None if final or not changed else changed[0]
        for index in changed:
            self.on_change(self.task.names[index], now[index], final)


def flipped(position: Sequence[float]) -> tuple[float, float, float]:
    """LPS to RAS, and back."""
    x, y, z = position
    return (-float(x), -float(y), float(z))
