"""Who sends a request, and what roles there are."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What a caller may do: everything that those before it may, and more. ``OPEN`` is anybody."""

    OPEN = 0
    USER = 1
    ANNOTATOR = 2
    REVIEWER = 3
    ADMIN = 4


OPEN, USER, ANNOTATOR, REVIEWER, ADMIN = Role
ROLES = {role.name.lower(): role for role in Role if role > OPEN}  # that a token may have


@dataclass(frozen=True)
class Caller:
    """Who sends a request; without a name, and an admin, where the server asks for no token."""

    name: str = ""
    role: Role = ADMIN


_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Who sent the request that is being answered."""
    return _caller.get(Caller())


def set_caller(who: Caller) -> None:
    """Set the caller for the rest of this request."""
    _caller.set(who)
