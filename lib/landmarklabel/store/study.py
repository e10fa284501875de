"""A study folder: images as the user has them, labels as revisions, and plain label files that always show the newest.

``<image>.nii.gz …``, ``<DICOM folder>/``, ``labels/final/<id>.mrk.json``, and ``.landmarklabel/`` with the revision
store, models, caches and a trash for what was removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL

from landmarklabel.errors import NotFound, StudyError, UsageError
from landmarklabel.io.files import IMAGE_SUFFIXES, check_id, image_id_of, image_suffix, is_dicom_folder, safe_join
from landmarklabel.io.images import read_image
from landmarklabel.io.markups import dump_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store.bodies import body_of, landmarks_of
from landmarklabel.store.database import file_faults
from landmarklabel.store.label_files import SETTLED_NS, LabelFiles, State
from landmarklabel.store.revisions import Revision, RevisionStore

REPEAT = "@second reading"  # after an image's id: where further readings of it are kept


class Study:
    """One study folder and its labels; safe for threads and for several processes on one machine.

    Args:
        folder: created where it does not exist.
        task: the landmarks that are labelled here.
        url: an SQLAlchemy URL of the revision store; default is SQLite inside the folder.

    Raises:
        StudyError: the folder is a file or cannot be written.
    """

    def __init__(self, folder: str | Path, task: LandmarkTask, url: str | None = None):
        self.folder, self.task = Path(folder).absolute(), task
        self._own = self.folder / ".landmarklabel"
        self.models_dir, self.cache_dir = self._own / "models", self._own / "cache"
        self._incoming, self._trash = self._own / "incoming", self._own / "trash"
        labels = self.folder / "labels" / "final"
        try:
            for needed in (self.models_dir, self.cache_dir, self._incoming, self._trash, labels):
                needed.mkdir(parents=True, exist_ok=True)
            self._lock_file.touch()
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}"
            raise StudyError(f"{folder} cannot be a study ({reason}); give a folder that you may write to") from None
        self.revisions = RevisionStore(url or URL.create("sqlite", database=str(self._own / "revisions.sqlite")))
        self._files = LabelFiles(labels, task, self.revisions, self.cache_dir / "label_files.json")
        self._listing: _Listing | None = None
        self._stated: tuple[int, dict[str, LandmarkSet]] | None = None  # newest row, what people said of each image

    def close(self) -> None:
        """Close the revision store."""
        self.revisions.close()

    # --- images ------------------------------------------------------------------------------------------------------

    def images(self) -> dict[str, Path]:
        """Image id to file or DICOM folder, sorted by id. Raises StudyError where two have one id."""
        return dict(self._listed().images)

    def image_path(self, image_id: str) -> Path:
        """The image's file or DICOM folder. Raises NotFound."""
        path = self._listed().images.get(image_id)
        if path is None:
            raise NotFound(f"there is no image {str(image_id)[:80]!r} in this study")
        return path

    def add_image(self, image_id: str, source: str | Path, *, copy: bool = True, author: str = "") -> Path:
        """Take an image file or DICOM folder into the study; the same content again changes nothing.

        Args:
            image_id: its id from now on.
            source: the file or folder; its pixels are copied as they are.
            copy: False moves it instead.
            author: who adds it, for the audit trail.

        Raises:
            ImageRejected: damaged, or of other dimensions than the task.
            StudyError: the id is taken by another image, or the file is no image.
            UsageError: the id cannot name a file.
        """
        source = Path(source).absolute()
        suffix = "" if source.is_dir() else image_suffix(source)
        if suffix is None or (source.is_dir() and not is_dicom_folder(source)):
            raise StudyError(f"{source.name} is no image: use {' '.join(IMAGE_SUFFIXES)} or a folder of DICOM files")
        target = safe_join(self.folder, image_id, suffix)
        if target.name.startswith(".") or target.name == "labels":
            raise UsageError(f"image id {image_id!r} is kept for the study's own folders; choose another")
        read_image(source, self.task.dims)  # all of it: a header can be fine above damaged pixels
        with file_faults(f"image {image_id}"), tempfile.TemporaryDirectory(dir=self._incoming) as place:
            on_same_disk = source.stat().st_dev == self.folder.stat().st_dev
            staged = source if on_same_disk and not copy else _copied(source, Path(place))
            for path in (staged, *staged.rglob("*")):
                _sync_to_disk(path)
            with self._lock():
                existing = self._listed().images.get(image_id) or (target if os.path.lexists(target) else None)
                if existing is None:
                    self.revisions.record("image added", image_id, who=author, after=_content(staged))
                    os.replace(staged, target)
                    _sync_to_disk(self.folder)
            if existing and _digest(existing) != _digest(staged):
                raise StudyError(f"{existing.name} exists with other content; remove it first or choose another id")
            if not copy and not existing:
                _delete(source)
        return existing or target

    def remove_image(self, image_id: str, *, author: str = "") -> None:
        """Move an image to ``.landmarklabel/trash``; its revisions and label file stay. Raises NotFound."""
        with self._lock(), file_faults(f"image {image_id}"):
            path = self.image_path(image_id)
            self.revisions.record("image removed", image_id, who=author, before=_content(path))
            self._to_trash(path)

    # --- labels ------------------------------------------------------------------------------------------------------

    def labels(self, image_id: str) -> LandmarkSet | None:
        """The newest revision's landmarks, or None. Raises StudyError for a label of other dimensions."""
        head = self.revisions.head(image_id)
        return landmarks_of(head.body, self.task) if head else None

    def labelled(self) -> dict[str, LandmarkSet]:
        """The newest landmarks of every image in the study of which a person stated at least one, sorted by id."""
        images, latest = self._listed().images, self.revisions.latest_row()
        if self._stated is None or self._stated[0] != latest:  # asked at every poll of a server's clients
            labels = {i: landmarks_of(head.body, self.task) for i, head in self.revisions.heads().items()}
            self._stated = latest, {i: landmarks for i, landmarks in labels.items() if landmarks.by_person.any()}
        return {i: landmarks for i, landmarks in self._stated[1].items() if i in images}

    def save(
        self,
        image_id: str,
        landmarks: LandmarkSet,
        *,
        author: str = "",
        source: str = "annotation",
        base_revision: int | None = None,
        key: str | None = None,
    ) -> Revision:
        """Append a revision and show it in ``labels/final``; a hand-made change of that file is kept before it.

        Raises:
            NotFound: no such image.
            Conflict: ``base_revision`` is not the newest.
            StudyError: landmarks of another task; StoreFault: the disk or database refused.
            LandmarkFileError: a position that no label file can hold.
        """
        if landmarks.task.hash != self.task.hash:
            raise StudyError(
                f"{image_id}: the landmarks are of task {landmarks.task.name!r}, the study has {self.task.name!r}; "
                "names, order and dims must agree"
            )
        dump_markups(landmarks)  # raises before anything is saved
        body = body_of(landmarks)
        return self._commit(image_id, body, author=author, source=source, base_revision=base_revision, key=key)

    def save_repeat(self, image_id: str, landmarks: LandmarkSet, *, author: str = "", key: str | None = None) -> Revision:
        """Keep a second reading of a labelled image, made without seeing the first: it changes no label.

        Raises:
            As ``save``; StudyError where there is no first reading.
        """
        self.image_path(image_id)
        if image_id not in self.labelled():
            raise StudyError(f"{image_id} has no landmarks yet, so this cannot be a second reading")
        dump_markups(landmarks)
        return self.revisions.save(f"{image_id}{REPEAT}", body_of(landmarks), author=author, source="second reading", key=key)

    def repeats(self) -> dict[str, list[Revision]]:
        """Image id to its further readings, oldest first."""
        found = [i for i in self.revisions.heads() if i.endswith(REPEAT)]
        return {i.removesuffix(REPEAT): self.revisions.history(i) for i in found}

    def restore(self, image_id: str, number: int, *, author: str) -> Revision:
        """Make an earlier revision's content the newest revision. Raises NotFound, StudyError."""
        body = self.revisions.get(image_id, number).body
        landmarks_of(body, self.task)
        return self._commit(image_id, body, author=author, source=f"restored revision {number}")

    def history(self, image_id: str) -> list[Revision]:
        """All revisions of an image, oldest first; also of an image that was removed."""
        return self.revisions.history(image_id)

    def sync(self) -> list[str]:
        """Turn hand-edited label files into revisions and write missing, half-written or old ones again.

        Returns:
            what a person has to look at: files that cannot be read or used, one text each.
        """
        listing = self._listed()
        self._sweep_incoming()
        return [*listing.refused, *self._files.sync(listing.images.keys(), self._lock)]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _commit(self, image_id: str, body: dict, **details: object) -> Revision:
        self.image_path(image_id)
        with self._lock():
            state = self._files.take_in_edit(image_id)
            revision = self.revisions.save(image_id, body, **details)
            with file_faults(f"revision {revision.number} of {image_id} is saved, but its label file"):
                if state is State.UNREADABLE:
                    self._to_trash(self._files.path(image_id))
                self._files.write(image_id)
        return revision

    def _listed(self) -> _Listing:
        if self._listing is None or self._listing.outdated():
            self._listing = _Listing.of(self.folder)
        return self._listing

    @property
    def _lock_file(self) -> Path:
        return self._own / "lock"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer of the study's files at a time, over threads and processes; a killed one lets go."""
        with file_faults("the study's lock"):
            file = self._lock_file.open("a")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _to_trash(self, path: Path) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        os.replace(path, self._trash / f"{stamp}-{path.name}")

    def _sweep_incoming(self) -> None:
        for leftover in self._incoming.iterdir():  # of a copy that was killed
            with suppress(OSError):  # another process sweeps as well
                if leftover.stat().st_mtime < time.time() - 24 * 3600:
                    _delete(leftover)


