"""A folder of predictions, which goes on after a stop and never loses what a person made in it.

``.predictions.jsonl`` has a line for each file that ``predict`` wrote: its name and SHA-256, the model and pixels it is of, the
unit of the image's distances, and whether the model was trained on it.
The line is on disk before the file, so a file whose content no line knows was made or changed by somebody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path

import numpy as np
from filelock import Timeout

from landmarklabel.errors import LandmarkLabelError, StudyError, listed
from landmarklabel.geometry import SlicePlane
from landmarklabel.io.files import MARKUPS_SUFFIX, atomic_write, check_id, writing
from landmarklabel.io.locks import file_lock, take
from landmarklabel.io.markups import dump_markups, read_markups
from landmarklabel.io.tables import long_text, predictions_text
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.portability import sync_file

NOTES, TABLE, LONG_TABLE = ".predictions.jsonl", "predictions.csv", "predictions_long.csv"
_EARLIER_NOTE = ".model.json"  # of program versions before the notes


class Found(Enum):
    """What lies where an image's prediction belongs."""

    NOTHING = "nothing"
    SAME = "this model's prediction of these pixels"
    OTHER = "a prediction of another model or of other pixels"
    CHANGED = "this image's prediction, changed by hand since"
    CHANGED_OTHER = "a prediction of other pixels, changed by hand since"


class PredictionFolder:
    """A folder that one process at a time writes predictions to (a context manager).

    Args:
        folder: made where it does not exist.
        model: hash of the model whose predictions are written.

    ``is_locked`` is False where the file system keeps no locks, so that nothing keeps another process away.

    Raises:
        StudyError: another process writes to it, or the folder belongs to a study's labels.
    """

    def __init__(self, folder: str | Path, model: str):
        self.folder, self._model = Path(folder), model
        _refuse_study(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = file_lock(self.folder / NOTES)
        try:
            self.is_locked = take(self._lock)
        except Timeout:
            raise StudyError(f"{folder}: another predict is writing there; wait for its end, or give another --out") from None
        self._file = (self.folder / NOTES).open("a+b")
        self._notes = self._read_notes()
        self._remove_torn()
        self._adopt_earlier_version()

    def __enter__(self) -> PredictionFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    def path(self, image_id: str) -> Path:
        """Where an image's prediction belongs. Raises UsageError for an id that cannot name a file."""
        return self.folder / (check_id(image_id) + MARKUPS_SUFFIX)

    def find(self, image_id: str, pixels: str) -> Found:
        """What is there for an image with the pixel hash ``pixels``. Raises StudyError for what ``predict`` did not write."""
        name = self.path(image_id).name
        content, notes = self._content(name), self._notes.get(name, [])
        if content is None:
            return Found.NOTHING
        last = notes[-1]
        if all(note["sha256"] != content for note in notes):
            return Found.CHANGED if last["pixels"] == pixels else Found.CHANGED_OTHER
        wanted = {"sha256": content, "model": self._model, "pixels": pixels}
        return Found.SAME if wanted.items() <= last.items() else Found.OTHER

    def check(self, name: str) -> None:
        """Raises StudyError where a file of this name is there that ``predict`` did not write."""
        self._content(name)

    def check_tables(self) -> None:
        """Raises StudyError where a table is not as ``predict`` wrote it: said before anything is predicted, not after."""
        for name in (TABLE, LONG_TABLE):
            self._check_unchanged(name)

    def _check_unchanged(self, name: str) -> None:
        before = self._content(name)
        if before is not None and all(note["sha256"] != before for note in self._notes[name]):
            raise StudyError(f"{self.folder / name} was changed since predict wrote it and is left alone; move it away")

    def write(
        self, image_id: str, pixels: str, landmarks: LandmarkSet, description: str, plane: SlicePlane | None = None
    ) -> None:
        """Write an image's prediction. Raises StudyError where a person changed the file in the meantime."""
        name = self.path(image_id).name
        self._write(name, dump_markups(landmarks, description, plane).encode(), pixels)

    def tell(self, image_id: str, unit: str, *, trained_on: bool, hardly_trained: bool, flagged: list[str] | None = None) -> None:
        """Note the unit of an image's distances, whether the model was trained on it, whether hardly trained at all, and which
        landmarks of a new prediction it flags."""
        last = self._notes[self.path(image_id).name][-1]
        more = {} if flagged is None else {"flagged": flagged}
        self._append({**last, "unit": unit, "trained_on": trained_on, "hardly_trained": hardly_trained, **more})

    def flagged(self, image_id: str) -> list[str]:
        """The landmarks of an image that the model flagged when it was predicted."""
        names = self._notes[self.path(image_id).name][-1].get("flagged")
        return [str(name) for name in names] if isinstance(names, list) else []

    def write_tables(self, rows: Mapping[str, LandmarkSet]) -> None:
        """Write predictions.csv and predictions_long.csv. Raises StudyError where one is not as ``predict`` wrote it."""
        self._write(TABLE, predictions_text(rows).encode(), "")
        self._write(LONG_TABLE, long_text(rows).encode(), "")

    # --- notes -------------------------------------------------------------------------------------------------------

    def _content(self, name: str) -> str | None:
        """Hash of a file, None where there is none; StudyError for what no note is about."""
        path = self.folder / name
        if not os.path.lexists(path):
            return None
        if name not in self._notes or path.is_symlink() or not path.is_file():
            raise StudyError(f"{path} was not written by predict and is left alone; move it away, or give another --out")
        return _sha256(path)

    def _write(self, name: str, content: bytes, pixels: str) -> None:
        self._check_unchanged(name)
        self._note(name, hashlib.sha256(content).hexdigest(), self._model, pixels)
        atomic_write(self.folder / name, content)

    def _note(self, name: str, sha256: str, model: str, pixels: str) -> None:
        self._append({"file": name, "sha256": sha256, "model": model, "pixels": pixels})

    def _append(self, note: dict) -> None:
        name = note["file"]
        if not any(note.items() <= last.items() for last in self._notes.get(name, [])[-1:]):
            with writing(self.folder / NOTES):
                self._file.write(json.dumps(note).encode() + b"\n")
                self._file.flush()
                sync_file(self._file.fileno())
            self._notes.setdefault(name, []).append(note)

    def _read_notes(self) -> dict[str, list[dict]]:
        """Notes by file name, oldest first. A line that a stop tore is of a file that was not yet written."""
        self._file.seek(0)
        content = self._file.read()
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")
        return _parsed(content)

    def _remove_torn(self) -> None:
        """Half-written files (of ``atomic_write``) that a stopped call left; no other call writes here now."""
        names = {name[:100] for name in self._notes}
        for path in self.folder.glob(".*.????????"):
            torn = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}", path.name)
            if torn and torn[1] in names and path.is_file():
                path.unlink()

    def _adopt_earlier_version(self) -> None:
        """Earlier versions kept one note of the model: what they wrote is predicted anew, what people changed stays theirs."""
        earlier = self.folder / _EARLIER_NOTE
        if not earlier.is_file():
            return
        for path in sorted(self.folder.glob(f"*{MARKUPS_SUFFIX}")):
            if path.name not in self._notes and _is_as_written(path):
                self._note(path.name, _sha256(path), "", "")
        table = self.folder / TABLE
        if TABLE not in self._notes and table.is_file() and not table.is_symlink():
            self._note(TABLE, _sha256(table), "", "")
        earlier.unlink()


