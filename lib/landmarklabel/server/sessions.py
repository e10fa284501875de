"""Uploaded images that belong to no study: MONAI Label's sessions, with ids that cannot name anything else."""

from __future__ import annotations

import json
import re
import shutil
import time
import uuid
from pathlib import Path

from monailabel.utils.sessions import Sessions

from landmarklabel.errors import NotFound, UsageError

META = "meta.info"  # MONAI Label's file beside a session's image
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class SafeSessions(Sessions):
    """Only ids this server made, only files it was sent, no archives."""

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True):
        if not _UUID.fullmatch(str(session_id)):
            raise NotFound(f"there is no session {str(session_id)[:40]!r}")
        session = super().get_session(session_id, update_ts, fetch_cache)
        inside = Path(self.store_path).resolve() / session_id
        if session is not None and inside not in Path(session.image).resolve().parents:
            raise NotFound(f"session {session_id} points outside its folder")
        return session

    def remove_session(self, session_id: str) -> None:
        if _UUID.fullmatch(str(session_id)):
            super().remove_session(session_id)

    def add_session(self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id=None):
        if uncompress:
            raise UsageError("archives are not accepted; send the image file or the DICOM files themselves")
        session_id = session_id or str(uuid.uuid4())  # by chance alone: who does not know it cannot guess it
        try:
            return super().add_session(data_file, expiry, False, session_id)
        except BaseException:
            self.remove_session(session_id)
            raise

    def remove_expired(self) -> int:
        """Delete expired sessions and what killed uploads left behind; MONAI Label's own stops at such a folder."""
        expired = [p for p in Path(self.store_path).iterdir() if _expires(p) < time.time()]
        for place in expired:
            self.pop(place.name, None)
            shutil.rmtree(place, ignore_errors=True)
        return len(expired)


def _expires(place: Path) -> float:
    """When a session's folder may go; a minute after its last change if it cannot be read."""
    try:
        session = json.loads((place / META).read_text(encoding="utf-8"))
        return float(session["last_access_ts"]) + float(session["expiry"])
    except (OSError, ValueError, KeyError, TypeError):
        return place.stat().st_mtime + 60 if place.exists() else 0.0
