"""A study as a datastore: ids, images, labels by tag; final labels are revisions, every file is checked before it is kept."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from landmarklabel.errors import (
    ImageRejected,
    LandmarkFileError,
    LandmarkLabelError,
    NotAllowed,
    NotFound,
    StudyError,
    UsageError,
)
from landmarklabel.io.bounds_check import check_inside
from landmarklabel.io.files import FCSV_SUFFIX, MARKUPS_SUFFIX, atomic_write, check_id, safe_join
from landmarklabel.io.markups import dump_markups, parse_fcsv, parse_markups
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.portability import DISK_FULL
from landmarklabel.services.callers import REVIEWER, caller
from landmarklabel.services.descriptions import describe
from landmarklabel.services.image_info import ImageInfo
from landmarklabel.services.request_values import flag_of, key_of, revision_of, text_of
from landmarklabel.store.database import StoreFault
from landmarklabel.store.revisions import Revision
from landmarklabel.store.study import Study

FINAL, ORIGINAL = "final", "original"  # tags, as MONAI Label calls them
LEFT_OUT = "left_out.txt"  # in a data set's archive: what could not be read
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


class StudyDatastore:
    """What a server does with the images and labels of a study; the method names are those of MONAI Label's datastore.

    Label ids are image ids. Tag ``final`` is the revision store; any other tag (``original`` for predictions) is a plain
    folder ``labels/<tag>/``.

    Args:
        study: its content.
        allow_outside: mm that a point which a person placed may lie outside of its image.
    """

    def __init__(self, study: Study, allow_outside: float = 0.0):
        self.study, self._allow_outside = study, allow_outside
        self._notes = ImageInfo(study.folder / ".landmarklabel")

    # --- naming ------------------------------------------------------------------------------------------------------

    def name(self) -> str:
        return self.study.folder.name

    def set_name(self, name: str) -> None:
        raise UsageError("the datastore is named after its folder")

    def description(self) -> str:
        return f"LandmarkLabel study of task {self.study.task.name}"

    def set_description(self, description: str) -> None:
        raise UsageError("the datastore's description follows from its task")

    # --- images ------------------------------------------------------------------------------------------------------

    def list_images(self) -> list[str]:
        return list(self.study.images())

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image file that the server can read. Raises StoreFault where it cannot."""
        path = self.study.image_path(image_id)
        if not os.access(path, os.R_OK):  # said before an answer has begun
            raise StoreFault(f"image {image_id} cannot be read by the server: the operator has to allow it")
        return str(path)

    def get_image(self, image_id: str, params=None):
        return self.study.image_path(image_id).read_bytes()

    def add_image(self, image_id: str, image_filename: str, image_info: dict, *, copy: bool = True) -> str:
        """Take an image and notes about it into the study; neither where one is refused."""
        check_id(image_id)
        if image_info:
            self._notes.check(image_id, image_info)
        self.study.add_image(image_id, Path(image_filename), copy=copy, author=caller().name)
        if image_info:
            with self.study.writing():
                self._notes.add(image_id, image_info)
        return image_id

    def remove_image(self, image_id: str) -> None:
        self.study.remove_image(image_id, author=caller().name)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return list(self.study.labelled())

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the images that nobody has labelled."""
        labelled = self.study.labelled()
        return [i for i in self.study.images() if i not in labelled]

    # --- labels ------------------------------------------------------------------------------------------------------

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict) -> str:
        """Keep a label file as a client sent it; see ``save_content``."""
        path = Path(label_filename)
        return self.save_content(image_id, path.name, path.read_bytes(), label_tag, label_info)

    def save_content(self, image_id: str, name: str, content: bytes, tag: str, info: dict) -> str:
        """Keep a label as a client sent it.

        Args:
            image_id: of an image of the study.
            name: of the client's file: its ending says what it is.
            content: of the file.
            tag: ``final`` makes a revision, any other a file.
            info: MONAI Label's ``params``: ``user`` or ``client_id``, ``base_revision``, ``key``, ``partial``, ``model``.

        Raises:
            LandmarkFileError: the file. NotFound: the image. Unusable: a value of ``info``. Otherwise as ``submit``.
        """
        self.study.image_path(image_id)
        tag, landmarks = self.tag(tag), self._parsed(name, content, image_id)
        if tag == FINAL:
            partial, author = flag_of(info, "partial"), text_of(info, "user") or text_of(info, "client_id")
            base, key = revision_of(info, required=False), key_of(info)
            landmarks = landmarks if partial else submitted(landmarks)
            more: dict[str, Any] = {"base_revision": base, "key": key, "pixels": text_of(info, "pixels") or None}
            self.submit(image_id, landmarks, author, source="monailabel client", **more)
        else:
            text = dump_markups(landmarks, text_of(info, "model"), self.study.plane_of(image_id))
            with self.study.writing():  # a backup that ends meanwhile has all that was acknowledged before
                atomic_write(self._label_path(image_id, tag), text)
        return image_id

    def submit(
        self,
        image_id: str,
        landmarks: LandmarkSet,
        author: str,
        *,
        source: str,
        base_revision: int | None,
        key: str | None,
        pixels: str | None = None,
        checked: Mapping[str, bool] | None = None,
    ) -> Revision:
        """Save a case. One that leaves a labelled case without anything a person stated is a removal, and needs that right.

        Raises:
            NotAllowed: a removal by somebody who may not remove. Otherwise as ``Study.save``.
        """
        self.check_places(image_id, landmarks)
        if not landmarks.by_person.any() and caller().role < REVIEWER:
            head = self.study.revisions.head(image_id)
            if head is not None and self.study.read(head).by_person.any():
                raise NotAllowed(
                    f"{image_id} has a label, and nothing in this one was stated by a person: that would remove it, "
                    "which needs the role reviewer"
                )
            if base_revision is None:  # a label that somebody saves meanwhile is not removed either
                base_revision = head.number if head is not None else 0
        who = caller().name or author
        return self.study.save(
            image_id, landmarks, author=who, source=source, base_revision=base_revision, key=key, pixels=pixels, checked=checked
        )

    def check_places(self, image_id: str, landmarks: LandmarkSet) -> None:
        """Raises NotFound, and LandmarkFileError naming points that a person put outside of the image."""
        path = self.study.image_path(image_id)
        with suppress(ImageRejected):  # an image that was damaged since keeps no one from saving
            geometry = describe(path, self.study.task.dims).geometry
            check_inside(landmarks.stated(), geometry, image_id, self._allow_outside, "the server's setting allow_outside (mm)")

    def _parsed(self, name: str, content: bytes, image_id: str) -> LandmarkSet:
        """A label file a client sent. Raises LandmarkFileError."""
        name = name.lower()
        if not name.endswith((MARKUPS_SUFFIX, FCSV_SUFFIX)):
            raise LandmarkFileError("label", [f"a file ending {Path(name).suffix[:40]!r}; landmarks are .mrk.json or .fcsv"])
        parse = parse_fcsv if name.endswith(FCSV_SUFFIX) else parse_markups
        return parse(content, self.study.task, "label", self.study.plane_of(image_id))

    def tag(self, tag: object) -> str:
        """A tag to write under, which names a folder. Raises UsageError for one that differs from a known one by case only."""
        tag = _tag(tag)
        for known in (FINAL, *self._tags()):
            if known != tag and known.casefold() == tag.casefold():
                raise UsageError(f"label tag {tag!r} differs from {known!r} only by case; use {known!r}")
        return tag

    def _label_path(self, image_id: str, tag: str) -> Path:
        folder = self.study.folder / "labels" / _tag(tag)
        if folder.is_symlink():  # to ``final`` it would pass by the revisions, to elsewhere out of the study
            raise UsageError(f"label tag {str(tag)[:40]!r} is a link in the study's folder: only real folders are served")
        return safe_join(folder, image_id, MARKUPS_SUFFIX)

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        return {tag: image_id for tag in self._tags() if self._label_path(image_id, tag).is_file()}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        return image_id if self._label_path(image_id, tag).is_file() else ""

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Path of a label file. Raises NotFound, or StoreFault where the server cannot read it."""
        path = self._label_path(label_id, label_tag)
        if not path.is_file():
            raise NotFound(f"there is no label {label_id!r} with tag {label_tag!r}")
        if not os.access(path, os.R_OK):
            raise StoreFault(f"the label file of {label_id} cannot be read by the server: the operator has to allow it")
        return str(path)

    def get_label(self, label_id: str, label_tag: str, params=None):
        return Path(self.get_label_uri(label_id, label_tag)).read_bytes()

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Take a label back: a final one by a revision without landmarks, another by deleting its file."""
        if self.tag(label_tag) != FINAL:
            self._label_path(label_id, label_tag).unlink(missing_ok=True)
            return
        empty = LandmarkSet.empty(self.study.task)
        self.study.save(label_id, empty, author=caller().name, source="removed")  # a revision too: it can be restored

    def get_label_info(self, label_id: str, label_tag: str) -> dict:
        """Names of the landmarks and, of a final label, the number, author and time of its revision."""
        info: dict = {"label_names": {n: i for i, n in enumerate(self.study.task.names)}}
        if _tag(label_tag) == FINAL:
            head = self.study.revisions.head(label_id)
            info |= {"revision": head.number, "author": head.author, "created": head.created} if head else {}
        return {"params": info, **info}

    def update_label_info(self, label_id: str, label_tag: str, info: dict) -> None:
        raise UsageError("label information follows from the revisions; submit a new label instead")

    def datalist(self) -> list[dict]:
        """Paths of every labelled image and its final label."""
        folder = self.study.folder / "labels" / FINAL
        images = self.study.images()
        return [{"image": str(images[i]), "label": str(folder / f"{i}{MARKUPS_SUFFIX}")} for i in self.study.labelled()]

    # --- information -------------------------------------------------------------------------------------------------

    def get_image_info(self, image_id: str) -> dict:
        """The notes that clients have made of an image."""
        self.study.image_path(image_id)
        return self._notes.of(image_id)

    def update_image_info(self, image_id: str, info: dict) -> None:
        """Add to the notes of an image."""
        self.study.image_path(image_id)
        with self.study.writing():
            self._notes.add(image_id, info)

    def status(self) -> dict:
        """How many images there are, how many are labelled, and how many labels each tag has."""
        images, labelled = self.study.images(), self.study.labelled()
        return {
            "total": len(images),
            "completed": len(labelled),
            "label_tags": {tag: self._count(tag) for tag in self._tags()},
            "train": [],
        }

    def _count(self, tag: str) -> int:
        return sum(1 for _ in (self.study.folder / "labels" / tag).glob(f"*{MARKUPS_SUFFIX}"))

    def json(self) -> dict:
        """All images with their notes and labels, as MONAI Label lists a datastore."""
        infos = self._notes.of_all()
        objects = {}
        for image_id, path in self.study.images().items():
            tags = self.get_labels_by_image_id(image_id)
            labels = {tag: {"ext": MARKUPS_SUFFIX, "info": self._readable_info(image_id, tag)} for tag in tags}
            suffix = path.name[len(image_id) :] if path.is_file() else ""
            objects[image_id] = {"image": {"ext": suffix, "info": infos.get(image_id, {})}, "labels": labels}
        return {"name": self.name(), "description": self.description(), "objects": objects}

    def _readable_info(self, image_id: str, tag: str) -> dict:
        """As ``get_label_info``; one that cannot be read must not hide the others."""
        try:
            return self.get_label_info(image_id, tag)
        except LandmarkLabelError as error:
            return {"error": str(error)}

    def _tags(self) -> list[str]:
        folder = self.study.folder / "labels"
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and _TAG.fullmatch(p.name))

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        raise UsageError("ask GET /datastore/dataset: the archive has no name on disk")

    def write_archive(self, file: BinaryIO, limit_cases: int | None = None) -> None:
        """Images and labels of the labelled cases as a zip; ``left_out.txt`` in it names what could not be read.

        Raises:
            OSError: the archive cannot be written.
        """
        left_out = []
        with zipfile.ZipFile(file, "w", strict_timestamps=False) as archive:
            for image_id in list(self.study.labelled())[:limit_cases]:
                try:
                    self._write_case(archive, image_id)
                except (LandmarkLabelError, ValueError) as error:  # a label, or a file name that no zip can hold
                    left_out.append(f"{image_id}: {error}")
                except OSError as error:
                    if error.errno in DISK_FULL:  # of the archive, not of the case
                        raise
                    left_out.append(f"{image_id}: {error.strerror or type(error).__name__}")
            if left_out:
                archive.writestr(LEFT_OUT, "".join(f"{line}\n" for line in left_out))

    def _write_case(self, archive: zipfile.ZipFile, image_id: str) -> None:
        """The label as the store has it, then the image: nothing of a case whose label or image cannot be read."""
        if (landmarks := self.study.labels(image_id)) is None:
            raise StudyError(f"{image_id} has no label any more")
        label, image = dump_markups(landmarks, plane=self.study.plane_of(image_id)), self.study.image_path(image_id)
        parts = sorted(p for p in image.rglob("*") if p.is_file()) if image.is_dir() else [image]
        for part in parts:
            with part.open("rb"):
                pass  # raises before anything of the case is written
        for part in parts:
            archive.write(part, part.relative_to(self.study.folder))
        archive.writestr(f"labels/{FINAL}/{image_id}{MARKUPS_SUFFIX}", label)

    def refresh(self) -> None:
        self.study.sync()


def submitted(landmarks: LandmarkSet) -> LandmarkSet:
    """A label as its author meant it: submitting a case as final accepts the predictions left in it."""
    status = tuple(Status.ACCEPTED if s is Status.PREDICTED else s for s in landmarks.status)
    return LandmarkSet(landmarks.task, landmarks.positions_mm, status)


def _tag(tag: object) -> str:
    tag = getattr(tag, "value", tag)
    if not isinstance(tag, str) or not _TAG.fullmatch(tag) or ".." in tag:
        raise UsageError(f"label tag {str(tag)[:40]!r} is not allowed: letters, digits, '_', '-' and '.'")
    return tag
