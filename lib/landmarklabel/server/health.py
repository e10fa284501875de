"""``/health``: whether the study can be served right now; answered within about a second whatever else is going on."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from landmarklabel import __version__
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.services.limits import LIMITS
from landmarklabel.store.study import Study


class Health:
    """Looks at the study in a thread of its own: requests that fill all others cannot hold it up.

    Args:
        study: which is served.
        embedded: its revisions are in its folder, not in a database elsewhere.
    """

    def __init__(self, study: Study, embedded: bool):
        self.study, self.embedded = study, embedded
        self._thread = ThreadPoolExecutor(1, "health")
        self._look: Future | None = None

    async def fault(self) -> str:
        """The reason why the study cannot be used; empty if it can."""
        if self._look is None or self._look.done():  # one look at a time, however many ask
            self._look = self._thread.submit(self._found)
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._look)), LIMITS.health_s)
        except TimeoutError:
            return "the study folder or its database does not answer"

    def _found(self) -> str:
        own = self.study.folder / ".landmarklabel"
        try:
            if not own.is_dir():
                return "the study folder is gone or has moved"
            if not os.access(own, os.W_OK):
                return "the study folder cannot be written to"
            if self.embedded and not (own / "revisions.sqlite").is_file():
                return "the database of the study is gone"
            self.study.revisions.latest_row()
        except LandmarkLabelError:  # its text may hold an address, and everybody may ask
            return "the database of the study cannot be read"
        except OSError as error:
            return f"the study folder cannot be read ({error.strerror})"
        return ""


def add_health_route(router: APIRouter, study: Study, embedded: bool) -> None:
    """``GET /health``: 200 or 503."""
    health = Health(study, embedded)

    @router.get("/health", tags=["Server"], summary="Whether the study can be served")
    async def answer() -> JSONResponse:
        if reason := await health.fault():
            return JSONResponse({"status": "unavailable", "reason": reason, "version": __version__}, 503)
        return JSONResponse({"status": "ok", "version": __version__})
