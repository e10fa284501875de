"""A file on its way to the server, piece by piece: requests by itself would hold all of it in memory, twice."""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path
from typing import BinaryIO

TYPE = "application/octet-stream"


class SentFile:
    """One file as the body of a form; for ``requests``, which reads it and asks for its length.

    Args:
        file: open for reading.
        name: as the server is told; its suffix counts.
    """

    def __init__(self, file: BinaryIO, name: str):
        boundary = uuid.uuid4().hex
        quoted = name.replace("\\", "_").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        about = f'Content-Disposition: form-data; name="file"; filename="{quoted}"\r\nContent-Type: {TYPE}'
        head, tail = f"--{boundary}\r\n{about}\r\n\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()
        self.headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        self._length = len(head) + os.fstat(file.fileno()).st_size + len(tail)
        self._parts: list[BinaryIO] = [io.BytesIO(head), file, io.BytesIO(tail)]

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most so many."""
        while self._parts:
            found = self._parts[0].read(size)
            if found:
                return found
            self._parts.pop(0)
        return b""


def name_of(path: Path) -> str:
    """What the server is told instead of a file's own name, which may be a patient's."""
    return "image.nii.gz" if path.name.lower().endswith(".nii.gz") else f"image{path.suffix.lower()}"
