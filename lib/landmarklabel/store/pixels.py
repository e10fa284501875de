"""Which pixels an image has now: hashes of decoded pixels and geometry, kept until the file's stamp changes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from landmarklabel.errors import Busy, ImageRejected
from landmarklabel.io.images import read_image
from landmarklabel.io.memory import is_for_want_of_memory
from landmarklabel.io.pixels import pixel_hash
from landmarklabel.store.configuration import CONFIG

UNREADABLE = "unreadable"  # instead of a hash
PIXELS_NOTED = "pixels noted"  # in the audit trail: of an image whose newest label is older than hashes of pixels


class PixelHashes:
    """The pixel hashes of a study's images, remembered in a file of JSON lines that may be lost.

    Args:
        memory: that file.
        compute: the hash of an image file or DICOM folder; raises ImageRejected.
    """

    def __init__(self, memory: Path, compute: Callable[[Path], str]):
        self._memory, self._compute = memory, compute
        self._known: dict[str, tuple[str, str]] = {}  # path to stamp and hash
        self._load()

    def of(self, path: Path) -> str:
        """The hash of an image's pixels as they are now. Raises ImageRejected; Busy where memory is wanting to read them."""
        before = stamp(path)
        known = self._known.get(str(path))
        if known is not None and known[0] == before:
            return known[1]
        try:
            computed = self._compute(path)
        except ImageRejected as error:
            if is_for_want_of_memory(error):  # which says nothing of the image
                raise Busy(f"{error}; try again when other work takes less memory") from None
            raise
        self.note(path, computed, before)
        return computed

    def note(self, path: Path, value: str, before: str, *, sure: bool = False) -> None:
        """Remember the hash of an image whose stamp was ``before`` when it was read; ``sure``: nobody else wrote it just now."""
        newest = int(before.split(" ", 1)[0] or 0)  # 0: there is no such file
        known = self._known.get(str(path)) == (before, value)
        if not known and stamp(path) == before and (sure or newest < time.time_ns() - CONFIG.mtime_settled_ns):
            self._known[str(path)] = before, value
            with suppress(OSError), self._memory.open("a", encoding="utf-8") as file:  # only a memory
                file.write(json.dumps([str(path.name), before, value]) + "\n")

    def unchanged(self, path: Path) -> str | None:
        """The hash as far as it is known without reading the image; None where it has to be computed."""
        known = self._known.get(str(path))
        return known[1] if known is not None and known[0] == stamp(path) else None

    def _load(self) -> None:
        folder = self._memory.parents[2]
        with suppress(OSError, ValueError):
            for line in self._memory.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, TypeError):
                    name, before, value = json.loads(line)
                    self._known[str(folder / name)] = str(before), str(value)


def hashes_of(study: Path, dims: int) -> PixelHashes:
    """Those of a study's images; of another folder nothing is remembered for the next time."""
    return PixelHashes(study / ".landmarklabel" / "cache" / "pixels.jsonl", lambda path: pixel_hash(read_image(path, dims)))


def stamp(path: Path) -> str:
    """Time of the newest change, then what else tells a changed file or folder of files from what it was; "" for none."""
    try:
        found = [entry.stat() for entry in os.scandir(path)] if path.is_dir() else [path.stat()]
    except OSError:
        return ""
    newest = max((max(s.st_mtime_ns, s.st_ctime_ns) for s in found), default=0)
    return f"{newest} {len(found)} {sum(s.st_size for s in found)} {sum(s.st_mtime_ns for s in found) % 2**63} {_inodes(found)}"


def changed_ns(path: Path) -> int:
    """When an image file, or a file in its folder, last came to be as it is; 0 where there is none."""
    return int(stamp(path).split(" ", 1)[0] or 0)


def _inodes(found: list[os.stat_result]) -> int:
    return sum(s.st_ino for s in found) % 2**63
