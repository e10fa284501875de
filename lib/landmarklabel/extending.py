"""What the code of a plugin may import and rely on (docs/extending.md); each name is loaded when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from landmarklabel.active.strategies import Choice
    from landmarklabel.active.unlabelled_pool import UnlabelledPool
    from landmarklabel.networks.default import MapsOutput
    from landmarklabel.networks.presets import Preset, find_preset

__all__ = ["Choice", "MapsOutput", "Preset", "UnlabelledPool", "find_preset"]

_HOME = {
    "Choice": "active.strategies",
    "MapsOutput": "networks.default",
    "UnlabelledPool": "active.unlabelled_pool",
    "Preset": "networks.presets",
    "find_preset": "networks.presets",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"landmarklabel.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
