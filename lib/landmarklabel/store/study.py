"""A study folder: images as the user has them, labels as revisions, and plain label files that always show the newest.

``<image>.nii.gz …``, ``<DICOM folder>/``, ``labels/final/<id>.mrk.json``, and ``.landmarklabel/`` with the study's record, the
revision store, models, caches and a trash for what was removed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from landmarklabel.errors import Gone, ImageRejected, NotFound, StudyError, TaskMismatch
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import describe_image
from landmarklabel.io.locks import locked
from landmarklabel.io.markups import dump_markups
from landmarklabel.io.pixels import pixel_hash
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store import study_database, study_task
from landmarklabel.store.checks import past_checks
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.database import file_faults
from landmarklabel.store.image_files import GONE, REPEAT, ImageFolder, Trash
from landmarklabel.store.label_files import LabelFiles, Naming
from landmarklabel.store.newest_labels import NewestLabels
from landmarklabel.store.opening import Opened
from landmarklabel.store.pixels import UNREADABLE, changed_ns, hashes_of, stamp
from landmarklabel.store.planes import SlicePlanes
from landmarklabel.store.revision_json import body_of, checked_of, checks_of, landmarks_of, same_points
from landmarklabel.store.revisions import Revision, open_revisions

__all__ = ["REPEAT", "Study"]


class Study(Opened):
    """One study folder and its labels; safe for threads and for several processes on one machine.

    Args:
        folder: created where it does not exist.
        task: the landmarks that are labelled here; a study belongs to one task (``study_task``).
        url: an SQLAlchemy URL of the revision store; default is SQLite inside the folder.
        verify_s: seconds that ``labelled`` may spend on looking at changed images; 0 where something else calls ``verify``.

    Raises:
        StudyError: the folder is a file or cannot be written, or the database is another study's.
        TaskMismatch: it belongs to another task. ImageRejected: its scale rule is not for the images. Busy: held for too long.
    """

    def __init__(self, folder: str | Path, task: LandmarkTask, url: str | None = None, verify_s: float = CONFIG.verify_s):
        self.folder, self.task, self.verify_s = Path(folder).absolute(), task, verify_s
        self._elsewhere = str(url or "").startswith("postgresql")
        self._own = self.folder / ".landmarklabel"
        self.models_dir, self.cache_dir = self._own / "models", self._own / "cache"
        incoming, trash = self._own / "incoming", Trash(self._own / "trash")
        labels = self.folder / "labels" / "final"
        try:
            for needed in (self.models_dir, self.cache_dir, incoming, trash.folder, labels):
                needed.mkdir(parents=True, exist_ok=True)
            same_disk = labels.stat().st_dev == self._own.stat().st_dev  # files change places there: both on one disk
            replaced = self._own / "replaced" if same_disk else labels.parent / ".replaced"
            replaced.mkdir(exist_ok=True)
            if not self._lock_file.exists():
                self._lock_file.touch()
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}"
            raise StudyError(f"{folder} cannot be a study ({reason}); give a folder that you may write to") from None
        record = study_task.read_record(self.folder)
        if record is not None and record.elsewhere and not self._elsewhere:
            raise StudyError(f"the revisions of {self.folder.name} are in a database of their own: say which with --store URL")
        self.revisions = open_revisions(self.folder, url)
        if self._elsewhere:
            self._or_close(lambda: study_database.refuse_another_studys(self.revisions, self.folder))
        self.notices = self._settle_task()
        shared = self.revisions if self._elsewhere else None
        self._or_close(lambda: study_database.settle_id(self.folder, shared))  # now that the task is the study's
        self.pixels = hashes_of(self.folder, task.dims)
        me = weakref.proxy(self)  # no circle: a study that nobody holds is gone, with its connections, at once
        self._images = ImageFolder(self.folder, task, self.revisions, self.pixels, lambda: me._lock(), trash)
        self.plane_of = SlicePlanes(task.dims, lambda image_id: me._images.path(image_id)).of
        self._naming = Naming(task, self._record.renames, lambda *given: me._made_on(*given), self.plane_of)
        memory = self.cache_dir / "label_files.json"
        self._files = LabelFiles(labels, self._naming, self.revisions, memory, replaced, trash)
        self._newest = NewestLabels(self.revisions, lambda head: me.read(head), self._images, self.pixels, verify_s)

    def _settle_task(self) -> list[str]:
        """Take up the study's record; returns what a person should be told of it."""
        record_stamp = stamp(study_task.record_file(self.folder))  # before it is read: what changes in between is noticed later
        record, said = study_task.read_record(self.folder), list[str]()
        if record is None or record.pending or record.task != self.task or record.elsewhere != self._elsewhere:
            with locked(self._lock_file, CONFIG.lock_timeout_s), file_faults("the study's record"):
                record, said = study_task.settle(self.folder, self.task, self.revisions.newest_body)
                if self._elsewhere and not record.elsewhere:
                    record = replace(record, elsewhere=True)
                    study_task.write_record(self.folder, record)
                record_stamp = stamp(study_task.record_file(self.folder))
        self._record, self._record_stamp = record, record_stamp
        return said

    # --- images ------------------------------------------------------------------------------------------------------

    def images(self) -> dict[str, Path]:
        """Image id to file or DICOM folder, sorted by id; ``sync`` names what is left out."""
        return dict(self._images.listed().images)

    def image_path(self, image_id: str) -> Path:
        """The image's file or DICOM folder. Raises NotFound."""
        return self._images.path(image_id)

    def add_image(self, image_id: str, source: str | Path, *, copy: bool = True, author: str = "") -> Path:
        """Take an image into the study; the same pixels again change nothing. As ``ImageFolder.add``."""
        return self._images.add(image_id, Path(source), copy=copy, author=author)

    def remove_image(self, image_id: str, *, author: str = "") -> None:
        """Move an image to ``.landmarklabel/trash``; its revisions and label file stay. Raises NotFound."""
        self._images.remove(image_id, author=author)

    # --- labels and the pixels they were made on ---------------------------------------------------------------------

    def labels(self, image_id: str) -> LandmarkSet | None:
        """The newest revision's landmarks with the image's unit, or None. Raises StudyError for a label of other dimensions."""
        if (head := self.revisions.head(image_id)) is None:
            return None
        landmarks, path = self.read(head), self.images().get(image_id)
        try:
            return landmarks if path is None else replace(landmarks, unit=describe_image(path).unit)
        except ImageRejected:
            return landmarks

    def read(self, revision: Revision) -> LandmarkSet:
        """A revision's landmarks under the names that the task has today. Raises StudyError."""
        return self._naming.read(revision.body)

    def labelled(self) -> dict[str, LandmarkSet]:
        """What people stated of every image in the study, sorted by id; proposals that nobody has confirmed are unset in it.

        Images that were changed since they were labelled are left out, as far as that was seen: ``verify`` looks at all.
        """
        return self._newest.labelled()

    def newest(self) -> dict[str, LandmarkSet]:
        """As ``labelled``, with the proposals that nobody has confirmed."""
        return self._newest.newest()

    def changed(self) -> frozenset[str]:
        """Ids of images whose pixels are no longer those that their newest label was made on: a person has to decide."""
        return self._newest.changed()

    def verify(self, image_ids: list[str] | None = None, seconds: float = float("inf")) -> frozenset[str]:
        """Look at all labelled images that may have changed, or at these, for so long; returns as ``changed``."""
        return self._newest.verify(image_ids, seconds)

    def pixels_of(self, image_id: str) -> str | None:
        """The hash of the image's pixels as they are now; None where it cannot be read. Raises NotFound; Busy as ``save``."""
        path = self.image_path(image_id)
        try:
            value = self.pixels.of(path)
        except ImageRejected:
            return None
        return value if value != UNREADABLE else None

    def note_pixels(self, image_id: str, image: Image, before: str) -> str:
        """Whoever reads an image of the study tells here what was read, so that it need not be read again for its hash.

        Args:
            image_id, image: what was read.
            before: ``pixels.stamp`` of its file before it was read.

        Returns:
            The hash of its pixels.
        """
        value = pixel_hash(image)
        self.pixels.note(self.image_path(image_id), value, before)
        self._newest.note_pixels(image_id, value)
        return value

    def note_file(self, path: Path, image: Image, before: str) -> None:
        """As ``note_pixels``, for whoever knows the file only; one that is not of the study is left alone."""
        for image_id in [i for i, one in self.images().items() if one == path]:
            self.note_pixels(image_id, image, before)

    def _made_on(self, image_id: str, made_ns: int | None = None) -> dict:
        """What a label records of its image; one from before the image last changed was made on what lay there then."""
        try:
            path = self.image_path(image_id)
            head = self.revisions.head(image_id)
            if made_ns is not None and head is not None and changed_ns(path) > made_ns:
                return {key: head.body[key] for key in ("pixels",) if key in head.body}
            return {"pixels": self.pixels.of(path)}
        except ImageRejected:
            return {"pixels": UNREADABLE}  # whatever can be read there later is another image: a person has to look
        except NotFound:
            return {}

    # --- revisions ---------------------------------------------------------------------------------------------------

    def save(
        self,
        image_id: str,
        landmarks: LandmarkSet,
        *,
        author: str = "",
        source: str = "annotation",
        base_revision: int | None = None,
        key: str | None = None,
        pixels: str | None = None,
        made: str = "",
        checked: Mapping[str, bool] | None = None,
    ) -> Revision:
        """Append a revision and show it in ``labels/final``; a hand-made change of that file is kept as a revision before it.

        Without a ``base_revision``, a revision that met such a change says so (``unseen``); ``made``: when, in another program;
        ``checked``: points that somebody looked at again: whether they are right where they are, or that is taken back.

        Raises:
            NotFound: no such image.
            Conflict: ``base_revision`` is not the newest, and a later one did more than call points right that this one leaves
                as they are.
            KeyReused: the key was used for something else.
            StudyError: landmarks of another task, or the image is not the one whose ``pixels`` hash is given any more.
            StoreFault: the disk or database refused. Busy: in use for too long.
            LandmarkFileError: a position that no label file can hold.
        """
        self._check_task(image_id, landmarks)
        dump_markups(landmarks)  # raises before anything is saved
        made_on = self._checked_pixels(image_id, pixels, key)
        body = body_of(landmarks) | made_on | ({"made": made} if made else {})
        body |= checks_of(checked or {})
        revision = self._commit(image_id, body, author=author, source=source, base_revision=base_revision, key=key)
        if made_on and revision.body.get("pixels") == made_on["pixels"]:
            self._newest.not_changed(image_id)
        return revision

    def save_repeat(
        self, image_id: str, landmarks: LandmarkSet, *, author: str = "", key: str | None = None, pixels: str | None = None
    ) -> Revision:
        """Keep a second reading of a labelled image, made without seeing the first: it changes no label.

        Raises as ``save``; StudyError where there is no first reading.
        """
        self.image_path(image_id)
        self._check_task(image_id, landmarks)
        if image_id not in self.labelled():
            raise StudyError(f"{image_id} has no landmarks yet, so this cannot be a second reading")
        dump_markups(landmarks)
        body = body_of(landmarks) | self._checked_pixels(image_id, pixels, key)
        with self._lock():
            return self.revisions.save(f"{image_id}{REPEAT}", body, author=author, source="second reading", key=key)

    def repeats(self) -> dict[str, list[Revision]]:
        """Image id to its further readings, oldest first."""
        found = [i for i in self.heads() if i.endswith(REPEAT)]
        return {i.removesuffix(REPEAT): self.revisions.history(i) for i in found}

    def restore(self, image_id: str, number: int, *, author: str) -> Revision:
        """Make an earlier revision's content the newest revision. Raises NotFound, StudyError."""
        old = self.revisions.get(image_id, number)
        body = body_of(self.read(old)) | {key: old.body[key] for key in ("pixels",) if key in old.body}
        return self._commit(image_id, body, author=author, source=f"restored revision {number}")

    def heads(self) -> Mapping[str, Revision]:
        """The newest revision of every image, sorted by id, as ``RevisionStore.heads``; only what is new is read."""
        return self._newest.heads()

    def checked(self, image_id: str) -> dict[str, Revision]:
        """Landmarks that somebody looked at again and said are right, and that have not been moved since; with that revision."""
        found: dict[str, Revision] = {}
        before: Revision | None = None
        for revision in self.history(image_id):
            if before is not None:
                same = same_points(self.read(before), self.read(revision))
                other_image = before.body.get("pixels") != revision.body.get("pixels")
                found = {name: by for name, by in found.items() if same.get(name) and not other_image}
            said = checked_of(revision.body, self._record.renames)
            found = {name: by for name, by in found.items() if said.get(name, True)}
            found |= {name: revision for name, is_right in said.items() if is_right}
            before = revision
        return found

    def history(self, image_id: str) -> list[Revision]:
        """All revisions of an image, oldest first; also of an image that was removed."""
        return self.revisions.history(image_id)

    def sync(self) -> list[str]:
        """Turn hand-edited label files into revisions and write missing, half-written or old ones again.

        Returns:
            what a person has to look at: files that cannot be read or used, images that were changed since they were labelled,
            revisions that were made at the same time; one text each.
        """
        listing = self._images.listed()
        self._images.sweep()
        problems = [*listing.refused.values(), *self._files.sync(listing.images.keys(), self._lock)]
        questions = self._open_questions()  # which reads all newest revisions, and so finds the damaged ones
        return [*problems, *self.revisions.damaged.values(), *questions]

    def take_in_edits(self, at_leisure: bool = False) -> list[str]:
        """Turn hand-edited label files into revisions; returns what cannot be read or has no image, one text per file."""
        return self._files.sync(self._images.listed().images.keys(), self._lock, at_leisure)

    def writing(self) -> AbstractContextManager:
        """Hold the study: nobody else writes meanwhile. Raises Busy, TaskMismatch."""
        return self._lock()

    def show_all(self, image_ids: Iterable[str]) -> None:
        """Bring the label files of these images up to their newest revisions, as far as the images are there."""
        for image_id in sorted(set(image_ids) & self._images.listed().images.keys()):
            with self._lock(), file_faults(f"the label file of {image_id}"):
                found, _ = self._files.take_in_edit(image_id)
                self._files.show(image_id, found)

    def recheck_replaced(self) -> list[str]:
        """Look at label files that were replaced some seconds ago: an editor may have been writing them. Returns as ``sync``."""
        return self._files.recheck_replaced(self._lock)

    def _open_questions(self) -> list[str]:
        images, heads = self._images.listed().images, self.revisions.heads()
        changed = [
            f"{i}: the image was changed since it was labelled, and is left out until somebody submits its points again or says "
            f"that they still hold (landmarklabel study keep-labels {self.folder.name} {i})"
            for i in sorted(self.changed() & images.keys())
        ]
        not_there = self._newest.stated_ids() - images.keys() - self._images.listed().refused.keys()
        gone = sorted(i for i in not_there if not self._images.was_removed(i))
        changed += [f"{i}: its image is not in the study any more, and its label is left out until it is back" for i in gone]
        met = {i: head for i, head in heads.items() if head.body.get("unseen")}
        return changed + [
            f"{i}: revision {head.number} ({head.author or 'nobody named'}) was made without having seen revision "
            f"{head.body['unseen']}: both are kept; look at them and submit what is right"
            for i, head in met.items()
        ]

    def _checked_pixels(self, image_id: str, pixels: str | None, key: str | None) -> dict:
        made_on = self._made_on(image_id)
        other = pixels is not None and (pixels == UNREADABLE or made_on.get("pixels") != pixels)
        if other and not (key is not None and self.revisions.has_key(key)):  # what was saved is answered as it was then
            raise TaskMismatch(f"{image_id}: the image was changed since you opened it; open it again and look at the points")
        return made_on

    # --- inside ------------------------------------------------------------------------------------------------------

    def _check_task(self, image_id: str, landmarks: LandmarkSet) -> None:
        if landmarks.task.hash != self.task.hash:
            raise StudyError(
                f"{image_id}: the landmarks are of task {landmarks.task.name!r}, the study has {self.task.name!r}; "
                "names, order and dims must agree"
            )

    def _commit(
        self, image_id: str, body: dict, *, author: str, source: str, base_revision: int | None = None, key: str | None = None
    ) -> Revision:
        self.image_path(image_id)
        with self._lock():
            found, edit = self._files.take_in_edit(image_id)
            if base_revision is not None:
                edited, taken_back = landmarks_of(body, self.task), body.get("unchecked", ())
                history, renames = self.history(image_id), self._record.renames
                base_revision = past_checks(self.read, history, base_revision, edited, taken_back, renames)
            elif edit is not None:
                body = body | {"unseen": edit.number}
            revision = self.revisions.save(image_id, body, author=author, source=source, base_revision=base_revision, key=key)
            with file_faults(f"revision {revision.number} of {image_id} is saved, but its label file"):
                self._files.show(image_id, found)
        return revision

    @property
    def _lock_file(self) -> Path:
        return self._own / "lock"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer of the study's files at a time, over threads and processes; a killed one lets go. Raises Busy."""
        self.check_there()
        with ExitStack() as held:
            with file_faults("the study's lock"):
                held.enter_context(locked(self._lock_file, CONFIG.lock_timeout_s))
            self._check_record()
            yield

    def check_there(self) -> None:
        """Raise Gone where the study's folder has moved: nothing must be written to where it was."""
        if not self.is_there():
            raise Gone(GONE)

    def is_there(self) -> bool:
        """Whether the study's folder is where it was opened."""
        return self._own.is_dir()

    def _check_record(self) -> None:
        """The task may have been changed by another program while this one had the study open."""
        path = study_task.record_file(self.folder)
        if stamp(path) != self._record_stamp:
            record = study_task.read_record(self.folder)
            if record is None:  # deleted while the study is open
                study_task.write_record(self.folder, self._record)
            elif what := study_task.changed_part(record, self._record):
                raise TaskMismatch(f"the study's {what} changed by another program: the server has to be started again")
            self._record_stamp = stamp(path)
