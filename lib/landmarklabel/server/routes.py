"""MONAI Label's addresses of which our clients ask more (``/infer``, ``/activelearning``), and our own."""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack, suppress
from enum import Enum
from pathlib import Path
from typing import Any

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from urllib3.fields import RequestField
from urllib3.filepost import encode_multipart_formdata

from landmarklabel.errors import Conflict, NotAllowed, Unusable, UsageError
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.server.application import Application
from landmarklabel.server.background import afterwards
from landmarklabel.server.bodies import Body
from landmarklabel.server.description import ASK, INFER, SAVE, UPDATE, takes, written
from landmarklabel.server.guard import Policy
from landmarklabel.server.infer import answer_to_wire
from landmarklabel.server.keycloak import Keycloak
from landmarklabel.server.measuring import add_measurement_route
from landmarklabel.server.quality import add_quality_routes
from landmarklabel.server.status import StatusPage
from landmarklabel.server.threads import in_threads_of_its_own
from landmarklabel.server.uploads import received_image, with_unit
from landmarklabel.server.wire import checked_points, from_wire, given_points, to_wire
from landmarklabel.services.callers import ANNOTATOR, ROLES, caller
from landmarklabel.services.descriptions import image_unit
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.quality import CHECK
from landmarklabel.services.request_values import (
    check_spelling,
    checked,
    device_of,
    flag_of,
    form_object,
    key_of,
    revision_of,
    text_of,
)
from landmarklabel.store.database import StoreFault
from landmarklabel.store.revisions import Revision
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens

_HASH = re.compile(r'"[0-9a-f]{64}"')
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Output(str, Enum):
    """What ``/infer`` answers with."""

    image = "image"
    json = "json"
    all = "all"


class Show(str, Enum):
    """Which cases the status page lists."""

    all = ""
    look = "look"
    held = "held"
    to_do = "to do"
    labelled = "labelled"


def add_routes(router: APIRouter, application: Application, policy: Policy, tokens: Tokens) -> None:
    """All that this program has beside MONAI Label's addresses, and those of these where its own clients send more."""

    @router.get("/", include_in_schema=False)
    def home() -> RedirectResponse:
        return RedirectResponse("landmarks/")  # relative: a proxy may serve this below a path of its own

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
        request, remarks = {**_params(params), "model": model, "image": image}, list[str]()
        device_of(request)
        with ExitStack() as sent:
            if session_id:
                request["uploaded_file"] = _session_image(application, session_id)
            elif file is not None and file.filename:
                received = sent.enter_context(received_image(application.study.folder, file))
                request["uploaded_file"], remarks = with_unit(received, request)
            elif not image:
                raise UsageError("which image? give ?image=ID, ?session_id=… or upload a file")
            return _answer(application.infer(request), output, remarks)

    about: dict[str, Any] = {"tags": ["Active Learning"], "summary": "The next case, and why", "openapi_extra": takes(ASK)}

    @router.post("/activelearning/{strategy}", **about)
    def next_sample(strategy: str, sender: Request, params: Body | None = None) -> dict:
        """``info`` of the answer is what was noted of the image (``PUT /datastore/image/info``)."""
        who, address = {"client_id": text_of(params or {}, "client_id")}, sender.client.host if sender.client else ""
        chosen = application.next_sample({**(params or {}), **who, "address": address, "strategy": strategy})
        return {**chosen, "info": application.store.get_image_info(chosen["id"])} if chosen else {}

    shown = StatusPage(
        application.study, application.pool_monitor, application.leases, application.train_stats, application.answers
    )

    @router.get("/landmarks/", tags=["Landmarks"], summary="A page to look at", response_class=HTMLResponse)
    def status(
        page: int = Query(1, ge=1, le=10**6, description="Which 50 of the cases"),
        show: Show = Query(Show.all, description="Only cases of this kind"),
    ) -> HTMLResponse:
        headers = {"Content-Security-Policy": PAGE_POLICY, "X-Frame-Options": "DENY"}
        return HTMLResponse(shown.html(page, show.value), headers=headers)

    if policy.identity is None:
        _add_login_routes(router, tokens)
    elif isinstance(policy.identity, Keycloak):
        _add_keycloak_routes(router, policy.identity)
    _add_whoami_route(router)
    _add_landmark_routes(router, application)
    add_quality_routes(router, application.study)
    _add_save_route(router, application)
    add_measurement_route(router, application)


