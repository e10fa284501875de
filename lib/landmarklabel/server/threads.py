"""Long work in few threads, so that it never takes all of those that answer the rest."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import anyio

from landmarklabel.server.json_route import as_response
from landmarklabel.services.limits import LIMITS


def in_threads_of_its_own(endpoint: Callable) -> Callable:
    """A plain function as an endpoint that at most ``MOST_AT_ONCE`` requests are in; the others wait in the event loop."""
    limiter: list[anyio.CapacityLimiter] = []  # made when there is an event loop

    async def call(**given: Any) -> Any:
        if not limiter:
            limiter.append(anyio.CapacityLimiter(LIMITS.requests_at_once))
        return await anyio.to_thread.run_sync(lambda: as_response(endpoint(**given)), limiter=limiter[0])

    call.__name__, call.__doc__ = endpoint.__name__, endpoint.__doc__
    call.__dict__["__signature__"] = inspect.signature(endpoint, eval_str=True, locals={})
    return call
