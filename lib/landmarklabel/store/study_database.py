"""Which study it is, and that a database on a server is its own: another's labels would be taken for its labels."""

from __future__ import annotations

import uuid
from pathlib import Path

from landmarklabel.errors import StudyError
from landmarklabel.io.files import atomic_write
from landmarklabel.io.locks import locked
from landmarklabel.store.database import file_faults
from landmarklabel.store.revisions import RevisionStore

OWNER = "database of study"  # in the audit trail: that a study has claimed the database; the subject is the study's id


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


def refuse_another_studys(revisions: RevisionStore, folder: Path) -> None:
    """Raise StudyError where the database is that of another study; nothing is changed."""
    with file_faults("the id of the study"):
        own = study_id(folder)
    if (owner := _owner(revisions)) not in (None, own):
        raise StudyError(
            f"the database of --store belongs to another study than {folder.name}: give every study a database of its own. If "
            f"it is the same study in another folder, write that one's id, {owner}, into {folder / '.landmarklabel' / 'id'}"
        )


def settle_id(folder: Path, shared: RevisionStore | None) -> None:
    """The study has its id from its first day, so that every copy of it has it; a database on a server is claimed for it.

    Raises:
        StudyError: the database is another study's. StoreFault, Busy.
    """
    with file_faults("the id of the study"):
        study_id(folder)
    if shared is not None:
        claim(shared, folder)


def claim(revisions: RevisionStore, folder: Path) -> None:
    """The database is this study's from now on. Raises StudyError, as above; StoreFault, Busy."""
    if _owner(revisions) is None:
        revisions.log_change(OWNER, study_id(folder))
    refuse_another_studys(revisions, folder)


def _owner(revisions: RevisionStore) -> str | None:
    """The id of the study that was the first to claim a database; None where none has."""
    return next((change.subject for change in revisions.changes(what=OWNER)), None)