def _add_login_routes(router: APIRouter, tokens: Tokens) -> None:
    """What MONAI Label's own clients ask of a server with accounts: any name, and the token as password."""

    @router.get("/auth/", tags=["Auth"], summary="Whether a token is needed")
    def enabled() -> dict:
        return {"enabled": tokens.look().needed, "client_id": "", "realm": ""}

    @router.post("/auth/token", tags=["Auth"], summary="A token for a name and password")
    def token(username: str = Form(""), password: str = Form("")) -> dict:
        if fault := tokens.look().fault:
            raise HTTPException(503, fault)
        holder = tokens.holder(checked(password, "the password"))
        if holder is None:
            raise HTTPException(401, "this password is no token of this server", {"WWW-Authenticate": "Bearer"})
        if holder.fault:
            raise HTTPException(403, holder.refusal)
        return {"access_token": password, "token_type": "bearer"}


def _add_keycloak_routes(router: APIRouter, keycloak: Keycloak) -> None:
    """The same addresses, where Keycloak knows who people are."""

    @router.get("/auth/", tags=["Auth"], summary="Whether a token is needed")
    def enabled() -> dict:
        return {"enabled": True, "client_id": keycloak.client_id, "realm": keycloak.realm}

    @router.post("/auth/token", tags=["Auth"], summary="A token for a name and password")
    def token(username: str = Form(""), password: str = Form("")) -> dict:
        return keycloak.token(checked(username, "the name"), checked(password, "the password"))


def _add_whoami_route(router: APIRouter) -> None:
    @router.get("/auth/token/valid", tags=["Auth"], summary="Whether a token is valid, and whose it is")
    def valid() -> dict:
        who = caller()
        roles = [name for name, level in ROLES.items() if level <= who.role]
        return {"username": who.name, "email": None, "name": who.name, "roles": roles}


def _add_landmark_routes(router: APIRouter, application: Application) -> None:
    study = application.study

    @router.get("/landmarks/task", tags=["Landmarks"], summary="The task: names, order, definitions")
    def landmark_task() -> dict:
        return study.task.to_json()

    @router.get("/landmarks/images", tags=["Landmarks"], summary="All images and how far they are")
    def images() -> dict:
        changed, heads, stated = study.verify(seconds=LIMITS.verify_s), study.heads(), study.labelled()
        return {"images": [_listed(i, heads.get(i), stated.get(i), i in changed) for i in study.images()]}

    @router.get("/landmarks/images/{image_id}", tags=["Landmarks"], summary="Newest revision of an image")
    def newest(image_id: str) -> dict:
        path = study.image_path(image_id)
        about = {"changed": image_id in study.verify([image_id]), "unit": image_unit(path)}
        return {**revision_to_wire(study, image_id, study.revisions.head(image_id)), **about}

    @router.get("/landmarks/images/{image_id}/pixels", tags=["Landmarks"], summary="Hash of an image's pixels")
    @in_threads_of_its_own
    def pixels(image_id: str) -> dict:
        """``pixels`` is what a save sends to say which image the points were placed on; null for one that cannot be read.

        ``changed``: the newest label was made on another image.
        """
        return {"image": image_id, "pixels": study.pixels_of(image_id), "changed": image_id in study.verify([image_id])}

    summary = "Move the other points to a person's"
    moves: dict[str, Any] = {"tags": ["Landmarks"], "summary": summary, "openapi_extra": takes(UPDATE)}

    @router.post("/landmarks/images/{image_id}/update", **moves)
    def update(image_id: str, background: BackgroundTasks, body: Body) -> dict:
        started = time.monotonic()
        if unknown := sorted(set(body) - {"fixed", "absent", "model"}):
            raise UsageError(f"unknown keys {', '.join(k[:40] for k in unknown[:5])}; allowed are fixed, absent and model")
        model, path = application.model(body.get("model")), study.image_path(image_id)
        given = given_points(body, study.task, study.plane_of(image_id))
        answer = model.assistant.suggest(path, given, wait_for_second_pass=False)
        if answer.second_pass:
            background.add_task(afterwards, model.assistant.second_pass, path, given)
        found = {"image": image_id, **answer_to_wire(model, answer, path)}
        return {**found, "latencies": {"total": round(time.monotonic() - started, 4)}}

    @router.get("/landmarks/images/{image_id}/history", tags=["Landmarks"], summary="All revisions, oldest first")
    def history(image_id: str) -> dict:
        study.image_path(image_id)
        return {"image": image_id, "revisions": [revision_to_wire(study, image_id, r) for r in study.history(image_id)]}


