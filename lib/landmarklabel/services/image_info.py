"""What people noted about images: one small file per image, so that what is noted of one can never reach another."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from landmarklabel.errors import LandmarkLabelError, Unusable
from landmarklabel.io.files import atomic_write, safe_join
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.request_values import checked, form_object


class ImageInfo:
    """The notes of a study's images, in ``.landmarklabel/image_info/<id>.json``.

    An older study has those of all images in one file, which is read and never written again.

    Args:
        folder: ``.landmarklabel``.
    """

    def __init__(self, folder: Path):
        self._folder, self._older = folder / "image_info", folder / "image_info.json"
        self._lock = threading.Lock()

    def of(self, image_id: str) -> dict:
        """An image's notes; none where they cannot be read."""
        try:
            return _usable(form_object(self._path(image_id).read_text(encoding="utf-8"), "image information"))
        except FileNotFoundError:
            return self._of_older().get(image_id, {})
        except (OSError, ValueError, LandmarkLabelError):
            return {}

    def of_all(self) -> dict[str, dict]:
        """Image id to notes, where there are any."""
        ids = {p.stem for p in self._folder.glob("[!.]*.json")} if self._folder.is_dir() else set()
        return self._of_older() | {image_id: self.of(image_id) for image_id in ids}

    def check(self, image_id: str, info: object) -> dict:
        """The image's notes with ``info`` added, as they would be kept. Raises Unusable."""
        if not isinstance(info, dict):
            raise Unusable("image information must be a JSON object")
        return _usable({**self.of(image_id), **info})

    def add(self, image_id: str, info: object) -> None:
        """Keep notes beside those that are there. Raises Unusable, UsageError for a bad id, OSError."""
        with self._lock:
            whole = self.check(image_id, info)
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self._path(image_id), json.dumps(whole, allow_nan=False) + "\n")

    def _path(self, image_id: str) -> Path:
        return safe_join(self._folder, image_id, ".json")

    def _of_older(self) -> dict[str, dict]:
        try:
            content = json.loads(self._older.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        found = {}
        for image_id, info in content.items() if isinstance(content, dict) else ():
            try:
                found[image_id] = _usable(info)
            except Unusable:
                continue
        return found


def _usable(info: object) -> dict:
    """Notes that any answer may hold. Raises Unusable."""
    if not isinstance(info, dict):
        raise Unusable("image information must be a JSON object")
    checked(info, "image information", LIMITS.note_depth)
    try:
        size = len(json.dumps(info, allow_nan=False).encode())
    except (TypeError, ValueError):
        raise Unusable("image information must be a JSON object without NaN") from None
    if size > LIMITS.note_bytes:
        raise Unusable(f"image information of {size} bytes; one image has room for {LIMITS.note_bytes}: note less")
    return info
