"""Files that come and go: MONAI Label's own addresses for uploads, sessions and the data set, leaving nothing behind.

What is sent lies in the study's ``.landmarklabel/incoming`` while it is looked at, and is removed whatever comes of it.
The archive of a data set has no name on disk at all: the system frees it with the answer, or with the process.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.responses import FileResponse, StreamingResponse

from landmarklabel.errors import Gone, NotFound, UsageError
from landmarklabel.io.files import IMAGE_SUFFIXES, image_id_of, image_suffix, is_surface
from landmarklabel.io.surface_formats import with_stated_unit
from landmarklabel.server.application import Application
from landmarklabel.server.background import afterwards
from landmarklabel.server.description import LABEL, NOTES, written
from landmarklabel.services.callers import caller
from landmarklabel.services.datastore import FINAL, StudyDatastore
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.request_values import checked, form_object, text_of
from landmarklabel.services.sessions import META
from landmarklabel.store.database import file_faults

CHECK_SUMS = ("SHA256", "SHA512", "MD5")
OF_SURFACES = ("mesh_unit", "mesh_frame")  # in the notes of an uploaded image: what its file does not state


def _json(schema: dict):
    """A form's field with JSON in it; one of its own for every route, as FastAPI notes the field's name in it."""
    return Form("{}", json_schema_extra=written(schema))


@contextmanager
def incoming(study_folder: Path) -> Iterator[Path]:
    """A folder for what is being received, gone afterwards."""
    place = study_folder / ".landmarklabel" / "incoming"
    if not place.parent.is_dir():
        raise Gone("the study folder is gone or has moved: nothing was kept")
    with file_faults("what was sent"):
        place.mkdir(exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=place)
    with folder as name:
        yield Path(name)


@contextmanager
def received_image(study_folder: Path, file: UploadFile) -> Iterator[Path]:
    """An uploaded image as a file, gone afterwards. Raises UsageError for what is no image by its name."""
    suffix = image_suffix(f"x{_sent_name(file)}")
    if suffix is None:
        raise UsageError(f"the uploaded file is no image: allowed are {' '.join(IMAGE_SUFFIXES)}")
    with incoming(study_folder) as folder:
        yield _written(file, folder / f"image{suffix}")


def with_unit(sent: Path, params: dict) -> tuple[Path, list[str]]:
    """Where a received image is read from, and what a person should know; a surface states its unit there.

    ``params`` may say the unit and frame of a surface whose file does not (``OF_SURFACES``).

    Raises:
        UsageError: a surface without a unit. ImageRejected: it cannot be read.
    """
    if not is_surface(sent):
        return sent, []
    unit, frame = (text_of(params, name) or None for name in OF_SURFACES)
    with file_faults("what was sent"):
        (place := sent.parent / "stated").mkdir()
        return with_stated_unit(sent, unit, frame, place)


def add_upload_routes(router: APIRouter, application: Application) -> None:
    """``/datastore/image``, ``/datastore/label`` and ``/datastore/dataset`` as MONAI Label's clients ask for them."""
    store: StudyDatastore = application.store
    folder = application.study.folder

    @router.put("/datastore/", tags=["Datastore"], summary="Upload an image: MONAI Label's client uses this address")
    @router.put("/datastore/image", tags=["Datastore"], summary="Upload an image")
    def add_image(image: str | None = None, params: str = _json(NOTES), file: UploadFile = File(...)) -> dict:
        info = _signed(form_object(params, "params"))
        image_id = image or image_id_of(_sent_name(file))
        with received_image(folder, file) as sent:
            path, remarks = with_unit(sent, info)
            store.add_image(image_id, str(path), {k: v for k, v in info.items() if k not in OF_SURFACES}, copy=False)
        return {"image": image_id, **({"remarks": remarks} if remarks else {})}

    @router.head("/datastore/image", tags=["Datastore"], summary="Whether there is an image, with this checksum")
    def check_image(image: str, check_sum: str | None = None) -> dict:
        path = application.study.image_path(image)
        if not path.is_file():
            raise NotFound("the image is a folder of DICOM files, which has no checksum")
        kind, _, wanted = (check_sum or "").rpartition(":")
        if wanted and _checksum(path, kind or CHECK_SUMS[0]) != wanted.lower():
            raise NotFound("the image has another checksum")
        return {}

    @router.put("/datastore/image/info", tags=["Datastore"], summary="Note something about an image")
    def note(image: str, info: str = _json(NOTES)) -> None:
        store.update_image_info(image, _signed(form_object(info, "info")))

    @router.put("/datastore/updatelabelinfo", tags=["Datastore"], summary="Refused: it follows from the revisions")
    @router.put("/datastore/label/info", tags=["Datastore"], summary="Refused: it follows from the revisions")
    def note_on_label(label: str, tag: str, info: str = _json(NOTES)) -> None:
        store.update_label_info(label, tag, form_object(info, "info"))

    @router.put("/datastore/label", tags=["Datastore"], summary="Submit a label")
    def save_label(
        background: BackgroundTasks, image: str, params: str = _json(LABEL), tag: str = FINAL, label: UploadFile = File(...)
    ) -> dict:
        info, content = form_object(params, "params"), label.file.read()  # small: the address takes no more than TEXT
        store.save_content(image, _sent_name(label), content, tag or FINAL, info)
        background.add_task(afterwards, application.retrain_if_due)
        return {"image": image, "label": image}

    @router.get("/datastore/dataset", tags=["Datastore"], summary="Labelled images and their labels as a zip")
    def dataset(limit_cases: int | None = Query(None, ge=0)) -> StreamingResponse:
        with incoming(folder) as place:
            file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115 - closed when it was sent
        try:
            store.write_archive(file, limit_cases)
            size = file.tell()
            file.seek(0)
        except BaseException:
            file.close()
            raise
        headers = {"content-length": str(size), "content-disposition": 'attachment; filename="dataset.zip"'}
        return StreamingResponse(_blocks(file), media_type="application/zip", headers=headers)

    _add_session_routes(router, application)