def _add_save_route(router: APIRouter, application: Application) -> None:
    study = application.study

    @router.put("/landmarks/images/{image_id}", tags=["Landmarks"], summary="Save a revision", openapi_extra=takes(SAVE))
    def save(image_id: str, request: Request, background: BackgroundTasks, body: Body):
        check_spelling(body, SAVE["properties"])
        landmarks = from_wire(body.get("landmarks"), study.task, study.plane_of(image_id))
        key, author = key_of(body), caller().name or text_of(body, "author")
        looked_at = checked_points(body, landmarks)
        if flag_of(body, "repeat"):
            if looked_at:
                raise UsageError("checked: a second reading calls no point of the first right")
            application.store.check_places(image_id, landmarks)
            pixels = text_of(body, "pixels") or None
            again = study.save_repeat(image_id, landmarks, author=author, key=key, pixels=pixels)
            _forget_draft(application, author, image_id, repeat=True)
            return {**revision_to_wire(study, image_id, again), "repeat": True}
        base = revision_of(body, required=True)
        try:
            _check_seen(study, image_id, base, request.headers.get("if-match"))
            revision = application.store.submit(
                image_id,
                landmarks,
                author,
                source=CHECK if looked_at else "landmarks api",
                base_revision=base,
                key=key,
                pixels=text_of(body, "pixels") or None,
                checked=looked_at,
            )
        except Conflict as error:
            current = revision_to_wire(study, image_id, study.revisions.head(image_id))
            yours = {"base_revision": base, "landmarks": to_wire(landmarks, study.plane_of(image_id))}
            return JSONResponse({"detail": str(error), "current": current, "yours": yours}, error.http_status)
        if not looked_at:  # what the person has begun on this case elsewhere is still theirs
            _forget_draft(application, author, image_id, repeat=False)
        background.add_task(afterwards, application.retrain_if_due)
        return revision_to_wire(study, image_id, revision)


def _check_seen(study: Study, image_id: str, base: int | None, seen: str | None) -> None:
    """Look at ``If-Match``: the sha256, in quotes, of the revision that an edit started from.

    Raises:
        Conflict: revision ``base`` is another one: the study was restored from an older copy since.
        Unusable: no such hash.
    """
    if not base or seen is None:
        return
    if not _HASH.fullmatch(seen):
        raise Unusable('If-Match must be the sha256 of the revision that the edit started from, in quotes: "0123…"')
    head = study.revisions.head(image_id)
    if head is not None and base <= head.number and study.revisions.get(image_id, base).sha256 != seen.strip('"'):
        raise Conflict(image_id, base, head.number)


def _forget_draft(application: Application, author: str, image_id: str, *, repeat: bool) -> None:
    """What was submitted is saved, whatever becomes of its draft."""
    with suppress(StoreFault):
        application.drafts.drop(author, image_id, repeat)


def _listed(image_id: str, head: Revision | None, landmarks: LandmarkSet | None, changed: bool) -> dict:
    """``changed``: the image is not the one that was labelled; ``unseen_revision``: made at the same time as the newest."""
    row = {"image": image_id, "revision": 0, "author": "", "created": ""}
    if head is not None:
        row |= {"revision": head.number, "author": head.author, "created": head.created}
    unseen = head.body.get("unseen") if head is not None else None
    return {**row, "labelled": landmarks is not None, "changed": changed, "unseen_revision": unseen}


def revision_to_wire(study: Study, image_id: str, revision: Revision | None) -> dict:
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


def _session_image(application: Application, session_id: str) -> str:
    return application.sessions.get(session_id).image


def _params(text: str) -> dict:
    """The parameters of an inference. Raises NotAllowed: keeping the result is an annotator's, here as everywhere."""
    params = form_object(text, "params")
    refused = sorted({"image", "label", "model", "uploaded_file", "session"} & set(params))
    if refused:
        raise UsageError(f"params may not hold {', '.join(refused)}: name the image and the model in the address")
    if str(params.get("save_label", False)).lower() in ("1", "true") and caller().role < ANNOTATOR:
        raise NotAllowed("save_label keeps a label in the study, which needs the role annotator")
    return params


def _answer(result: dict, output: Output | None, remarks: list[str]) -> Response | dict:
    """What was asked for, with remarks on the file that was sent; the file that was made for it is removed."""
    file = Path(result["file"])
    result["params"] |= {"remarks": remarks} if remarks else {}
    try:
        name, content = file.name, file.read_bytes()
    finally:
        file.unlink(missing_ok=True)
    if output is Output.json:
        return result["params"]
    if output is Output.image:
        where = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/json", headers=where)
    parts = [RequestField("params", json.dumps(result["params"], allow_nan=False)), RequestField("image", content, name)]
    for part in parts:
        part.make_multipart(content_type="application/json")
    body, kind = encode_multipart_formdata(parts)
    return Response(body, media_type=kind)
