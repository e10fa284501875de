"""What an annotator has chosen once and for all, kept on disk. The token is not: it is typed again."""

from __future__ import annotations

import getpass
import hashlib
import json
import uuid
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO

from .local_programs import LocalServerError, hold
from .session import write_atomically
from .trust import Trust

MOST_PROGRAMS = 9  # that are open for one server at once
_HELD: dict[Path, IO] = {}  # locks of this program, until it ends
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


@dataclass
class Options:
    """Args:
    url: of the server.
    author: who annotates.
    local_folder: where the study's images lie on this computer, so that they need not be downloaded; empty for nowhere.
    predict_at_once: ask for proposals as soon as a case opens.
    follow_drag: the other slice views follow a point that is dragged.
    minutes: of a training.
    certificate: file with the certificates that are believed over https; empty for those of the system.
    trusted: fingerprints of certificates that were confirmed, by the server's address.
    source: wheel or folder from which a server on this computer is installed.
    study: folder that it serves.
    task: its task: a file, or the name of one that comes with the program; empty where the study knows it.
    leave_out: landmarks, with commas between them, that an export leaves out.
    client_id: tells this installation from others, so that nobody else gets the case that is open here.
    """

    url: str = "http://127.0.0.1:8000"
    author: str = field(default_factory=_user)
    local_folder: str = ""
    predict_at_once: bool = False
    follow_drag: bool = True
    minutes: float = 10.0
    certificate: str = ""
    trusted: dict = field(default_factory=dict)
    source: str = ""
    study: str = ""
    task: str = ""
    leave_out: str = ""
    client_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def save(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self)))

    @property
    def trust(self) -> Trust:
        """Whose certificates are believed for the server's address."""
        return Trust(self.certificate, str(self.trusted.get(self.url.rstrip("/"), "")))

    @staticmethod
    def load(path: Path) -> Options:
        """What is in the file; the defaults for what is not, or not of its type."""
        options = Options()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            kept = {f.name: content[f.name] for f in fields(Options) if f.name in content}
        except (OSError, ValueError, TypeError):
            return options
        for name, value in kept.items():
            if type(value) is type(getattr(options, name)):
                setattr(options, name, value)
        return options


def local_image(folder: str, image_id: str) -> Path | None:
    """The file of a case in a folder of this computer; None where there is none, or the id is no plain name."""
    if not folder or not image_id or image_id.startswith(".") or set(image_id) & set("/\\:\0"):
        return None
    paths = (Path(folder) / f"{image_id}{suffix}" for suffix in IMAGE_SUFFIXES)
    return next((p for p in paths if p.is_file()), None)


def address_of(text: str) -> str:
    """What a person types, as an address: http where nothing is said."""
    return text if "://" in text or not text else f"http://{text}"


def own_folder(base: Path, place: str) -> tuple[Path, bool]:
    """Where this program keeps the work for one server, and whether it is the first one: two never write the same files."""
    for number in range(1, MOST_PROGRAMS + 1):
        folder = folder_of(base, place)
        folder = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        if folder in _HELD:
            return folder, number == 1
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _HELD[folder] = hold(folder / "in_use.lock", "taken")
        except LocalServerError:
            continue
        return folder, number == 1
    return folder, False


def folder_of(base: Path, url: str) -> Path:
    """Where the work for one server is kept: what was made for one never goes to another."""
    return base / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]


def file_name(text: str) -> str:
    """A name that a file can have."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text).strip("_") or "case"
