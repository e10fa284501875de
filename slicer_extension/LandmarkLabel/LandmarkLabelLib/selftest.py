"""What owners of Slicer run in their own installation: the panel's buttons against real MRML and Qt, without a server."""

from __future__ import annotations

import tempfile
from pathlib import Path

from . import sample
from .logic import LandmarkLogic
from .markups import DEFINED, MISSING, UNDEFINED
from .options import Options
from .session import Session
from .wire import ACCEPTED, PREDICTED, Point, Task
from .work_folder import let_go

TASK = Task("selftest", ("tip", "left", "right"), 3, {}, (("left", "right"),))
PLACES = ((0.0, 0.0, 10.0), (12.0, 0.0, 0.0), (-12.0, 0.0, 0.0))


def check(panel, process_events, drawn) -> list[str]:
    """Drive a panel through a case; returns what was done. Raises AssertionError where something is not as it should be.

    Args:
        panel: a LandmarkPanel that is not connected.
        process_events: lets Qt work.
        drawn: the grey values that the first slice view shows, as many as are wanted for a look.
    """
    done, before = [], panel.logic
    with tempfile.TemporaryDirectory() as folder:
        logic = LandmarkLogic(Options("http://127.0.0.1:9", "selftest"), Path(folder), panel._mark_due)
        logic.task = TASK
        points = [Point(n, PREDICTED, p, 1.5) for n, p in zip(TASK.names, PLACES)]
        logic.session = Session(TASK, "selftest", points)
        panel.use(logic)
        try:
            _drive(panel, done, process_events, drawn)
        finally:
            logic.close()
            panel.volume.close()
            panel.logic = before
            let_go(Path(folder))  # Windows removes no file that is open
    return done


def _drive(panel, done: list[str], process_events, drawn) -> None:
    panel.logic.image = sample.PHANTOM
    panel.refresh()
    process_events()
    assert panel.volume.node is not None, "the sample volume cannot be loaded"
    greys = list(drawn())
    assert len(set(greys)) > 10 and max(greys) > 100, "the sample volume is not drawn"
    done.append("sample volume drawn")
    node, statuses = panel.node.node, lambda: [panel.node.node.GetNthControlPointPositionStatus(i) for i in range(3)]
    assert statuses() == [DEFINED] * 3 and panel.ui.table.item(0, 2).text() == "1.5 mm", "proposals are not shown"
    done.append("proposals shown")
    panel.select("tip")
    panel.ui.acceptButton.click()
    process_events()
    assert panel.logic.session.point("tip").state == ACCEPTED and node.GetNthControlPointLocked(0), "accepting does not lock"
    done.append("accepted and locked")
    panel.select("left")
    panel.ui.absentButton.click()
    process_events()
    assert statuses()[1] == MISSING, "absent is not missing"
    panel.ui.undoButton.click()
    process_events()
    assert statuses()[1] == DEFINED, "undo does not bring the point back"
    done.append("absent and undone")
    panel.select("right")
    panel.ui.replaceButton.click()
    process_events()
    assert statuses()[2] == UNDEFINED, "re-placing does not wait for a click"
    panel.stop_placing()
    panel.refresh()
    assert statuses()[2] == DEFINED, "leaving place mode does not bring the point back"
    done.append("re-placing left")
    node.SetNthControlPointPositionWorld(2, 15.0, 1.0, 0.0)
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert panel.logic.session.point("right").position == (-15.0, -1.0, 0.0), "a moved point is not taken over"
    done.append("moved point taken over")
