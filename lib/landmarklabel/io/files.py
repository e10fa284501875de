"""File names, ids and atomic writes: the only place that turns an id into a path."""

from __future__ import annotations

import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

from landmarklabel import plugins
from landmarklabel.errors import UsageError
from landmarklabel.portability import sync_file, sync_to_disk

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")  # a study keeps these
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SURFACE_SUFFIXES = (".ply", ".stl", ".obj", ".vtp", ".vtk")
SURFACE_UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}  # in mm: their files seldom state one
SURFACE_FRAMES = ("LPS", "RAS")
# Beside other files, in folders, or surfaces: a study keeps a copy of another kind.
ALSO_READ = (".mhd", ".nhdr", *DICOM_SUFFIXES, *SURFACE_SUFFIXES)
MARKUPS_SUFFIX, FCSV_SUFFIX = ".mrk.json", ".fcsv"
_NO_IMAGES = (MARKUPS_SUFFIX, FCSV_SUFFIX, ".json", ".csv", ".txt")
_PLUGIN_SUFFIX = re.compile(r"\.[a-z0-9][a-z0-9._-]{0,19}")
MOST_ID_BYTES = 255 - len(MARKUPS_SUFFIX) - 24  # of UTF-8: a file name has 255, the trash puts a time of 24 before it
# The first element of a data set: of group 2 or 8, element 0 to 0x18, with the length of text or with a type
_BARE_DICOM = re.compile(rb"[\x02\x08]\0[\0-\x18]\0(U[LI]|CS|.\0\0\0)", re.DOTALL)
_ID = re.compile(r"\w[\w .\-+@()\[\],&=~!]{0,198}", re.UNICODE)


def check_id(image_id: str, what: str = "image id") -> str:
    """Return ``image_id`` if it can safely name a file; raises UsageError otherwise, which says what it is."""
    if not isinstance(image_id, str) or not _ID.fullmatch(image_id) or ".." in image_id or image_id != image_id.strip():
        raise UsageError(
            f"{what} {str(image_id)[:80]!r} is not allowed: use letters, digits, space and _ . - + @ ( ) [ ] , & = ~ !, "
            "starting with a letter, digit or _, without '..'"
        )
    if (size := len(image_id.encode())) > MOST_ID_BYTES:
        raise UsageError(f"{what} {image_id[:80]!r}… has {size} bytes; a file name has room for {MOST_ID_BYTES}: shorten it")
    return image_id


def is_id(image_id: str) -> bool:
    """Whether ``check_id`` takes it."""
    try:
        check_id(image_id)
    except UsageError:
        return False
    return True


def image_suffix(path: str | Path) -> str | None:
    """The image extension of a file name, also of those that a study does not keep, or None when it is no image name."""
    name = Path(path).name.lower()
    return next((s for s in (*IMAGE_SUFFIXES, *ALSO_READ, *plugin_readers()) if name.endswith(s) and len(name) > len(s)), None)


def is_surface(path: str | Path) -> bool:
    """Whether a file's name is that of a surface."""
    return image_suffix(path) in SURFACE_SUFFIXES


@cache
def plugin_readers() -> Mapping[str, EntryPoint]:
    """Suffix to the plugin that reads such files; an entry point's name is the suffix, without its first dot."""
    readers: dict[str, EntryPoint] = {}
    for name, point in plugins.installed(plugins.READERS).items():
        suffix = f".{name.lower()}"
        if suffix in (*IMAGE_SUFFIXES, *ALSO_READ, *_NO_IMAGES):
            plugins.left_out(point, f"the program itself reads {suffix} files")
        elif not _PLUGIN_SUFFIX.fullmatch(suffix):
            plugins.left_out(point, f"{name!r} must be a suffix without its first dot: letters, digits and . _ -")
        else:
            readers[suffix] = point
    return readers


def image_id_of(path: str | Path) -> str:
    """The id of an image: its file name without the image extension (``a.nii.gz`` is ``a``), in Unicode's composed form (NFC)."""
    name = unicodedata.normalize("NFC", Path(path).name)  # macOS writes ü as two characters
    return name[: -len(image_suffix(path) or "")] if image_suffix(path) else name


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder holds DICOM files, by their content, whatever they are called."""
    try:
        return any(looks_like_dicom(p) for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())
    except OSError:
        return False


def hidden_part(folder: Path) -> str:
    """Why what lies in a folder, or some of it, cannot be seen by this user; empty where all of it can."""
    try:
        for path in folder.iterdir():
            path.lstat()
            if not os.access(path, os.R_OK) and os.path.exists(path):
                return f"{path.name} in it may not be read"
    except FileNotFoundError:  # removed meanwhile
        return ""
    except OSError as error:
        return f"the folder may not be read ({error.strerror})"
    return ""


def has_preamble(path: Path) -> bool:
    """Whether a file begins as DICOM files do: 128 bytes of anything, then ``DICM``."""
    return _head(path)[128:] == b"DICM"


def looks_like_dicom(path: Path) -> bool:
    """Whether a file holds DICOM data, by its content; old archives leave out the preamble."""
    head = _head(path)
    return head[128:] == b"DICM" or bool(_BARE_DICOM.match(head))


def _head(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe would have its reader wait
            return b""
        with path.open("rb") as file:
            return file.read(132)
    except OSError:
        return b""


def safe_join(folder: str | Path, image_id: str, suffix: str = "") -> Path:
    """``folder / (image_id + suffix)``, after checking the id and that the result stays inside the folder."""
    path = Path(folder) / (check_id(image_id) + suffix)
    if path.resolve().parent != Path(folder).resolve():
        raise UsageError(f"{path.name} is a link to another folder; put the file itself there")
    return path


def atomic_write(path: str | Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a whole file so that a crash leaves either the old or the new content, on disk (fsync of file and folder).

    Without ``durable`` it outlives a killed process and not a power failure, after which the file may be old, empty or gone.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{_end_of(path.name)}.")
        os.close(handle)
        try:
            write_to_disk(temporary, data, durable=durable)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if durable:
            sync_to_disk(path.parent)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Have an OSError of the system name this file: that of a full disk names none, and another perhaps a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # one with a text alone, as libraries raise it, would lose that text by a file name
            error.filename = str(path)
            del error.filename2
        raise


def write_to_disk(path: str | Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file, readable for all, and return when it is on disk. Raises OSError, perhaps with a part written."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644), "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            sync_file(file.fileno())
    os.chmod(path, 0o644)


def _end_of(name: str) -> str:
    """At most 100 bytes of a name, its suffixes among them: a name of few characters may have many bytes."""
    return name.encode()[-100:].decode(errors="ignore")


def write_json(path: str | Path, content: object, *, durable: bool = True) -> None:
    """Write a file atomically as readable, strict JSON (no NaN); ``durable`` as for ``atomic_write``."""
    atomic_write(path, json.dumps(content, indent=1, allow_nan=False) + "\n", durable=durable)


def check_empty(folder: Path, option: str) -> None:
    """Raise UsageError where a folder that is to be filled has something in it already; ``option`` is how to give another."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already, and not empty: give another {option}")
