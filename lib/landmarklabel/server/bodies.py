"""The body of a request, checked before a route sees it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from landmarklabel.services.request_values import checked


def _checked_body(body: dict[str, Any]) -> dict[str, Any]:
    checked(body, "the request")
    return body


Body = Annotated[dict, AfterValidator(_checked_body)]
"""A JSON object as the body of a request, checked."""
