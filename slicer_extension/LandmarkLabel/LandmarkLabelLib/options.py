"""What an annotator has chosen once and for all, kept on disk. The token is not: it is typed again."""

from __future__ import annotations

import getpass
import json
import uuid
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from .session_files import write_atomically
from .trust import Trust

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
    keep_on_surface: of a case that is a surface, points that are placed are put onto it.
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
    keep_on_surface: bool = True
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
    try:
        return next((p for p in paths if p.is_file()), None)
    except OSError:  # a name longer than the file system allows
        return None


def address_of(text: str) -> str:
    """What a person types, as an address: http where nothing is said, and one spelling of every address."""
    scheme, _, rest = (text if "://" in text else f"http://{text}").partition("://")
    user, at, host = rest.partition("/")[0].rpartition("@")
    if not host:
        return text
    path = rest[len(user + at + host) :]
    return f"{scheme.lower()}://{user}{at}{host.lower()}{path}".rstrip("/")


def file_name(text: str) -> str:
    """A name that a file can have."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text).strip("_") or "case"
