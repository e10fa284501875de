"""What the operator reads on the console: the program's log, one line each, never a name, a path or a parameter, which may be a
patient's."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from landmarklabel.errors import LandmarkLabelError, StudyError

NOTICE = logging.INFO + 5  # what an operator reads, also where MONAI Label's own INFO is silenced


class _ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs only, until Python 3.13
    """To stderr as it is now: MONAI Label replaces it in its background tasks, whose lines end in the server's log."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("LandmarkLabel: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        record.exc_info = record.exc_text = record.stack_info = None  # a traceback's last line may hold a name
        super().emit(record)


def set_up_console() -> None:
    """Show what this package logs, once however often it is called."""
    log = logging.getLogger("landmarklabel")
    if not any(isinstance(handler, _ConsoleHandler) for handler in log.handlers):
        log.addHandler(_ConsoleHandler())
    log.setLevel(logging.INFO)
    log.propagate = False  # MONAI Label's own handlers would show each line a second time


@contextmanager
def fault_of(study: str | Path, several: bool) -> Iterator[None]:
    """Where several studies are served, a fault of one begins with its name."""
    try:
        yield
    except LandmarkLabelError as error:
        if not several or str(error).startswith(str(study)):
            raise
        raise StudyError(f"study {Path(study).resolve().name}: {error}") from None


def said_of_models(versions: dict[str, int], labelled: int) -> str:
    """Which model answers, in words.

    Args:
        versions: live version by model, the default model first; 0 for none trained yet.
        labelled: cases with landmarks by a person.
    """
    live = [f"{name} version {version}" for name, version in versions.items() if version]
    if live:
        return f"{' and '.join(live)} {'answer' if len(live) > 1 else 'answers'}"
    if labelled:
        return "the shape template answers, no model trained yet"
    return "no proposals yet: no case is labelled, no model trained"
