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
