"""What a person asks for that changes many labels at once: names of landmarks, and labels kept for images that changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from landmarklabel.errors import StudyError
from landmarklabel.store import study_task
from landmarklabel.store.checks import KEPT
from landmarklabel.store.revision_json import body_of, landmarks_of
from landmarklabel.store.revisions import CIRCUMSTANCES, Revision
from landmarklabel.store.study import Study
from landmarklabel.store.study_task import StudyRecord

BY_VERB = "landmark "  # begins the source of revisions that only follow a change of names


def change_names(study: Study, after: StudyRecord, *, author: str, what: str, url: str | None = None) -> Study:
    """Take a study to other names: a revision for every label, all of them or none.

    Args:
        study: opened with its present task.
        after: its record as it shall be (``study_task.renamed``, ``study_task.without``).
        author: who asked for it.
        what: what was done, for the source of the revisions.
        url: of the revision store, if it is not in the study.

    Returns:
        The study, opened with the new task.

    Raises:
        StudyError: a label or label file cannot be read: it would be lost. Busy: somebody else writes for too long.
    """
    _refuse_loss(study.take_in_edits())
    with study.writing():
        heads = study.revisions.heads()
        _refuse_loss(study.revisions.damaged.values())
        bodies = {i: _renamed_body(head, after) for i, head in heads.items()}
        if (before := study_task.read_record(study.folder)) is None:
            raise StudyError(f"{study.folder.name}: the study's record is gone; open the study again")
        study_task.write_record(study.folder, replace(before, pending=after))
        try:
            study.revisions.save_all(bodies, author=author, source=f"{BY_VERB}{what}")
        except Exception:  # no kill: nothing was saved, so everything is as before
            study_task.write_record(study.folder, before)
            raise
        study_task.write_record(study.folder, after)
    changed = Study(study.folder, after.task, url)
    changed.show_all(heads)
    return changed


def _renamed_body(head: Revision, after: StudyRecord) -> dict:
    kept = {key: head.body[key] for key in CIRCUMSTANCES if key in head.body}
    return body_of(landmarks_of(head.body, after.task, after.renames)) | kept


def _refuse_loss(problems: Iterable[str]) -> None:
    if problems := list(problems):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StudyError(f"not changed, because a label would be lost: {problems[0]}{more}")


def keep_labels(study: Study, image_id: str, *, author: str) -> Revision:
    """State that the points of an image still hold though the image was changed.

    Raises:
        StudyError: the image was not changed, or cannot be read, so that nobody can have looked. NotFound.
    """
    study.verify([image_id])
    if study.pixels_of(image_id) is None:
        raise StudyError(f"{image_id}: the image cannot be read, so it is not known whether its points still hold; restore it")
    head = study.revisions.head(image_id)
    if head is None or image_id not in study.changed():
        raise StudyError(f"{image_id}: the image is the one that was labelled; there is nothing to decide")
    return study.save(image_id, study.read(head), author=author, source=KEPT, base_revision=head.number)
