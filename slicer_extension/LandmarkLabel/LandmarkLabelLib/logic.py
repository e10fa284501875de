"""What the panel's buttons do: the session, the server in the background, the points in the scene. Free of Qt."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .client import Client, Conflict, Refused, Unreachable
from .guards import refuse_stale, swapped_sides
from .outbox import Outbox
from .session import Session
from .shape import propagate
from .wire import Point, Task, WireError
from .worker import Worker

SECOND_PASS_S = 1.0
ORIGINS = {"model": "predicted", "template": "placed by the shape of the labelled cases"}


class LandmarkLogic:
    """One annotator at one server.

    All calls return at once; answers arrive with ``poll``, which a timer calls.

    Args:
        url: of the server.
        folder: where sessions and unsent submissions are kept.
        author: who annotates.
        on_update: called whenever something to show has changed.
        token: for a server that asks for one.
    """

    def __init__(
        self, url: str, folder: str | Path, author: str = "", on_update: Callable[[], None] = lambda: None, token: str = ""
    ):
        self.client, self.folder, self.author, self.on_update = Client(url, token), Path(folder), author, on_update
        self.worker, self.outbox = Worker(), Outbox(self.folder / "outbox")
        self.task: Task | None = None
        self.models: dict = {}
        self.model = ""
        self.session: Session | None = None
        self.template: list[Point] = []  # the proposal that local moving starts from
        self.message, self.online, self.conflict = "", False, None
        self.revisions: list[tuple[int, str, list[Point]]] = []
        self.moved = 0  # points that the last correction moved
        self._ask_again_at: float | None = None  # when a second pass should be done
        self._asked = 0  # corrections sent, so that an old answer does not undo a newer one

    def poll(self) -> int:
        """Deliver what the background has done; call it every 50 ms or so."""
        if self._ask_again_at is not None and time.monotonic() >= self._ask_again_at:
            self._ask_again_at = None
            self._ask_to_follow()
        return self.worker.drain()

    def close(self) -> None:
        """Keep the state and end the background."""
        self._keep()
        self.worker.stop()

    def connect(self) -> None:
        """Ask the server what it serves; reopen the case that was open when the program ended."""
        self._run(lambda: (self.client.task(), self.client.models()), self._connected, "connecting")

    def _connected(self, answer: tuple[Task, dict]) -> None:
        self.task, self.models = answer
        self.model = self.model if self.model in self.models else next(iter(self.models), "")
        if self.session is None:
            self.session = Session.load(self.folder / "session.json", self.task)
            self.template = list(self.session.points) if self.session else []
        self._say(f"{self.task.name}: {len(self.task.names)} landmarks")
        self.deliver()

    def next_case(self, strategy: str = "first") -> None:
        """Let the server choose the next case, and open it."""

        def job() -> tuple:
            chosen = self.client.next_case(strategy)
            return (chosen, self.client.newest(chosen["id"], self.task)) if chosen.get("id") else (chosen, None)

        def done(answer: tuple) -> None:
            chosen, newest = answer
            if newest is None:
                self._say("every case is labelled")
                return
            self._open(chosen["id"], newest, str(chosen.get("reason", "")))

        self._run(job, done, "asking for the next case")

    def open_case(self, image_id: str) -> None:
        """Open a case by its id, also a finished one."""
        self._run(
            lambda: self.client.newest(image_id, self.task),
            lambda newest: self._open(image_id, newest, ""),
            f"opening {image_id}",
        )

    def _open(self, image_id: str, newest: tuple, reason: str) -> None:
        revision, _, points = newest
        self.session = Session(self.task, image_id, points, revision, reason)
        self.template, self.conflict, self.moved = list(points), None, 0
        self._changed(f"{image_id}: {reason}" if reason else image_id)

    def predict(self) -> None:
        """Proposals for everything nobody has spoken about."""
        session = self.session

        def done(answer: dict) -> None:
            if self.session is not session:
                return  # another case is open by now
            session.propose(answer["points"], "prediction", answer["next"])
            self.template = [p if p.position else old for p, old in zip(answer["points"], session.points, strict=True)]
            self._changed(ORIGINS.get(answer["origin"], "nothing known yet"))

        points = list(session.points)
        self._run(lambda: self.client.predict(self.model, session.image_id, points, self.task), done, "predicting")

    def correct(self, name: str, position: tuple, final: bool = True) -> None:
        """A person placed or moved a point; when it has come to rest the others follow."""
        self.session.place(name, position)
        if not final:
            return
        self._changed(f"{name} placed")
        self._ask_to_follow()

    def _ask_to_follow(self) -> None:
        """Let the other points move: by the server, or here while it is away."""
        session, points = self.session, list(self.session.points)
        self._asked += 1
        asked = self._asked

        def done(answer: dict) -> None:
            self.online = True
            if self.session is not session or asked != self._asked:
                return  # there is a newer correction, or another case
            self._follow(answer["points"], answer["next"])
            if answer["second_pass"]:
                self._ask_again_at = time.monotonic() + SECOND_PASS_S
                self._say("the networks are looking again")

        def away(error: Exception) -> None:
            if self.session is session and asked == self._asked:
                self._follow(propagate(self.template, session.points), None)
            self._failed(error)

        self.worker.submit(lambda: self.client.update(self.model, session.image_id, points, self.task), done, away)

    def _follow(self, points: list[Point], following: str | None) -> None:
        self.moved = self.session.propose(points, "the others follow", following)
        self._changed(f"{self.moved} points moved")

    def accept(self, name: str) -> None:
        self._do(lambda: self.session.accept(name), f"{name} accepted")

    def accept_all(self) -> None:
        self._do(self.session.accept_all, "all accepted")

    def mark_absent(self, name: str) -> None:
        self._do(lambda: self.session.mark_absent(name), f"{name} is absent")

    def undo(self) -> None:
        """Take the last change back."""
        what = self.session.undo_text
        self._do(self.session.undo, f"undone: {what}" if what else "nothing to undo")

    def warnings(self) -> list[str]:
        """What to look at before submitting."""
        swapped = swapped_sides(self.session.points, self.task)
        return [f"{a} and {b} look swapped: check left and right" for a, b in swapped]

    def submit(self) -> bool:
        """Keep the case for delivery; False (with a message) when something has to be mended first."""
        try:
            refuse_stale(self.session.points)
        except ValueError as error:
            self._say(str(error))
            return False
        self.outbox.put(self.session.image_id, self.session.points, self.task, self.session.base_revision, self.author)
        self._say(f"{self.session.image_id} submitted")
        self.deliver()
        return True

    def deliver(self) -> None:
        """Send what waits in the outbox."""
        self._run(lambda: self.outbox.deliver(self.client, self.task), self._delivered, "")

    def _delivered(self, results: list) -> None:
        for image_id, result in results:
            if isinstance(result, Conflict):
                self.conflict = (image_id, result)
                self._say(f"{image_id}: {result.author or 'somebody'} saved revision {result.revision} meanwhile; look at both")
            elif isinstance(result, Refused):
                self._say(f"{image_id}: the server refused it: {result}")
            elif self.session is not None and self.session.image_id == image_id:
                self.session.base_revision = int(result)
                self._keep()
        waiting = len(self.outbox.waiting())
        if waiting:
            self._say(f"{waiting} submissions wait for the server")
        self.on_update()

    def resolve(self, mine: bool) -> None:
        """After a conflict: submit mine on top of theirs, or take theirs. Undo brings the other version back."""
        image_id, theirs = self.conflict
        self.conflict = None
        if self.session is None or self.session.image_id != image_id:
            self._say(f"open {image_id} to mend it")
            return
        self.session.base_revision = theirs.revision
        if mine:
            self.submit()
        else:
            self.session.replace_all(theirs.points, f"take revision {theirs.revision} of {theirs.author or 'somebody'}")
            self._changed(f"{image_id}: revision {theirs.revision} taken")

    def review(self, image_id: str) -> None:
        """Open a case with all its revisions; ``revisions`` holds (number, author, points), oldest first."""

        def done(rows: list) -> None:
            self.revisions = rows
            newest = rows[-1] if rows else (0, "", [Point(n) for n in self.task.names])
            self._open(image_id, newest, f"{len(rows)} revisions")

        self._run(lambda: self.client.history(image_id, self.task), done, f"opening {image_id}")

    def restore(self, number: int) -> None:
        """Bring an earlier revision's points back into the session; submitting makes them the newest revision."""
        _, author, points = next(row for row in self.revisions if row[0] == number)
        self.session.replace_all(points, f"restore revision {number}")
        self._changed(f"revision {number} of {author or 'somebody'}: submit to make it the newest")

    def train(self, minutes: float) -> None:
        """Start a training on the server."""
        self._run(
            lambda: self.client.train(self.model, minutes), lambda _: self._say("training started"), "starting the training"
        )

    def _do(self, change: Callable[[], object], message: str) -> None:
        try:
            change()
        except ValueError as error:
            message = str(error)
        self._changed(message)

    def _changed(self, message: str) -> None:
        self._keep()
        self._say(message)

    def _keep(self) -> None:
        if self.session is not None:
            self.session.save(self.folder / "session.json")

    def _say(self, message: str) -> None:
        self.message = message
        self.on_update()

    def _run(self, job: Callable[[], object], done: Callable, what: str) -> None:
        if what:
            self._say(what)

        def arrived(answer: object) -> None:
            self.online = True
            done(answer)

        self.worker.submit(job, arrived, self._failed)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Unreachable):
            self.online = False
            self._say(f"{error}; your work is kept here and sent later")
        elif isinstance(error, (Refused, WireError)):
            self.online = True
            self._say(str(error))
        else:
            self._say(f"unexpected: {type(error).__name__}: {error}")
