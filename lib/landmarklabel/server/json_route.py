"""How an endpoint's result becomes the answer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute


class JsonRoute(APIRoute):
    """A route whose result is JSON as it is (dicts, lists, text, finite numbers), written in the endpoint's own thread.

    FastAPI would check it against the annotation in one more thread and convert it value by value in the event loop, where
    all other requests wait.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any):
        super().__init__(path, _answering(endpoint), **{**options, "response_model": None})


def _answering(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(endpoint):

        @functools.wraps(endpoint)
        async def call(*args: Any, **given: Any) -> Response:
            return as_response(await endpoint(*args, **given))
    else:

        @functools.wraps(endpoint)
        def call(*args: Any, **given: Any) -> Response:
            return as_response(endpoint(*args, **given))

    call.__dict__["__signature__"] = inspect.signature(endpoint, eval_str=True, locals={})
    return call


def as_response(result: object) -> Response:
    """A result as JSON, unless it is a response already. ValueError, TypeError: it holds what JSON cannot."""
    return result if isinstance(result, Response) else JSONResponse(result)
