"""Files that must be refused, one per fault: one folder per kind, and in its ``faults.json`` what the error about each says."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

FAULTS = "faults.json"
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class HostileFile:
    """A file of the corpus.

    Args:
        path: where it is.
        says: text that its error must contain; None where ``faults.json`` does not name it.
        dims: of the task it is read for.
    """

    path: Path
    says: str | None
    dims: int = 3

    def placed(self, folder: Path, stem: str | None = None) -> Path:
        """A copy in ``folder`` as a reader wants it, a DICOM file in a folder of its own; ``stem`` renames it."""
        name = self.path.name if stem is None else stem + self.path.name[self.path.name.index(".") :]
        target = folder / name
        if name.endswith(".dcm"):
            (folder / "series").mkdir()
            target = folder / "series" / name
        shutil.copyfile(self.path, target)
        return target.parent if name.endswith(".dcm") else target


def hostile_files(kind: str) -> dict[str, HostileFile]:
    """By name, all that is in the folder or in its ``faults.json``: a test fails for what is not in both."""
    folder = HERE / kind
    faults = json.loads((folder / FAULTS).read_text(encoding="utf-8"))
    names = {path.name for path in folder.iterdir()} - {FAULTS} | faults.keys()
    files = {}
    for name in sorted(names):
        entry = faults.get(name)
        files[name] = HostileFile(folder / name, **(entry if isinstance(entry, dict) else {"says": entry}))
    return files
