"""The application that answers every request, behind the guard: ``landmarklabel serve`` and ``monailabel start_server`` alike."""

from __future__ import annotations

import errno
import html
import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from landmarklabel import __version__
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.portability import DISK_FULL
from landmarklabel.server.annotate import add_annotate_routes
from landmarklabel.server.application import Application
from landmarklabel.server.background import add_background_routes
from landmarklabel.server.browser_login import BrowserLogins
from landmarklabel.server.drafts import add_draft_routes
from landmarklabel.server.guard import Guard, Policy
from landmarklabel.server.health import add_health_route
from landmarklabel.server.json_route import JsonRoute
from landmarklabel.server.metrics import Metrics, add_metrics_route
from landmarklabel.server.monailabel_routes import add_monailabel_routes
from landmarklabel.server.pictures import add_picture_routes
from landmarklabel.server.routes import PAGE_POLICY, add_routes
from landmarklabel.server.uploads import add_upload_routes
from landmarklabel.store.tokens import Tokens, tokens_of

_REFUSED = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
_REFUSAL = {"description": "Refused, with the reason", "content": {"application/json": {"schema": _REFUSED}}}

_PAGE_OF_A_FAULT = '<!doctype html><title>LandmarkLabel</title><p>{}</p><p><a href="./">Status of the study</a></p>'


def policy_of(application: Application) -> Policy:
    """What the operator has chosen of who may come in."""
    from landmarklabel.server.keycloak import keycloak

    settings = application.settings
    return Policy(settings.insecure, settings.max_upload_mb * 2**20, settings.origins, keycloak())


def create_app(application: Application, policy: Policy, lifespan: Any = None) -> tuple[Guard, Tokens]:
    """The guarded ASGI application of a study, and who may come in; ``lifespan`` as FastAPI has it."""
    tokens = tokens_of(application.study.folder, application.study.revisions)
    metrics = Metrics(application.study, application.model_versions, application.train_stats)
    router = APIRouter(responses={"4XX": _REFUSAL}, route_class=JsonRoute)
    add_routes(router, application, policy, tokens)
    logins = BrowserLogins(application.study.folder, tokens, policy.identity)
    add_annotate_routes(router, logins)
    add_picture_routes(router, application)
    add_draft_routes(router, application)
    add_background_routes(router, application)
    add_upload_routes(router, application)
    add_monailabel_routes(router, application)
    add_health_route(router, application.study, application.settings.store is None)
    add_metrics_route(router, metrics)
    cors = Middleware(CORSMiddleware, allow_origins=list(policy.origins), allow_methods=["*"], allow_headers=["*"])
    app = FastAPI(
        title="LandmarkLabel",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        middleware=[cors] if policy.origins else [],
        lifespan=lifespan,
    )
    app.router.routes += router.routes
    add_error_handlers(app)
    stack: Any = app.build_middleware_stack()
    without_error_page = stack.app  # the outermost layer answers with a text and logs all it knows
    return Guard(without_error_page, app.router.routes, tokens, policy, logins, metrics.count), tokens


def side_by_side(apps: Mapping[str, Any], lifespan: Any) -> Starlette:
    """Guarded applications, each below its path; nobody is told at any other address which there are."""

    def nothing(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "several studies are served here, each below the name of its folder"}, 404)

    mounts = [Mount(path, app=app) for path, app in apps.items()]
    app = Starlette(routes=mounts, lifespan=lifespan, exception_handlers={404: nothing})
    app.router.redirect_slashes = False  # it would go to whatever Host says, and tell a stranger that the study is there
    return app


def add_error_handlers(app: FastAPI) -> None:
    """A user's error is a 4xx with one JSON message, never a bare 500."""

    def answer(status: int, message: str, **headers: str) -> JSONResponse:
        text = message[:4000].encode(errors="backslashreplace").decode()  # of what was sent it may hold half a character
        return JSONResponse({"detail": text}, status, headers)

    def refuse(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LandmarkLabelError)
        again = getattr(error, "retry_after_s", None)
        return answer(error.http_status, str(error), **({"Retry-After": str(again)} if again else {}))

    def misstated(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        if request.url.path.endswith("/landmarks/") and "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(
                _PAGE_OF_A_FAULT.format(html.escape(_faults(error))), 422, {"Content-Security-Policy": PAGE_POLICY}
            )
        return answer(422, _faults(error))

    app.add_exception_handler(LandmarkLabelError, refuse)
    app.add_exception_handler(RequestValidationError, misstated)
    app.add_exception_handler(json.JSONDecodeError, lambda request, e: answer(400, f"not JSON: {e}"))
    app.add_exception_handler(OSError, lambda request, e: answer(*_of_the_system(e)))
    app.add_exception_handler(RecursionError, lambda request, e: answer(400, "not JSON: brackets are nested too deep"))


def _faults(error: RequestValidationError) -> str:
    """What is wrong, where, in one line and without what was sent, which may be anything."""
    faults = error.errors()[:10]
    if any(tuple(one["loc"]) == ("body",) and one["type"] == "dict_type" for one in faults):
        return "the body must be a JSON object, sent with the header Content-Type: application/json"
    return "; ".join(f"{'.'.join(map(str, one['loc']))[:80]}: {one['msg']}" for one in faults)


def _of_the_system(error: OSError) -> tuple[int, str]:
    """Status and text; never the path, which may hold a name."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return 404, "a file that this needs is gone from the study: look at the list of images again"
    if remedy := DISK_FULL.get(error.errno or 0):
        what = "is full" if error.errno == errno.ENOSPC else f"takes no more ({error.strerror})"
        return 507, f"the server's disk {what}: nothing was changed; {remedy}, then try again"
    return 503, f"the server could not do this ({error.strerror or type(error).__name__}): look at the study's files"
