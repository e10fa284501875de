"""Progress of work on many images: a bar with the time left on a terminal, elsewhere a line every tenth of the way."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def followed(items: Mapping[str, T], what: str) -> Iterator[tuple[str, T]]:
    """The pairs of a mapping, while stderr shows how far its user is with them."""
    if sys.stderr.isatty():
        yield from tqdm(items.items(), desc=what, unit="image")
        return
    begun, told = time.monotonic(), 0
    for count, pair in enumerate(items.items(), 1):
        yield pair
        if (tenth := 10 * count // len(items)) > told:
            told = tenth
            print(f"{what}: {count} of {len(items)} images, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