@dataclass(frozen=True)
class _Listing:
    """What lies in the folder, valid as long as no folder changes."""

    images: dict[str, Path]
    refused: list[str]
    changed_ns: dict[Path, int]  # of every folder that was looked into
    looked_ns: int

    @staticmethod
    def of(folder: Path) -> _Listing:
        looked, images, refused = time.time_ns(), {}, []
        changed = {folder: folder.stat().st_mtime_ns}
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if entry.name.startswith(".") or entry.name == "labels":
                continue
            path, image_id = folder / entry.name, None
            if entry.is_dir():
                changed[path] = path.stat().st_mtime_ns
                image_id = entry.name if is_dicom_folder(path) else None
            elif image_suffix(entry.name) and entry.is_file():
                image_id = image_id_of(entry.name)
            if image_id is None:
                continue
            if image_id in images:
                raise StudyError(
                    f"{images[image_id].name} and {path.name} would both be image {image_id!r}; rename or remove one"
                )
            try:
                images[check_id(image_id)] = path
            except UsageError as error:
                refused.append(f"{path.name} is left out: {error}")
        return _Listing(dict(sorted(images.items())), refused, changed, looked)

    def outdated(self) -> bool:
        try:
            now = {folder: folder.stat().st_mtime_ns for folder in self.changed_ns}
        except OSError:
            return True
        return now != self.changed_ns or max(now.values()) > self.looked_ns - SETTLED_NS


def _copied(source: Path, place: Path) -> Path:
    """A copy of a file or folder."""
    target = place / source.name
    shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    return target


def _files_in(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _digest(path: Path) -> list[tuple[str, str]]:
    """Relative name and sha256 of every file: the content of an image, whatever it is called."""
    out = []
    for file_path in _files_in(path):
        digest = hashlib.sha256()
        with file_path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        out.append((str(file_path.relative_to(path)), digest.hexdigest()))
    return out


def _content(path: Path) -> str:
    """One sha256 of an image's files."""
    return hashlib.sha256(json.dumps(_digest(path)).encode()).hexdigest() if not path.is_file() else _digest(path)[0][1]


def _sync_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
