"""Which task a study belongs to: recorded in ``.landmarklabel/study.json``, compared whenever the study is opened.

Decision: identity is the names, their order and the number of dimensions; definitions, mirror pairs and the scale rule may
change. A change of names is decided by the database: what it is going to be is noted first (``pending``), then all labels
get a revision in one transaction, then the record is settled. Whatever a kill leaves, the next one to open the study sees
from the revisions which side it is on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from landmarklabel.errors import ImageRejected, LandmarkLabelError, StudyError, TaskMismatch
from landmarklabel.io.files import MARKUPS_SUFFIX, write_json
from landmarklabel.io.images import describe_image
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.scale_rules import PixelSize, in_words
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.image_files import Listing

FORMAT = "landmarklabel-study"


@dataclass(frozen=True)
class StudyRecord:
    """What ``study.json`` holds.

    Args:
        task: the task of the study.
        renames: (old, new) landmark names, in the order in which they were renamed: revisions made before still hold the old.
        dropped: names that were given up.
        elsewhere: the revisions are in a database of their own, whose URL has to be given.
        pending: the task after a change that may or may not have reached the database, with the renames it adds.
    """

    task: LandmarkTask
    renames: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()
    elsewhere: bool = False
    pending: StudyRecord | None = None

    def to_json(self) -> dict:
        """The content of the file."""
        content = {"format": FORMAT, "version": 1, "task": self.task.to_json(), "renames": [list(pair) for pair in self.renames]}
        content |= {"dropped": list(self.dropped), "elsewhere": self.elsewhere}
        return content | ({"pending": self.pending.to_json()} if self.pending else {})

    @staticmethod
    def from_json(content: dict, what: str) -> StudyRecord:
        """Read the content of the file. Raises StudyError, also for a record of a newer version."""
        try:
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r}")
            if content["version"] != 1:
                raise StudyError(f"{what}: made by a newer version of landmarklabel; use that one")
            renames = tuple((str(old), str(new)) for old, new in content.get("renames", []))
            pending = StudyRecord.from_json(content["pending"], what) if content.get("pending") else None
            dropped = tuple(str(name) for name in content.get("dropped", []))
            task, elsewhere = LandmarkTask.from_json(content["task"], what), bool(content.get("elsewhere"))
            return StudyRecord(task, renames, dropped, elsewhere, pending)
        except StudyError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, LandmarkLabelError) as error:
            raise StudyError(
                f"{what} cannot be read ({type(error).__name__}: {error}); restore it from a backup, or remove it: the study "
                "then takes its task from the labels"
            ) from None


def record_file(folder: str | Path) -> Path:
    """Where a study's record lies."""
    return Path(folder) / ".landmarklabel" / "study.json"


def read_record(folder: str | Path) -> StudyRecord | None:
    """A study's record; None where the folder is no study, or one that is older than records. Raises StudyError."""
    path = record_file(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} cannot be read ({type(error).__name__}); restore it from a backup") from None
    return StudyRecord.from_json(content, str(path))


def write_record(folder: str | Path, record: StudyRecord) -> None:
    """Write the record atomically. Raises OSError."""
    write_json(record_file(folder), record.to_json())


def check_same_task(folder: str | Path, given: LandmarkTask, exactly: bool = False) -> None:
    """Refuse a task that is not the one of the study in ``folder``; a folder without a record has none.

    Raises:
        TaskMismatch: another task; one that only adds landmarks may pass, unless it has to agree ``exactly``.
    """
    record = read_record(folder)
    if record is not None and record.task.hash != given.hash and (exactly or not _only_adds(record.task, given)):
        raise TaskMismatch(mismatch(folder, record.task, given))


