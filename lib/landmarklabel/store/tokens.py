"""Who may use a served study: names with a role and the hash of a token. The tokens themselves are kept nowhere.

Decision: a study that has ever had tokens is never open again, whatever becomes of their file. Three things remember it: a
marker beside the file, written before the first token; the study's audit trail, which a server writes; and a server that has
once seen tokens, for as long as it runs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from landmarklabel.errors import NotFound, StudyError, UsageError
from landmarklabel.io.files import atomic_write, check_id, write_json
from landmarklabel.io.locks import locked
from landmarklabel.store.configuration import CONFIG

if TYPE_CHECKING:
    from landmarklabel.store.revisions import RevisionStore

ROLES = ("annotator", "reviewer", "admin")  # each may do what those before it may
NEEDED, SUBJECT = "tokens are needed from now on", "tokens"  # the row of the audit trail
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEND = f"make a new one with: landmarklabel token new STUDY --name NAME --role {'|'.join(ROLES)}"
_MARKER = f"This study has had tokens, so nobody is let in without one. If there is none, {_MEND}\n"


class Closed(StudyError):
    """Nobody can be let in, because the study's tokens are gone or cannot be read."""

    http_status = 503


@dataclass(frozen=True)
class Holder:
    """The holder of a token."""

    name: str
    role: str
    sha256: str
    expires: str = ""  # ISO 8601 in UTC; empty for never

    @property
    def fault(self) -> str:
        """The reason why the token is not valid; empty if it is."""
        if self.role not in ROLES:
            return f"role {self.role[:40]!r} is none of {', '.join(ROLES)}"
        try:
            over = bool(self.expires) and datetime.fromisoformat(self.expires) <= datetime.now(UTC)
        except (ValueError, TypeError):
            return f"time of expiry {self.expires[:40]!r} cannot be read"
        return f"token expired on {self.expires[:10]}" if over else ""

    @property
    def refusal(self) -> str:
        """What its holder is told where there is a fault."""
        return f"this token is good for nothing: its {self.fault}; a new one has to be made"


@dataclass(frozen=True)
class Door:
    """Who is let in.

    Args:
        needed: a token is asked for.
        holders: those that have one.
        fault: why nobody is let in at present, and what to do; empty where somebody is.
        unreadable: the file is there, or may be, and cannot be used.
    """

    needed: bool
    holders: tuple[Holder, ...] = ()
    fault: str = ""
    unreadable: bool = False


