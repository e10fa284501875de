"""A Study as MONAI Label's datastore: same ids, final labels as revisions, every file checked before it is kept."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import zipfile
from pathlib import Path

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from landmarklabel.errors import LandmarkFileError, NotFound, UsageError
from landmarklabel.io.files import MARKUPS_SUFFIX, atomic_write, check_id, safe_join, write_json
from landmarklabel.io.markups import dump_markups, read_markups
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.server.access import caller
from landmarklabel.store.study import Study

FINAL = DefaultLabelTag.FINAL.value
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


class LandmarkDatastore(Datastore):
    """MONAI Label's 26 methods over a Study.

    Label ids are image ids. Tag ``final`` is the revision store; any other tag (``original`` for predictions) is a plain
    folder ``labels/<tag>/``.
    """

    def __init__(self, study: Study):
        self.study = study
        self._info_file = study.folder / ".landmarklabel" / "image_info.json"
        self._lock = threading.Lock()

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
        return str(self.study.image_path(image_id))

    def get_image(self, image_id: str, params=None):
        return self.study.image_path(image_id).read_bytes()

    def add_image(self, image_id: str, image_filename: str, image_info: dict) -> str:
        self.study.add_image(check_id(image_id), Path(image_filename), author=caller().name)
        if image_info:
            self.update_image_info(image_id, image_info)
        return image_id

    def remove_image(self, image_id: str) -> None:
        self.study.remove_image(image_id, author=caller().name)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return list(self.study.labelled())

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        labelled = self.study.labelled()
        return [i for i in self.study.images() if i not in labelled]

    # --- labels ------------------------------------------------------------------------------------------------------

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict) -> str:
        self.study.image_path(image_id)
        landmarks = self.read_label(Path(label_filename))
        info = label_info if isinstance(label_info, dict) else {}
        if _tag(label_tag) == FINAL:
            base = info.get("base_revision")
            self.study.save(
                image_id,
                landmarks if info.get("partial") else submitted(landmarks),
                author=caller().name or str(info.get("user") or info.get("client_id") or "")[:200],
                source="monailabel client",
                base_revision=base if isinstance(base, int) else None,
                key=str(info["key"])[:200] if info.get("key") else None,
            )
        else:
            model = str(info.get("model", ""))[:100]
            atomic_write(self._label_path(image_id, label_tag), dump_markups(landmarks, model))
        return image_id

    def read_label(self, path: Path) -> LandmarkSet:
        """A label file a client sent. Raises LandmarkFileError."""
        if not path.name.endswith((MARKUPS_SUFFIX, ".json", ".fcsv")):
            raise LandmarkFileError("label", [f"a file ending {path.suffix!r}; landmarks are .mrk.json or .fcsv"])
        try:
            return read_markups(path, self.study.task)
        except LandmarkFileError as error:
            raise LandmarkFileError("label", error.faults) from None

    def _label_path(self, image_id: str, tag: str) -> Path:
        return safe_join(self.study.folder / "labels" / _tag(tag), image_id, MARKUPS_SUFFIX)

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        return {tag: image_id for tag in self._tags() if self._label_path(image_id, tag).is_file()}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        return image_id if self._label_path(image_id, tag).is_file() else ""

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        path = self._label_path(label_id, label_tag)
        if not path.is_file():
            raise NotFound(f"there is no label {label_id!r} with tag {label_tag!r}")
        return str(path)

    def get_label(self, label_id: str, label_tag: str, params=None):
        return Path(self.get_label_uri(label_id, label_tag)).read_bytes()

    def remove_label(self, label_id: str, label_tag: str) -> None:
        if _tag(label_tag) != FINAL:
            self._label_path(label_id, label_tag).unlink(missing_ok=True)
            return
        empty = LandmarkSet.empty(self.study.task)
        self.study.save(label_id, empty, author=caller().name, source="removed")  # a revision too: it can be restored

    def get_label_info(self, label_id: str, label_tag: str) -> dict:
        info: dict = {"label_names": {n: i for i, n in enumerate(self.study.task.names)}}
        if _tag(label_tag) == FINAL:
            head = self.study.revisions.head(label_id)
            info |= {"revision": head.number, "author": head.author, "created": head.created} if head else {}
        return {"params": info, **info}

    def update_label_info(self, label_id: str, label_tag: str, info: dict) -> None:
        raise UsageError("label information follows from the revisions; submit a new label instead")

    def datalist(self) -> list[dict]:
        folder = self.study.folder / "labels" / FINAL
        images = self.study.images()
        return [{"image": str(images[i]), "label": str(folder / f"{i}{MARKUPS_SUFFIX}")} for i in self.study.labelled()]

    # --- information -------------------------------------------------------------------------------------------------

    def get_image_info(self, image_id: str) -> dict:
        self.study.image_path(image_id)
        return self._infos().get(image_id, {})

    def update_image_info(self, image_id: str, info: dict) -> None:
        self.study.image_path(image_id)
        with self._lock:
            everything = self._infos()
            everything[image_id] = {**everything.get(image_id, {}), **_strict(info)}
            write_json(self._info_file, everything)

    def _infos(self) -> dict:
        try:
            return json.loads(self._info_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def status(self) -> dict:
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
        infos = self._infos()
        objects = {}
        for image_id, path in self.study.images().items():
            labels = {
                tag: {"ext": MARKUPS_SUFFIX, "info": self.get_label_info(image_id, tag)}
                for tag in self.get_labels_by_image_id(image_id)
            }
            suffix = path.name[len(image_id) :] if path.is_file() else ""
            objects[image_id] = {"image": {"ext": suffix, "info": infos.get(image_id, {})}, "labels": labels}
        return {"name": self.name(), "description": self.description(), "objects": objects}

    def _tags(self) -> list[str]:
        folder = self.study.folder / "labels"
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and _TAG.fullmatch(p.name))

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file, zipfile.ZipFile(file, "w") as archive:
            for item in self.datalist()[:limit_cases]:
                image, label = Path(item["image"]), Path(item["label"])
                parts = sorted(p for p in image.rglob("*") if p.is_file()) if image.is_dir() else [image]
                for part in parts:
                    archive.write(part, part.relative_to(self.study.folder))
                archive.write(label, label.relative_to(self.study.folder))
        return file.name

    def refresh(self) -> None:
        self.study.sync()


def submitted(landmarks: LandmarkSet) -> LandmarkSet:
    """A label as its author meant it: submitting a case as final accepts the predictions left in it."""
    status = tuple(Status.ACCEPTED if s is Status.PREDICTED else s for s in landmarks.status)
    return LandmarkSet(landmarks.task, landmarks.positions_mm, status)


def _tag(tag: str) -> str:
    tag = getattr(tag, "value", tag)
    if not isinstance(tag, str) or not _TAG.fullmatch(tag) or ".." in tag:
        raise UsageError(f"label tag {str(tag)[:40]!r} is not allowed: letters, digits, '_', '-' and '.'")
    return tag


def _strict(info: object) -> dict:
    """Only what strict JSON can hold."""
    try:
        return json.loads(json.dumps(dict(info), allow_nan=False))
    except (TypeError, ValueError):
        raise UsageError("image information must be a JSON object without NaN") from None
