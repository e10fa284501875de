"""What other packages add by entry points: networks, strategies and readers of image formats (docs/extending.md).

Decision: a plugin is loaded when it is first needed, never at import. One that is broken, or whose name is taken, is named in a
warning and left out: it must not stop somebody who only wanted to label images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

NETWORKS, STRATEGIES, READERS = "landmarklabel.networks", "landmarklabel.strategies", "landmarklabel.readers"

T = TypeVar("T")
_log = logging.getLogger(__name__)


@cache
def installed(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group by name, sorted; loads none of them. The second of two of one name is left out."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda p: (p.name, _package(p), p.value)):
        known = found.setdefault(point.name, point)
        if (known.value, _package(known)) != (point.value, _package(point)):
            left_out(point, f"{_package(known)} has one of this name already")
    return found


def load(point: EntryPoint) -> object | None:
    """The object that an entry point names; None, with a warning, where loading it fails in whatever way."""
    try:
        return cast(object, point.load())
    except (Exception, SystemExit) as error:
        left_out(point, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return None


def left_out(point: EntryPoint, why: str) -> None:
    """Say in the log that a plugin, or a part of one, is not used."""
    _log.warning("plugin %r of %s (%s = %s) is left out: %s", point.name, _package(point), point.group, point.value, why)


def _package(point: EntryPoint) -> str:
    return "an unnamed package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


class Extended(Mapping[str, T], Generic[T]):
    """Things of the program by name, followed by those of plugins, which are loaded when a name is not the program's own.

    Args:
        own: the program's.
        group: of the entry points.
        take: makes of a plugin's name and object what is kept; raises ValueError, with the reason, for what is none.
    """

    def __init__(self, own: Mapping[str, T], group: str, take: Callable[[str, object], T]):
        self._own, self._group, self._take = dict(own), group, take
        self._more: dict[str, T] | None = None

    def __getitem__(self, name: str) -> T:
        return self._own[name] if name in self._own else self._of_plugins()[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from self._of_plugins()

    def __len__(self) -> int:
        return len(self._own) + len(self._of_plugins())

    def _of_plugins(self) -> dict[str, T]:
        if self._more is None:
            more: dict[str, T] = {}
            for name, point in installed(self._group).items():
                if name in self._own:
                    left_out(point, f"the program has its own {name!r}; call it otherwise")
                elif (value := load(point)) is not None:
                    try:
                        more[name] = self._take(name, value)
                    except ValueError as error:
                        left_out(point, str(error))
            self._more = more
        return self._more
