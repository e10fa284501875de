"""A study in one file, taken while its server runs, and a study made of such a file.

Decision: all that can be made again is left out (caches, label files of final labels). What was added or changed while others
were copied is looked for until nothing is left; the last look and the revisions are taken under the study's lock: whatever was
acknowledged before the file has its name is in it.
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
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from landmarklabel import __version__
from landmarklabel.errors import LandmarkLabelError, StudyError, UsageError
from landmarklabel.io.files import MARKUPS_SUFFIX
from landmarklabel.io.locks import locked
from landmarklabel.portability import sync_file, sync_to_disk
from landmarklabel.services.backup_files import FINAL, OWN, REVISIONS, Contents, look
from landmarklabel.services.limits import LIMITS
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.database import file_faults, store_faults
from landmarklabel.store.opening import recorded_task
from landmarklabel.store.study import Study
from landmarklabel.store.study_task import read_record

MANIFEST = "backup.json"
_FORMAT = "landmarklabel-backup"


@dataclass(frozen=True)
class BackedUp:
    """What a backup holds.

    Args:
        revisions: their number.
        left_out: name of what is not in it to the reason.
        damaged: what is wrong with the revisions in it, one text each.
    """

    revisions: int
    left_out: dict[str, str]
    damaged: list[str]


def back_up(study: str | Path, file: str | Path) -> BackedUp:
    """Write a study into one .zip file; label files that were edited by hand become revisions first.

    Args:
        study: folder; a server may run on it.
        file: made at once when all is in it; must not exist.

    Raises:
        UsageError: the file exists, lies in the study, or in no folder. StudyError: no study, one that ``restore`` could not
            open, or its revisions are lost or in another database. Busy: others write for too long. StoreFault: the file
            cannot be written, or the database cannot be read.
    """
    study, file = Path(study).absolute(), Path(file).absolute()
    if os.path.lexists(file):
        raise UsageError(f"{file} exists; give another name")
    if study.resolve() in file.resolve().parents:
        raise UsageError(f"{file} would lie in the study itself; give another folder")
    if not file.parent.is_dir():
        raise UsageError(f"{file.parent} is {'no folder' if file.parent.exists() else 'not there'}; make the folder first")
    kept_labels, damaged = _brought_up_to_date(study)
    with file_faults(str(file)):
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        os.close(handle)
    temporary = Path(name)
    try:
        with file_faults(str(file)):
            count, left_out = _written(study, temporary, file, kept_labels)
    finally:
        temporary.unlink(missing_ok=True)
    return BackedUp(count, left_out, damaged)


def _brought_up_to_date(study: Path) -> tuple[frozenset[str], list[str]]:
    """Take in edits of label files; names of those that no revision tells of, and what is wrong with the revisions."""
    own = study / OWN
    if not own.is_dir():
        raise StudyError(f"{study}: no study (it has no folder {OWN})")
    record = read_record(study)
    if record is not None and record.elsewhere or not (own / REVISIONS).is_file():
        raise StudyError(f"{study}: its revisions are in another database; back that up with its own tools, and copy the folder")
    labels = list((study / FINAL).glob(f"[!.]*{MARKUPS_SUFFIX}"))
    if labels and (own / REVISIONS).stat().st_size == 0:
        raise StudyError(f"{own / REVISIONS} is empty, and {FINAL} holds {len(labels)} label files: restore an earlier backup")
    if record is None:
        raise StudyError(f"{study}: no record of its task (study.json); open it once: landmarklabel serve --studies … --task …")
    with Study.open(study) as opened:
        if labels and not opened.revisions.latest_row():
            raise StudyError(
                f"{study}: {FINAL} holds {len(labels)} label files, and there are no revisions: restore an earlier backup; "
                "if you made the files yourself, landmarklabel study status makes revisions of them"
            )
        damaged = opened.revisions.verify()
        opened.take_in_edits()
        return frozenset(path.name for path in opened.only_files()), damaged


def _written(study: Path, temporary: Path, file: Path, kept_labels: frozenset[str]) -> tuple[int, dict[str, str]]:
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        filling = _Filling(archive, lambda: look(study, kept_labels, file))
        filling.fill()
        _sync(temporary)  # while others may still write
        with locked(study / OWN / "lock", CONFIG.lock_timeout_s), tempfile.TemporaryDirectory() as place:
            copy = Path(place) / REVISIONS
            count = _copy_database(study / OWN / REVISIONS, copy)
            database = _add(archive, copy, f"{OWN}/{REVISIONS}")
            changing = filling.fill()
            sums = {**filling.sums, f"{OWN}/{REVISIONS}": database}
            about = {"format": _FORMAT, "version": 1, "program": __version__, "revisions": count, "sha256": sums}
            archive.writestr(MANIFEST, json.dumps(about, indent=1))
            archive.close()
            _sync(temporary)
            temporary.rename(file)  # still under the lock: nothing is acknowledged that is not in it
            sync_to_disk(file.parent)
    never_quiet = "it changes all the time: the newest of it is left out"
    return count, filling.left_out | dict.fromkeys(changing, never_quiet)


class _CannotRead(Exception):
    """A file of the study, not the backup."""


class _Filling:
    """An archive while a study's files are put into it.

    Args:
        archive: open for writing.
        look: what the study holds now.
    """

    def __init__(self, archive: zipfile.ZipFile, look: Callable[[], Contents]):
        self._archive, self._look = archive, look
        self._stamps: dict[str, tuple[int, ...]] = {}  # of each file when it was read
        self.sums: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    def fill(self) -> list[str]:
        """Copy what is new, changed or gone since, until nothing is; names of what still changed after some rounds."""
        changed: list[str] = []
        for _ in range(LIMITS.backup_rounds):
            if not (changed := self._round()):
                break
        return changed

    def _round(self) -> list[str]:
        contents = self._look()
        self.left_out, changed = dict(contents.left_out), [name for name in self.sums if name not in contents.files]
        for name in changed:
            self._forget(name)
        for name, path in contents.files.items():
            try:
                stamp = _stamp(path)
                if self._stamps.get(name) != stamp:
                    self._forget(name)
                    self.sums[name] = _add(self._archive, path, name)
                    self._stamps[name] = stamp
                    changed.append(name)
            except FileNotFoundError:  # removed meanwhile
                self._forget(name)
            except _CannotRead as error:
                self._forget(name)
                self.left_out[name] = f"it cannot be read ({error})"
        return changed

    def _forget(self, name: str) -> None:
        """Strike a file from the archive's list; ``restore`` does not see what the archive still holds of it."""
        self.sums.pop(name, None)
        self._stamps.pop(name, None)
        if (entry := self._archive.NameToInfo.pop(name, None)) is not None:
            self._archive.filelist.remove(entry)


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> str:
    """Put a file into the archive; its SHA-256. Raises _CannotRead, FileNotFoundError; OSError of the archive."""
    digest = hashlib.sha256()
    try:
        source = path.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _CannotRead(error.strerror or error) from None
    with source, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as target:
        while block := _block(source.read):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def _block(read: Callable[[int], bytes]) -> bytes:
    try:
        return read(LIMITS.block_bytes)
    except OSError as error:
        raise _CannotRead(error.strerror or error) from None


