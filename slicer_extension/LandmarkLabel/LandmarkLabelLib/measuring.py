"""What the points of the open case measure: asked anew whenever one has changed, one question under way at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from .client import Client, NoRoute, NotAllowed, Unreachable
from .measured import Measured
from .session import Session
from .wire import Point
from .worker import FOLLOW, MEASURE, Worker

EVERY_S = 0.1  # at most: while a point is dragged, the thread that draws has other things to do than to wait for answers
AGAIN_S = 2.0  # after the server could not say it


class Measuring:
    """The newest answer, and whether it is of the points as they are.

    Points are a new list after each change, so a list that is another object is another state.

    Args:
        client: of the server.
        worker: of the background.
        changed: called when there is something else to show.
        failed: told where the server lets nobody in.
        translate: for texts that people see.
    """

    def __init__(
        self,
        client: Client,
        worker: Worker,
        changed: Callable[[], None],
        failed: Callable[[Exception], None],
        translate: Callable[[str], str],
    ):
        self.client, self.worker, self.changed, self.failed = client, worker, changed, failed
        self._not_yet = translate("not measured yet")
        self.is_offered = False  # whether the server has answered: an older one does not, nor one that lets this user not
        self._may_ask = True
        self.rows: tuple[Measured, ...] = ()  # the newest answer
        self._session: Session | None = None
        self._asked: list[Point] | None = None  # the points of the last question
        self._answered: list[Point] | None = None  # the points that ``rows`` are of
        self._not_before = 0.0  # when the next question may be asked
        self._was_online = False

    def of(self, session: Session | None) -> tuple[tuple[Measured, ...], bool]:
        """The newest values of a case, and whether they are of its points as they are; none of any other case."""
        if session is None or not self.is_offered or not session.task.measurements:
            return (), True
        if session is not self._session or not self.rows:
            return tuple(Measured(m.name, reason=self._not_yet) for m in session.task.measurements), False
        return self.rows, self._answered is session.points

    def look(self, session: Session | None, online: bool, model: str = "") -> None:
        """Ask where there is something to ask, and say which model is chosen; called again and again."""
        if session is not self._session:
            self._session, self.rows, self._asked, self._answered, self._not_before = session, (), None, None, 0.0
            self.worker.give_up(MEASURE)  # of the case before
        if online and not self._was_online:
            self._may_ask, self._asked, self._not_before = True, None, 0.0  # it may be newer by now
        self._was_online = online
        if session is None or not online or not self._may_ask or not session.task.measurements:
            return
        if session.points is self._asked or self.worker.waits(MEASURE) or self.worker.waits(FOLLOW):
            return
        if (now := time.monotonic()) >= self._not_before:
            self._not_before = now + EVERY_S
            self._ask(session, session.points, model)

    def _ask(self, session: Session, points: list[Point], model: str) -> None:
        self._asked = points

        def done(rows: tuple[Measured, ...]) -> None:
            if session is self._session:
                self.is_offered, self.rows, self._answered = True, rows, points
                self.changed()

        def lost(error: Exception) -> None:
            if session is not self._session:
                return
            if isinstance(error, (NoRoute, NotAllowed)):
                self.is_offered = self._may_ask = False
                if isinstance(error, NotAllowed) and error.status == 401:
                    self.failed(error)
            elif isinstance(error, Unreachable):
                self._asked, self._not_before = None, time.monotonic() + AGAIN_S  # whether it is there, others find out
            else:  # it will say no to these points each time
                self.rows = tuple(Measured(m.name, reason=str(error)) for m in session.task.measurements)
                self.is_offered, self._answered = True, points
            self.changed()

        self.worker.submit(lambda: self.client.measure(model, session.image_id, points, session.task), done, lost, MEASURE)
