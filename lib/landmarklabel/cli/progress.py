"""Progress of work on many images: a bar on a terminal, elsewhere a line every tenth of the way once it takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import TypeVar

from tqdm import tqdm

from landmarklabel.cli.configuration import CONFIG

T = TypeVar("T")


def followed(items: Mapping[str, T], what: str) -> Iterator[tuple[str, T]]:
    """The pairs of a mapping, while stderr shows how far its user is with them."""
    if sys.stderr.isatty():
        yield from tqdm(items.items(), desc=what, unit="image")
        return
    begun, last_tenth = time.monotonic(), 0
    for count, pair in enumerate(items.items(), 1):
        yield pair
        tenth, seconds = 10 * count // len(items), time.monotonic() - begun
        if tenth > last_tenth and seconds > CONFIG.short_s:
            last_tenth = tenth
            print(f"{what}: {count} of {len(items)} images, {seconds:.0f} s", file=sys.stderr, flush=True)
