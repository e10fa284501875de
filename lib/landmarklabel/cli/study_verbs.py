"""``study``: what a study holds, and changes of its landmarks' names."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from landmarklabel.errors import StudyError, TaskError, UsageError, listed, one_line
from landmarklabel.store import study_changes, study_task
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_study_task


def status(args: argparse.Namespace) -> None:
    """Print what a study holds; changes nothing but taking in hand edits."""
    from landmarklabel.services.models import answering

    study = _open(args.study, args.store)
    problems, images, labelled = study.sync(), study.images(), study.labelled()
    problems += _unconfirmed(study)
    found: dict[str, Any] = {
        "study": study.folder.name,
        "task": study.task.name,
        "landmarks": len(study.task),
        "dims": study.task.dims,
        "images": len(images),
        "labelled": len(labelled),
        "changed": sorted(study.changed()),
        "models": {name: model.text for name, model in answering(study).items()},
        "problems": problems,
    }
    if args.json:
        print(json.dumps(found))
        return
    scale = f"; scale: {study.task.scale.text}" if study.task.scale else ""
    about = f"task {found['task']!r}, {found['landmarks']} landmarks in {found['dims']}D{scale}"
    print(one_line(f"study {found['study']}: {about}"))
    print(f"{found['labelled']} of {found['images']} images labelled, {len(found['changed'])} changed since they were labelled")
    for name, text in (found["models"] or {"": "no model was trained yet: the template of the labelled cases answers"}).items():
        print(f"{name} {text}".strip())
    for text in problems:
        print(one_line(f"needs a look: {text}"))


def _unconfirmed(study: Study) -> list[str]:
    """A text on the points that are only proposed, where there are some."""
    found = {i: n for i, x in study.newest().items() if (n := int((x.defined & ~x.by_person).sum()))}
    text = f"{sum(found.values())} points are proposals that nobody has confirmed, and count as no labels"
    return [f"{text}: {listed(sorted(found))}"] if found else []


def rename_landmark(args: argparse.Namespace) -> None:
    """Give a landmark another name."""
    study = _open(args.study, args.store)
    if args.new in study.task.names:
        raise UsageError(f"there is a landmark {args.new!r} already")
    after = _checked(study, lambda record: study_task.renamed(record, args.old, args.new))
    _change(args, study, after, f"{args.old!r} renamed to {args.new!r}")


def drop_landmark(args: argparse.Namespace) -> None:
    """Remove a landmark."""
    study = _open(args.study, args.store)
    if len(study.task) == 1:
        raise UsageError(f"{args.name!r} is the study's only landmark")
    after = _checked(study, lambda record: study_task.without(record, args.name))
    _change(args, study, after, f"{args.name!r} dropped")


def keep_labels(args: argparse.Namespace) -> None:
    """State that the points of changed images still hold."""
    study = _open(args.study, args.store)
    for image_id in args.id:
        study.image_path(image_id)
    _ask(args, f"states that the points of {len(args.id)} images hold on the pixels they have now: {', '.join(args.id[:10])}")
    for image_id in args.id:
        revision = study_changes.keep_labels(study, image_id, author=_author())
        print(f"{image_id}: revision {revision.number} holds on the image as it is now")


def _change(args: argparse.Namespace, study: Study, after: study_task.StudyRecord, what: str) -> None:
    from landmarklabel.services.models import answering

    cases, models = len(study.revisions.heads()), answering(study)
    lost = f"; trained models ({', '.join(models)}) have the other names and stop answering: train again" if models else ""
    _ask(args, f"to be done: landmark {what}, in the task and in the labels of {cases} cases (a new revision each){lost}")
    study_changes.change_names(study, after, author=_author(), what=what, url=args.store)
    print(f"landmark {what}; {cases} labels have a new revision; the task is in {study_task.record_file(study.folder)}{lost}")


def _ask(args: argparse.Namespace, what: str) -> None:
    """Say what will be done, and do it only where a person says yes."""
    print(f"{args.study}: {what}", file=sys.stderr)
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nothing was changed: say --yes to do this")
    if input("do this? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed")


def _checked(study: Study, change: Callable) -> study_task.StudyRecord:
    try:
        return change(study_task.read_record(study.folder))
    except TaskError as error:
        names = ", ".join(study.task.names[:10])
        raise UsageError(f"{'; '.join(error.faults)}; the study's landmarks are {names}") from None


def _open(folder: str, url: str | None) -> Study:
    if study_task.read_record(folder) is None:
        if not Path(folder).is_dir():
            raise StudyError(f"{folder}: no such study folder; landmarklabel import makes one")
        raise StudyError(f"{folder}: the study has no record of its task yet: open it once with landmarklabel import and --task")
    return Study(folder, resolve_study_task(None, folder, url=url), url)


def _author() -> str:
    """The person at this computer, as far as the system knows."""
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()[:200]
    return ""