def read_notes(folder: str | Path) -> dict[str, dict]:
    """What ``predict`` noted last of each image of a folder, by id; {} where it did not: ``pixels``, ``unit``, ``trained_on``,
    ``hardly_trained``."""
    path = Path(folder) / NOTES
    content = path.read_bytes() if path.is_file() else b""
    named = {name: notes[-1] for name, notes in _parsed(content).items() if name.endswith(MARKUPS_SUFFIX)}
    return {name.removesuffix(MARKUPS_SUFFIX): note for name, note in named.items()}


def not_written_by_predict(folder: str | Path, files: Mapping[str, Path]) -> list[str]:
    """Of which images the label files in a folder of predictions were made or changed by somebody else.

    Args:
        folder: of predictions; none are named where ``predict`` did not write to it.
        files: id to label file in it.
    """
    path = Path(folder) / NOTES
    notes = _parsed(path.read_bytes()) if path.is_file() else {}
    known = {name: {note["sha256"] for note in of_file} for name, of_file in notes.items()}
    return sorted(i for i, file in files.items() if _sha256(file) not in known.get(file.name, ())) if notes else []


def notes_remarks(notes: Mapping[str, Mapping[str, object]]) -> list[str]:
    """What whoever uses predictions should be told of the model, or the models, that made them."""
    hasty = sorted(image_id for image_id, note in notes.items() if note.get("hardly_trained") is True)
    of = f"{len(hasty)} of {len(notes)} predictions ({listed(hasty)})"
    remarks = [f"{of} are of a model that was hardly trained: for trying things out only"] if hasty else []
    models = {note.get("model") for note in notes.values()} - {None, ""}  # "": noted for an earlier version
    return [*remarks, *([f"these are predictions of {len(models)} different models"] if len(models) > 1 else [])]


def _parsed(content: bytes) -> dict[str, list[dict]]:
    notes: dict[str, list[dict]] = {}
    for line in content.splitlines():
        try:
            note = json.loads(line)
            if all(isinstance(note[key], str) for key in ("file", "sha256", "model", "pixels")):
                notes.setdefault(note["file"], []).append(note)
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    return notes


def _is_as_written(path: Path) -> bool:
    """Whether a markups file is to the byte what ``predict`` makes of its content, and no point of it is a person's.

    But for covariances: those of a 2D image cannot be read without its task.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
        if text != _dumped(document):  # saved by another program
            return False
        (markup,) = document["markups"]
        markup["measurements"] = [m for m in markup["measurements"] if not m["name"].startswith("covariance_")]
        content = _dumped(document)
        landmarks = replace(read_markups(path), covariance_mm2=None)
        description = markup["measurements"][0]["description"]
        said = set(landmarks.status) <= {Status.PREDICTED, Status.ABSENT, Status.UNSET}
        unknown = replace(landmarks, radius95_mm=np.full(len(landmarks.task), np.nan))  # all of them unknown is read as none
        written = content in (dump_markups(landmarks, description), dump_markups(unknown, description))
        return said and written and bool(description) and not path.is_symlink()
    except (LandmarkLabelError, OSError, ValueError, LookupError, TypeError):
        return False


def _dumped(document: dict) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_study(folder: Path) -> None:
    """A study's label files are people's: what is put there would become a revision."""
    place = folder.resolve()
    for study in place.parents:
        first, *more = place.relative_to(study).parts
        own = (study / ".landmarklabel").is_dir() and first in ("labels", ".landmarklabel")
        if own or (first == "labels" and more[:1] == ["final"]):
            raise StudyError(f"--out {folder} is inside the {first} folder of a study, which is for labels; give another folder")
