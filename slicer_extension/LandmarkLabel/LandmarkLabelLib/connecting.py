"""Finding a server, being let in, noticing when it is gone, and going on when it is back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from .client import Busy, NotAllowed, OtherStudy, Refused, Unreachable, Untrusted
from .left_work import Brought, Case, cases_in, collect
from .outbox import Outbox
from .session import Session
from .session_files import Sessions
from .wire import Task, WireError
from .work_folder import folders_of, held, others_of, own_folder, places
from .worker import STUDY

IDLE, CONNECTING, CONNECTED, AWAY, NOT_LET_IN, UNTRUSTED = "idle", "connecting", "connected", "away", "not let in", "untrusted"
OTHER_TASK = "other task"  # is served at the address now


class OtherTask(Exception):
    """The server is back with another task; its name."""


def identity(task: Task) -> tuple[str, tuple[str, ...], int]:
    """What makes it this task; definitions and the like may change."""
    return task.name, task.names, task.dims


class Connecting:
    """The part of ``LandmarkLogic`` that knows whether the server is there; uses its client, worker, sessions and outbox."""

    notices: Sequence[str] = ()  # what waits on this computer and is not in the list of what is unsent
    left: Mapping[str, str] = MappingProxyType({})  # places of this study's work that others have left here, to whose it is
    study = ""  # its id

    def connect(self) -> None:
        """Ask the server what it serves; reopen the case that was open when the program ended."""
        self.state = CONNECTING
        self._run(self._ask_all, self._connected, self._("connecting"), STUDY)

    def _ask_all(self) -> tuple[Task, dict, dict, str]:
        who, study = self.client.who(), self.client.study()  # first: a wrong token is told apart from a server that is none
        return self.client.task(), self.client.info(), who, study

    def keeps_case(self, url: str, token: str) -> bool:
        """Whether connecting there is only to look whether this very server answers, while a case is open."""
        is_same = (self.options.url, self.token) == (url, token)
        return self.state in (CONNECTED, AWAY) and self.session is not None and is_same

    def try_again(self, start_over: Callable[[], object]) -> None:
        """Look at once whether the server answers; the case stays open unless another task, study or person is meant there."""

        def done(answer: tuple[Task, dict, dict, str]) -> None:
            task, _, who, study = answer
            if (identity(task), who["name"], study) != (identity(self.task), self.who["name"], self.study):
                start_over()
                return
            self.state = CONNECTED
            self._connected(answer)
            self._look_for_image()

        def failed(error: Exception) -> None:
            start_over() if isinstance(error, OtherStudy) else self._failed(error)

        self.worker.submit(self._ask_all, done, failed, STUDY, self._("connecting"))

    def confirm_certificate(self) -> None:
        """The certificate that the server has shown is believed when connecting again."""
        if self.untrusted is not None:
            self.options.trusted = {**self.options.trusted, self.options.url.rstrip("/"): self.untrusted.fingerprint}

    def _connected(self, answer: tuple[Task, dict, dict, str]) -> None:
        self.task, info, self.who, self.study = answer
        self.client.mean_study(self.study)
        self.is_same_task = True
        self.models, self.strategies = info["models"], info["strategies"]
        self.model = self.model if self.model in self.models else next(iter(self.models), "")
        self.training.take(info["training"])
        self._say(self._("{task}: {n} landmarks").format(task=self.task.name, n=len(self.task.names)))
        if self.session is None:
            try:
                self._work_in()
                self._adopt_old_session()
            except OSError as error:  # nothing could be kept
                self.state, self.task = IDLE, None
                text = self._("{folder} cannot be written ({why}): nothing could be kept")
                self.trouble = text.format(folder=self.base, why=error.strerror)
                return
            self._reopen()
        self.review.list_cases()
        self._list_unsent()  # which finds what cannot be read
        self.notice()
        self.deliver()

    def _work_in(self) -> None:
        """Keep work apart by person and study: what one has not sent is not sent under another's name, or into another study."""
        person, study = f" as {name}" if (name := self.who["name"]) else "", f", study {self.study}" if self.study else ""
        self.place = self.address + person + study
        self.folder, self.is_first = own_folder(self.base, self.place)
        if self.is_first:  # what was kept while the server told less: it had no tokens, or was older, or this program was
            self._bring_from(self.address + person, lambda _: True)
            for nameless in dict.fromkeys((self.address, self.address + study)):
                self._bring_from(nameless, lambda authors: not name or authors <= {name})
        self._keep_in_folder()

    def _bring_from(self, place: str, is_wanted: Callable[[set[str]], bool]) -> None:
        folders = [folder for folder in folders_of(self.base, place) if folder != self.folder and folder.is_dir()]
        collect(folders, self.folder, held, is_wanted)

    def _keep_in_folder(self) -> None:
        self.client_id = self.options.client_id if self.is_first else f"{self.options.client_id}-{self.folder.name}"
        self.outbox, self.sessions = Outbox(self.folder / "outbox"), Sessions(self.folder / "sessions")

    def _reopen(self) -> None:
        """The case that was open when the program ended, as it was left, or as the server has it where that is newer."""
        last = self.sessions.last(self.task)
        if last is None:
            return
        if last.unsent:
            self.session, self.template = last, list(last.points)
            self._tell_gone(last.gone, self.sessions.folder)
            self.look_for_newer()
            self._fetch_image()
        elif last.repeat:
            self.sessions.drop(last)
        else:
            self.open_case(last.image_id)

    def _tell_gone(self, names: Sequence[str], folder: Path) -> None:
        """Say of which landmarks that a person had placed the task knows no more."""
        if names:
            text = self._("{names}: the task has no such landmarks any more; what you placed is kept in {folder}")
            self.trouble = text.format(names=", ".join(names), folder=folder)

    def notice(self) -> None:
        """Bring what had to wait until a case was sent, and say what else waits on this computer: nobody finds it by chance."""
        self.notices, self.left, became = [], {}, Brought()
        if not self.is_first:
            self.notices.append(self._("another Slicer works for this server: what it has not sent is not shown here"))
        else:
            became = collect(others_of(self.base, self.place), self.folder, held, but=self._open_case)
        if became.left:
            text = self._(
                "a Slicer that has ended left {n} cases that are unsent here too: they come when these are sent and closed"
            )
            self.notices.append(text.format(n=became.left))
        if damaged := self.sessions.damaged():
            text = self._("what was kept of a case cannot be read: look at the cases you had not sent; the file is {file}")
            self.notices += [text.format(file=file) for file in damaged]
        for place, folders in places(self.base).items() if self.is_first else ():  # the first Slicer says it
            if place != self.place and (cases := cases_in(folders)):
                self.notices.append(self._waits(place, cases))
        if became.cases:
            self.deliver()

    def _waits(self, place: str, cases: Mapping[Case, set[str]]) -> str:
        """What is said of cases that wait at another place; those of this study may be taken over."""
        found = self._at_this_address(place)
        if found is None:
            text = self._("{n} cases wait for {place}: connect to that to send them")
            return text.format(n=len(cases), place=place.partition(", study ")[0])
        person, study = found
        if study not in ("", self.study):
            return self._("{n} cases wait for another study at this address: they are sent when it is served").format(
                n=len(cases)
            )
        names = [person] if person else sorted(set().union(*cases.values()))
        self.left[place] = ", ".join(name or self._("somebody without a name") for name in names)
        text = self._("{n} cases of {who} wait here to be sent: press Take over only if they are yours")
        return text.format(n=len(cases), who=self.left[place])

    def _at_this_address(self, place: str) -> tuple[str, str] | None:
        """The person and the study that a place is for, empty where it does not say; None for another address."""
        rest = place[len(self.address) :]
        if not place.startswith(self.address) or not (rest == "" or rest.startswith((" as ", ", study "))):
            return None
        person, _, study = rest.partition(", study ")
        return person.removeprefix(" as "), study

    def take_over(self) -> None:
        """What others have left here for this study is sent as this person's."""
        known = places(self.base)
        folders = [folder for place in self.left for folder in known.get(place, ())]
        became = collect(folders, self.folder, held, but=self._open_case)
        self.notice()
        self.deliver()
        done = self._("{n} cases taken over; what was not submitted is listed as unsent").format(n=became.cases)
        said = [done] if became.cases else []
        said += [self._("a case that is open here stays until another one is open")] if became.is_open else []
        said += [self._("the Slicer in which it was done is still open: close it first")] if became.is_in_use else []
        self._say("; ".join(said) or self._("nothing was taken over: send first what is unsent of the same cases"))

    @property
    def _open_case(self) -> Case | None:
        return (self.session.image_id, self.session.repeat) if self.session is not None else None

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
        if identity(served) != identity(self.task):
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
            text = self._("{why}; your work is kept here and sent later").format(why=error) if waits else str(error)
            self._say(self._after_save(text))
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
            self._say(self._after_save(str(error)))
        else:
            self.state = IDLE if self.state == CONNECTING else self.state
            self._say(self._("unexpected: {kind}: {why}").format(kind=type(error).__name__, why=error))
