"""What the operator reads on the console: never a name, a path or a parameter, which may be a patient's."""

from __future__ import annotations

import secrets
import sys
import traceback


def tell(text: str) -> None:
    """One line; background tasks' lines end in the server's log."""
    print(f"LandmarkLabel: {text}", file=sys.stderr)  # noqa: T201


def tell_of(error: Exception) -> str:
    """One line on an internal error: what kind, and where in the program. Returns the number it is told under."""
    number = secrets.token_hex(4)
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(frames))
    tell(f"internal error {number}: {type(error).__name__} at {where}")
    return number


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
