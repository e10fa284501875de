"""What a request may hold: every number, text and nested value is looked at here before anything is done with it."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection
from typing import TypeVar

from landmarklabel.errors import LandmarkFileError, Unusable, UsageError
from landmarklabel.services.limits import LIMITS

T = TypeVar("T")
DEVICES = ("auto", "cpu", "cuda")  # of a request; which GPU it is is the operator's choice


def checked(value: T, what: str, most_nested: int = LIMITS.json_depth) -> T:
    """``value`` when everything in it can be used: finite numbers, proper Unicode without NUL, not nested too deep.

    Args:
        value: what a JSON parser or a form gave; other objects than JSON's are left alone.
        what: named in the error.
        most_nested: levels of objects and lists.

    Raises:
        Unusable: naming the first value that cannot be used.
    """
    left: list[tuple[object, int]] = [(value, 1)]
    while left:
        one, depth = left.pop()
        if depth > most_nested:
            raise Unusable(f"{what}: values are nested deeper than {most_nested} levels")
        if isinstance(one, dict):
            left += [(inner, depth + 1) for pair in one.items() for inner in pair]
        elif isinstance(one, list):
            left += [(inner, depth + 1) for inner in one]
        elif isinstance(one, str) and not _is_text(one):
            raise Unusable(f"{what}: text {one[:40]!r} holds a NUL or half a character (a lone surrogate)")
        elif isinstance(one, int | float) and not is_finite(one):
            raise Unusable(f"{what}: a number is too large, or no number at all (NaN, infinity)")
    return value


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def is_finite(number: float) -> bool:
    """Whether a number can be used as a float64; ``math.isfinite`` alone fails on an integer of 400 digits."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def form_object(text: str | None, what: str) -> dict:
    """The JSON object in a field of a form; none where it is empty. Raises LandmarkFileError, Unusable."""
    try:
        content = json.loads(text, parse_constant=_no_constant) if text else {}
    except (ValueError, RecursionError) as error:
        raise LandmarkFileError(what, [f"must be a JSON object ({str(error)[:80]})"]) from None
    if not isinstance(content, dict):
        raise LandmarkFileError(what, ["must be a JSON object"])
    return checked(content, what)


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def text_of(content: dict, key: str, least: int = 0) -> str:
    """A text of a request, "" where it is left out. Raises Unusable for what is too long or cannot be printed: nothing is cut."""
    value = content.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or not least <= len(value) <= LIMITS.text_characters or not value.isprintable():
        raise Unusable(f"{key} {_shown(value)} must be printable text of {least} to {LIMITS.text_characters} characters")
    return value


def check_spelling(content: dict, known: Collection[str]) -> None:
    """Raise Unusable for an unknown key that is spelled nearly as a known one that is left out: what it holds would be lost.

    Any other unknown key is let through: an answer can be sent back as it is.
    """
    left_out = [key for key in known if key not in content]
    for key in content:
        near = [] if key in known else difflib.get_close_matches(key[:100].lower(), left_out, 1, 0.85)
        if near:
            raise Unusable(f"{_shown(key)} is not known here; did you mean {near[0]!r}?")


def key_of(content: dict) -> str | None:
    """The ``key`` under which a client may send the same thing again, None where it is left out. Raises Unusable."""
    return text_of(content, "key", 1) or None


def revision_of(content: dict, required: bool) -> int | None:
    """``base_revision``; None where it may be left out and is. Raises Unusable."""
    value = content.get("base_revision")
    if value is None and not required:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Unusable(
            f"base_revision {_shown(value)} must be the number of the revision your edit started from: a whole number, 0 for none"
        )
    return value


def number_of(content: dict, key: str, default: int, most: int) -> int:
    """A whole number from 0 to ``most``. Raises Unusable."""
    value = content.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise Unusable(f"{key} {_shown(value)} must be a whole number from 0 to {most}")
    return value


def device_of(content: dict) -> str:
    """The ``device`` that is asked for, "auto" where it is left out; of a list, as Slicer sends it, the first.

    Raises UsageError for what is none of ``DEVICES``.
    """
    asked = content.get("device")
    if asked in (None, "", []):
        return "auto"
    asked = asked[0] if isinstance(asked, list) else asked
    if not isinstance(asked, str) or asked not in DEVICES:
        raise UsageError(f"device {_shown(asked)} must be one of {', '.join(DEVICES)}")
    return asked


def flag_of(content: dict, key: str) -> bool:
    """True or false, false where it is left out. Raises Unusable."""
    value = content.get(key)
    if value is not None and not isinstance(value, bool):
        raise Unusable(f"{key} {_shown(value)} must be true or false")
    return bool(value)


def _shown(value: object) -> str:
    return repr(value)[:80]


def check_training_request(request: dict) -> None:
    """Raise UsageError for a number that no training can use, before one is started."""
    for key in ("minutes", "max_epochs", "seed"):
        training_number(request, key, None)


def training_number(request: dict, key: str, default: float | None) -> float | None:
    """A number of a training's request, ``default`` where it is left out. Raises UsageError."""
    value = request.get(key, default)
    if value is None or value == "":
        return default
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and 0 <= number <= 1e6):
        raise UsageError(f"{key} {str(value)[:40]!r} must be a number from 0 to 1000000")
    if key == "seed" and number != int(number):
        raise UsageError(f"seed {str(value)[:40]!r} must be a whole number")
    return number
