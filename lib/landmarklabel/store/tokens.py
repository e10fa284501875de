"""Who may use a served study: names with a role and the hash of a token. The tokens themselves are kept nowhere."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from landmarklabel.errors import NotFound, StudyError, UsageError
from landmarklabel.io.files import check_id, write_json

ROLES = ("annotator", "reviewer", "admin")  # each may do what those before it may


@dataclass(frozen=True)
class Holder:
    """Whose token it is."""

    name: str
    role: str
    sha256: str


class Tokens:
    """The tokens of one study, in one small file that only its owner reads.

    Args:
        study: the study's folder.
    """

    def __init__(self, study: str | Path):
        self.path = Path(study) / ".landmarklabel" / "tokens.json"
        self._known: tuple[int, tuple[Holder, ...]] | None = None

    def holders(self) -> tuple[Holder, ...]:
        """All that have a token, by name; empty where there are none. Raises StudyError for a damaged file."""
        try:
            changed = os.stat(self.path).st_mtime_ns
        except FileNotFoundError:
            return ()
        if self._known is None or self._known[0] != changed:
            self._known = changed, self._read()
        return self._known[1]

    def new(self, name: str, role: str) -> str:
        """Make a token; an earlier one of the same name ends. Raises UsageError for a bad name or role."""
        if role not in ROLES:
            raise UsageError(f"role {role[:40]!r} must be one of {', '.join(ROLES)}")
        check_id(name)
        token = secrets.token_urlsafe(32)
        others = [h for h in self.holders() if h.name != name]
        self._write([*others, Holder(name, role, _hash(token))])
        return token

    def remove(self, name: str) -> None:
        """End a token; it is refused from the next request on. Raises NotFound."""
        left = [h for h in self.holders() if h.name != name]
        if len(left) == len(self.holders()):
            raise NotFound(f"nobody called {name[:80]!r} has a token")
        self._write(left)

    def holder(self, token: str) -> Holder | None:
        """Whose token this is; in the same time whether it is right or wrong."""
        given, found = _hash(token), None
        for holder in self.holders():
            if hmac.compare_digest(holder.sha256, given):
                found = holder
        return found

    def _read(self) -> tuple[Holder, ...]:
        try:
            holders = [Holder(str(h["name"]), str(h["role"]), str(h["sha256"])) for h in json.loads(self.path.read_bytes())]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{self.path.name} cannot be read ({type(error).__name__}); remove it and make new tokens") from None
        return tuple(h for h in holders if h.role in ROLES)

    def _write(self, holders: list[Holder]) -> None:
        write_json(self.path, [asdict(h) for h in sorted(holders, key=lambda h: h.name)])
        os.chmod(self.path, 0o600)
        self._known = None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
