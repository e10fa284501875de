"""The small pictures by which a task shows where its landmarks are: a file's name in a task file that a person writes, a data URI
everywhere else.

Decision: only ``LandmarkTask.load`` reads files. What comes over a network or out of a model has the picture itself, so that no
name from elsewhere becomes a path.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from landmarklabel.task_limits import LIMITS

_KINDS = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_SIZED = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers that begin a frame and state its size


def picture_faults(pictures: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    """What is wrong with data URIs by landmark, one text each."""
    faults = [f"image of {str(name)[:80]!r}, which is no landmark" for name in pictures if name not in names]
    for name, uri in pictures.items():
        if fault := _fault(uri):
            faults.append(f"image of landmark {str(name)[:80]!r} {fault}")
    if sum(len(uri) for uri in pictures.values() if isinstance(uri, str)) > LIMITS.pictures_bytes:
        faults.append(f"images of more than {LIMITS.pictures_bytes >> 20} MiB in all: make them smaller")
    return faults


def embedded(content: Any, folder: Path) -> tuple[Any, list[str]]:
    """The content of a task file with the pictures that it names put into it, and what is wrong with those.

    Args:
        content: of the file, as read.
        folder: the file's, which a name may not lead out of.
    """
    if not isinstance(content, dict) or not isinstance(content.get("landmarks"), list):
        return content, []
    faults, landmarks = [], []
    for row in content["landmarks"]:
        name = row.get("image") if isinstance(row, dict) else None
        if isinstance(name, str) and name and not name.startswith("data:"):
            try:
                row = {**row, "image": data_uri(_inside(folder, name))}
            except ValueError as error:
                faults.append(f"image {name[:80]!r} of landmark {str(row.get('name'))[:80]!r} {error}")
                row = {key: value for key, value in row.items() if key != "image"}
        landmarks.append(row)
    return {**content, "landmarks": landmarks}, faults


def data_uri(path: Path) -> str:
    """A picture's file as a data URI. Raises ValueError: it cannot be read, or is no picture that is taken."""
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise ValueError("is no file")
        with path.open("rb") as file:
            data = file.read(LIMITS.picture_bytes + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    kind = next((kind for kind, magic in _KINDS.items() if data.startswith(magic)), "image/png")
    uri = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    if fault := _fault(uri):
        raise ValueError(fault)
    return uri


def _inside(folder: Path, name: str) -> Path:
    try:
        path = (folder / name).resolve()
    except RuntimeError:
        raise ValueError("is a link to itself") from None
    if Path(name).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise ValueError("lies outside of the task file's folder: put it there")
    return path


def _fault(uri: object) -> str:
    """What is wrong with a data URI; empty where it is a picture that is taken."""
    head, found, text = uri.partition(";base64,") if isinstance(uri, str) else ("", "", "")
    kind = head.removeprefix("data:")
    if not found or not head.startswith("data:") or kind not in _KINDS:
        return "must be a PNG or JPEG file beside the task file, or such a picture as a data URI"
    if len(text) > LIMITS.picture_bytes * 4 // 3 + 4:
        return f"is larger than {LIMITS.picture_bytes // 1024} KiB: make it smaller"
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "is no valid base64"
    if len(data) > LIMITS.picture_bytes:
        return f"is larger than {LIMITS.picture_bytes // 1024} KiB: make it smaller"
    if not data.startswith(_KINDS[kind]):
        return "is no PNG or JPEG"
    size = next(_sizes(kind, data), None)
    if size is None:
        return "is damaged: its size cannot be read"
    fits = min(size) > 0 and max(size) <= LIMITS.picture_pixels
    return "" if fits else f"has {size[0]} x {size[1]} pixels; allowed are 1 to {LIMITS.picture_pixels} each way"


def _sizes(kind: str, data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height, where the file states them."""
    if kind == "image/png":
        if data[12:16] == b"IHDR" and len(data) >= 24:
            yield struct.unpack(">II", data[16:24])
        return
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker in _SIZED:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            yield width, height
            return
        at += 2 + length
