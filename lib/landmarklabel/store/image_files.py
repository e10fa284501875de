"""The images in a study's folder: which there are, what is left out and why, and whole copies of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from landmarklabel.errors import Gone, ImageRejected, NotFound, StudyError, UsageError
from landmarklabel.io.files import (
    ALSO_READ,
    IMAGE_SUFFIXES,
    check_id,
    hidden_part,
    image_id_of,
    image_suffix,
    is_dicom_folder,
    safe_join,
)
from landmarklabel.io.images import describe_image, read_image
from landmarklabel.io.pixels import pixel_hash
from landmarklabel.io.stored_form import is_stored_unchanged, stored_copy, stored_suffix
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.portability import sync_to_disk
from landmarklabel.scale_rules import PixelSize
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.database import file_faults
from landmarklabel.store.pixels import PixelHashes, stamp
from landmarklabel.store.revisions import RevisionStore

GONE = "the study folder is gone or has moved: nothing was saved; start the server where it is now"
_ADDED, _REMOVED = "image added", "image removed"  # in the audit trail
REPEAT = "@second reading"  # after an image's id: where further readings of it are kept


@dataclass(frozen=True)
class Listing:
    """What lies in the folder, valid as long as no folder changes.

    Args:
        images: id to file or DICOM folder, sorted by id.
        refused: id, or name, to why it is left out.
        taken: ids that something in the folder has, also what is left out.
    """

    images: dict[str, Path]
    refused: dict[str, str]
    taken: dict[str, Path]
    changed_ns: dict[Path, int]  # of every folder that was looked into
    looked_ns: int

    @staticmethod
    def of(folder: Path) -> Listing:
        """Look at everything in the folder; one bad name or file leaves out itself only."""
        found: dict[str, list[Path]] = {}  # what an entry is comes with its name: nothing is asked of each file
        looked, refused = time.time_ns(), {}
        changed = {folder: folder.stat().st_mtime_ns}
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if entry.name.startswith(".") or entry.name == "labels":
                continue
            path, image_id = folder / entry.name, None
            if entry.is_symlink() and _leaves(path, folder):
                refused[entry.name] = f"{entry.name} is left out: it is a link out of the study; put the image itself here"
                continue
            if entry.is_dir():
                changed[path] = path.stat().st_mtime_ns
                image_id = entry.name if is_dicom_folder(path) else None
                if image_id is None and (hidden := hidden_part(path)):
                    refused[entry.name] = f"{entry.name} is left out: {hidden}; change who may, or move it out of the study"
            elif image_suffix(entry.name) in IMAGE_SUFFIXES and entry.is_file():
                image_id = image_id_of(entry.name)
            elif image_suffix(entry.name) and entry.is_file():
                refused[entry.name] = f"{entry.name} is left out: a study keeps no such files by themselves; import it"
            if image_id is not None:
                found.setdefault(image_id, []).append(path)
        images = {}
        for image_id, paths in sorted(found.items()):
            fault = _fault(image_id, paths, paths[0] in changed)
            if fault:
                refused[image_id] = fault
            else:
                images[image_id] = paths[0]
        return Listing(images, refused, {i: paths[0] for i, paths in found.items()}, changed, looked)

    def fitting(self, task: LandmarkTask, units: dict[tuple[Path, str], str] | None = None) -> Listing:
        """Without the images that the task's scale rule is not for; what cannot be read stays in, as only reading it tells.

        ``units`` keeps what their headers say from one call to the next.
        """
        if not isinstance(task.scale, PixelSize):
            return self
        units, refused = {} if units is None else units, {}
        for image_id, path in self.images.items():
            now = (path, stamp(path))
            try:
                if now not in units:
                    units[now] = _unit(path, task.dims)
                task.check_image(image_id, units[now])
            except ImageRejected as error:
                refused[image_id] = f"{path.name} is left out: {'; '.join(error.faults)}"
        images = {image_id: path for image_id, path in self.images.items() if image_id not in refused}
        return replace(self, images=images, refused=self.refused | refused)

    def outdated(self) -> bool:
        """Whether a folder has changed since, or may have."""
        try:
            now = {folder: folder.stat().st_mtime_ns for folder in self.changed_ns}
        except OSError:
            return True
        return now != self.changed_ns or max(now.values()) > self.looked_ns - CONFIG.mtime_settled_ns


@dataclass(frozen=True)
class Trash:
    """Where a study keeps what was removed, under the time of its removal."""

    folder: Path

    def _place(self, name: str) -> Path:
        return self.folder / f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%S.%fZ')}-{name}"

    def move(self, path: Path) -> Path:
        """Move a file or folder here; returns where it is now. Raises OSError."""
        place = self._place(path.name)
        shutil.move(path, place)  # ``labels`` may be on another disk
        return place

    def names(self, suffix: str) -> list[str]:
        """Of what lies here and ends so, sorted."""
        return sorted(path.name for path in self.folder.glob(f"*Z-*{suffix}"))

    def keep(self, path: Path, name: str) -> None:
        """Give a file that an editor may still be writing a second name here; what can have one name only is moved."""
        try:
            os.link(path, self._place(name), follow_symlinks=False)
        except OSError:
            self.move(path)


class ImageFolder:
    """The images of a study: listed, added, removed.

    Args:
        folder: of the study; what comes in or goes out passes through its ``.landmarklabel``.
        task: whose images they are.
        revisions: hold the audit trail.
        pixels: hashes of the images' pixels.
        lock: held while the folder is changed.
        trash: of the study.
    """

    def __init__(
        self,
        folder: Path,
        task: LandmarkTask,
        revisions: RevisionStore,
        pixels: PixelHashes,
        lock: Callable[[], AbstractContextManager],
        trash: Trash,
    ):
        self.folder, self._task, self._revisions, self._pixels = folder, task, revisions, pixels
        self._lock, self._trash = lock, trash
        self._incoming = folder / ".landmarklabel" / "incoming"
        self._listing: Listing | None = None
        self._units: dict[tuple[Path, str], str] = {}  # of the images by their state, where the task's scale rule asks for it

    def listed(self) -> Listing:
        """What lies in the folder now. Raises Gone where there is no folder any more."""
        if self._listing is None or self._listing.outdated():
            try:
                self._listing = Listing.of(self.folder).fitting(self._task, self._units)
            except FileNotFoundError:
                raise Gone(GONE) from None
        return self._listing

    def path(self, image_id: str) -> Path:
        """The image's file or DICOM folder. Raises NotFound, which says why where the image is left out."""
        listing = self.listed()
        path = listing.images.get(image_id)
        if path is None:
            raise NotFound(listing.refused.get(image_id, f"there is no image {str(image_id)[:80]!r} in this study"))
        return path

    def add(self, image_id: str, source: Path, *, copy: bool = True, author: str = "") -> Path:
        """Take an image file or DICOM folder into the study; the same pixels again change nothing.

        Args:
            image_id: its id from now on.
            source: the file or folder; its pixels are copied as they are.
            copy: False moves it instead.
            author: who adds it, for the audit trail.

        Raises:
            ImageRejected: damaged, of other dimensions than the task, or none that its scale rule is for.
            StudyError: the id is taken by another image, or the file is no image.
            UsageError: the id cannot name a file.
        """
        source = source.absolute()
        if not source.exists():
            raise ImageRejected(source.name, ["no such image file"])
        suffix = stored_suffix(source)
        if suffix is None:
            raise StudyError(
                f"{source.name} is no image: use {' '.join((*IMAGE_SUFFIXES, *ALSO_READ))} or a folder of DICOM files"
            )
        target = safe_join(self.folder, check_image_id(image_id), suffix)
        if target.name.startswith(".") or target.name == "labels":
            raise UsageError(f"image id {image_id!r} is kept for the study's own folders; choose another")
        image = read_image(source, self._task.dims)  # all of it: a header can be fine above damaged pixels
        self._task.check_image(image_id, image.unit)
        pixels = pixel_hash(image)
        with file_faults(f"image {image_id}"), tempfile.TemporaryDirectory(dir=self._incoming) as place:
            movable = not copy and source.stat().st_dev == self.folder.stat().st_dev and is_stored_unchanged(source)
            staged = source if movable else stored_copy(source, Path(place))
            if not is_stored_unchanged(source):
                pixels = pixel_hash(read_image(staged, self._task.dims))
            for path in (staged, *staged.rglob("*")):
                sync_to_disk(path)
            content = _content_hash(staged)
            with self._lock():
                existing = self.listed().taken.get(image_id) or (target if os.path.lexists(target) else None)
                if existing is None:
                    self._put_in_place(image_id, staged, target, content, author)
            if existing and _digest(existing) != _digest(staged) and self._pixels.of(existing) != pixels:
                raise StudyError(f"{existing.name} exists with other content; remove it first or choose another id")
            if not copy and not existing:
                delete(source)
        if existing is None:
            self._pixels.note(target, pixels, stamp(target), sure=True)
        return existing or target

    def _put_in_place(self, image_id: str, staged: Path, target: Path, content: str, author: str) -> None:
        """Both or neither: the image under its name, and its row in the audit trail."""
        try:
            with self._revisions.recording(_ADDED, image_id, who=author, after=content):
                os.replace(staged, target)
                sync_to_disk(self.folder)
        except BaseException:
            if not os.path.lexists(staged) and os.path.lexists(target):
                os.replace(target, staged)
            raise

    def was_removed(self, image_id: str) -> bool:
        """Whether the last thing that was done to an image through the study was to remove it."""
        changes = [c.what for c in self._revisions.changes(image_id) if c.what in (_ADDED, _REMOVED)]
        return changes[-1:] == [_REMOVED]

    def remove(self, image_id: str, *, author: str = "") -> None:
        """Move an image to the trash. Raises NotFound."""
        with file_faults(f"image {image_id}"):
            content = _content_hash(self.path(image_id))  # before others have to wait: it reads all of the image
            with self._lock():
                path, moved = self.path(image_id), None
                try:
                    with self._revisions.recording(_REMOVED, image_id, who=author, before=content):
                        moved = self._trash.move(path)
                except BaseException:
                    if moved is not None and not os.path.lexists(path):
                        os.replace(moved, path)
                    raise

    def sweep(self) -> None:
        """Remove what copies that were killed have left."""
        for leftover in self._incoming.iterdir():
            with suppress(OSError):  # another process sweeps as well
                if leftover.stat().st_mtime < time.time() - 24 * 3600:
                    delete(leftover)


