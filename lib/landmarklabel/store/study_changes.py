"""What a person asks for that changes many labels at once: names of landmarks, and labels kept for images that changed."""

from __future__ import annotations

from dataclasses import replace

from landmarklabel.errors import StudyError
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.store import study_task
from landmarklabel.store.bodies import body_of, landmarks_of
from landmarklabel.store.revisions import Revision
from landmarklabel.store.study import Study

BY_VERB = "landmark "  # begins the source of revisions that only follow a change of names


def change_names(
    study: Study,
    task: LandmarkTask,
    renames: tuple[tuple[str, str], ...],
    *,
    author: str,
    what: str,
    url: str | None = None,
) -> Study:
    """Take a study to a task with other names: a revision for every label, all of them or none.

    Args:
        study: opened with its present task.
        task: what it shall be.
        renames: (old, new) names among them; names that the new task lacks are dropped.
        author: who asked for it.
        what: what was done, for the source of the revisions.
        url: of the revision store, if it is not in the study.

    Returns:
        The study, opened with the new task.

    Raises:
        StudyError: a label or label file cannot be read: it would be lost.
    """
    if problems := [*study.unreadable(), *study.revisions.damaged.values()]:
        raise StudyError(f"not changed: {problems[0]}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
    record = study_task.read_record(study.folder)
    after = study_task.StudyRecord(task, (*record.renames, *renames))
    with study.writing():
        study_task.write_record(study.folder, replace(record, pending=after))
        heads = study.revisions.heads()
        bodies = {
            i: body_of(landmarks_of(head.body, task, after.renames)) | {k: head.body[k] for k in ("pixels",) if k in head.body}
            for i, head in heads.items()
        }
        study.revisions.save_all(bodies, author=author, source=f"{BY_VERB}{what}")
        study_task.write_record(study.folder, after)
    changed = Study(study.folder, task, url)
    changed.show_all(heads)
    return changed


def keep_labels(study: Study, image_id: str, *, author: str) -> Revision:
    """State that the points of an image still hold though the image was changed. Raises StudyError where it was not."""
    study.verify([image_id])
    if image_id not in study.changed():
        raise StudyError(f"{image_id}: the image is the one that was labelled; there is nothing to decide")
    head = study.revisions.head(image_id)
    return study.save(
        image_id, study.read(head), author=author, source="kept for a changed image", base_revision=head.number
    )
