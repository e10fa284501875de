"""What the server is to have: submitting a case, meeting somebody else's version of it, and what has not arrived."""

from __future__ import annotations

import time
from contextlib import suppress

from .client import Conflict, Unreachable
from .connecting import OTHER_TASK
from .guards import outliers, refuse_stale, swapped_sides
from .outbox import CONFLICT, WAITS, Delivered, Entry, newest_for
from .session import Session
from .wire import ABSENT, PLACED, Point
from .worker import CASE, SEND

SEND_AGAIN_S = 5.0  # after the server was busy


class Submitting:
    """The part of ``LandmarkLogic`` that delivers; uses its session, sessions and outbox.

    Nothing leaves this computer's disk before the server has acknowledged it.
    """

    _only_in_memory = ""  # what was said while the session could not be kept
    _saved = ""  # what was said of the case before the next one was asked for

    def warnings(self) -> list[str]:
        """What to look at before submitting."""
        points, text = self.session.points, self._("{a} and {b} look swapped: check left and right")
        found = [self.other_image_text()] if self.session.is_other_image else []
        found += [text.format(a=a, b=b) for a, b in swapped_sides(points, self.task)]
        slips = [p.name for p in points if p.flagged and p.state == PLACED]
        if not self.online:  # then the server has not compared them with the shape of the labelled cases
            slips = outliers(points, self.template)
        text = self._("{name} lies far from where the others have it")
        found += [text.format(name=name) for name in slips]
        if not any(p.by_person for p in points):
            found.append(self._("no point was placed, accepted or called absent"))
        return found

    def submit(self, then: str | None = None) -> bool:
        """Keep the case for delivery; False (with a message) when something has to be mended first.

        Args:
            then: strategy by which the next case is chosen once the server has this one; None to stay.
        """
        if self.conflict is not None:
            self._say(self._("look at both versions first: take theirs, or press Submit mine"))
            return False
        if self._is_blocked():
            return False
        if not self.is_compared:
            self._say(self._("whether the server has the image that is shown is not known yet: submit when it answers again"))
            return False
        if self.session.is_submitted:  # pressed twice: a second revision would say the same
            self._submitted_already(then)
            return True
        try:
            refuse_stale(self.session.points)
        except ValueError as error:
            self._say(str(error))
            return False
        outside = [p.name for p in self.session.points if p.by_person and p.position and not self.is_inside(p.position)]
        if outside:
            self._say(self.outside_text(outside))
            return False
        self._keep()
        try:
            key = self.outbox.put(self.session, self.options.author)
        except OSError as error:
            self._say(self._("{folder} cannot be written ({why})").format(folder=self.outbox.folder, why=error.strerror))
            return False
        self._asked, self._ask_again_at = self._asked + 1, None  # what is still to follow comes too late
        self.session.submitted(key)
        self.session.is_other_image = False  # a person says that the points hold
        self._then = (key, then) if then is not None else None
        self._say(self._("{case} is sent").format(case=self.session.image_id))
        self.deliver()
        return True

    def _submitted_already(self, then: str | None) -> None:
        entry = newest_for(self.outbox.entries(self.task), self.session.image_id, self.session.repeat)
        text = self._("{case} is saved; nothing has changed since") if entry is None else self._("{case} waits to be sent")
        self._say(text.format(case=self.session.image_id))
        if entry is not None:
            self._then = (entry.key, then) if then is not None else None
            self.deliver()
            return
        self.session.acknowledged(self.session.edits, self.session.base_revision)
        self._keep()
        if then is not None:
            self.next_case(then)

    def accepted_text(self, taken: int, flagged: list[str], outside: list[str]) -> str:
        """What *Accept all* has accepted, and what it has left to a person."""
        if not flagged and not outside:
            return self._("all accepted") if taken else self._("nothing is proposed that could be accepted")
        doubt = self._("contradicting the rest: {names}; look at each (N)").format(names=", ".join(flagged))
        said = [self._("the others are accepted") if taken else "", doubt if flagged else ""]
        return "; ".join(filter(None, [*said, self.outside_text(outside) if outside else ""]))

    def outside_text(self, names: list[str]) -> str:
        """What to do with points that are outside of the image: the server would not take them."""
        listed = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        return self._("outside of the image: {names}; drag them inside, or call them absent").format(names=listed)

    def _reads_alone(self) -> bool:
        """Whether this is a second reading, which is to be independent: then the message says so."""
        if self.session.repeat:
            self._say(self._("a second reading is made without proposals"))
        return self.session.repeat

    def _is_blocked(self) -> bool:
        why = self.blocked()
        if why:
            self._say(why)
        return bool(why)

    def deliver(self) -> None:
        """Send what waits in the outbox."""
        self._list_unsent()
        if self.state == OTHER_TASK:  # what is for one task is nothing to another
            self._say(self._("it is kept until its own task and study are served here again"))
            return
        is_sure = self.is_same_task

        def job() -> list[Delivered]:
            if not is_sure:
                self.check_same_task()
            return self.outbox.deliver(self.client, self.task)

        def done(results: list[Delivered]) -> None:
            self.is_same_task = True
            self._delivered(results)

        self._run(job, done, self._("sending") if self.outbox.waiting() else "", SEND, quiet=True)

    def _delivered(self, results: list[Delivered]) -> None:
        heard = {r.key: r for r in [*self.outbox.acknowledged(), *results]}  # also of a delivery that was cut off
        for _, result in sorted(heard.items()):
            if isinstance(result.answer, int):
                self._arrived(result)
            elif isinstance(result.answer, Unreachable) or getattr(result.answer, "status", 0) == 401:
                self._failed(result.answer)
                self._send_again_at = time.monotonic() + SEND_AGAIN_S
            elif isinstance(result.answer, Conflict) and self.is_open(result):
                self._meet(result.answer)
            else:
                if self.session is not None:
                    self.session.not_taken(result.key)  # of a damaged file only the key is known
                text = self._("{case}: the server did not take it: {why}. It is kept: see Unsent")
                why = str(result.answer)
                why = why[len(result.image_id) + 2 :] if why.startswith(f"{result.image_id}: ") else why
                self.trouble = text.format(case=result.image_id, why=why)
        if any(isinstance(result.answer, int) for result in heard.values()):
            self.notice()  # what had to wait for these
            self.review.list_cases()
        self._list_unsent()
        self.on_update()

    def _arrived(self, result: Delivered) -> None:
        """The server has it: nothing of it has to be kept, and nothing that was refused before counts any more."""
        opened = self.is_open(result)
        session = self.session if opened else self.sessions.load(result.image_id, self.task, result.repeat)
        if session is not None and int(result.answer) >= session.base_revision:  # else heard of once more
            session.acknowledged(result.edits, result.answer, result.key)
            self._save(session, opened) if session.unsent else self.sessions.drop(session)
        self.outbox.forget(result.key)
        for entry in self.outbox.entries(self.task):
            if (entry.image_id, entry.repeat) == (result.image_id, result.repeat) and entry.key < result.key:
                with suppress(OSError):  # of a file that another program has open
                    self.outbox.discard(entry.key)
        saved = self._("the second reading of {case} is saved") if result.repeat else self._("{case} is saved as revision {n}")
        text = saved.format(case=result.image_id, n=result.answer)
        if result.unlabelled:
            rest = self._("; {k} of its {all} points are not labelled: place, accept or call them absent")
            text += rest.format(k=result.unlabelled, all=len(self.task.names))
        self._say(text)
        if self.trouble.startswith(f"{result.image_id}:"):
            self.trouble = ""
        if opened and self.conflict is not None and self.conflict.revision <= int(result.answer):
            self.conflict = None  # it was this very submission, whose answer had been lost
        if self._then is not None and self._then[0] == result.key:
            strategy, self._then = self._then[1], None
            if opened and not session.unsent:
                self._saved = text
                self.next_case(strategy)

    def _after_save(self, message: str) -> str:
        """What happened next, behind what was saved just before."""
        both, self._saved = ". ".join(filter(None, (self._saved, message))), ""
        return both

    def is_open(self, result: Delivered | Entry | Session) -> bool:
        """Whether it is of the open case."""
        s = self.session
        return s is not None and (s.image_id, s.repeat) == (result.image_id, result.repeat)

    def leave(self) -> bool:
        """Another case opens: of this one, only what the server does not have is needed. False where that cannot be kept."""
        session = self.session
        if session is None:
            return True
        session.take_move_back()  # of a point that the hand still holds, nobody knows where it belongs
        if session.unsent:
            return self._save(session)
        self.sessions.drop(session)
        return True

    def _keep(self) -> None:
        self._saved = ""  # it has been read
        if self.session is not None:
            self._save(self.session)

    def _save(self, session: Session, is_open: bool = True) -> bool:
        session.author = self.who["name"] or self.options.author
        try:
            self.sessions.keep(session, is_open)
        except OSError as error:
            text = self._("your points are only in memory: {folder} cannot be written ({why}); free space, then go on")
            self.trouble = self._only_in_memory = text.format(folder=self.sessions.folder, why=error.strerror)
            return False
        self.trouble = "" if is_open and self.trouble == self._only_in_memory else self.trouble
        return True

    # --- two versions of one case ------------------------------------------------------------------------------------

    def _meet(self, conflict: Conflict) -> None:
        """Both versions are shown until a person has decided."""
        self.conflict, self._then = conflict, None
        self.session.not_taken()

    def look_for_newer(self) -> None:
        """Whether somebody has saved the open case since: then both versions are shown."""
        session = self.session
        waiting = [e for e in self.outbox.entries(self.task) if self.is_open(e) and e.state == WAITS]
        if session.repeat or waiting:  # what waits will hear of it
            return

        def done(newest: tuple) -> None:
            revision, author, points = newest
            is_still = self.session is session and self.conflict is None and not session.is_submitted
            if is_still and revision.overtakes(session.base_revision):
                self._meet(Conflict(self._("a newer revision exists"), revision, author, points))

        self._run(lambda: self.client.newest(session.image_id, self.task), done, "", CASE)

    def differences(self) -> dict[str, Point]:
        """Landmark to the other version's point, where a person has said something in one that is not in the other."""
        if self.conflict is None:
            return {}
        pairs = zip(self.session.points, self.conflict.points)
        return {b.name: b for a, b in pairs if (a.by_person or b.by_person) and _said(a) != _said(b)}

    def take_theirs(self, name: str | None = None) -> None:
        """One point of the other version, or all of them; undo brings the own ones back."""
        if self.conflict is None:
            return
        if name is not None:
            theirs = next(p for p in self.conflict.points if p.name == name)
            self.session.take(theirs)
            self._changed(self._("{name} taken from the other version").format(name=name))
            return
        revision, points = self.conflict.revision, self.conflict.points
        self.session.replace_all(points, "take the other version")
        self.session.acknowledged(self.session.edits, revision)
        self._settle([e.key for e in self.outbox.entries(self.task) if self.is_open(e) and e.state == CONFLICT])
        self._changed(self._("{case}: revision {n} taken").format(case=self.session.image_id, n=revision))

    def submit_mine(self, then: str | None = None) -> None:
        """The open case as it is now becomes the newest revision, on top of the other version."""
        conflict, base = self.conflict, self.session.base_revision
        if conflict is None:
            return
        earlier = [e.key for e in self.outbox.entries(self.task) if self.is_open(e) and e.state == CONFLICT]
        self.conflict, self.session.base_revision = None, conflict.revision
        if not self.submit(then):  # something has to be mended first: both versions stay
            self.conflict, self.session.base_revision = conflict, base
            return
        self._settle(earlier)

    def _settle(self, keys: list[str]) -> None:
        """The submissions that met the other version are of no use any more."""
        self.conflict, self.trouble = None, ""
        for key in keys:
            self.outbox.discard(key)
        self._list_unsent()

    # --- what the server does not have -------------------------------------------------------------------------------

    def _list_unsent(self) -> None:
        if self.task is None:
            return
        kept = [s for s in self.sessions.unsent(self.task) if not self.is_open(s)]
        entries = self.outbox.entries(self.task)
        listed = {(e.image_id, e.repeat) for e in entries}
        self.unsent = [*entries, *(s for s in kept if (s.image_id, s.repeat) not in listed)]

    def send_again(self, what: Entry | Session) -> None:
        """Try once more to deliver a submission; of changes that were never submitted, the case opens."""
        if isinstance(what, Session):
            self.open_unsent(what)
            return
        self.outbox.send_again(what.key)
        self.trouble = ""
        self.deliver()

    def open_unsent(self, what: Entry | Session) -> None:
        """Open the case with what the server does not have, to mend it and submit it again."""
        if self.is_open(what):
            self.look_for_newer()
            self._fetch_image()  # it may be refused because there is another by now
            self._say(self._("{case} is open").format(case=what.image_id))
            return
        self.open_case(what.image_id) if not what.repeat else self._open_repeat(what.image_id)

    def _open_repeat(self, image_id: str) -> None:
        self._open(image_id, (0, "", [Point(name) for name in self.task.names]), self._("second reading"), True)

    def discard(self, what: Entry | Session) -> None:
        """The person does not want it."""
        if isinstance(what, Session):
            self.sessions.drop(what)
        else:
            self.outbox.discard(what.key)
            if self.is_open(what):
                self.session.not_taken(what.key)
            kept = None if self.is_open(what) else self.sessions.load(what.image_id, self.task, what.repeat)
            if kept is not None and kept.edits <= what.edits:  # it holds nothing that was not in the submission
                self.sessions.drop(kept)
        self.trouble = ""
        self._list_unsent()
        opened = self._("{case}: the submission is discarded; the points are still open here, and not sent")
        self._say((opened if self.is_open(what) else self._("{case}: discarded")).format(case=what.image_id))


def _said(point: Point) -> tuple:
    """What a version of a case says of a landmark: where it is, and whether a person says so."""
    return point.position, point.state == ABSENT, point.by_person
