"""Points that are placed and moved in the views."""

from __future__ import annotations

import time

from .markups import LandmarkNode
from .wire import ABSENT, Point

POLL_BUSY_MS = 10
LET_GO_S = 0.006  # an idle Slicer holds Python's lock: the background works only while somebody lets go of it


class Placing:
    """The part of ``LandmarkPanel`` between the list of points in the views and the case."""

    def place_again(self) -> None:
        """The next click in a view places the selected landmark; Escape leaves it where it was."""
        name = self.current
        if name is not None and not self.logic.is_locked(name):
            self.logic.message = self._("click in a view to place {name}; Escape leaves it").format(name=name)
            self.node.start_placing(name)

    def _waits_for_click(self) -> bool:
        """Whether a landmark waits to be placed, which has no place until then: the message says so."""
        if self.node is None or self.node.placing is None:
            return False
        self.logic.message = self._("click in a view to place {name}; Escape leaves it").format(name=self.node.placing)
        return True

    def stop_placing(self) -> None:
        """Leave place mode; the point is where it was."""
        if self.node is not None:
            self.node.stop_placing()

    def _take_points_away(self) -> None:
        """The panel ends: nobody hears of what is done to its points from now on, so they are not shown; they are on disk."""
        if self.node is None:
            return
        if self.node.is_in_scene:
            self.node.forget()
            self.node.show([Point(name) for name in self.node.task.names])
        self.node.close()

    def _ensure_node(self) -> None:
        """The list of points of this task: ours, or that of a scene somebody has loaded meanwhile."""
        if self.node is not None and self.node.is_in_scene and self.node.task == self.logic.task:
            return
        waited = self.node.placing if self.node is not None else None
        if self.node is not None:
            self.node.forget()  # a click that was to come is not for the first point of the new list
            self.node.close()
        found = LandmarkNode.find(self.scene, self.logic.task)
        told = self._corrected, self._left_alone, self._mark_due
        self.node = LandmarkNode(self.scene, self.logic.task, *told, found, self._)
        self.node.on_place = self._place_asked
        if waited is not None and waited in self.logic.task.names:
            self._left_alone(waited)

    def _place_asked(self) -> None:
        """Slicer's own button for placing was pressed on this list: the click is for the selected landmark, or for none."""
        name = self.current
        if self.logic is None or self.logic.session is None or name is None or self.logic.is_locked(name):
            self.node.stop_placing()
        else:
            self.place_again()
        self._mark_due()

    def _corrected(self, name: str, position: tuple, final: bool) -> bool:
        """A person moved or placed a point in a view; whether it may be there."""
        self._mark_due()
        self._asked = ""
        if self.logic is None or self.logic.session is None:
            return False
        if self.logic.is_locked(name):  # it says so
            return False
        if not final and self.node.is_dragging and self.options.follow_drag:
            self.node.jump_to(name)
        if self.current != name and final:
            self.select(name)
        may_be = self.logic.correct(name, position, final)
        if final and self.logic.worker.at_work:
            self.timer.setInterval(POLL_BUSY_MS)
            time.sleep(LET_GO_S)  # the question is on its way before anything is drawn
        return may_be

    def _left_alone(self, name: str) -> None:
        """Place mode was left without a click."""
        if self.logic.session.point(name).state != ABSENT:  # meanwhile
            self.logic.message = self._("{name} is where it was").format(name=name)
        self._mark_due()