def mismatch(folder: str | Path, recorded: LandmarkTask, given: LandmarkTask) -> str:
    """One line that names both tasks, what differs, and what can be done."""
    place = Path(folder).name
    missing, new = _without(recorded.names, given.names), _without(given.names, recorded.names)
    faults = [f"{recorded.dims}D against {given.dims}D"] if recorded.dims != given.dims else []
    faults += [f"only in the study: {_listed(missing)}"] if missing else []
    faults += [f"only in the task given: {_listed(new)}"] if new else []
    faults += ["the same names in another order"] if not missing and not new and recorded.dims == given.dims else []
    remedy = "give the study's own task, or use another folder for the other one"
    if len(missing) == len(new) == 1 and recorded.names.index(missing[0]) == given.names.index(new[0]):
        verb = f"landmarklabel study rename-landmark {place} {missing[0]!r} {new[0]!r}"
        remedy = f"if {new[0]!r} is the new name of {missing[0]!r}: {verb}"
    elif missing and not new:
        remedy = f"to give them up, one at a time: landmarklabel study drop-landmark {place} {missing[0]!r}"
    return (
        f"study {place!r} belongs to task {recorded.name!r} ({len(recorded)} landmarks, {recorded.dims}D), not to task "
        f"{given.name!r} ({len(given)} landmarks, {given.dims}D): {'; '.join(faults)}; nothing was changed; {remedy}"
    )


def settled(folder: str | Path, newest_body: Callable[[], dict | None]) -> StudyRecord | None:
    """A study's record; one of an interrupted change of names is settled first. Raises as ``read_record``, OSError."""
    record = read_record(folder)
    if record is None or record.pending is None:
        return record
    return _after_a_kill(Path(folder), record, record.pending, newest_body())


def settle(folder: Path, given: LandmarkTask, newest_body: Callable[[], dict | None]) -> tuple[StudyRecord, list[str]]:
    """The record of a study that is being opened with a task, made or brought up to date; the caller holds the study's lock.

    Args:
        folder: of the study.
        given: the task it is opened with.
        newest_body: the newest revision's body, of whatever image; None where there is no revision.

    Returns:
        The record, and what a person should be told, one text each.

    Raises:
        TaskMismatch: the study belongs to another task. StudyError: the record is damaged. ImageRejected: an image that the
        task's new scale rule is not for. OSError.
    """
    record, body = settled(folder, newest_body), newest_body()
    on_disk = record
    if given.scale != (on_disk.task.scale if on_disk is not None else None):
        _check_images(folder, given)
    if record is None and body is not None:  # a study that is older than records
        record = StudyRecord(_task_of_body(body, given))
    if record is None:
        return _written(folder, StudyRecord(given)), []
    if record.task.hash == given.hash:
        if on_disk is not None and on_disk.task == given:
            return record, []
        words = [] if on_disk is None else _changed_words(on_disk.task, given)
        return _written(folder, replace(record, task=given)), words
    if body is None and not _has_label_files(folder):
        return _written(folder, StudyRecord(given)), [f"the study had no labels yet: it now belongs to task {given.name!r}"]
    if not _only_adds(record.task, given):
        raise TaskMismatch(mismatch(folder, record.task, given))
    new = _without(given.names, record.task.names)
    for old, today in record.renames:
        if old in new:
            raise TaskMismatch(f"landmark {old!r} cannot be added: labels from before it was renamed to {today!r} have that name")
    said = f"the study's task gains {len(new)} landmarks, unset in the cases labelled so far: {_listed(new)}"
    return _written(folder, replace(record, task=given)), [said, *_scale_words(record.task, given)]


def changed_part(now: StudyRecord, before: StudyRecord) -> str:
    """What has changed that labels or figures depend on, with its verb; empty where nothing has."""
    if now.pending or (now.task.hash, now.renames) != (before.task.hash, before.renames):
        return "landmarks were"
    if now.task.scale != before.task.scale:
        return "scale rule was"
    return "measurements were" if now.task.measurements != before.task.measurements else ""


def _check_images(folder: Path, task: LandmarkTask) -> None:
    """Raise ImageRejected for an image of the study that the task's scale rule is not for, as far as images can be read."""
    if not isinstance(task.scale, PixelSize):
        return
    for image_id, path in Listing.of(folder).images.items():
        try:
            unit = describe_image(path, task.dims).unit
        except ImageRejected:
            continue
        task.check_image(image_id, unit)


