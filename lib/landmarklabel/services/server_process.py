"""The server that a process of a training or batch belongs to: no orphans."""

from __future__ import annotations

import os
from collections.abc import Callable

from landmarklabel.portability import Parent

SERVER_PID = "LANDMARKLABEL_SERVER_PID"  # environment variable


def server_is_gone() -> Callable[[], bool]:
    """True once the server that started this process has ended, even before this was called."""
    return Parent(int(os.environ.get(SERVER_PID, "0"))).is_gone
