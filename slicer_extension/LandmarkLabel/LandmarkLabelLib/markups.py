"""Points in Slicer. Besides, ``volumes``, ``surfaces``, ``markup_helpers`` and ``scene_nodes`` touch MRML; RAS is turned here.

A landmark is a control point of one list. Unset: undefined; predicted: defined; placed: defined and selected; accepted: defined,
selected and locked; absent: missing. Selected points, those a person has put there, have another colour. Undefined and missing
points keep old coordinates inside MRML, so positions are only read of defined ones.

Decision: a landmark is known by the id of its control point, never by its place in the list. Whatever happens to the list in
Slicer's Markups module, ``mend`` puts it right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import vtk

from .scene_nodes import labels_of, of_class, point_lists, take_off_transform
from .wire import ABSENT, ACCEPTED, EXPECTED_ERROR, PLACED, UNKNOWN_ERROR, UNSET, WITH_POSITION, Point, Task

UNDEFINED, PREVIEW, DEFINED, MISSING = range(4)  # of vtkMRMLMarkupsNode
PROPOSED_COLOUR, PERSON_COLOUR, ACTIVE_COLOUR = (0.91, 0.44, 0.04), (0.08, 0.7, 0.3), (0.2, 0.6, 1.0)  # red, green, blue
OF_TASK = "LandmarkLabel.task"  # attribute of a list, by which it is found again in a scene that was saved


class LandmarkNode:
    """The control points of a case.

    Args:
        scene: where the list lives.
        task: names and order.
        on_change: called with (name, LPS position, is_final) when a person moves or places a point; not final while dragging.
            Answers whether the point may be there; where not, it goes back.
        on_cancel: called with the name when a person leaves place mode without placing.
        on_damage: called when the list may have been changed otherwise; ``mend`` then has to be called, but not from here.
        node: an existing list with the task's points; made when None.
        translate: for texts that people see.
    """

    def __init__(
        self,
        scene,
        task: Task,
        on_change: Callable[[str, tuple, bool], object] = lambda *_: True,
        on_cancel: Callable[[str], None] = lambda *_: None,
        on_damage: Callable[[], None] = lambda: None,
        node=None,
        translate: Callable[[str], str] = str,
    ):
        self._tags: list[tuple] = []
        self.scene, self.task, self._ = scene, task, translate
        self.on_change, self.on_cancel, self.on_damage = on_change, on_cancel, on_damage
        self.on_place: Callable[[], None] = lambda: None  # called when Slicer is about to place a point that nobody asked for
        self.node = node or scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", f"{task.name} landmarks")
        self._points: list[Point] = [Point(name) for name in task.names]  # as last shown
        self._ids: dict[str, str] = {}  # landmark to control point
        self._showing = self._damaged = self._forgotten = False
        self._before: dict[str, tuple | None] = {}  # where the points were when one was grabbed
        self._seen: dict[str, tuple | None] = dict.fromkeys(task.names)
        self._dragged: str | None = None
        self.placing: str | None = None  # the landmark that waits for a click
        self.is_dragging = False
        self.node.SetFixedNumberOfControlPoints(False)
        self._adopt()
        self.node.SetFixedNumberOfControlPoints(True)
        self.node.SetAttribute(OF_TASK, task.name)
        self._style()
        node = self.node
        self._listen(node, node.PointStartInteractionEvent, lambda *_: self._grab())
        self._listen(node, node.PointModifiedEvent, lambda *_: self._changed(False))
        self._listen(node, node.PointEndInteractionEvent, lambda *_: self._changed(True))
        self._listen(node, node.PointPositionDefinedEvent, lambda *_: self._changed(True))
        self._listen(node, node.TransformModifiedEvent, lambda *_: self._damage())
        for what in ("Removed", "Added", "PositionUndefined", "PositionMissing"):
            self._listen(node, getattr(node, f"Point{what}Event"), lambda *_: self._damage())
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

    def __del__(self):
        """Remove the observers where nobody closed it: VTK would call a deleted object, and crash."""
        self.close()

    @property
    def is_in_scene(self) -> bool:
        """False once the scene was closed or the list deleted."""
        return self.node.GetScene() is not None

    @staticmethod
    def find(scene, task: Task):
        """The list of this task in a scene that was loaded, or None: the one that has most of the task's landmarks."""
        lists = [node for node in point_lists(scene) if node.GetAttribute(OF_TASK) == task.name]
        counts = [sum(label in task.names for label in labels_of(node)) for node in lists]
        return lists[counts.index(max(counts))] if counts and max(counts) else None

    # --- which point is whose ----------------------------------------------------------------------------------------

    def index(self, name: str) -> int:
        """Where in the list a landmark is now; -1 where it is not."""
        return self.node.GetNthControlPointIndexByID(self._ids.get(name, ""))

    def _adopt(self) -> None:
        """Take the points of a list by their labels, and make those that are missing; what is nobody's goes."""
        node = self.node
        by_label: dict[str, str] = {}
        for i in range(node.GetNumberOfControlPoints()):
            by_label.setdefault(node.GetNthControlPointLabel(i), node.GetNthControlPointID(i))
        self._ids = {name: by_label[name] for name in self.task.names if name in by_label}
        self._complete()

    def _is_whole(self) -> bool:
        node, names = self.node, self.task.names
        return node.GetNumberOfControlPoints() == len(names) and all(
            node.GetNthControlPointID(i) == self._ids[name] and node.GetNthControlPointLabel(i) == name
            for i, name in enumerate(names)
        )

    def _complete(self) -> list[str]:
        """Make the list whole again: every landmark once, in the task's order, under its name. Says what was wrong."""
        node, said = self.node, []
        mine = {self._ids[name]: name for name in self.task.names if name in self._ids}
        for i in reversed(range(node.GetNumberOfControlPoints())):
            name = mine.get(node.GetNthControlPointID(i))
            if name is None:
                if node.GetNthControlPointPositionStatus(i) != PREVIEW:  # that is the mouse in place mode
                    said.append(self._("a point that is no landmark was removed: use Re-place to place one"))
                    node.RemoveNthControlPoint(i)
            elif node.GetNthControlPointLabel(i) != name:
                said.append(self._("{name} has its name back").format(name=name))
                node.SetNthControlPointLabel(i, name)
        gone = [name for name in self.task.names if self.index(name) < 0]
        for name in gone:
            i = node.AddControlPoint(vtk.vtkVector3d(0, 0, 0), name)
            node.UnsetNthControlPointPosition(i)
            self._ids[name] = node.GetNthControlPointID(i)
        if gone:
            said.append(self._back(gone))
        for place, name in enumerate(self.task.names):
            if (i := self.index(name)) != place:
                node.SwapControlPoints(i, place)
        return said

    def _damage(self) -> None:
        if not self._showing:
            self._damaged = True
            self.on_damage()

    def mend(self) -> str:
        """Put right what a person has done to the list in Slicer's Markups module; what that was, empty for nothing.

        Not while a point is dragged: Slicer knows that one by its place in the list.
        """
        if not self._damaged or not self.is_in_scene or self.is_dragging:
            return ""
        self._damaged = False
        moved_by = take_off_transform(self.node)
        undone = [n for n, p in zip(self.task.names, self._points) if n != self.placing and not self._is_as_shown(n, p)]
        self._showing = True
        try:
            self.node.SetFixedNumberOfControlPoints(False)
            said = self._complete()
        finally:
            self.node.SetFixedNumberOfControlPoints(True)
            self._showing = False
        if undone and not said:
            said = [self._back(undone)]
        if moved_by:
            text = self._("the points are no longer moved by {transform}: they belong where the image is")
            said = [text.format(transform=moved_by), *said]
        if said:
            self.show(self._points)
        return "; ".join(dict.fromkeys(said))

    def _back(self, names: Sequence[str]) -> str:
        text = self._("{names} is back where it was: to say that it is not in the image, use Absent")
        return text.format(names=", ".join(names[:3]) + (" …" if len(names) > 3 else ""))

    def _is_as_shown(self, name: str, point: Point) -> bool:
        """Whether the list still has a position for a landmark that has one, and none for one that has none."""
        i = self.index(name)
        return i >= 0 and (self.node.GetNthControlPointPositionStatus(i) == DEFINED) == (point.state in WITH_POSITION)

    # --- showing -----------------------------------------------------------------------------------------------------

    def show(self, points: Sequence[Point], hidden: Sequence[str] = ()) -> None:
        """Bring the control points to these states. Only what differs is written, point by point: writing all at once would
        turn missing points into defined ones.

        Args:
            points: in the task's order.
            hidden: names of those that are not drawn.
        """
        self._points = list(points)
        if self._damaged and self.is_dragging:
            return
        self._showing, was = True, self.node.StartModify()  # one event for all: views draw once
        try:
            for index, point in enumerate(points):
                if point.name not in (self.placing, self._dragged):  # those wait for the mouse
                    self._show(index, point)
                if self.node.GetNthControlPointVisibility(index) != (point.name not in hidden):
                    self.node.SetNthControlPointVisibility(index, point.name not in hidden)
            self._show_errors(points)
        finally:
            self.node.EndModify(was)
            self._showing = False
        self._seen = self._now()

    def _show(self, index: int, point: Point) -> None:
        node, status = self.node, self.node.GetNthControlPointPositionStatus(index)
        if node.GetNthControlPointLocked(index):
            node.SetNthControlPointLocked(index, False)
        if point.state == UNSET and status != UNDEFINED:
            node.UnsetNthControlPointPosition(index)
        elif point.state == ABSENT and status != MISSING:
            node.SetNthControlPointPositionMissing(index)
        elif point.state in WITH_POSITION and (status != DEFINED or self._at(index) != point.position):
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

    def position(self, name: str) -> tuple[float, float, float] | None:
        """LPS mm of a defined point, None of any other, whatever coordinates MRML still has for it."""
        index = self.index(name)
        return self._at(index) if index >= 0 else None

    def _at(self, index: int) -> tuple[float, float, float] | None:
        if self.node.GetNthControlPointPositionStatus(index) != DEFINED:
            return None
        world = [0.0, 0.0, 0.0]
        self.node.GetNthControlPointPositionWorld(index, world)
        return flipped(world)

    def positions(self) -> list[tuple[float, float, float] | None]:
        """Of all landmarks, in the task's order."""
        return [self.position(name) for name in self.task.names]

    def _now(self) -> dict[str, tuple | None]:
        return dict(zip(self.task.names, self.positions()))

    # --- placing -----------------------------------------------------------------------------------------------------

    def start_placing(self, name: str) -> None:
        """The next click in a view places this landmark; order and number of points stay."""
        index = self.index(name)
        self.placing, self._showing = name, True  # unsetting is not a person's change
        try:
            self.node.SetNthControlPointLocked(index, False)
            self.node.UnsetNthControlPointPosition(index)
        finally:
            self._showing = False
        self._seen[name] = None
        self.node.SetControlPointPlacementStartIndex(index)
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
        interaction, name = self._interaction(), self.placing
        if interaction is None:
            return
        if interaction.GetCurrentInteractionMode() == interaction.Place:
            selection = self.scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
            if name is None and selection is not None and selection.GetActivePlaceNodeID() == self.node.GetID():
                self.on_place()
            return
        if name is None:
            return
        self.placing = None
        if self.position(name) is None:
            self.on_cancel(name)

    def jump_to(self, name: str) -> bool:
        """Move slice views to a landmark without recentring them, the cross and 3D views too; False when it has no position."""
        import slicer

        position = self.position(name)
        if position is None:
            return False
        ras = flipped(position)
        slicer.vtkMRMLSliceNode.JumpAllSlices(self.scene, *ras, slicer.vtkMRMLSliceNode.OffsetJumpSlice)
        crosshair = self.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if crosshair is not None:
            crosshair.SetCrosshairRAS(*ras)
        for camera in of_class(self.scene, "vtkMRMLCameraNode"):
            camera.SetFocalPoint(*ras)
        return True

    # --- what a person does in the views -----------------------------------------------------------------------------

    def _grab(self) -> None:
        self.is_dragging, self._dragged, self._forgotten = not self._showing, None, False
        self._before = dict(self._seen)

    def forget(self) -> None:
        """Another case is shown: what a hand is doing meanwhile belongs to none."""
        self._forgotten, self.is_dragging, self._dragged = self._forgotten or self.is_dragging, False, None
        if self.placing is not None:
            self.placing = None
            self.stop_placing()

    def _put_back(self, names: Sequence[str]) -> None:
        """As they were shown: after a drag with the middle button, which moves all unlocked points at once and nobody means, or
        of a point to where it cannot be."""
        self._showing, modified = True, self.node.StartModify()
        try:
            for name in names:
                index, was = self.index(name), (self._before or self._seen)[name]
                if was is None:
                    self._show(index, self._points[self.task.names.index(name)])
                else:
                    self.node.SetNthControlPointPositionWorld(index, *flipped(was))
        finally:
            self.node.EndModify(modified)
            self._showing = False

    def _changed(self, final: bool) -> None:
        """Some events say which point and some do not: compare with what was there."""
        if self._showing:
            return
        if not self._is_whole():
            self._damage()
        if self.node.GetParentTransformNode() is not None:  # until it is mended, no position means anything
            self._damage()
            return
        if self._forgotten:
            self._forgotten = not final
            self.show(self._points)
            return
        final = final or not self.is_dragging  # typed in the Markups module: no end of a drag will follow
        before, now = self._seen, self._now()
        changed = [n for n in self.task.names if now[n] is not None and before[n] != now[n]]
        if not changed:
            self.on_damage()  # one was hidden, perhaps: it is shown as it should be
        if self.is_dragging and len([n for n in changed if before[n] is not None]) > 1:
            self._put_back(changed)
            return
        self.is_dragging = self.is_dragging and not final
        self.placing = None if self.placing in changed else self.placing
        if final and not changed and self._dragged is not None:
            changed = [self._dragged]  # the last move was told while it went on
        self._dragged = None if final or not changed else changed[0]
        for name in changed:
            if self.on_change(name, now[name], final) is False and final:
                self._put_back([name])
        if final:
            self._before = {}
        self._seen = self._now() if final else now


def flipped(position: Sequence[float]) -> tuple[float, float, float]:
    """LPS to RAS, and back."""
    x, y, z = position
    return (-float(x), -float(y), float(z))
