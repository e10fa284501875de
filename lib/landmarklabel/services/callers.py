"""Who sends a request, and what roles there are."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

OPEN, USER, ANNOTATOR, REVIEWER, ADMIN = range(5)
ROLES = {"user": USER, "annotator": ANNOTATOR, "reviewer": REVIEWER, "admin": ADMIN}


@dataclass(frozen=True)
class Caller:
    """Who sends a request; nameless where the server asks for no token."""

    name: str = ""
    role: int = ADMIN


_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Who sent the request that is being answered."""
    return _caller.get(Caller())


def set_caller(who: Caller) -> None:
    """Set the caller for the rest of this request."""
    _caller.set(who)
