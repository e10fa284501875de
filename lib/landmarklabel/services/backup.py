"""A study in one file, taken while its server runs, and a study made of such a file.

Decision: all that can be made again is left out (caches, label files of final labels), and the revisions come last, under the
study's lock: whatever was acknowledged before the file has its name is in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from landmarklabel import __version__
from landmarklabel.errors import StudyError, UsageError
from landmarklabel.io.locks import locked
from landmarklabel.portability import sync_file, sync_to_disk
from landmarklabel.services.limits import LIMITS
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.database import file_faults
from landmarklabel.store.opening import recorded_task
from landmarklabel.store.study import Study

OWN, MANIFEST, REVISIONS = ".landmarklabel", "backup.json", "revisions.sqlite"
_FORMAT = "landmarklabel-backup"
_REMADE = {"cache", "incoming", "sessions", "app", "lock", "leases.json", "trainings.json", "replaced"}  # or of no use elsewhere


def back_up(study: str | Path, file: str | Path) -> int:
    """Write a study into one .zip file; the number of revisions in it.

    Args:
        study: folder; a server may run on it.
        file: made at once when all is in it; must not exist.

    Raises:
        UsageError: the file exists, or lies in the study. StudyError: no study, or its revisions are in another database.
        Busy: others write for too long. StoreFault: the file cannot be written.
    """
    study, file = Path(study).absolute(), Path(file).absolute()
    own = study / OWN
    if file.exists():
        raise UsageError(f"{file} exists; give another name")
    if study in file.parents:
        raise UsageError(f"{file} would lie in the study itself; give another folder")
    if not own.is_dir():
        raise StudyError(f"{study}: no study (it has no folder {OWN})")
    if not (own / REVISIONS).is_file():
        raise StudyError(f"{study}: its revisions are in another database; back that up with its own tools, and copy the folder")
    with file_faults(file.name):
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        os.close(handle)
    temporary = Path(name)
    try:
        with file_faults(file.name):
            return _written(study, temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _written(study: Path, temporary: Path, file: Path) -> int:
    sums: dict[str, str] = {}
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in _files(study):
            try:
                sums[path.relative_to(study).as_posix()] = _add(archive, path, path.relative_to(study).as_posix())
            except FileNotFoundError:  # removed meanwhile: its removal is in the revisions
                continue
        with locked(study / OWN / "lock", CONFIG.lock_timeout_s), tempfile.TemporaryDirectory() as place:
            copy = Path(place) / REVISIONS
            count = _copy_database(study / OWN / REVISIONS, copy)
            sums[f"{OWN}/{REVISIONS}"] = _add(archive, copy, f"{OWN}/{REVISIONS}")
            about = {"format": _FORMAT, "version": 1, "program": __version__, "revisions": count, "sha256": sums}
            archive.writestr(MANIFEST, json.dumps(about, indent=1))
            archive.close()
            with temporary.open("r+b") as written:
                sync_file(written.fileno())
            temporary.rename(file)  # still under the lock: nothing is acknowledged that is not in it
            sync_to_disk(file.parent)
    return count


def _files(study: Path) -> Iterator[Path]:
    """All files of the study that cannot be made again; links are left alone."""
    for folder, folders, names in os.walk(study):
        place = Path(folder)
        if place == study / OWN:
            folders[:] = [f for f in folders if f not in _REMADE]
            names = [n for n in names if n not in _REMADE and not n.startswith(REVISIONS) and not n.endswith(".lock")]
        elif place == study / "labels":
            folders[:] = [f for f in folders if f != "final"]  # written anew from the revisions
        for name in sorted(names):
            path = place / name
            if path.is_file() and not path.is_symlink():
                yield path


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> str:
    """Put a file into the archive; its SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as source, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as target:
        while block := source.read(LIMITS.block_bytes):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def _copy_database(source: Path, target: Path) -> int:
    """A snapshot of an SQLite database that others may use; the number of its revisions."""
    with closing(sqlite3.connect(source)) as now, closing(sqlite3.connect(target)) as copy:
        now.backup(copy)
        return int(copy.execute("SELECT COUNT(*) FROM revisions").fetchone()[0])


def restore(file: str | Path, study: str | Path) -> int:
    """Make a study of a file that ``back_up`` wrote; the number of its revisions.

    Args:
        file: of a backup.
        study: folder; must not exist.

    Raises:
        UsageError: the folder exists. StudyError: the file is no backup, or damaged; nothing is left of it then.
    """
    file, study = Path(file), Path(study).absolute()
    if study.exists():
        raise UsageError(f"{study} exists; give a folder that does not")
    study.parent.mkdir(parents=True, exist_ok=True)
    place = study.parent / f".{study.name}.{secrets.token_hex(4)}"
    place.mkdir()
    try:
        with file_faults(study.name):
            count = _unpacked(file, place)
            place.rename(study)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    task = recorded_task(study)
    if task is None:
        raise StudyError(f"{study}: the backup has no record of its task")
    with Study.open(study, task) as opened:
        opened.sync()  # writes the label files
    return count


def _unpacked(file: Path, place: Path) -> int:
    try:
        with zipfile.ZipFile(file) as archive:
            about = json.loads(archive.read(MANIFEST))
            if about["format"] != _FORMAT or about["version"] != 1:
                raise StudyError(f"{file}: made by a newer version of this program; update it")
            for name, wanted in about["sha256"].items():
                target = place / name
                if place.resolve() not in target.resolve().parents:
                    raise StudyError(f"{file}: names {name[:80]!r}, which lies outside of a study")
                target.parent.mkdir(parents=True, exist_ok=True)
                if _extract(archive, name, target) != wanted:
                    raise StudyError(f"{file}: {name[:80]} is damaged in it; use another backup")
                if target.name == "tokens.json":
                    target.chmod(0o600)
            return int(about["revisions"])
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, EOFError) as error:
        raise StudyError(f"{file}: no backup of a study, or damaged ({type(error).__name__})") from None


def _extract(archive: zipfile.ZipFile, name: str, target: Path) -> str:
    digest = hashlib.sha256()
    with archive.open(name) as source, target.open("xb") as written:
        while block := source.read(LIMITS.block_bytes):
            digest.update(block)
            written.write(block)
        written.flush()
        sync_file(written.fileno())
    return digest.hexdigest()
