"""Drafts: what a person has done with a case and not submitted yet, so that it outlives their browser."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from landmarklabel.errors import TooMany
from landmarklabel.io.files import write_json
from landmarklabel.io.locks import locked
from landmarklabel.services.limits import LIMITS
from landmarklabel.store.database import file_faults

_WHAT = "the drafts"


class Drafts:
    """A file for each person, case and reading.

    Args:
        folder: made when something is kept.
        clock: seconds since the epoch.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time):
        self.folder, self.clock = folder, clock

    def get(self, who: str, image_id: str, repeat: bool) -> dict[str, Any] | None:
        """A person's draft of a case; None where there is none, or what is there cannot be read."""
        try:
            content = json.loads(self._file(who, image_id, repeat).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) and content.get("image") == image_id else None

    def keep(self, who: str, image_id: str, repeat: bool, content: dict[str, Any]) -> dict[str, Any]:
        """Replace a person's draft of a case, and return it with the time.

        Raises:
            TooMany: the person has as many as anybody may. StoreFault: it cannot be written. Busy.
        """
        file = self._file(who, image_id, repeat)
        saved = datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="milliseconds")
        kept = {**content, "image": image_id, "repeat": repeat, "saved": saved}
        with file_faults(_WHAT), locked(file.parent.with_suffix(".lock"), what=_WHAT):
            if not file.exists() and len(self._recent(file.parent)) >= LIMITS.drafts:
                raise TooMany(f"you have {LIMITS.drafts} drafts already: submit or discard one first")
            write_json(file, kept)
        return kept

    def drop(self, who: str, image_id: str, repeat: bool) -> None:
        """The person has submitted the case, or does not want the draft."""
        with file_faults(_WHAT):
            self._file(who, image_id, repeat).unlink(missing_ok=True)

    def _recent(self, folder: Path) -> list[Path]:
        """A person's drafts; those that nobody has gone on with for long are removed."""
        files, oldest = list(folder.glob("*.json")), self.clock() - LIMITS.draft_s
        for file in files:
            if file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)
        return [file for file in files if file.exists()]

    def _file(self, who: str, image_id: str, repeat: bool) -> Path:
        """Names and ids are what others say, and no part of a file's name."""
        name = _hash(f"{image_id}\0{repeat}")
        return self.folder / _hash(who) / f"{name}.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
