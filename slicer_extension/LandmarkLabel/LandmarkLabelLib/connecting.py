"""Finding a server, being let in, noticing when it is gone, and going on when it is back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .client import Busy, NotAllowed, OtherStudy, Refused, Unreachable, Untrusted
from .outbox import Outbox
from .session import Session, Sessions
from .wire import Task, WireError
from .work_folder import adopt, others_here, own_folder, waiting_elsewhere
from .worker import STUDY

IDLE, CONNECTING, CONNECTED, AWAY, NOT_LET_IN, UNTRUSTED = "idle", "connecting", "connected", "away", "not let in", "untrusted"
OTHER_TASK = "other task"  # is served at the address now


class OtherTask(Exception):
    """The server is back with another task; its name."""


class Connecting:
    """The part of ``LandmarkLogic`` that knows whether the server is there; uses its client, worker, sessions and outbox."""

    earlier: Sequence[str] = ()  # places of what was kept for this server while it told less

    def connect(self) -> None:
        """Ask the server what it serves; reopen the case that was open when the program ended."""
        self.state = CONNECTING

        def job() -> tuple:
            who = self.client.who()  # first: a wrong token is told apart from a server that is none
            return self.client.task(), self.client.info(), who, self.client.study()

        self._run(job, self._connected, self._("connecting"), STUDY)

    def is_only_away(self, url: str, token: str) -> bool:
        """Whether this very server is only out of reach while a case is open."""
        return self.state == AWAY and self.session is not None and (self.options.url, self.token) == (url, token)

    def try_again(self) -> None:
        """Look at once whether the server answers again, and whether it is the same."""
        self.worker.submit(self.check_same_task, self._is_back, self._failed, STUDY, self._("connecting"))

    def confirm_certificate(self) -> None:
        """The certificate that the server has shown is believed when connecting again."""
        if self.untrusted is not None:
            self.options.trusted = {**self.options.trusted, self.options.url.rstrip("/"): self.untrusted.fingerprint}

    def _connected(self, answer: tuple[Task, dict, dict, str]) -> None:
        self.task, info, self.who, study = answer
        self.client.mean_study(study)
        self.is_same_task = True
        self.models, self.strategies = info["models"], info["strategies"]
        self.model = self.model if self.model in self.models else next(iter(self.models), "")
        self.training.take(info["training"])
        self._say(self._("{task}: {n} landmarks").format(task=self.task.name, n=len(self.task.names)))
        troubles = []
        if self.session is None:
            try:
                self._work_in(study)
                self._adopt_old_session()
            except OSError as error:  # nothing could be kept
                self.state, self.task = IDLE, None
                text = self._("{folder} cannot be written ({why}): nothing could be kept")
                self.trouble = text.format(folder=self.base, why=error.strerror)
                return
            troubles = self._reopen()
        self.review.list_cases()
        troubles += self._waits_elsewhere()
        if not self.is_first:
            troubles.append(self._of_another_slicer())
        self.trouble = "; ".join(troubles) or self.trouble
        self.deliver()

    def _work_in(self, study: str) -> None:
        """Keep work apart by person and study: what one has not sent is not sent under another's name, or into another study."""
        person, study = f" as {name}" if (name := self.who["name"]) else "", f", study {study}" if study else ""
        self.place = self.address + person + study
        self.folder, self.is_first = own_folder(self.base, self.place)
        self.earlier = [self.address + part for part in ("", person, study)]
        if self.is_first:  # what was kept while the server told less: it had no tokens, or was older, or this program was
            adopt(self.base, self.earlier, self.folder, name)
        self._keep_in_folder()

    def _keep_in_folder(self) -> None:
        self.client_id = self.options.client_id if self.is_first else f"{self.options.client_id}-{self.folder.name}"
        self.outbox, self.sessions = Outbox(self.folder / "outbox"), Sessions(self.folder / "sessions")

    def _reopen(self) -> list[str]:
        """The case that was open when the program ended, as it was left, or as the server has it where that is newer.

        Returns what a person should know.
        """
        last = self.sessions.last(self.task)
        if last is None:
            return []
        if last.unsent:
            self.session, self.template = last, list(last.points)
            self._tell_gone(last.gone, self.sessions.folder)
            self._fetch_image()
            return [self.trouble] if last.gone else []
        if last.repeat:
            self.sessions.drop(last)
        else:
            self.open_case(last.image_id)
        return []

    def _tell_gone(self, names: Sequence[str], folder: Path) -> None:
        """Say of which landmarks that a person had placed the task knows no more."""
        if names:
            text = self._("{names}: the task has no such landmarks any more; what you placed is kept in {folder}")
            self.trouble = text.format(names=", ".join(names), folder=folder)

    def _of_another_slicer(self) -> str:
        return self._("another Slicer works for this server: what it has not sent is not shown here")

    def _waits_elsewhere(self) -> list[str]:
        """Nobody connects to the other name of a server by chance, so what waits for it is said."""
        said = []
        if others := others_here(self.base, self.earlier, self.who["name"]):
            text = self._("what was submitted here as {names} waits until somebody with that name connects")
            said.append(text.format(names=", ".join(others)))
        text = self._("{n} cases wait for {place}: connect to that to send them")
        elsewhere = waiting_elsewhere(self.base, self.place, self.address, *self.earlier)
        return said + [text.format(n=n, place=place) for place, n in elsewhere.items()]

    def _adopt_old_session(self) -> None:
        """Earlier versions kept one case only, in a file of another name."""
        file = self.folder / "session.json"
        try:
            session = Session.of(json.loads(file.read_text(encoding="utf-8")), self.task)
        except (OSError, ValueError, KeyError, TypeError):
            return
        self.sessions.keep(session)
        file.unlink()

    @property
    def may_train(self) -> bool:
        """Whether the token allows it; without tokens everybody may."""
        return not self.who["roles"] or "admin" in self.who["roles"]

    def train(self) -> None:
        """Start a training of the chosen model on the server."""
        self.training.start(self.model, self.options.minutes)

    def _is_alive(self, _: object) -> None:
        unsure = self.state == AWAY or (self.online and not self.is_same_task)
        if unsure and self.task is not None and not self.worker.waits(STUDY):
            self.worker.submit(self.check_same_task, self._is_back, self._failed, STUDY, self._("connecting"))
        elif self.state == AWAY and self.task is None and not self.worker.waits(STUDY):
            self.connect()
        elif not self.is_compared:
            self._look_for_image()

    def is_of_another_task(self) -> bool:
        """Whether another task is served now: then the message says so."""
        if self.state == OTHER_TASK:
            self._say(self.trouble)
        return self.state == OTHER_TASK

    def check_same_task(self) -> None:
        """Ask the server; in the background. Raises OtherTask, and what ``Client`` raises."""
        served = self.client.task()
        if (served.name, served.names, served.dims) != (self.task.name, self.task.names, self.task.dims):
            raise OtherTask(served.name)

    def _is_back(self, _: object) -> None:
        self.state, self.is_same_task = CONNECTED, True
        self._say(self._("the server answers again"))
        self._look_for_image()
        self.deliver()

    def _is_not_alive(self, error: Exception) -> None:
        if self.online:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Untrusted):
            self.state, self.untrusted, self.trouble = UNTRUSTED, error, str(error)
            self.on_update()
        elif isinstance(error, OtherStudy):
            self.state = OTHER_TASK
            self.trouble = self._("another study is served there now: press Connect to work on it")
            self.on_update()
        elif isinstance(error, Unreachable):
            self.state = CONNECTED if self.online and isinstance(error, Busy) else AWAY
            self.is_same_task = self.is_same_task and self.state == CONNECTED
            waits = self.unsent or (self.session is not None and self.session.unsent)
            self._say(self._("{why}; your work is kept here and sent later").format(why=error) if waits else str(error))
        elif isinstance(error, OtherTask):
            self.state = OTHER_TASK
            self.trouble = self._("another task is served there now ({task}): press Connect to work on it").format(task=error)
            self.on_update()
        elif isinstance(error, NotAllowed):
            self.state = NOT_LET_IN if error.status == 401 else self.state
            self.trouble = self._("not let in: {why}").format(why=error)
            self.on_update()
        elif isinstance(error, (Refused, WireError)):
            if isinstance(error, WireError):
                self.is_same_task = False  # perhaps it has changed: that is asked next
            self.state = IDLE if self.state == CONNECTING else self.state
            self._say(str(error))
        else:
            self.state = IDLE if self.state == CONNECTING else self.state
            self._say(self._("unexpected: {kind}: {why}").format(kind=type(error).__name__, why=error))