def _changed_words(before: LandmarkTask, given: LandmarkTask) -> list[str]:
    """What a person should be told of a task with the same landmarks: what figures mean, and what it is called."""
    said = []
    if before.name != given.name:
        said.append(f"the study's task was called {before.name!r} and is called {given.name!r} now")
    return said + _scale_words(before, given)


def _scale_words(before: LandmarkTask, given: LandmarkTask) -> list[str]:
    if before.scale == given.scale:
        return []
    was, now = in_words(before.scale), in_words(given.scale)
    return [f"the study's scale rule changes ({was} before, {now} now): earlier figures in mm do not compare"]


def _has_label_files(folder: Path) -> bool:
    return any((folder / "labels" / "final").glob(f"*{MARKUPS_SUFFIX}"))


def _after_a_kill(folder: Path, record: StudyRecord, pending: StudyRecord, body: dict | None) -> StudyRecord:
    """A change of names was interrupted: the database says whether it happened."""
    happened = body is not None and body.get("task") == pending.task.hash
    return _written(folder, pending if happened else replace(record, pending=None))


def _written(folder: Path, record: StudyRecord) -> StudyRecord:
    write_record(folder, record)
    return record


def _task_of_body(body: dict, given: LandmarkTask) -> LandmarkTask:
    try:
        names = tuple(entry["name"] for entry in body["landmarks"])
        return given if (names, body["dims"]) == (given.names, given.dims) else LandmarkTask("unnamed", names, dims=body["dims"])
    except (KeyError, TypeError, LandmarkLabelError) as error:
        raise StudyError(f"the newest stored label is none ({type(error).__name__}: {error}); restore a backup") from None


def _only_adds(recorded: LandmarkTask, given: LandmarkTask) -> bool:
    kept = tuple(name for name in given.names if name in set(recorded.names))
    return recorded.dims == given.dims and kept == recorded.names


def _without(names: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    return [name for name in names if name not in set(others)]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - CONFIG.max_listed_names} more" if len(names) > CONFIG.max_listed_names else ""
    return ", ".join(repr(name) for name in names[: CONFIG.max_listed_names]) + more


# --- changes of names ------------------------------------------------------------------------------------------------


def renamed(record: StudyRecord, old: str, new: str) -> StudyRecord:
    """The record with one landmark renamed, everywhere it is named.

    Raises:
        TaskError: no such landmark, or a name that cannot be one. StudyError: earlier labels have the new name for another point.
    """
    task = record.task
    task.index(old)
    if new in {*record.dropped, *(name for pair in record.renames for name in pair[:1])}:
        raise StudyError(f"{new!r} was the name of another landmark before, and earlier labels have it: choose another name")

    def name(one: str) -> str:
        return new if one == old else one

    changed = replace(
        task,
        names=tuple(map(name, task.names)),
        definitions={name(n): text for n, text in task.definitions.items()},
        pictures={name(n): uri for n, uri in task.pictures.items()},
        mirror_pairs=tuple((name(a), name(b)) for a, b in task.mirror_pairs),
        scale=task.scale and task.scale.renamed(name),
        measurements=tuple(m.renamed(name) for m in task.measurements),
    )
    return replace(record, task=changed, renames=(*record.renames, (old, new)))


def without(record: StudyRecord, dropped: str) -> StudyRecord:
    """The record without one landmark. Raises TaskError; StudyError for one that the scale rule or a measurement needs."""
    task = record.task
    task.index(dropped)
    if task.scale and dropped in task.scale.landmarks:
        raise StudyError(f"{dropped!r} is one end of the task's scale rule; change that rule first")
    if needing := [m.name for m in task.measurements if dropped in m.landmarks]:
        raise StudyError(f"{dropped!r} is needed by the task's measurements {_listed(needing)}; change those first")
    changed = replace(
        task,
        names=tuple(n for n in task.names if n != dropped),
        definitions={n: text for n, text in task.definitions.items() if n != dropped},
        pictures={n: uri for n, uri in task.pictures.items() if n != dropped},
        mirror_pairs=tuple(pair for pair in task.mirror_pairs if dropped not in pair),
    )
    return replace(record, task=changed, dropped=(*record.dropped, dropped))
