"""Task and model names as people type them: on the command line and in a server's ``--conf``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from landmarklabel.errors import UsageError
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.networks.presets import Preset, find_preset
from landmarklabel.store.opening import recorded_task
from landmarklabel.store.study_task import record_file

_INSTALLED = Path(__file__).resolve().with_name("shipped_tasks")  # put there by setup.py
SHIPPED = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).resolve().parents[2] / "apps" / "landmarks" / "tasks"


def resolve_task(name_or_file: str, folders: Sequence[Path] = (SHIPPED,)) -> LandmarkTask:
    """A task by its JSON file, by its name in one of the task folders, or by the folder of a study that belongs to it.

    Raises:
        UsageError: neither; names what there is. TaskError: the file is faulty.
    """
    path = Path(name_or_file)
    if path.suffix == ".json" or path.is_file():
        return LandmarkTask.load(path)
    known = {p.stem: p for folder in folders if folder.is_dir() for p in sorted(folder.glob("*.json"))}
    if name_or_file not in known and record_file(path).is_file() and (task := recorded_task(path)) is not None:
        return task
    if name_or_file not in known:
        raise UsageError(
            f"no task called {name_or_file!r}: give a task file (landmarklabel task new makes one) "
            f"or one of {', '.join(known) or 'none shipped'}"
        )
    return LandmarkTask.load(known[name_or_file])


def resolve_study_task(
    name_or_file: str | None, study: str | Path, folders: Sequence[Path] = (SHIPPED,), url: str | None = None
) -> LandmarkTask:
    """The task that is named, or the one that the study belongs to.

    Raises:
        UsageError: none is named, and the study has no record of its own. As ``resolve_task`` otherwise.
    """
    if name_or_file is not None:
        return resolve_task(name_or_file, folders)
    task = recorded_task(study, url)
    if task is None:
        if not Path(study).exists():
            raise UsageError(f"{study}: no such folder; give --task NAME_OR_FILE.json where it is to be made")
        raise UsageError(f"which landmarks? {study} does not say it itself: give --task NAME_OR_FILE.json")
    return task


def resolve_models(text: str, dims: int) -> dict[str, Preset]:
    """``scn,global_local`` or ``scn:payer2019`` to presets by the name they are served under."""
    out = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        preset = find_preset(item, dims)
        out[preset.served_as] = preset
    if not out:
        raise UsageError("no model named; use for example --models scn")
    return out
