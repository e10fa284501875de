"""Errors of the program itself, logged without a word of the data: no name, path or parameter, which may be a patient's."""

from __future__ import annotations

import logging
import secrets
import traceback
from pathlib import PurePath

log = logging.getLogger(__name__)


def log_internal_error(error: Exception) -> str:
    """One line: what kind of error, and where in the program. Returns the number it is logged under."""
    number = secrets.token_hex(4)
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = " < ".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    log.error("internal error %s: %s at %s", number, type(error).__name__, where)
    return number
