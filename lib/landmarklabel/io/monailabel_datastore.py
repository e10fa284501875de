"""A MONAI Label datastore (``datastore_v2.json``) as its local server keeps one: images, and label files by tag."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from landmarklabel.errors import LandmarkFileError, StudyError
from landmarklabel.io.files import FCSV_SUFFIX, MARKUPS_SUFFIX, image_id_of, image_suffix
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.tables import decode, read_limited

RECORD = "datastore_v2.json"
FINAL, PROPOSED = "final", "original"  # its tags: what a person submitted last, what a model answered
_AUTHORS = ("annotator", "author", "user", "client_id")  # of a label's info, the most telling first


@dataclass(frozen=True)
class StoredLabel:
    """A label file: where it is, under which tag, who made it and when (UTC, ISO 8601; empty where it is not said)."""

    path: Path
    tag: str
    author: str
    made: str


@dataclass
class Datastore:
    """What a datastore holds.

    Args:
        images: id to file.
        labels: id to label files with landmarks, the oldest first and the final one last.
        left_out: name of a file to why it is not taken.
    """

    images: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, list[StoredLabel]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def read_datastore(folder: str | Path) -> Datastore:
    """Read a datastore's record.

    Raises:
        StudyError: no record there, or one that leads out of the folder.
        LandmarkFileError: a record that is not one.
    """
    folder = Path(folder).resolve()
    path = folder / RECORD
    if not path.is_file():
        raise StudyError(f"{folder}: no MONAI Label datastore (it has no {RECORD})")
    try:
        content = json.loads(decode(read_limited(path, LIMITS.datastore_bytes), str(path), LIMITS.datastore_bytes))
        objects = content["objects"].items()
        images, labels = (
            _inside(folder, content.get(key, usual)) for key, usual in (("images_dir", "."), ("labels_dir", "labels"))
        )
        found = Datastore()
        for name, one in objects:
            _add(found, str(name), one, images, labels)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise LandmarkFileError(str(path), [f"not a record of a MONAI Label datastore ({type(error).__name__})"]) from None
    known = {path.name for path in found.images.values()}
    for path in sorted(images.iterdir()) if images.is_dir() else ():
        if path.is_file() and image_suffix(path) and path.name not in known:
            found.left_out[path.name] = f"{RECORD} does not name it"
    return found


def _inside(folder: Path, name: str) -> Path:
    place = (folder / name).resolve()
    if not place.is_relative_to(folder):
        raise StudyError(f"{folder / RECORD} names the folder {name!r}, which is outside of the datastore")
    return place


def _file(folder: Path, name: str) -> Path | None:
    """A file of this name directly in ``folder``; None where there is none, or the name is a path."""
    if Path(name).name != name or name in (".", "..") or len(name.encode()) > 255:
        return None
    path = folder / name
    return path if path.exists() else None


def _add(found: Datastore, name: str, one: dict, images: Path, labels: Path) -> None:
    image_name = name + str(one["image"].get("ext", ""))
    image = _file(images, image_name)
    if image is None:
        found.left_out[image_name[:100]] = f"{RECORD} names it, but it is not there"
        return
    image_id = image_id_of(image)
    if image_id in found.images:
        raise StudyError(f"{found.images[image_id].name} and {image_name} would both be image {image_id!r}; rename one")
    found.images[image_id] = image
    stored = []
    for tag, label in one.get("labels", {}).items():
        label_name = name + str(label.get("ext", ""))
        shown = f"{labels.name}/{tag}/{label_name}"
        path = _file(labels / tag, label_name) if Path(tag).name == tag and tag not in (".", "..") else None
        if path is None:
            found.left_out[shown] = f"{RECORD} names it, but it is not there"
        elif not label_name.endswith((MARKUPS_SUFFIX, FCSV_SUFFIX)):
            found.left_out[shown] = "not a file of landmarks; --masks takes segmentations"
        else:
            info = label.get("info") or {}
            author = next((str(info[key]) for key in _AUTHORS if info.get(key)), "" if tag == FINAL else tag)
            stored.append(StoredLabel(path, tag, author or "import", _time(info.get("ts"))))
    found.labels[image_id] = sorted(stored, key=lambda s: (s.tag == FINAL, s.tag != PROPOSED, s.made))


def _time(seconds: object) -> str:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 2**33:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
