"""Logins of the browser front end: people say once who they are, then a signed cookie with an end stands for it.

Nothing of a cookie is kept on the server but the key that signs it. With the study's own tokens it names the holder and the
token's hash, so it ends with the token. With Keycloak, whose tokens end within minutes, it names the person and their role.
"""

from __future__ import annotations

import functools
import hmac
import os
import secrets
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

import jwt

from landmarklabel.errors import Busy
from landmarklabel.io.locks import locked
from landmarklabel.services.callers import ROLES, Caller
from landmarklabel.services.limits import LIMITS
from landmarklabel.store.study_database import study_id
from landmarklabel.store.tokens import Tokens

_COOKIE = "landmarklabel-{}"  # with the study's id: a browser sends its cookies to every port of a computer
_FOR, _ALGORITHM = "annotate", "HS256"  # what the cookie is for; how it is signed


class BrowserLogins:
    """The cookies of one study.

    Args:
        folder: of the study; the key lies in it, readable by its owner only.
        tokens: whose holders may log in.
        identity: tells who a bearer token belongs to by other means; None where the study's own tokens count.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        tokens: Tokens,
        identity: Callable[[str], Caller | None] | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self._folder, self._file = folder, folder / ".landmarklabel" / "login_key"
        self.tokens, self.identity, self.clock = tokens, identity, clock

    @functools.cached_property
    def study_id(self) -> str:
        """Of the study. Raises OSError, Busy."""
        return study_id(self._folder)

    @property
    def cookie(self) -> str:
        """The cookie's name."""
        return _COOKIE.format(self.study_id[:8])

    def cookie_for(self, token: str) -> str | None:
        """What a browser keeps instead of a token; None for one that lets nobody in. Raises OSError, Busy for the key."""
        if self.identity is not None:
            caller = self.identity(token)
            who = None if caller is None else {"sub": caller.name, "role": caller.role.name.lower()}
        else:
            holder = self.tokens.holder(token)
            who = None if holder is None or holder.fault else {"sub": holder.name, "token": holder.sha256}
        if who is None:
            return None
        return jwt.encode({**who, "aud": _FOR, "exp": int(self.clock()) + LIMITS.login_s}, self._key(), _ALGORITHM)

    def caller_of(self, header: str) -> Caller | None:
        """Whoever a ``Cookie`` header says; None for nobody, also after its end."""
        try:
            value = _value_of(self.cookie, header)
        except (OSError, Busy):  # the study is not there, so nobody has logged in to it
            return None
        if not value:
            return None
        try:
            claims = jwt.decode(value, self._key(), [_ALGORITHM], audience=_FOR, options={"verify_exp": False})
            name, end = str(claims["sub"]), int(claims["exp"])
            shown = str(claims["token" if self.identity is None else "role"])
        except (jwt.InvalidTokenError, OSError, KeyError, TypeError, ValueError):
            return None
        if self.clock() >= end:
            return None
        if self.identity is None:
            return self._holder(name, shown)
        return Caller(name, ROLES[shown]) if shown in ROLES else None

    def _holder(self, name: str, sha256: str) -> Caller | None:
        for holder in self.tokens.look().holders:
            if holder.name == name and hmac.compare_digest(holder.sha256, sha256) and not holder.fault:
                return Caller(holder.name, ROLES[holder.role])
        return None

    def _key(self) -> str:
        """The key, made when it is needed first."""
        try:
            return self._file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            pass
        with locked(self._file.with_suffix(".lock"), what="the key of logins"):
            if not self._file.exists():
                part = self._file.with_suffix(".part")
                part.unlink(missing_ok=True)
                with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                    file.write(secrets.token_hex(32))
                os.replace(part, self._file)
        return self._file.read_text(encoding="ascii").strip()


def _value_of(name: str, header: str) -> str:
    """A cookie of a ``Cookie`` header; empty where it is not there."""
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""
