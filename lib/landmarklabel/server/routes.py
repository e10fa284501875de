"""HTTP routes of our own, the ones that replace MONAI Label's, and errors as clear 4xx answers.

Installed from ``on_init_complete``, so plain ``monailabel start_server`` has them too.
"""

from __future__ import annotations

import errno
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from monailabel.interfaces.exception import MONAILabelException
from requests_toolbelt import MultipartEncoder
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from landmarklabel.errors import Conflict, LandmarkLabelError, NotAllowed, NotFound, UsageError
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.server.access import ROUTES
from landmarklabel.server.background import add_background_routes, afterwards
from landmarklabel.server.bodies import Body
from landmarklabel.server.description import ASK, INFER, SAVE, UPDATE, takes, written
from landmarklabel.server.guard import Guard, Policy
from landmarklabel.server.health import add_health_route
from landmarklabel.server.metrics import Metrics, add_metrics_route
from landmarklabel.server.status import StatusPage
from landmarklabel.server.threads import in_threads_of_its_own
from landmarklabel.server.uploads import add_upload_routes, received_image
from landmarklabel.server.wire import from_wire, given_points, to_wire
from landmarklabel.services.callers import ANNOTATOR, ROLES, caller
from landmarklabel.services.descriptions import image_unit
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.request_values import checked, flag_of, form_object, key_of, revision_of, text_of
from landmarklabel.store.revisions import Revision
from landmarklabel.store.tokens import Tokens, tokens_of

_EVERYTHING: dict[str, Any] = {"allow_methods": ["*"], "allow_headers": ["*"]}
_REFUSED = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused, with the reason", "content": {"application/json": {"schema": _REFUSED}}}
}
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Output(str, Enum):
    """What ``/infer`` answers with."""

    image = "image"
    json = "json"
    all = "all"


def install(landmark_app, policy: Policy) -> Tokens:
    """Serve our routes and those of MONAI Label's that ``access.ROUTES`` lists, behind the guard; returns who may come in."""
    from monailabel.app import app

    silence_phi_loggers()
    tokens = tokens_of(landmark_app.study.folder, landmark_app.study.revisions)
    metrics = Metrics(landmark_app.study, landmark_app.model_versions, landmark_app.train_stats)
    ours = _routes(landmark_app, policy, tokens)
    add_health_route(ours, landmark_app.study, landmark_app.settings.store is None)
    add_metrics_route(ours, metrics)
    served = {f"{method} {route.path}" for route in ours.routes if isinstance(route, Route) for method in route.methods or ()}
    app.router.routes[:] = [*ours.routes, *stock_routes(app.router.routes, served)]
    add_error_handlers(app)
    app.user_middleware = [m for m in app.user_middleware if m.cls is not CORSMiddleware]  # mirrors any origin
    if policy.origins:
        app.user_middleware.append(Middleware(CORSMiddleware, allow_origins=list(policy.origins), **_EVERYTHING))
    without_error_page = app.build_middleware_stack().app  # the outermost layer answers with a text and logs all it knows
    app.middleware_stack = Guard(without_error_page, app.router.routes, tokens, policy, metrics.count)
    app.openapi_schema = None
    return tokens


def stock_routes(routes: Iterable[BaseRoute], ours: Iterable[str] = ()) -> list[BaseRoute]:
    """Of MONAI Label's routes those that are served and not ours, one per method; run in threads, not in the event loop."""
    served: list[BaseRoute] = []
    for route in (one for one in flat(routes) if isinstance(one, Route)):
        for method in sorted(route.methods or ()):
            if f"{method} {route.path}" not in ROUTES or f"{method} {route.path}" in ours:
                continue
            if isinstance(route, APIRoute):
                about = {key: getattr(route, key) for key in ("tags", "summary", "include_in_schema", "response_model")}
                served.append(APIRoute(route.path, _in_thread(route.endpoint), methods=[method], responses=_ANSWERS, **about))
            else:
                served.append(Route(route.path, route.endpoint, methods=[method], include_in_schema=False))
    return served


