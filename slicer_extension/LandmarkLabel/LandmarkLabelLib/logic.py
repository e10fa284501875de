"""What the panel's buttons do: the session, the server in the background, the points of the case. Free of Qt and MRML."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .client import Client, Conflict, Refused, Unreachable
from .guards import outliers, refuse_stale, swapped_sides
from .options import IMAGE_SUFFIXES, Options, folder_of, local_image
from .outbox import Outbox
from .review import Review
from .session import Session
from .shape import propagate
from .training import Training
from .wire import ABSENT, ACCEPTED, PLACED, Point, Task, WireError
from .worker import Worker

SECOND_PASS_S = 1.0


class LandmarkLogic:
    """One annotator at one server.

    All calls return at once; answers arrive with ``poll``, which a timer calls.

    Args:
        options: the server's address, who annotates, and how.
        folder: where sessions, images and unsent submissions are kept, one folder per server.
        on_update: called whenever something to show has changed.
        token: for a server that asks for one.
        translate: marks texts that people see, for translation.
    """

    def __init__(
        self,
        options: Options,
        folder: str | Path,
        on_update: Callable[[], None] = lambda: None,
        token: str = "",
        translate: Callable[[str], str] = str,
    ):
        self.options, self.client, self.on_update, self._ = options, Client(options.url, token), on_update, translate
        self.folder = folder_of(Path(folder), options.url)
        self.worker, self.outbox = Worker(), Outbox(self.folder / "outbox")
        self.training = Training(self.client, self._run, self._say, translate)
        self.review = Review(self.client, self._run, self._open, self._changed, translate)
        self.task: Task | None = None
        self.models: dict = {}
        self.strategies: list[str] = []
        self.model = ""
        self.session: Session | None = None
        self.image: Path | None = None  # of the case, once it is on this computer
        self.template: list[Point] = []  # the proposal that local moving starts from
        self.message, self.online, self.conflict = "", False, None
        self.moved = 0  # points that the last correction moved
        self.blocked: Callable[[], str] = lambda: ""  # says why points cannot be exchanged now
        self._ask_again_at: float | None = None  # when a second pass should be done
        self._asked = 0  # corrections sent, so that an old answer does not undo a newer one

    def poll(self) -> int:
        """Deliver what the background has done; call it every 50 ms or so."""
        if self._ask_again_at is not None and time.monotonic() >= self._ask_again_at:
            self._ask_again_at = None
            self._ask_to_follow()
        self.training.poll()
        return self.worker.drain()

    def close(self) -> None:
        """Keep the state and end the background."""
        self._keep()
        self.worker.stop()

    # --- the server --------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Ask the server what it serves; reopen the case that was open when the program ended."""
        self._run(lambda: (self.client.task(), self.client.info()), self._connected, self._("connecting"))

    def _connected(self, answer: tuple[Task, dict]) -> None:
        self.task, info = answer
        self.models, self.strategies = info["models"], info["strategies"]
        self.model = self.model if self.model in self.models else next(iter(self.models), "")
        self.training.take(info["training"])
        if self.session is None:
            self.session = Session.load(self.folder / "session.json", self.task)
            self.template = list(self.session.points) if self.session else []
            if self.session is not None:
                self._fetch_image()
        self._say(self._("{task}: {n} landmarks").format(task=self.task.name, n=len(self.task.names)))
        self.review.list_cases()
        self.deliver()

    def train(self) -> None:
        """Start a training of the chosen model on the server."""
        self.training.start(self.model, self.options.minutes)

    def upload(self, image_id: str, path: Path) -> None:
        """Add an image to the study, and open it."""

        def done(name: str) -> None:
            path.unlink(missing_ok=True)
            self.review.list_cases()
            self.open_case(name)

        self._run(lambda: self.client.upload(image_id, path), done, self._("sending {name}").format(name=image_id))

    # --- cases -------------------------------------------------------------------------------------------------------

    def next_case(self, strategy: str = "first") -> None:
        """Let the server choose the next case, and open it."""

        def job() -> tuple:
            chosen = self.client.next_case(strategy, self.options.client_id)
            return (chosen, self.client.newest(chosen["id"], self.task)) if chosen.get("id") else (chosen, None)

        def done(answer: tuple) -> None:
            chosen, newest = answer
            if newest is None:
                self._say(self._("every case is labelled, or in somebody else's hands"))
                return
            repeat = chosen.get("repeat") is True
            newest = (0, "", [Point(name) for name in self.task.names]) if repeat else newest
            self._open(chosen["id"], newest, str(chosen.get("reason", "")), repeat)

        self._run(job, done, self._("asking for the next case"))

    def open_case(self, image_id: str) -> None:
        """Open a case by its id, also a finished one, with all its revisions."""
        self.review.open(image_id, self.task)

    def _open(self, image_id: str, newest: tuple, reason: str, repeat: bool = False) -> None:
        revision, _, points = newest
        self.session = Session(self.task, image_id, points, revision, reason, repeat=repeat)
        self.template, self.conflict, self.moved, self.image = list(points), None, 0, None
        if self.review.image_id != image_id:
            self.review.forget()
        self._changed(f"{image_id}: {reason}" if reason else image_id)
        self._fetch_image()
        if self.options.predict_at_once and not any(p.by_person for p in points):
            self.predict()

    def _fetch_image(self) -> None:
        """From this computer where it lies here, else from the server."""
        session, image_id = self.session, self.session.image_id
        local = local_image(self.options.local_folder, image_id)

        def done(path: Path) -> None:
            if self.session is session:
                self.image = path
                self.on_update()

        if local is not None:
            done(local)
        else:
            self._run(lambda: self.client.download(image_id, self.folder / "image", IMAGE_SUFFIXES), done, "")

    # --- proposals and corrections -----------------------------------------------------------------------------------

    def predict(self) -> None:
        """Proposals for everything nobody has spoken about."""
        session = self.session
        if self._is_blocked():
            return

        def done(answer: dict) -> None:
            if self.session is not session:
                return  # another case is open by now
            session.propose(answer["points"], "prediction", answer["next"])
            self.template = [p if p.position else old for p, old in zip(answer["points"], session.points, strict=True)]
            origins = {"model": self._("predicted"), "template": self._("placed by the shape of the labelled cases")}
            self._changed(origins.get(answer["origin"], self._("nothing known yet")))

        points = list(session.points)
        self._run(lambda: self.client.predict(self.model, session.image_id, points, self.task), done, self._("predicting"))

    def correct(self, name: str, position: tuple, final: bool = True) -> None:
        """A person placed or moved a point; when it has come to rest the others follow."""
        self.session.place(name, position, final)
        if not final:
            self.on_update()
            return
        self._changed(self._("{name} placed").format(name=name))
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
                self._say(self._("the networks are looking again"))

        def away(error: Exception) -> None:
            if self.session is session and asked == self._asked:
                self._follow(propagate(self.template, session.points), None)
            self._failed(error)

        self.worker.submit(lambda: self.client.update(self.model, session.image_id, points, self.task), done, away)

    def _follow(self, points: list[Point], following: str | None) -> None:
        self.moved = self.session.propose(points, "the others follow", following)
        self._changed(self._("{n} points moved; Ctrl+Z puts them back").format(n=self.moved))

    def accept(self, name: str) -> None:
        if self.session.point(name).position is None:
            self._say(self._("{name} has no position to accept: place it, or call it absent").format(name=name))
            return
        self.session.accept(name)
        self._changed(self._("{name} accepted").format(name=name))

    def accept_all(self) -> None:
        self.session.accept_all()
        self._changed(self._("all accepted"))

    def unlock(self, name: str) -> None:
        """An accepted point may be moved again, an absent one placed."""
        self.session.unlock(name)
        self._changed(self._("{name} unlocked").format(name=name))

    def mark_absent(self, name: str) -> None:
        if not self.is_locked(name):
            self.session.mark_absent(name)
            self._changed(self._("{name} is absent").format(name=name))

    def is_locked(self, name: str) -> bool:
        """Accepted, or absent: then the message says how to unlock it."""
        state = self.session.point(name).state
        if state in (ACCEPTED, ABSENT):
            self._say(self._("{name} is {state}: unlock it first (U)").format(name=name, state=self._(state)))
        return state in (ACCEPTED, ABSENT)

    def undo(self) -> None:
        """Take the last change back."""
        what, name = self.session.undo_text
        self._asked += 1  # an answer still on its way belongs to what is undone
        self.session.undo()
        self._changed(self._("undone: {what}").format(what=self._(what).format(name)) if what else self._("nothing to undo"))

    # --- submitting --------------------------------------------------------------------------------------------------

    def warnings(self) -> list[str]:
        """What to look at before submitting."""
        points, text = self.session.points, self._("{a} and {b} look swapped: check left and right")
        found = [text.format(a=a, b=b) for a, b in swapped_sides(points, self.task)]
        slips = [p.name for p in points if p.flagged and p.state == PLACED]
        if not self.online:  # then the server has not compared them with the shape of the labelled cases
            slips = outliers(points, self.template)
        text = self._("{name} lies far from where the others have it")
        return found + [text.format(name=name) for name in slips]

    def submit(self) -> bool:
        """Keep the case for delivery; False (with a message) when something has to be mended first."""
        if self._is_blocked():
            return False
        try:
            refuse_stale(self.session.points)
        except ValueError as error:
            self._say(str(error))
            return False
        s = self.session
        self.outbox.put(s.image_id, s.points, self.task, s.base_revision, self.options.author, s.repeat)
        self._say(self._("{case} submitted").format(case=self.session.image_id))
        self.deliver()
        return True

    def _is_blocked(self) -> bool:
        why = self.blocked()
        if why:
            self._say(why)
        return bool(why)

    def deliver(self) -> None:
        """Send what waits in the outbox."""
        self._run(lambda: self.outbox.deliver(self.client, self.task), self._delivered, "")

    def _delivered(self, results: list) -> None:
        for image_id, result in results:
            if isinstance(result, Conflict):
                self.conflict = (image_id, result)
                text = self._("{case}: {who} saved revision {n} meanwhile; look at both")
                self._say(text.format(case=image_id, who=result.author or self._("somebody"), n=result.revision))
            elif isinstance(result, Refused):
                self._say(self._("{case}: the server refused it: {why}").format(case=image_id, why=result))
            elif self.session is not None and self.session.image_id == image_id:
                self.session.base_revision = int(result)
                self._keep()
        if results:
            self.review.list_cases()
        if waiting := len(self.outbox.waiting()):
            self._say(self._("{n} submissions wait for the server").format(n=waiting))
        self.on_update()

    def resolve(self, mine: bool) -> None:
        """After a conflict: submit mine on top of theirs, or take theirs. Undo brings the other version back."""
        image_id, theirs = self.conflict
        self.conflict = None
        if self.session is None or self.session.image_id != image_id:
            self._say(self._("open {case} to mend it").format(case=image_id))
            return
        self.session.base_revision = theirs.revision
        if mine:
            self.submit()
        else:
            self.session.replace_all(theirs.points, "take the other version")
            self._changed(self._("{case}: revision {n} taken").format(case=image_id, n=theirs.revision))

    def restore(self, number: int) -> None:
        """Bring an earlier revision's points back into the session; submitting makes them the newest revision."""
        _, author, points = self.review.revision(number)
        self.session.replace_all(points, "restore a revision")
        text = self._("revision {n} of {who}: submit to make it the newest")
        self._changed(text.format(n=number, who=author or self._("somebody")))

    # --- the background ----------------------------------------------------------------------------------------------

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
        self.online = not isinstance(error, Unreachable)
        if isinstance(error, Unreachable):
            self._say(self._("{why}; your work is kept here and sent later").format(why=error))
        elif isinstance(error, (Refused, WireError)):
            self._say(str(error))
        else:
            self._say(self._("unexpected: {kind}: {why}").format(kind=type(error).__name__, why=error))
