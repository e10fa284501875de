"""Some hundred requests made from the server's own description (``scripts/fuzzing.py``): each gets an answer in words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scripts.fuzzing import bombard, files_in
from serving import Material, wait_until

from landmarklabel.tasks import resolve_task

FIXTURE = Path(__file__).parents[1] / "fixtures" / "made_by_77eac5a.tar.xz"  # six small images and a model
USED = {
    "DELETE /session/{session_id}", "GET /datastore/dataset", "GET /landmarks/images/{image_id}", "GET /session/{session_id}",
    "HEAD /datastore/image", "POST /activelearning/{strategy}", "POST /infer/{model}", "POST /landmarks/images/{image_id}/update",
    "PUT /datastore/image", "PUT /datastore/image/info", "PUT /datastore/label", "PUT /landmarks/images/{image_id}",
    "PUT /session/",
}  # fmt: skip


@pytest.mark.parametrize("seed", [0])
def test_every_request_is_answered_in_words_and_leaves_nothing(tmp_path, running_server, seed):
    shutil.unpack_archive(FIXTURE, tmp_path, filter="data")
    place, temporary = tmp_path / "made_by_77eac5a", tmp_path / "temporary"
    temporary.mkdir()
    material = Material(place / "study", place / "task.json", resolve_task(str(place / "task.json"), ()), {})
    png, label = (place / "study/c1.png").read_bytes(), (place / "study/labels/final/c1.mrk.json").read_bytes()
    files = [("C:\\scans\\new.png", png), ("x.mrk.json", label), ("x.png", png[:200]), ("x.fcsv", b"")]
    images = [f"c{k}" for k in range(6)]
    with running_server(material, "max_upload_mb", "1", more={"TMPDIR": str(temporary)}) as server:
        study, own = material.study, material.study / ".landmarklabel"
        beside = files_in(tmp_path) - files_in(study)
        outcome = bombard(server.url, seed, 600, images, material.task.names, files)
        assert outcome.wrong == []
        done = {operation for operation, status in outcome.statuses if status < 400}
        assert len(USED - done) <= 2, f"never answered as it is meant: {USED - done}"  # a short run, by chance
        assert len({operation for operation, _ in outcome.statuses}) >= 40
        wait_until(lambda: files_in(tmp_path) - files_in(study) == beside, 10, "temporary files to be gone")
        assert files_in(own / "incoming", own / "cache" / "results") == set()
        assert {p.name for p in (own / "sessions").iterdir()} <= outcome.sessions  # those that expired are gone
        assert "internal error" not in server.log.read_text(errors="replace", encoding="utf-8")
