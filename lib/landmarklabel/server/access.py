"""Who may do what: every route that is served, with the role it needs and the most bytes a request to it may have.

A route that is not listed here is not served at all; MONAI Label's that are left out on purpose are in ``CLOSED``.
"""

from __future__ import annotations

from enum import IntEnum

from landmarklabel.services.callers import ADMIN, ANNOTATOR, OPEN, REVIEWER, USER, Role


class BodyLimit(IntEnum):
    """The most bytes a request may have."""

    SMALL = 64 * 2**10
    TEXT = 4 * 2**20
    UPLOAD = 0  # what the operator allows for images


SMALL, TEXT, UPLOAD = BodyLimit

ROUTES: dict[str, tuple[Role, BodyLimit]] = {
    "GET /": (OPEN, SMALL),
    "GET /auth/": (OPEN, SMALL),
    "POST /auth/token": (OPEN, SMALL),
    "GET /annotate": (OPEN, SMALL),  # as people type it
    "GET /annotate/": (OPEN, SMALL),  # the front end itself, which holds nothing of the study
    "GET /annotate/{file}": (OPEN, SMALL),
    "POST /annotate/login": (OPEN, SMALL),
    "DELETE /annotate/login": (OPEN, SMALL),
    "GET /auth/token/valid": (USER, SMALL),
    "GET /openapi.json": (USER, SMALL),
    "GET /health": (OPEN, SMALL),
    "GET /metrics": (REVIEWER, SMALL),  # counts only; a program that collects them need not be able to train or remove
    "GET /info/": (USER, SMALL),
    "POST /infer/{model}": (USER, UPLOAD),
    "POST /batch/infer/{model}": (ADMIN, SMALL),
    "GET /batch/infer": (USER, SMALL),
    "DELETE /batch/infer": (ADMIN, SMALL),
    "POST /activelearning/{strategy}": (USER, SMALL),
    "GET /datastore/": (USER, SMALL),
    "PUT /datastore/": (ANNOTATOR, UPLOAD),
    "DELETE /datastore/": (ADMIN, SMALL),
    "GET /datastore/image": (USER, SMALL),
    "HEAD /datastore/image": (USER, SMALL),
    "PUT /datastore/image": (ANNOTATOR, UPLOAD),
    "DELETE /datastore/image": (ADMIN, SMALL),
    "GET /datastore/image/info": (USER, SMALL),
    "PUT /datastore/image/info": (ANNOTATOR, TEXT),
    "GET /datastore/label": (USER, SMALL),
    "HEAD /datastore/label": (USER, SMALL),
    "PUT /datastore/label": (ANNOTATOR, TEXT),
    "DELETE /datastore/label": (REVIEWER, SMALL),
    "GET /datastore/label/info": (USER, SMALL),
    "PUT /datastore/label/info": (ANNOTATOR, TEXT),
    "PUT /datastore/updatelabelinfo": (ANNOTATOR, TEXT),
    "GET /datastore/dataset": (REVIEWER, SMALL),
    "GET /model/{model}": (ADMIN, SMALL),
    "GET /model/info/{model}": (ADMIN, SMALL),
    "GET /train/": (USER, SMALL),
    "POST /train/": (ADMIN, SMALL),
    "POST /train/{model}": (ADMIN, SMALL),
    "DELETE /train/": (ADMIN, SMALL),
    "PUT /session/": (USER, UPLOAD),
    "GET /session/{session_id}": (USER, SMALL),
    "DELETE /session/{session_id}": (USER, SMALL),
    "GET /landmarks/": (USER, SMALL),
    "GET /landmarks/task": (USER, SMALL),
    "GET /landmarks/study": (USER, SMALL),
    "GET /landmarks/quality": (USER, SMALL),
    "GET /landmarks/quality/table": (USER, SMALL),
    "GET /landmarks/quality/specimens": (REVIEWER, SMALL),  # all labels at once, as the whole data set
    "GET /landmarks/images": (USER, SMALL),
    "GET /landmarks/images/{image_id}": (USER, SMALL),
    "PUT /landmarks/images/{image_id}": (ANNOTATOR, TEXT),
    "GET /landmarks/images/{image_id}/pixels": (USER, SMALL),
    "GET /landmarks/images/{image_id}/frame": (USER, SMALL),
    "GET /landmarks/images/{image_id}/picture": (USER, SMALL),
    "GET /landmarks/images/{image_id}/voxels": (USER, SMALL),
    "GET /landmarks/images/{image_id}/draft": (ANNOTATOR, SMALL),
    "PUT /landmarks/images/{image_id}/draft": (ANNOTATOR, TEXT),
    "DELETE /landmarks/images/{image_id}/draft": (ANNOTATOR, SMALL),
    "POST /landmarks/images/{image_id}/update": (USER, TEXT),
    "POST /landmarks/images/{image_id}/measurements": (USER, TEXT),
    "GET /landmarks/images/{image_id}/history": (USER, SMALL),
}

FROM_ANYWHERE = frozenset({"GET /health"})  # asked by programs that watch over servers, without token and over plain http

CLOSED: dict[str, str] = {
    "HEAD /openapi.json": "nobody asks for it",
    "GET /docs": "loads scripts from elsewhere",
    "HEAD /docs": "loads scripts from elsewhere",
    "GET /favicon.ico": "the status page brings its own",
    "MOUNT /static": "pages that are not served",
    "POST /reload": "drops the app while it works",
    "GET /logs/": "the log is the operator's, on the machine",
    "GET /logs/gpu": "runs a program for every request",
    "PUT /model/{model}": "models are trained here or installed by the operator",
    "DELETE /model/{model}": "models are rolled back, not deleted",
    "POST /infer/wsi/{model}": "not for whole slide images",
    "POST /infer/wsi_v2/{model}": "not for whole slide images",
    "GET /scoring/": "there are no scoring methods; the pool is looked over by itself",
    "POST /scoring/": "there are no scoring methods",
    "POST /scoring/{method}": "there are no scoring methods",
    "DELETE /scoring/": "there are no scoring methods",
    "GET /ohif/{path:path}": "a viewer that is not served",
    **{
        f"{method} /proxy/dicom/{kind}{{path:path}}": "forwards requests elsewhere"
        for method in ("GET", "POST")
        for kind in ("wado/", "qido/", "stow/", "")
    },
}