def _sync(path: Path) -> None:
    with path.open("r+b") as written:
        sync_file(written.fileno())


def _copy_database(source: Path, target: Path) -> int:
    """A snapshot of an SQLite database that others may use; the number of its revisions. Raises StoreFault, Busy."""
    with store_faults(), closing(sqlite3.connect(source)) as now, closing(sqlite3.connect(target)) as copy:
        now.backup(copy)
        return int(copy.execute("SELECT COUNT(*) FROM revisions").fetchone()[0])


def restore(file: str | Path, study: str | Path) -> int:
    """Make a study of a file that ``back_up`` wrote; the number of its revisions.

    Args:
        file: of a backup.
        study: folder; must not exist.

    Raises:
        UsageError: the folder exists or cannot be made, or there is no such file. StudyError: the file is no backup, or
            damaged; nothing is left of it then.
    """
    file, study = Path(file), Path(study).absolute()
    if not file.is_file():
        raise UsageError(f"{file} is {'no file' if file.exists() else 'not there'}; give a file that landmarklabel backup made")
    for above in study.parents:
        if above.exists() and not above.is_dir():
            raise UsageError(f"{above} is no folder, so {study.name} cannot be made in it; give another place")
    if os.path.lexists(study):
        raise UsageError(f"{study} exists; give a folder that does not")
    place = study.parent / f".{study.name}.{secrets.token_hex(4)}"
    try:
        with file_faults(str(study)):
            study.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir()
            count = _unpacked(file, place)
            _show_labels(file, place)
            place.rename(study)
            sync_to_disk(study.parent)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(place)
        raise
    return count


def _show_labels(file: Path, place: Path) -> None:
    """Write the label files of an unpacked study, before it has its name."""
    try:
        if recorded_task(place) is None:
            raise StudyError("no record of its task (study.json)")
        with Study.open(place) as opened:
            opened.sync()
    except LandmarkLabelError as error:
        why = str(error).replace(f"{place}{os.sep}", "")
        raise StudyError(f"{file}: the study in it cannot be opened ({why}); nothing was restored, use another backup") from None


def _unpacked(file: Path, place: Path) -> int:
    try:
        with _opened(file) as archive:
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


def _opened(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except OSError as error:
        raise StudyError(f"{file} cannot be read ({error.strerror or error})") from None


def _extract(archive: zipfile.ZipFile, name: str, target: Path) -> str:
    digest = hashlib.sha256()
    with archive.open(name) as source, target.open("xb") as written:
        while block := source.read(LIMITS.block_bytes):
            digest.update(block)
            written.write(block)
        written.flush()
        sync_file(written.fileno())
    return digest.hexdigest()
