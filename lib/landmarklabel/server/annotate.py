"""``/annotate/``: the browser front end, as it was built from ``web``, and logging in to it."""

from __future__ import annotations

import functools
import mimetypes
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from landmarklabel.errors import NotFound
from landmarklabel.server.bodies import Body
from landmarklabel.server.browser_login import BrowserLogins
from landmarklabel.server.guard import OTHER_PERSON, PERSON_HEADER, is_of_another
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.request_values import checked

BUILT = Path(__file__).parent / "web" / "dist"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
NOT_BUILT = "the browser front end was not built when this program was installed: python scripts/dev.py setup builds it"


def add_annotate_routes(router: APIRouter, logins: BrowserLogins) -> None:
    """The page, its files, login and logout; and the study's id."""

    @router.get("/landmarks/study", tags=["Landmarks"], summary="An id of the study, the same for ever")
    def which() -> dict:
        return {"id": logins.study_id}

    @router.get("/annotate", include_in_schema=False)
    def without_slash() -> RedirectResponse:
        return RedirectResponse("annotate/")  # relative: a proxy may serve this below a path of its own

    @router.get("/annotate/", tags=["Annotate"], summary="The browser front end", response_class=HTMLResponse)
    def page() -> Response:
        return _file("index.html")

    @router.get("/annotate/{file}", tags=["Annotate"], summary="A file of the front end")
    def part(file: str) -> Response:
        return _file(file)

    @router.post("/annotate/login", tags=["Annotate"], summary="Log in with a token: sets a cookie")
    def login(request: Request, body: Body) -> Response:
        token = body.get("token")
        value = logins.cookie_for(checked(token, "the token")) if isinstance(token, str) and token else None
        if value is None:
            return JSONResponse({"detail": "this is no token of this server, or it has expired"}, 401)
        answer = JSONResponse({"seconds": LIMITS.login_s})
        answer.set_cookie(logins.cookie, value, max_age=LIMITS.login_s, httponly=True, **_where(request))
        return answer

    @router.delete("/annotate/login", tags=["Annotate"], summary="Log out: removes the cookie")
    def logout(request: Request) -> Response:
        who = logins.caller_of(request.headers.get("cookie", ""))
        if who is not None and is_of_another(request.headers.get(PERSON_HEADER), who.name):
            return JSONResponse({"detail": OTHER_PERSON}, 401)  # their login is not this page's to end
        answer = JSONResponse({})
        answer.delete_cookie(logins.cookie, httponly=True, **_where(request))
        return answer


def _where(request: Request) -> dict:
    """To which requests the cookie belongs: those to this study, from its own pages."""
    path = f"{request.scope.get('root_path', '')}/"
    return {"path": path, "samesite": "strict", "secure": request.url.scheme == "https"}


@functools.cache
def _files() -> dict[str, Path]:
    """What was built, by name; names of requests are looked up here and joined to no path."""
    return {path.name: path for path in sorted(BUILT.glob("*")) if path.is_file()}


def _file(name: str) -> Response:
    path = _files().get(name)
    if path is None:
        raise NotFound(NOT_BUILT if not _files() else "the front end has no such file")
    kind, _ = mimetypes.guess_type(name)
    kept = "no-cache" if name.endswith(".html") else "private, max-age=31536000"  # others have a hash in the name
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": kept}
    return Response(path.read_bytes(), media_type=kind or "application/octet-stream", headers=headers)