def flat(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """All routes, also those of included routers."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from flat(inner.routes) if inner is not None else (route,)


def _in_thread(endpoint: Callable) -> Callable:
    """MONAI Label's endpoints are coroutines that never wait and block the event loop; a plain function runs in a thread."""
    if not inspect.iscoroutinefunction(endpoint):
        return endpoint

    def call(**given: Any) -> Any:
        checked({name: value for name, value in given.items() if isinstance(value, str | dict)}, "the request")
        coroutine = endpoint(**given)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        coroutine.close()
        raise RuntimeError(f"{endpoint.__name__} waits for something: it cannot run in a thread")

    call.__name__, call.__doc__ = endpoint.__name__, endpoint.__doc__
    call.__dict__["__signature__"] = inspect.signature(endpoint, eval_str=True)
    return call


def silence_phi_loggers() -> None:
    """MONAI Label logs requests, parameters and paths, which hold names of patients: only its warnings are kept."""
    for name in ("monailabel", "task_train", "task_batch_infer", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def add_error_handlers(app: FastAPI) -> None:
    """A user's error is a 4xx with one JSON message, never a bare 500."""

    def answer(status: int, message: str, **headers: str) -> JSONResponse:
        text = message[:4000].encode(errors="backslashreplace").decode()  # of what was sent it may hold half a character
        return JSONResponse({"detail": text}, status, headers)

    def refuse(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LandmarkLabelError)
        again = getattr(error, "retry_after_s", None)
        return answer(error.http_status, str(error), **({"Retry-After": str(again)} if again else {}))

    app.add_exception_handler(LandmarkLabelError, refuse)
    app.add_exception_handler(MONAILabelException, lambda request, e: answer(400, str(e.msg)))
    app.add_exception_handler(RequestValidationError, lambda request, e: answer(422, _faults(e)))
    app.add_exception_handler(json.JSONDecodeError, lambda request, e: answer(400, f"not JSON: {e}"))
    app.add_exception_handler(OSError, lambda request, e: answer(*_of_the_system(e)))
    app.add_exception_handler(RecursionError, lambda request, e: answer(400, "not JSON: brackets are nested too deep"))


def _faults(error: RequestValidationError) -> str:
    """What is wrong, where, in one line and without what was sent, which may be anything."""
    return "; ".join(f"{'.'.join(map(str, one['loc']))[:80]}: {one['msg']}" for one in error.errors()[:10])


def _of_the_system(error: OSError) -> tuple[int, str]:
    """Status and text; never the path, which may hold a name."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return 404, "a file that this needs is gone from the study: look at the list of images again"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return 507, "the server's disk is full: nothing was changed; free space, then try again"
    return 503, f"the server could not do this ({error.strerror or type(error).__name__}): look at the study's files"


def _routes(landmark_app, policy: Policy, tokens: Tokens) -> APIRouter:
    router = APIRouter(responses=_ANSWERS)

    @router.get("/", include_in_schema=False)
    def home() -> RedirectResponse:
        return RedirectResponse("/landmarks/")

    @router.post("/infer/{model}", tags=["Infer"], summary="Landmarks of an image")
    @in_threads_of_its_own
    def infer(
        model: str,
        image: str = "",
        session_id: str = "",
        params: str = Form("{}", json_schema_extra=written(INFER)),
        file: UploadFile = File(None),
        output: Output | None = None,
    ):
        request = {**_params(params), "model": model, "image": image}
        with ExitStack() as sent:
            if session_id:
                request["uploaded_file"] = _session_image(landmark_app, session_id)
            elif file is not None and file.filename:
                request["uploaded_file"] = str(sent.enter_context(received_image(landmark_app.study.folder, file)))
            elif not image:
                raise UsageError("which image? give ?image=ID, ?session_id=… or upload a file")
            return _answer(landmark_app.infer(request), output)

    about: dict[str, Any] = {"tags": ["Active Learning"], "summary": "The next case, and why", "openapi_extra": takes(ASK)}

    @router.post("/activelearning/{strategy}", **about)
    def next_sample(strategy: str, sender: Request, params: Body | None = None) -> dict:
        """``info`` of the answer is what was noted of the image (``PUT /datastore/image/info``)."""
        who, address = {"client_id": text_of(params or {}, "client_id")}, sender.client.host if sender.client else ""
        chosen = landmark_app.next_sample({**(params or {}), **who, "address": address, "strategy": strategy})
        return {**chosen, "info": landmark_app.datastore().get_image_info(chosen["id"])} if chosen else {}

    shown = StatusPage(
        landmark_app.study, landmark_app.pool_monitor, landmark_app.leases, landmark_app.train_stats, landmark_app.answers
    )

    @router.get("/landmarks/", tags=["Landmarks"], summary="A page to look at", response_class=HTMLResponse)
    def status(page: int = Query(1, ge=1, le=10**6, description="Which 50 of the cases")) -> HTMLResponse:
        return HTMLResponse(shown.html(page), headers={"Content-Security-Policy": PAGE_POLICY, "X-Frame-Options": "DENY"})

    if policy.identity is None:
        _add_login_routes(router, tokens)
    add_background_routes(router, landmark_app)
    add_upload_routes(router, landmark_app)
    _add_landmark_routes(router, landmark_app)
    _add_save_route(router, landmark_app)
    return router


def _add_login_routes(router: APIRouter, tokens: Tokens) -> None:
    """What MONAI Label's own clients ask of a server with accounts: any name, and the token as password."""

    @router.get("/auth/", tags=["Auth"], summary="Whether a token is needed")
    def enabled() -> dict:
        return {"enabled": tokens.look().needed, "client_id": "", "realm": ""}

    @router.post("/auth/token", tags=["Auth"], summary="A token for a name and password")
    def token(username: str = Form(""), password: str = Form("")) -> dict:
        if fault := tokens.look().fault:
            raise HTTPException(503, fault)
        if tokens.holder(checked(password, "the password")) is None:
            raise HTTPException(401, "this password is no token of this server", {"WWW-Authenticate": "Bearer"})
        return {"access_token": password, "token_type": "bearer"}

    @router.get("/auth/token/valid", tags=["Auth"], summary="Whether a token is valid, and whose it is")
    def valid() -> dict:
        who = caller()
        roles = [name for name, level in ROLES.items() if level <= who.role]
        return {"username": who.name, "email": None, "name": who.name, "roles": roles}


def _add_landmark_routes(router: APIRouter, landmark_app) -> None:
    study = landmark_app.study

    @router.get("/landmarks/task", tags=["Landmarks"], summary="The task: names, order, definitions")
    def landmark_task() -> dict:
        return study.task.to_json()

    @router.get("/landmarks/images", tags=["Landmarks"], summary="All images and how far they are")
    def images() -> dict:
        changed, heads, stated = study.verify(seconds=LIMITS.verify_s), study.revisions.heads(), study.labelled()
        return {"images": [_listed(i, heads.get(i), stated.get(i), i in changed) for i in study.images()]}

    @router.get("/landmarks/images/{image_id}", tags=["Landmarks"], summary="Newest revision of an image")
    def newest(image_id: str) -> dict:
        path = study.image_path(image_id)
        changed = image_id in study.verify([image_id])
        return {**revision_to_wire(study, image_id, study.revisions.head(image_id)), "changed": changed, "unit": image_unit(path)}

    summary = "Move the other points to a person's"
    moves: dict[str, Any] = {"tags": ["Landmarks"], "summary": summary, "openapi_extra": takes(UPDATE)}

    @router.post("/landmarks/images/{image_id}/update", **moves)
    def update(image_id: str, background: BackgroundTasks, body: Body) -> dict:
        started = time.monotonic()
        if unknown := sorted(set(body) - {"fixed", "absent", "model"}):
            raise UsageError(f"unknown keys {', '.join(k[:40] for k in unknown[:5])}; allowed are fixed, absent and model")
        infer_task, path = landmark_app.infer_task(body.get("model")), study.image_path(image_id)
        given = given_points(body, study.task, study.plane_of(image_id))
        answer = infer_task.assistant.suggest(path, given, wait_for_second_pass=False)
        if answer.second_pass:
            background.add_task(afterwards, infer_task.assistant.second_pass, path, given)
        found = {"image": image_id, **infer_task.to_wire(answer, path)}
        return {**found, "latencies": {"total": round(time.monotonic() - started, 4)}}

    @router.get("/landmarks/images/{image_id}/history", tags=["Landmarks"], summary="All revisions, oldest first")
    def history(image_id: str) -> dict:
        study.image_path(image_id)
        return {"image": image_id, "revisions": [revision_to_wire(study, image_id, r) for r in study.history(image_id)]}


def _add_save_route(router: APIRouter, landmark_app) -> None:
    study = landmark_app.study

    @router.put("/landmarks/images/{image_id}", tags=["Landmarks"], summary="Save a revision", openapi_extra=takes(SAVE))
    def save(image_id: str, background: BackgroundTasks, body: Body):
        landmarks = from_wire(body.get("landmarks"), study.task, study.plane_of(image_id))
        key, author = key_of(body), caller().name or text_of(body, "author")
        if flag_of(body, "repeat"):
            landmark_app.datastore().check_places(image_id, landmarks)
            pixels = text_of(body, "pixels") or None
            again = study.save_repeat(image_id, landmarks, author=author, key=key, pixels=pixels)
            return {**revision_to_wire(study, image_id, again), "repeat": True}
        base = revision_of(body, required=True)
        try:
            revision = landmark_app.datastore().submit(
                image_id,
                landmarks,
                author,
                source="landmarks api",
                base_revision=base,
                key=key,
                pixels=text_of(body, "pixels") or None,
            )
        except Conflict as error:
            current = revision_to_wire(study, image_id, study.revisions.head(image_id))
            yours = {"base_revision": base, "landmarks": to_wire(landmarks, study.plane_of(image_id))}
            return JSONResponse({"detail": str(error), "current": current, "yours": yours}, error.http_status)
        background.add_task(afterwards, landmark_app.saved)
        return revision_to_wire(study, image_id, revision)


def _listed(image_id: str, head: Revision | None, landmarks: LandmarkSet | None, changed: bool) -> dict:
    """``changed``: the image is not the one that was labelled; ``unseen_revision``: made at the same time as the newest."""
    row = {"image": image_id, "revision": 0, "author": "", "created": ""}
    if head is not None:
        row |= {"revision": head.number, "author": head.author, "created": head.created}
    unseen = head.body.get("unseen") if head is not None else None
    return {**row, "labelled": landmarks is not None, "changed": changed, "unseen_revision": unseen}


def revision_to_wire(study, image_id: str, revision: Revision | None) -> dict:
    """A revision as JSON; revision 0 with everything unset when there is none."""
    if revision is None:
        return {"image": image_id, "revision": 0, "landmarks": to_wire(LandmarkSet.empty(study.task))}
    return {
        "image": image_id,
        "revision": revision.number,
        "author": revision.author,
        "source": revision.source,
        "created": revision.created,
        "sha256": revision.sha256,
        "pixels": revision.body.get("pixels"),
        "unseen_revision": revision.body.get("unseen"),
        "made": revision.body.get("made"),
        "landmarks": to_wire(study.read(revision), study.plane_of(image_id)),
    }


def _session_image(landmark_app, session_id: str) -> str:
    sessions = landmark_app.sessions()
    session = sessions.get_session(session_id) if sessions is not None else None
    if session is None:
        raise NotFound(f"there is no session {session_id[:40]!r}; it may have expired")
    return session.image


def _params(text: str) -> dict:
    """The parameters of an inference. Raises NotAllowed: keeping the result is an annotator's, here as everywhere."""
    params = form_object(text, "params")
    refused = sorted({"image", "label", "model", "uploaded_file", "session"} & set(params))
    if refused:
        raise UsageError(f"params may not hold {', '.join(refused)}: name the image and the model in the address")
    if str(params.get("save_label", False)).lower() in ("1", "true") and caller().role < ANNOTATOR:
        raise NotAllowed("save_label keeps a label in the study, which needs the role annotator")
    return params


def _answer(result: dict, output: Output | None) -> Response | dict:
    """What was asked for; the file that was made for it is removed."""
    file = Path(result["file"])
    try:
        name, content = file.name, file.read_bytes()
    finally:
        file.unlink(missing_ok=True)
    if output is Output.json:
        return result["params"]
    if output is Output.image:
        where = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/json", headers=where)
    parts = MultipartEncoder(
        {
            "params": (None, json.dumps(result["params"], allow_nan=False), "application/json"),
            "image": (name, content, "application/json"),
        }
    )
    return Response(parts.to_string(), media_type=parts.content_type)