class Tokens:
    """The tokens of one study, in one small file that only its owner reads.

    Args:
        study: the study's folder.
        needed: whether it is known that the study has had tokens; from the first look that finds some it is.
        remember: called once when that look is the first to know.
    """

    def __init__(self, study: str | Path, needed: bool = False, remember: Callable[[], None] = lambda: None):
        self.path = Path(study) / ".landmarklabel" / "tokens.json"
        self.marker = self.path.with_name("tokens_needed")
        self.needed, self.remember = needed, remember
        self._known: tuple[tuple, Door] | None = None

    def look(self) -> Door:
        """Who is let in right now; never raises."""
        try:
            door = self._door()
        except OSError as error:  # for example a folder that may not be entered: nothing is known, so nobody is let in
            return _closed(f"the study folder cannot be read ({error.strerror})", "give the server the right to", True)
        if door.needed and not self.needed:
            self.needed = True
            self.remember()
        return door

    def holders(self) -> tuple[Holder, ...]:
        """All that have a token, by name; empty where there are none. Raises Closed for a damaged file."""
        door = self.look()
        if door.unreadable:
            raise Closed(door.fault)
        return door.holders

    def new(self, name: str, role: str, days: float | None = None) -> str:
        """Make a token; an earlier one of the same name ends.

        Args:
            name: whose.
            role: one of ``ROLES``.
            days: after which it expires; None for never.

        Raises:
            UsageError: a bad name, role or time. Closed: as ``holders``.
        """
        if days is not None and not 0 < days <= CONFIG.max_token_days:
            raise UsageError(f"--days {days:g} must be more than 0 and at most {CONFIG.max_token_days:g}")
        if role not in ROLES:
            raise UsageError(f"role {role[:40]!r} must be one of {', '.join(ROLES)}")
        check_id(name, "name")
        token = secrets.token_urlsafe(32)
        with self._alone():
            others = [h for h in self.holders() if h.name != name]
            until = "" if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
            self._write([*others, Holder(name, role, _hash(token), until)])
        return token

    def remove(self, name: str) -> None:
        """End a token; it is refused from the next request on. Raises NotFound."""
        with self._alone():
            holders = self.holders()
            left = [h for h in holders if h.name != name]
            if len(left) == len(holders):
                raise NotFound(f"nobody called {name[:80]!r} has a token")
            self._write(left)

    def _alone(self) -> AbstractContextManager:
        """Hold a lock so that two programs do not change the tokens at once. Raises Busy."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._known = None
        return locked(self.path.with_suffix(".lock"), what="the list of tokens")

    def holder(self, token: str) -> Holder | None:
        """Whose token this is; in the same time whether it is right or wrong."""
        given, found = _hash(token), None
        for holder in self.look().holders:
            if hmac.compare_digest(holder.sha256, given):
                found = holder
        return found

    def _door(self) -> Door:
        try:
            state = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return self._without_file()
        key = state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino  # a right that is given back changes ctime
        if self._known is None or self._known[0] != key:
            self._known = key, self._read(state)
        return self._known[1]

    def _without_file(self) -> Door:
        if not self.needed and not os.path.lexists(self.marker):
            return Door(False)
        if self.path.parent.is_dir():
            return _closed("tokens.json is gone")
        return _closed("the study folder is gone", "put it back, or start the server where it is now")

    def _read(self, state: os.stat_result) -> Door:
        try:
            if not stat.S_ISREG(state.st_mode):
                raise ValueError("no file")
            listed = json.loads(self.path.read_bytes())
            if not isinstance(listed, list):
                raise ValueError("no list")
            holders = tuple(
                Holder(_text(h["name"]), _text(h["role"]), _text(h["sha256"], _SHA256), _text(h.get("expires", "")))
                for h in listed
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            return _closed(f"tokens.json cannot be read ({why})", f"remove it and {_MEND}", True)
        if not holders:
            return _closed("all tokens have been removed", _MEND)
        if all(h.fault for h in holders):
            return Door(True, holders, _closed(f"in tokens.json the {holders[0].fault}").fault)
        return Door(True, holders)

    def mark(self) -> None:
        """Leave a trace beside the file, which says that there are tokens even when the file is gone."""
        if not os.path.lexists(self.marker):
            atomic_write(self.marker, _MARKER)

    def _write(self, holders: list[Holder]) -> None:
        self.mark()
        write_json(self.path, [asdict(h) for h in sorted(holders, key=lambda h: h.name)])
        os.chmod(self.path, 0o600)
        self._known = None


def tokens_of(study: str | Path, trail: RevisionStore) -> Tokens:
    """The tokens of a study that is served, closed for good where its audit trail tells of tokens; writes there that there are.

    Raises:
        StoreFault: the audit trail cannot be read.
    """

    def write() -> None:
        with suppress(StudyError, OSError):  # one of the two traces may fail to be made
            tokens.mark()
        with suppress(StudyError):
            trail.log_change(NEEDED, SUBJECT)

    known = any(change.what == NEEDED for change in trail.changes(SUBJECT))
    tokens = Tokens(study, known)
    tokens.look()
    if tokens.needed and not known:
        write()
    tokens.remember = lambda: threading.Thread(target=write, name="tokens", daemon=True).start()
    return tokens


def _closed(why: str, remedy: str = _MEND, unreadable: bool = False) -> Door:
    return Door(True, (), f"nobody is let in: this study asks for tokens, and {why}; {remedy}", unreadable)


def _text(value: object, allowed: re.Pattern | None = None) -> str:
    if not isinstance(value, str) or (allowed is not None and not allowed.fullmatch(value)):
        raise ValueError("no text, or none of this kind")
    return value


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