def _unit(path: Path, dims: int) -> str:
    try:
        return describe_image(path, dims).unit
    except ImageRejected:
        return ""


def _fault(image_id: str, paths: list[Path], is_folder: bool) -> str:
    names = [path.name for path in paths]
    if len(paths) > 1:
        return f"{' and '.join(names)} are left out: they would all be image {image_id!r}; rename or remove all but one"
    try:
        check_image_id(image_id)
    except UsageError as error:
        return f"{names[0]} is left out: {error}"
    if is_folder and any(_leaves(p, paths[0]) for p in paths[0].iterdir()):
        return f"{names[0]} is left out: files in it are links out of the folder; put the files themselves there"
    return ""


def check_image_id(image_id: str) -> str:
    """Return an id an image may have. Raises UsageError for one that names no file, or that the program uses itself."""
    if check_id(image_id).endswith(REPEAT):
        raise UsageError(f"image id {image_id[:80]!r} is not allowed: {REPEAT!r} at its end marks second readings; rename it")
    return image_id


def _leaves(path: Path, folder: Path) -> bool:
    """Whether a path is a link to something outside its folder, or to nothing."""
    if not path.is_symlink():
        return False
    try:
        return folder.resolve() not in path.resolve(strict=True).parents
    except (OSError, RuntimeError):
        return True


def _files_in(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _digest(path: Path) -> list[tuple[str, str]]:
    """Relative name and sha256 of every file: the content of an image, whatever it is called."""
    out = []
    for file_path in _files_in(path):
        with file_path.open("rb") as file:
            out.append((str(file_path.relative_to(path)), hashlib.file_digest(file, "sha256").hexdigest()))
    return out


def _content_hash(path: Path) -> str:
    """One sha256 of an image's files."""
    return hashlib.sha256(json.dumps(_digest(path)).encode()).hexdigest() if not path.is_file() else _digest(path)[0][1]


def delete(path: Path) -> None:
    """A file or a whole folder; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
