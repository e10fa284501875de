"""Every error a user can cause. A message says what was given, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class LandmarkLabelError(Exception):
    """Base of all errors that are the input's fault: shown as one line, exit code 2, or an HTTP 4xx."""

    http_status = 400


class FaultsError(LandmarkLabelError):
    """An input with one or more faults, all of them listed.

    Args:
        what: what was read, for example a file name.
        faults: one text per fault, each naming the offending value.
    """

    def __init__(self, what: str, faults: Sequence[str]):
        self.what = str(what)
        self.faults = tuple(faults)
        super().__init__(f"{self.what}: " + "; ".join(self.faults))


class TaskError(FaultsError):
    """A task file that does not describe a task."""


class UnknownLandmark(TaskError, KeyError):
    """A landmark's name that a task does not have; also a KeyError, for ``landmarks["name"]``.

    Args:
        what: that has not got it.
        name: what was asked for.
        known: the names there are; the nearest are in the message.
    """

    def __init__(self, what: str, name: object, known: Sequence[str]):
        near = difflib.get_close_matches(str(name), known, 3, 0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {listed(known)}"
        super().__init__(what, [f"no landmark called {name!r}; {hint}"])

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would quote it


class LandmarkFileError(FaultsError):
    """A landmark file or table that cannot be trusted."""


class ImageRejected(FaultsError):
    """An image that is damaged, too large, or has no usable geometry."""


class StudyError(LandmarkLabelError):
    """A study folder that lacks what was asked of it."""


class TaskMismatch(StudyError):
    """A study, model or folder that belongs to another task than the one given."""

    http_status = 409


class Busy(StudyError):
    """Somebody else holds what is needed for longer than a request may wait; nothing was changed, the same can be tried again."""

    http_status = 503
    retry_after_s = 5


class Gone(StudyError):
    """A study whose folder is not where it was opened."""

    http_status = 503


class NotFound(StudyError):
    """An image, label or model that the study does not have."""

    http_status = 404


class ModelError(LandmarkLabelError):
    """A model folder that cannot be used with this task or this program."""


class ConfigurationError(ModelError):
    """A configuration with an unknown field, or a value that is out of range."""


class UnknownSetting(ConfigurationError):
    """A configuration with a field that this version does not have."""


class Cancelled(LandmarkLabelError):
    """Training was asked to stop; its state is on disk."""


class NoRoom(LandmarkLabelError):
    """A disk that has no room for the temporary files that a training needs."""


class UsageError(LandmarkLabelError):
    """A command or request that asks for something that does not exist."""


class MissingPackage(LandmarkLabelError, ImportError):
    """Something that needs a package which is not installed and which the rest of the program does without."""


class Unusable(LandmarkLabelError):
    """A value of a request that is well formed and that cannot be used."""

    http_status = 422


class NotAllowed(LandmarkLabelError):
    """What the caller's role does not allow."""

    http_status = 403


class TooMany(LandmarkLabelError):
    """More of something than one client may have at a time."""

    http_status = 429


class Conflict(LandmarkLabelError):
    """A save based on a revision that is no longer the newest one.

    Args:
        image_id: the image.
        base: the revision number that the caller's edit started from.
        current: the newest revision number.
    """

    http_status = 409

    def __init__(self, image_id: str, base: int, current: int):
        self.image_id, self.base, self.current = image_id, base, current
        now = f"but revision {current} is the newest"
        if base == current:
            now = f"and revision {current} here is not the one you edited: the study was restored from an older copy since"
        elif base > current:
            newest = f"the newest is {current}" if current else "there is none at all"
            now = f"which is not here, {newest}: a wrong number, or the study was restored from an older copy since"
        super().__init__(f"{image_id}: your edit started from revision {base}, {now}; look at both versions and save again")


class KeyReused(UsageError):
    """An idempotency key that was used before for something else."""

    http_status = 409


def listed(names: Sequence[str], most: int = 10, longest: int = 100) -> str:
    """Names as a message has them: the first few, each cut to ``longest`` characters, and how many more there are."""
    shown = [name if len(name) <= longest else f"{name[:longest]}…" for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def one_line(text: str) -> str:
    """A text with what would break its line, or cannot be printed, in Python's escapes: file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
