"""What the panel's buttons do: the session, the server in the background, the points of the case. Free of Qt and MRML."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .client import Client, Conflict, Untrusted
from .connecting import AWAY, CONNECTED, CONNECTING, IDLE, OTHER_TASK, Connecting
from .fetching import Fetching
from .measuring import Measuring
from .options import Options
from .outbox import WAITS, Entry, newest_for
from .review import Review
from .session import Session
from .shape import propagate
from .submitting import Submitting
from .training import Training
from .wire import ABSENT, ACCEPTED, Point, RevisionNumber, Task, says_the_same
from .work_folder import own_folder
from .worker import ALIVE, CASE, FOLLOW, IMAGE, SEND, STUDY, UPLOAD, Worker

SECOND_PASS_S = 1.0
SHOWN_MM = 0.05  # that a point was put onto a surface is said where the number is not 0.0
ALIVE_EVERY_S = 2.0  # with the time a server has to answer, a dead one is noticed within 5 s


class LandmarkLogic(Connecting, Fetching, Submitting):
    """One annotator at one server.

    All calls return at once; answers arrive with ``poll``, which a timer calls.

    Args:
        options: the server's address, who annotates, and how.
        folder: where sessions, images and unsent submissions are kept, one folder per server.
        on_update: called whenever something to show has changed.
        token: for a server that asks for one.
        translate: marks texts that people see, for translation.
        place: what the work is kept for, where the address says little, as of a server on this computer; else the address.
    """

    def __init__(
        self,
        options: Options,
        folder: str | Path,
        on_update: Callable[[], None] = lambda: None,
        token: str = "",
        translate: Callable[[str], str] = str,
        place: str = "",
    ):
        self.options, self.on_update, self._ = options, on_update, translate
        self.client, self.token = Client(options.url, token, options.trust), token
        self.base, self.address = Path(folder), place or options.url
        self.place = self.address  # until it is known who works, and in which study
        self.folder, self.is_first = own_folder(self.base, self.place)
        self._keep_in_folder()
        self.worker = Worker()
        self.training = Training(self.client, self._run, self._say, translate)
        self.review = Review(self.client, self._run, self._open, self._changed, translate)
        self.measuring = Measuring(self.client, self.worker, on_update, self._failed, translate)
        self.task: Task | None = None
        self.models: dict = {}
        self.strategies: list[str] = []
        self.model = ""
        self.session: Session | None = None
        self.image: Path | None = None  # of the case, once it is on this computer
        self.is_shown_by_hand = False  # the case's image is kept in a form that a person has to open in Slicer
        self.is_compared = True  # the image is the server's, as far as that could be asked
        self.predicts_when_shown = False  # as the options say, once the image of the case is here
        self.template: list[Point] = []  # the proposal that local moving starts from
        self.message, self.trouble = "", ""  # what just happened; what stays until it is mended
        self.state, self.who = IDLE, {"name": "", "roles": []}
        self.is_same_task = True  # what is served is the task that was, since the server was last away
        self.untrusted: Untrusted | None = None  # why the server is not believed, and what a person may confirm
        self.conflict: Conflict | None = None  # of the open case
        self.unsent: list[Entry | Session] = []  # all that the server does not have, but for the open case's session
        self.moved = 0  # points that the last correction moved
        self.blocked: Callable[[], str] = lambda: ""  # says why points cannot be exchanged now
        self.is_inside: Callable[[tuple], bool] = lambda position: True  # whether a place is in the image that is shown
        self.on_surface: Callable[[tuple], tuple] = lambda position: position  # the nearest place on the case's surface
        self._then: tuple[str, str] | None = None  # key of a submission after which the next case opens, and its strategy
        self._ask_again_at: float | None = None  # when a second pass should be done
        self._send_again_at: float | None = None  # when what waits is sent again, while the server is there
        self._asked = 0  # corrections sent, so that an old answer does not undo a newer one
        self._asked_alive_at = 0.0

    @property
    def online(self) -> bool:
        """Whether the server answers and lets this user in."""
        return self.state == CONNECTED

    def poll(self) -> int:
        """Deliver what the background has done; call it every 50 ms or so."""
        now = time.monotonic()
        if self._ask_again_at is not None and now >= self._ask_again_at:
            self._ask_again_at = None
            self._ask_to_follow()
        if self.state in (CONNECTED, AWAY) and now - self._asked_alive_at >= ALIVE_EVERY_S and not self.worker.waits(ALIVE):
            self._asked_alive_at = now
            self.worker.submit(self.client.alive, self._is_alive, self._is_not_alive, ALIVE)
        if self.online:
            self.training.poll()
            if self._send_again_at is not None and now >= self._send_again_at and not self.worker.waits(SEND):
                self._send_again_at = None
                self.deliver()
        count = self.worker.drain()
        if not count:  # else what has arrived is shown first
            self.measuring.look(self.session, self.online, self.model)
        return count

    def close(self) -> None:
        """Keep the state and end the background."""
        self._keep()
        self.worker.stop()

    def cancel(self) -> None:
        """Wait no longer for what was asked for; submissions stay in the outbox."""
        self.worker.give_up(CASE, FOLLOW, IMAGE, STUDY)  # what is being sent arrives all the same, and must be heard of
        self._then = self._ask_again_at = None
        self.state = IDLE if self.state == CONNECTING else self.state
        self.training.given_up()
        self._look_for_image()
        self._say(self._("cancelled"))

    # --- the server -------------------------------------------------------------------------------------------------

    def upload(self, image_id: str, path: Path) -> None:
        """Add an image to the study, and open it; the file, in a folder of its own, is removed."""

        def job() -> str:
            try:
                return self.client.upload(image_id, path)
            finally:
                path.unlink(missing_ok=True)  # an image of a patient does not stay in a temporary folder
                with suppress(OSError):
                    path.parent.rmdir()

        def done(name: str) -> None:
            self.review.list_cases()
            self.open_case(name)

        self._run(job, done, self._("sending {name}").format(name=image_id), UPLOAD)

    # --- cases -------------------------------------------------------------------------------------------------------

    def next_case(self, strategy: str = "first") -> None:
        """Let the server choose the next case, and open it."""
        if self.is_of_another_task():
            return

        def job() -> tuple:
            chosen = self.client.next_case(strategy, self.client_id)
            return (chosen, self.client.newest(chosen["id"], self.task)) if chosen.get("id") else (chosen, None)

        def done(answer: tuple) -> None:
            chosen, newest = answer
            if newest is None:
                self._say(self._after_save(self._("every case is labelled, or in somebody else's hands")))
                return
            repeat = chosen.get("repeat") is True
            newest = (RevisionNumber(0), "", [Point(name) for name in self.task.names]) if repeat else newest
            self._open(chosen["id"], newest, str(chosen.get("reason", "")), repeat)

        self._run(job, done, self._("asking for the next case"), CASE)

    def open_case(self, image_id: str) -> None:
        """Open a case by its id, also a finished one, with all its revisions."""
        if self.is_of_another_task():
            return
        self.review.open(image_id, self.task)

    def _open(self, image_id: str, newest: tuple, reason: str, repeat: bool = False) -> bool:
        """A case, as the server has it, or as it was left here where the server does not have that yet.

        False where the one that is open stays, because it could not be kept.
        """
        self.trouble = ""
        was = self.session.image_id if self.session is not None and self.session.is_moving else ""
        if not self.leave():  # its points would be gone
            self._say(self._("{case} stays open").format(case=self.session.image_id))
            return False
        revision, author, points = newest
        kept = self.sessions.load(image_id, self.task, repeat)
        waits = newest_for(self.outbox.entries(self.task), image_id, repeat)
        self.conflict, self.moved, self._ask_again_at = None, 0, None
        self.image, self.is_shown_by_hand, self.is_compared = None, False, True
        if kept is not None and (kept.unsent or kept.base_revision == revision and not revision.overtakes(kept.base_revision)):
            self.session, reason = kept, self._("with your changes that were not sent") if kept.unsent else kept.reason
            if waits is not None and waits.state == WAITS and waits.edits == kept.edits:
                self.session.submitted(waits.key)
                reason = self._("as you submitted it; the server does not have it yet")
            self._tell_gone(kept.gone, self.sessions.folder)
        elif waits is not None:
            self.session = Session(
                self.task, image_id, waits.points, waits.base_revision, reason, None, repeat, waits.edits, waits.edits - 1
            )  # unsent: if the submission is discarded, these points are all there is
            self.session.pixels = waits.pixels
            self._tell_gone(waits.gone, self.outbox.folder)
            if waits.state == WAITS:
                self.session.submitted(waits.key)
            reason = self._("as you submitted it; the server does not have it yet")
        else:
            self.session = Session(self.task, image_id, points, revision, reason, repeat=repeat)
        if not repeat and revision.overtakes(self.session.base_revision):
            self._meet(Conflict(self._("a newer revision exists"), revision, author, points))
        self.template = list(self.session.points)
        if repeat or self.review.image_id != image_id:  # of a second reading, nobody is shown the first
            self.review.forget()
        self.notice()  # what had to wait for the case before
        self._list_unsent()
        back = self._("the point you were moving in {case} is where it was").format(case=was) if was else ""
        self._changed(self._after_save("; ".join(filter(None, (f"{image_id}: {reason}" if reason else image_id, back)))))
        self._fetch_image()
        self.predicts_when_shown = self.options.predict_at_once and not any(p.by_person for p in self.session.points)
        return True

    # --- proposals and corrections -----------------------------------------------------------------------------------

    def predict(self) -> None:
        """Proposals for everything nobody has spoken about."""
        session = self.session
        if self._is_blocked() or self._reads_alone():
            return

        def done(answer: dict) -> None:
            if self.session is not session or (session.is_submitted and not before):
                return  # another case is open by now, or this one is about to leave
            if not says_the_same(points, session.points):  # meanwhile a point was placed, or an absent one unlocked
                self.predict()
                return
            session.propose(answer["points"], "prediction", answer["next"])
            self.template = [p if p.position else old for p, old in zip(answer["points"], session.points)]
            origins = {"model": self._("predicted"), "template": self._("placed by the shape of the labelled cases")}
            self._changed("; ".join([origins.get(answer["origin"], self._("nothing known yet")), *answer["cautions"]]))

        points, before = list(session.points), session.is_submitted
        job = lambda: self.client.predict(self.model, session.image_id, points, self.task)  # noqa: E731
        self._run(job, done, self._("predicting"), CASE)

    def correct(self, name: str, position: tuple, final: bool = True) -> bool:
        """A person placed or moved a point; when it has come to rest the others follow. False where it cannot be there."""
        if why := self._why_not(name, position):
            if final:
                self.session.take_move_back()
                self._changed(why)
            else:
                self.on_update()
            return False
        place = self.on_surface(position) if final and self.options.keep_on_surface else position
        self.session.place(name, place, final)
        if not final:
            self.on_update()
            return True
        off = math.dist(place, position)
        text = (
            self._("{name} placed on the surface, {mm} mm from where it was put") if off >= SHOWN_MM else self._("{name} placed")
        )
        self._changed(text.format(name=name, mm=f"{off:.1f}"))
        if not self.session.repeat:  # a second reading is the person's alone
            self._ask_to_follow()
        return True

    def _why_not(self, name: str, position: tuple) -> str:
        if why := self.blocked():
            return why
        if not all(math.isfinite(v) for v in position) or not self.is_inside(position):
            return self._("{name} cannot be outside of the image: it is where it was").format(name=name)
        return ""

    def _ask_to_follow(self) -> None:
        """Let the other points move: by the server, or here while it is away."""
        session, points = self.session, list(self.session.points)
        self._asked += 1
        asked = self._asked

        def done(answer: dict) -> None:
            if self.session is not session or asked != self._asked:
                return  # there is a newer correction, or another case
            if not says_the_same(points, session.points):  # it would call a point absent again that was unlocked meanwhile
                self._ask_to_follow()
                return
            self._follow(answer["points"], answer["next"])
            if answer["second_pass"]:
                self._ask_again_at = time.monotonic() + SECOND_PASS_S
                self._say(self._("the networks are looking again"))

        def follow_here() -> None:
            self._follow(propagate(self.template or points, session.points), None)

        def away(error: Exception) -> None:
            self._failed(error)
            if self.session is session and asked == self._asked:
                follow_here()

        if not self.online:
            follow_here()
            return
        job = lambda: self.client.update(self.model, session.image_id, points, self.task)  # noqa: E731
        self.worker.give_up(FOLLOW)  # an older question
        self.worker.submit(job, done, away, FOLLOW)

    def _follow(self, points: list[Point], following: str | None) -> None:
        self.moved = self.session.propose(points, "the others follow", following)
        self._changed(self._("{n} points moved; Ctrl+Z puts them back").format(n=self.moved))

    def accept(self, name: str) -> None:
        if self.session.point(name).position is None:
            self._say(self._("{name} has no position to accept: place it, or call it absent").format(name=name))
        elif not self.is_inside(self.session.point(name).position):
            self._say(self.outside_text([name]))
        else:
            self.session.accept(name)
            self._changed(self._("{name} accepted").format(name=name))

    def accept_all(self) -> None:
        outside = [p.name for p in self.session.points if p.position and not self.is_inside(p.position)]
        flagged = [p.name for p in self.session.points if p.flagged and p.state != ACCEPTED]
        taken = self.session.accept_all([*outside, *flagged])
        self._changed(self.accepted_text(taken, flagged, outside))

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
        self._ask_again_at = None
        self.session.undo()
        self._changed(self._("undone: {what}").format(what=self._(what).format(name)) if what else self._("nothing to undo"))

    def redo(self) -> None:
        """Do again what was undone last."""
        what, name = self.session.redo_text
        self._asked += 1
        self._ask_again_at = None
        self.session.redo()
        self._changed(self._("done again: {what}").format(what=self._(what).format(name)) if what else self._("nothing to redo"))

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

    def _say(self, message: str) -> None:
        self.message = message
        self.on_update()

    def run(self, job: Callable[[], object], done: Callable, failed: Callable, lane: str, what: str) -> None:
        """Something of a lane of its own, whose failures are its own, too."""
        self.worker.submit(job, done, failed, lane, what)

    def _run(
        self, job: Callable[[], object], done: Callable, what: str, lane: str = STUDY, quiet: bool = False, failed=None
    ) -> None:
        if what and not quiet:
            self._say(what)

        def arrived(answer: object) -> None:
            back = self.state not in (CONNECTED, OTHER_TASK)
            self.state = CONNECTED if back else self.state
            if back:
                self.trouble = ""
                self._look_for_image()
            done(answer)
            if back and self.online and lane != SEND and self.task is not None and self.outbox.waiting():
                self.deliver()
            self.on_update()

        def lost(error: Exception) -> None:
            if failed is not None:
                failed()
            self._failed(error)

        self.worker.submit(job, arrived, lost, lane, what)
