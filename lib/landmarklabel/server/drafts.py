"""``/landmarks/images/{image_id}/draft``: what a person has not submitted yet."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import APIRouter

from landmarklabel.errors import LandmarkLabelError
from landmarklabel.server.application import Application
from landmarklabel.server.bodies import Body
from landmarklabel.server.description import DRAFT, takes
from landmarklabel.server.wire import from_wire, to_wire
from landmarklabel.services.callers import caller
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.request_values import flag_of, number_of, revision_of, text_of
from landmarklabel.store.image_files import REPEAT


def add_draft_routes(router: APIRouter, application: Application) -> None:
    """Drafts are their author's alone; where nobody is asked for a token, a person is known by the name that is given."""
    study, drafts = application.study, application.drafts

    @router.get("/landmarks/images/{image_id}/draft", tags=["Landmarks"], summary="One's own draft of a case")
    def draft(image_id: str, author: str = "", repeat: bool = False) -> dict[str, Any]:
        study.image_path(image_id)
        return {"image": image_id, "draft": drafts.get(_who(author), image_id, repeat)}

    @router.put("/landmarks/images/{image_id}/draft", tags=["Landmarks"], summary="Keep a draft", openapi_extra=takes(DRAFT))
    def keep(image_id: str, body: Body) -> dict[str, Any]:
        landmarks = from_wire(body.get("landmarks"), study.task, study.plane_of(image_id))
        content = {
            "landmarks": to_wire(landmarks, study.plane_of(image_id)),
            "base_revision": revision_of(body, required=True),
            "edits": number_of(body, "edits", 0, LIMITS.edits),
            "pixels": text_of(body, "pixels"),
        }
        who, is_repeat = _who(text_of(body, "author")), flag_of(body, "repeat")
        kept = drafts.keep(who, image_id, is_repeat, content)
        with suppress(LandmarkLabelError):  # the draft is kept
            application.leases.renew(who, f"{image_id}{REPEAT}" if is_repeat else image_id)
        return kept

    @router.delete("/landmarks/images/{image_id}/draft", tags=["Landmarks"], summary="Discard one's own draft")
    def discard(image_id: str, author: str = "", repeat: bool = False) -> dict[str, Any]:
        study.image_path(image_id)
        drafts.drop(_who(author), image_id, repeat)
        return {"image": image_id, "draft": None}


def _who(author: str) -> str:
    return caller().name or author
