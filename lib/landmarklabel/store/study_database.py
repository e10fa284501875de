"""Which study it is, and that a database elsewhere is its own: another's labels would be taken for its labels."""

from __future__ import annotations

import uuid
from pathlib import Path

from landmarklabel.errors import StudyError
from landmarklabel.io.files import atomic_write
from landmarklabel.io.locks import locked
from landmarklabel.store.database import file_faults
from landmarklabel.store.revisions import RevisionStore


def study_id(folder: Path) -> str:
    """What tells a study from others, wherever its folder lies and whatever it is called; made when it is needed first.

    Raises:
        Busy, OSError.
    """
    file = folder / ".landmarklabel" / "id"
    if not file.exists():
        with locked(file.with_suffix(".lock"), what="the id of the study"):
            if not file.exists():
                atomic_write(file, uuid.uuid4().hex)
    return file.read_text(encoding="ascii").strip()


def claim(revisions: RevisionStore, folder: Path) -> None:
    """The database is this study's from now on. Raises StudyError where it is another's; StoreFault, Busy."""
    with file_faults("the id of the study"):
        own = study_id(folder)
    if (owner := revisions.owned_by(own)) != own:
        raise StudyError(
            f"the database of --store belongs to another study than {folder.name}: give every study a database of its own. "
            f"Where it is the same study in another folder, that one's .landmarklabel/id ({owner}) belongs here too"
        )