def _add_session_routes(router: APIRouter, application: Application) -> None:
    sessions = application.sessions

    @router.put("/session/", tags=["Session"], summary="Upload an image that belongs to no study")
    def create(
        uncompress: bool = False,
        expiry: int = 0,
        mesh_unit: str = Query("", description="Of a surface whose file states none: mm, cm, m or um"),
        mesh_frame: str = Query("", description="Of a surface whose file states none: LPS or RAS"),
        files: list[UploadFile] = File(...),
    ) -> dict:
        with incoming(application.study.folder) as folder:
            (place := folder / "files").mkdir()
            paths = [_written(file, place / _name_to_keep(file)) for file in files]
            path, remarks = place, list[str]()
            if len(paths) == 1:
                path, remarks = with_unit(paths[0], {"mesh_unit": mesh_unit, "mesh_frame": mesh_frame})
            session = sessions.add(path, expiry, uncompress)
        return {"session_id": session.name, "session_info": session.to_json(), **({"remarks": remarks} if remarks else {})}

    @router.get("/session/{session_id}", tags=["Session"], summary="A session, or its image")
    def get(session_id: str, update_ts: bool = False, image: bool = False):
        session = sessions.get(session_id, touch=update_ts)
        if not image:
            return session.to_json()
        if not Path(session.image).is_file():
            raise UsageError("this session has several files; they are not sent back")
        return FileResponse(session.image, filename=Path(session.image).name)

    @router.delete("/session/{session_id}", tags=["Session"], summary="Delete a session and its image")
    def remove(session_id: str) -> dict:
        return sessions.remove(session_id).to_json()


def _signed(info: dict) -> dict:
    """Notes with the name of who made them, where it is known."""
    return info | ({"user": caller().name} if caller().name else {})


def _sent_name(file: UploadFile) -> str:
    """The name of a sent file without the client's folders: MONAI Label's sends its whole path."""
    return re.split(r"[/\\]", checked(file.filename or "", "the file's name"))[-1]


def _name_to_keep(file: UploadFile) -> str:
    name = _sent_name(file)
    if not name.isprintable() or not 0 < len(name.encode()) <= LIMITS.name_bytes or name.startswith(".") or name == META:
        raise UsageError(f"a file may not be called {name[:80]!r}; send it under another name")
    return name


def _written(file: UploadFile, path: Path) -> Path:
    """A sent file on disk. Raises UsageError where two have one name, StoreFault for a full disk."""
    if path.exists():
        raise UsageError(f"two files are called {path.name[:80]!r}")
    with file_faults("what was sent"), path.open("xb") as target:
        while block := file.file.read(LIMITS.block_bytes):
            target.write(block)
    return path


def _checksum(path: Path, kind: str) -> str:
    if kind not in CHECK_SUMS:
        raise UsageError(f"checksum {kind[:40]!r} is not known; there are {', '.join(CHECK_SUMS)}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind.lower()).hexdigest()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(LIMITS.block_bytes):
            yield block
