"""An id by which a browser tells a study from others, wherever its folder lies and whatever it is called."""

from __future__ import annotations

import uuid
from pathlib import Path

from landmarklabel.io.files import atomic_write
from landmarklabel.io.locks import locked


def study_id(folder: Path) -> str:
    """The id of the study in a folder, made when it is needed first. Raises Busy, OSError."""
    file = folder / ".landmarklabel" / "id"
    if not file.exists():
        with locked(file.with_suffix(".lock"), what="the id of the study"):
            if not file.exists():
                atomic_write(file, uuid.uuid4().hex)
    return file.read_text(encoding="ascii").strip()
