"""Routes for a second look at a study's labels: the points that lie least where the others expect them, and exports."""

from __future__ import annotations

import io
import unicodedata

from fastapi import APIRouter, Query, Response

from landmarklabel.server.threads import in_threads_of_its_own
from landmarklabel.services.quality import StudyQuality
from landmarklabel.services.request_values import checked
from landmarklabel.store.study import Study

PAGE = Query(1, ge=1, le=10**6, description="Which 50 of the points")
ALSO_CHECKED = Query(False, description="Also points that somebody has said are right")
LEAVE_OUT = Query([], description="Landmarks that no file gets")


def add_quality_routes(router: APIRouter, study: Study) -> None:
    """``GET /landmarks/quality``, and the same as a table and as specimens for SlicerMorph."""
    quality = StudyQuality(study)

    @router.get("/landmarks/quality", tags=["Landmarks"], summary="Points by how far they lie from where the others expect them")
    @in_threads_of_its_own
    def points(page: int = PAGE, also_checked: bool = ALSO_CHECKED) -> dict:
        """``times_median``: how far off, in units of the landmark's median over the cases; ``off``: in the study's unit.

        ``shape`` has the cases laid over one another.
        """
        return quality.points(page, also_checked)

    @router.get("/landmarks/quality/table", tags=["Landmarks"], summary="The same of all points, as CSV")
    @in_threads_of_its_own
    def table() -> Response:
        return _file(quality.table().encode(), "text/csv; charset=utf-8", "quality.csv")

    @router.get("/landmarks/quality/specimens", tags=["Landmarks"], summary="The labels for SlicerMorph's GPA, as a zip")
    @in_threads_of_its_own
    def specimens(leave_out: list[str] = LEAVE_OUT) -> Response:
        """A Markups file for each case that has all landmarks; ``left_out.txt`` names the others and what they lack."""
        file = io.BytesIO()
        quality.write_specimens(file, [unicodedata.normalize("NFC", checked(name, "leave_out")) for name in leave_out])
        return _file(file.getvalue(), "application/zip", "specimens.zip")


def _file(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
