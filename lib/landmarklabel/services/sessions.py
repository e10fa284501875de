"""Uploaded images that belong to no study, for an hour at most: MONAI Label's sessions, with ids that cannot be guessed."""

from __future__ import annotations

import json
import re
import shutil
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from landmarklabel.errors import NotFound, UsageError
from landmarklabel.io.files import write_json
from landmarklabel.services.limits import LIMITS

META = "meta.info"  # beside a session's image
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Session:
    """An uploaded image; the fields are those that MONAI Label's clients know."""

    name: str
    path: str
    image: str
    meta: dict[str, Any] = field(default_factory=dict)
    create_ts: int = 0
    last_access_ts: int = 0
    expiry: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Sessions:
    """The sessions below a folder: only ids this server made, only files it was sent, no archives."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, session_id: str, touch: bool = True) -> Session:
        """A session; ``touch`` lets it live on from now. Raises NotFound."""
        place, gone = self._place(session_id), NotFound(f"there is no session {str(session_id)[:40]!r}; it may have expired")
        try:
            session = Session(**json.loads((place / META).read_text(encoding="utf-8")))
            image = Path(session.image)
            inside = place.resolve() in image.resolve().parents
        except (OSError, ValueError, TypeError):
            raise gone from None
        if not inside or not image.exists() or session.last_access_ts + session.expiry < time.time():
            raise gone
        if touch:
            session.last_access_ts = int(time.time())
            self._write(place, session)
        return session

    def add(self, image: Path, expiry: int = 0, archive: bool = False) -> Session:
        """Take a file or folder as a new session; it is moved. ``expiry`` in seconds, an hour at most."""
        if archive:
            raise UsageError("archives are not accepted; send the image file or the DICOM files themselves")
        session_id = str(uuid.uuid4())  # by chance alone: who does not know it cannot guess it
        place, now = self.folder / session_id, int(time.time())
        lives = min(expiry, LIMITS.session_s) if expiry > 0 else LIMITS.session_s
        try:
            place.mkdir()
            kept = shutil.move(image, place / image.name)
            session = Session(session_id, str(place), str(kept), {}, now, now, lives)
            self._write(place, session)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return session

    def remove(self, session_id: str) -> Session:
        """Delete a session and its files. Raises NotFound."""
        session = self.get(session_id, touch=False)
        shutil.rmtree(self._place(session_id), ignore_errors=True)
        return session

    def remove_expired(self) -> int:
        """Delete expired sessions and what killed uploads left behind."""
        expired = [p for p in self.folder.iterdir() if _expires(p) < time.time()]
        for place in expired:
            shutil.rmtree(place, ignore_errors=True)
        return len(expired)

    def _place(self, session_id: str) -> Path:
        if not _UUID.fullmatch(str(session_id)):
            raise NotFound(f"there is no session {str(session_id)[:40]!r}")
        return self.folder / session_id

    def _write(self, place: Path, session: Session) -> None:
        write_json(place / META, session.to_json())


def _expires(place: Path) -> float:
    """When a session's folder may go; a minute after its last change if it cannot be read."""
    try:
        session = json.loads((place / META).read_text(encoding="utf-8"))
        return float(session["last_access_ts"]) + float(session["expiry"])
    except (OSError, ValueError, KeyError, TypeError):
        return place.stat().st_mtime + 60 if place.exists() else 0.0
