"""Which files of a study go into its backup, and what is left out of it and why: nothing is left out without a word."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from landmarklabel.errors import UsageError
from landmarklabel.io.files import MARKUPS_SUFFIX

OWN, REVISIONS, FINAL = ".landmarklabel", "revisions.sqlite", "labels/final"
# Or of no use elsewhere.
_REMADE = {"cache", "incoming", "sessions", "app", "lock", "leases.json", "trainings.json", "replaced", "login_key"}
_MAY_BE_ELSEWHERE = (OWN, "labels", FINAL)  # a study uses these wherever a link leads to


@dataclass
class Contents:
    """What lies in a study.

    Args:
        files: name in the backup to where the file is; what can be made again is not among them.
        left_out: name of what cannot be taken to the reason.
    """

    files: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def look(study: Path, kept_labels: frozenset[str] = frozenset(), backup: Path | None = None) -> Contents:
    """Look at everything in a study. Links are followed within it, and from its own folders to wherever they lead.

    Args:
        study: its folder.
        kept_labels: names of label files that no revision could make again.
        backup: the file that is being made, if there is one. Raises UsageError where a link leads to the folder that it is in.
    """
    contents, beside = Contents(), tuple(backup.resolve().parents) if backup else ()
    _enter(study, "", (study.resolve(),), _Look(study.resolve(), kept_labels, beside), contents)
    return contents


@dataclass(frozen=True)
class _Look:
    study: Path
    kept_labels: frozenset[str]
    beside_backup: tuple[Path, ...]  # folders that the backup is in

    def is_made_again(self, name: str) -> bool:
        folder, _, last = name.rpartition("/")
        if folder == OWN:
            return last in _REMADE or last.startswith(REVISIONS) or last.endswith(".lock")
        if folder == FINAL:
            label = last.endswith(MARKUPS_SUFFIX) or (last.startswith(".") and MARKUPS_SUFFIX in last)
            return label and last not in self.kept_labels
        return name == "labels/.replaced"

    def why_not_followed(self, name: str, target: Path, above: tuple[Path, ...]) -> str:
        """Of a link; empty where it is followed."""
        if target in above:
            return "a link to a folder that it lies in"
        if name in _MAY_BE_ELSEWHERE or name.startswith(f"{OWN}/"):
            if target in self.beside_backup:
                raise UsageError(f"the backup would lie in the study itself: {name} is a link to {target}; give another folder")
            return ""
        return "" if self.study in target.parents else "a link out of the study; put the file or folder itself there"


def _enter(folder: Path, name: str, above: tuple[Path, ...], look: _Look, contents: Contents) -> None:
    try:
        inside = sorted(os.listdir(folder))
    except FileNotFoundError:  # removed meanwhile
        return
    except OSError as error:
        contents.left_out[name or "."] = f"a folder that may not be read ({error.strerror})"
        return
    for one in inside:
        inner = f"{name}/{one}" if name else one
        if not look.is_made_again(inner):
            _take(folder / one, inner, above, look, contents)


def _take(path: Path, name: str, above: tuple[Path, ...], look: _Look, contents: Contents) -> None:
    try:
        mode, why = path.stat().st_mode, ""
        if path.is_symlink():
            why = look.why_not_followed(name, path.resolve(), above)
    except FileNotFoundError:  # removed meanwhile, or
        mode, why = 0, "a link to nothing" if path.is_symlink() else ""
    except OSError as error:
        mode, why = 0, f"it may not be looked at ({error.strerror})"
    try:
        name.encode()
    except UnicodeEncodeError:
        why = why or "its name is not UTF-8; rename it"
    if not why and stat.S_ISDIR(mode):
        _enter(path, name, (*above, path.resolve()), look, contents)
    elif not why and stat.S_ISREG(mode):
        contents.files[name] = path
    elif why or mode:
        contents.left_out[name] = why or "no plain file"
